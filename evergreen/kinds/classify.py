"""One label an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.data.dataset import schema
from evergreen.scenario.settings import Train, Validate

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from evergreen.media.images import PixelRange


@dataclass(frozen=True)
class Looks:
    """What the items of the last accepted version look like: medians of the columns of the same names."""

    brightness: float
    sharpness: float


def expectations(settings: Validate, accepted: Looks | None) -> list[Any]:
    """What the items must be, as Great Expectations' expectations on the table that `tasks.validate` makes.

    Each has its wording in `description`, and in `meta`: `about` (what is judged), `expected`, and `unit` (of the observed
    number; or what those items do that don't meet it).

    Args:
        accepted: the looks of the last accepted version, which the new items are compared with; None where there is none.
    """
    import great_expectations.expectations as gx
    from great_expectations.expectations.row_conditions import Column

    def expect(kind: type, about: str, expected: str, unit: str = "", **arguments: Any) -> Any:
        meta = {"about": about, "expected": expected, "unit": unit}
        return kind(description=f"{about}: {expected}", meta=meta, **arguments)

    columns = [field.name for field in schema() if field.name != "image"]
    types = {
        "id": "str", "label": "str", "width": "int32", "height": "int32", "channels": "int8",
        "brightness": "float32", "sharpness": "float32",
    }  # fmt: skip
    suite = [expect(gx.ExpectTableColumnsToMatchSet, "columns", ", ".join(columns), column_set=columns, exact_match=False)]
    for column, type_ in types.items():
        suite.append(expect(gx.ExpectColumnValuesToBeOfType, f"type of {column}", type_, column=column, type_=type_))
    for column in ("id", "label"):
        suite.append(expect(gx.ExpectColumnValuesToNotBeNull, column, "given", "have none", column=column))
    suite.append(expect(gx.ExpectColumnValuesToBeUnique, "id", "unique", "share theirs", column="id"))
    suite.append(
        expect(
            gx.ExpectColumnValuesToBeInSet, "label", f"one of {', '.join(settings.labels)}", "have another",
            column="label", value_set=settings.labels,
        )
    )  # fmt: skip
    least = settings.min_items_per_label
    for label in settings.labels:
        suite.append(
            expect(
                gx.ExpectTableRowCountToBeBetween, f'label "{label}"', f"at least {least:,}", "items",
                min_value=least, row_condition=Column("label") == label,
            )
        )  # fmt: skip
    low, high = settings.min_side, settings.max_side
    for side in ("width", "height"):
        suite.append(
            expect(
                gx.ExpectColumnValuesToBeBetween, side, f"{low:,} to {high:,} pixels", "are outside",
                column=side, min_value=low, max_value=high,
            )
        )  # fmt: skip
    for column, about, most in (
        ("duplicate_share", "exact copies in the source", settings.max_duplicate_share),
        ("conflict_share", "items under two labels", settings.max_conflict_share),
    ):
        suite.append(
            expect(
                gx.ExpectColumnMaxToBeBetween,
                about,
                f"at most {figures.short(100 * most, 4)} %",
                "share",
                column=column,
                max_value=most,
            )
        )
    suite.append(
        expect(
            gx.ExpectColumnValuesToBeBetween,
            "brightness",
            "0 to 1",
            "are outside",
            column="brightness",
            min_value=0,
            max_value=1,
        )
    )
    for look, (least_look, most_look) in _accepted_ranges(settings, accepted).items():
        expected = (
            f"{figures.short(least_look, 4)} to {figures.short(most_look, 4)} "
            f"(it is {figures.short(getattr(accepted, look), 4)} in the last accepted version)"
        )
        suite.append(
            expect(
                gx.ExpectColumnMedianToBeBetween, f"median {look} of the new items", expected,
                column=look, min_value=least_look, max_value=most_look, row_condition=Column("new") == 1,
            )
        )  # fmt: skip
    return suite


def _accepted_ranges(settings: Validate, accepted: Looks | None) -> dict[str, tuple[float, float]]:
    """The lowest and highest median of each look that new items may have."""
    if accepted is None:
        return {}
    shift, ratio = settings.max_brightness_shift, settings.max_sharpness_ratio
    ranges = {"brightness": (accepted.brightness - shift, accepted.brightness + shift)}
    if accepted.sharpness > 0:  # of blank images no ratio can be said
        ranges["sharpness"] = (accepted.sharpness / ratio, accepted.sharpness * ratio)
    return ranges


def arrays(
    images: Sequence[bytes], shape: tuple[int, int, int], ids: Sequence[str], pixel_range: PixelRange | None = None
) -> np.ndarray:
    """Encoded images as the network takes them.

    Args:
        shape: height, width and channels (1 or 3).
        ids: of the items, for the error.
        pixel_range: as `evergreen.media.images.prepare`.

    Returns:
        uint8 `(images, height, width, channels)`, RGB order.

    Raises:
        EvergreenError: one of them cannot be decoded.
    """
    import sys

    import cv2
    import numpy as np

    from evergreen.errors import EvergreenError
    from evergreen.media.images import BadImage, prepare

    height, width, channels = shape
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the work is spread over the cores by image already
    try:
        pixels = np.empty((len(images), height, width, channels), np.uint8)
        for place, image in enumerate(images):
            # Collected items have passed the scenario's own limit.
            pixels[place] = prepare(image, height, width, channels, sys.maxsize, pixel_range)  # type: ignore[arg-type]
    except BadImage as bad:
        raise EvergreenError(
            f"item {ids[place]} of the data set cannot be decoded ({bad})",
            fix="The data set has been damaged since it was collected: bring it back with: dvc checkout data/SCENARIO",
        ) from None
    finally:
        cv2.setNumThreads(threads)
    return pixels


def build(settings: Train, shape: tuple[int, int, int], label_count: int, *, steps: int) -> keras.Model:
    """A compiled network that learns one label an image.

    The step size climbs to `learning_rate` in the first twentieth of the steps and falls to 0 with a cosine in the rest, under
    Muon (see `evergreen.models.muon`). Biases and normalizations don't decay.

    Args:
        shape: height, width and channels of the images.
        steps: how many the whole training will take.

    Returns:
        A model of images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, label_count)`; it learns
        from one-hot labels float32 `(batch, label_count)`.
    """
    import keras

    from evergreen.models import cnn
    from evergreen.models.muon import Muon

    network = {"residual": cnn.residual, "plain": cnn.plain}[settings.model]
    varied = settings.flip != "none" or settings.shift or settings.erase
    augment = cnn.Augment(settings.flip, settings.shift, settings.erase, name="augment", dtype="uint8") if varied else None
    model = network(shape, label_count, filters=settings.filters, augment=augment, mirror=settings.mirror)
    climb = max(1, steps // 20)
    optimizer = Muon(
        keras.optimizers.schedules.CosineDecay(
            settings.learning_rate / 10, max(1, steps - climb), warmup_target=settings.learning_rate, warmup_steps=climb
        ),
        weight_decay=settings.weight_decay or None,
    )
    optimizer.exclude_from_weight_decay([variable for variable in model.trainable_variables if len(variable.shape) < 2])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def learning_curve(history: list[dict[str, float]]) -> Figure:
    """As `evergreen.evaluation.pictures.learning_curve`."""
    from evergreen.evaluation.pictures import learning_curve

    return learning_curve(history)


def measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The figures of `evergreen.evaluation.metrics.quality`."""
    from evergreen.evaluation.metrics import quality

    return quality(labels, probabilities)


def draw(
    labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str], images: np.ndarray, ids: Sequence[str]
) -> dict[str, tuple[Figure, list[str]]]:
    """The pictures of an evaluation, by file name, each with the ids of the items that are seen on it.

    Args:
        labels, probabilities, names: as `evergreen.evaluation.metrics.by_label`.
        images, ids: as `evergreen.evaluation.pictures.commonest_mistakes`.
    """
    from evergreen.evaluation import pictures
    from evergreen.evaluation.metrics import calibration, confusion, label_quality

    matrix = confusion(labels, probabilities)
    return {
        "confusion.png": (pictures.confusion_matrix(matrix, names), []),
        "by_label.png": (pictures.quality_by_label(label_quality(matrix, names)), []),
        "reliability.png": (pictures.reliability(calibration(labels, probabilities)), []),
        "mistakes.png": pictures.commonest_mistakes(labels, probabilities, names, images, ids),
    }

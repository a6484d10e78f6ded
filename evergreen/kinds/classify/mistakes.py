"""The mistakes of a model version on its test split: the confusion matrix, and the most frequent mistakes with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evergreen import figures
from evergreen.data.dataset import iter_images, iter_parts
from evergreen.kinds.classify.metrics import LabelQuality, confusion_of_answers, label_quality

COMMONEST = 6  # pairs of labels shown
PICTURES = 4  # of each pair


@dataclass(frozen=True)
class Example:
    """One misclassified item.

    Attributes:
        id: of the item: sha256 (hex) of its encoded bytes.
        source: its path inside its source; empty if the data set no longer has the item.
        probability: that the model gave to the wrong label, 0 to 1.
        address: a thumbnail as a `data:` URL; None if there is none.
    """

    id: str
    source: str
    probability: float
    address: str | None


@dataclass(frozen=True)
class Mistake:
    """Items of one label that were predicted as another: `items` of the label's `of_items`; the examples with the highest
    probability come first."""

    actual: str
    predicted: str
    items: int
    of_items: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Mistakes:
    """The results of a version on its test split.

    Attributes:
        labels: all labels, in alphabetical order.
        matrix: the number of answered items by actual label (rows) and predicted label (columns).
        quality: precision, recall and F1 of each label.
        commonest: the most frequent pairs of actual and wrongly predicted label.
        unknown: the number of items that the model did not know, by the reason; empty for a model that always answers.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    quality: tuple[LabelQuality, ...]
    commonest: tuple[Mistake, ...]
    unknown: dict[str, int]

    @property
    def answered(self) -> int:
        """The number of items in the test split that the model answered."""
        return sum(map(sum, self.matrix))

    @property
    def items(self) -> int:
        """The number of items in the test split."""
        return self.answered + sum(self.unknown.values())

    @property
    def wrong(self) -> int:
        """The number of wrong answers."""
        return self.answered - sum(row[index] for index, row in enumerate(self.matrix))


def read_mistakes(
    predictions: Path | None, folders: Sequence[Path], thumbnail: Callable[[bytes], str | None]
) -> Mistakes | None:
    """Read the results from a version's `evaluation/predictions.parquet`.

    Args:
        predictions: the file; None if it is not available.
        folders: batch folders of the data set, for pictures and sources.
        thumbnail: converts an encoded image to a `data:` URL.

    Returns:
        The results; None if the file is missing or unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if predictions is None:
        return None
    try:
        rows = pq.read_table(predictions)
        ids, actual, predicted, probability = (rows[name].to_pylist() for name in ("id", "label", "predicted", "probability"))
    except (OSError, KeyError, pa.ArrowException):
        return None
    reasons = rows["unknown"].to_pylist() if "unknown" in rows.column_names else [""] * len(ids)
    names = tuple(sorted({*actual, *predicted}))
    index = {name: number for number, name in enumerate(names)}
    given = [index[name] for name in predicted]
    matrix = confusion_of_answers(
        np.array([index[name] for name in actual], int),
        np.array(given, int),
        np.array([reason != "" for reason in reasons]),
        len(names),
    )
    answers = list(zip(ids, actual, predicted, probability, reasons, strict=True))
    pairs = Counter((a, p) for _, a, p, _, reason in answers if a != p and not reason).most_common(COMMONEST)
    wrong: dict[tuple[str, str], list[tuple[float, str]]] = {pair: [] for pair, _ in pairs}
    for id, a, p, sure, reason in answers:
        if (a, p) in wrong and not reason:
            wrong[a, p].append((sure, id))
    surest = {pair: sorted(found, reverse=True)[:PICTURES] for pair, found in wrong.items()}
    items = _items(folders, {id for found in surest.values() for _, id in found}, thumbnail)
    return Mistakes(
        labels=names,
        matrix=tuple(tuple(int(count) for count in row[: len(names)]) for row in matrix),
        quality=tuple(label_quality(matrix, names)),
        commonest=tuple(
            Mistake(
                *pair,
                items=count,
                of_items=int(matrix[index[pair[0]]].sum()),
                examples=tuple(Example(id, items[id][0], sure, items[id][1]) for sure, id in surest[pair]),
            )
            for pair, count in pairs
        ),
        unknown=dict(sorted(Counter(filter(None, reasons)).items())) if "unknown" in rows.column_names else {},
    )


def _items(
    folders: Sequence[Path], ids: Collection[str], thumbnail: Callable[[bytes], str | None]
) -> dict[str, tuple[str, str | None]]:
    """The source and thumbnail of each item, by id; "" and None for items that the data set no longer has."""
    found: dict[str, tuple[str, str | None]] = dict.fromkeys(ids, ("", None))
    if not ids:
        return found
    sources: dict[str, str] = {}
    for rows in iter_parts(folders, ["id", "source"]):
        sources |= {
            id: source for id, source in zip(*(rows[c].to_pylist() for c in ("id", "source")), strict=True) if id in found
        }
    for id, image in iter_images(folders, ids):
        found[id] = (sources.get(id, ""), thumbnail(image))
    return found


def rendered(mistakes: Mistakes) -> str:
    """Render the results as an HTML section of the report. Jinja2 escapes all names."""
    from jinja2 import Environment, StrictUndefined

    def percent(value: float, low: float | None = None, high: float | None = None) -> str:
        return figures.percent(value, low, high).partition(" (")[0]

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "count": figures.count}
    template = Path(__file__).with_name("mistakes.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(m=mistakes)

"""The judge of image classifiers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.evaluation.proportions import difference
from evergreen.kinds.base.comparison import Baseline
from evergreen.kinds.base.judge import Breakdown, Evaluated, Gap, Judge, Outputs, Plot, Review
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.comparison import METRICS, LabelComparison, against_commonest
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.names import markdown
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ImageJudge(Judge[ImageScenario]):
    """Judges predicted labels as right or wrong, and the calibration of their probabilities."""

    metrics = tuple(METRICS.values())
    details = (
        Metric("precision_macro", "macro precision"),
        Metric("recall_macro", "macro recall"),
        Metric("log_loss", "log loss", higher_is_better=False, unit=""),
        Metric("calibration_error", "calibration error", higher_is_better=False),
    )
    pictures = {
        "confusion.png": "Confusion matrix",
        "by_label.png": "Right by label",
        "mistakes.png": "Commonest mistakes",
        "learning_curve.png": "Learning curve",
        "reliability.png": "Reliability",
        "heat_maps.png": "Where it looked",
    }
    tables = {"per_class.json": "Quality by label"}
    caution = (
        "It was measured on items like those it was trained on: from the same source, not looking alike across the splits. On other "
        "cameras, light or places it may do worse. A probability is what the network says; the calibration error above tells how far "
        "it is to be trusted."
    )
    plot = Plot("confusion.csv", "confusion", x="actual", y="predicted")

    def predictions(self, outputs: Outputs, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> np.ndarray:
        """int64 `(items,)`: the most probable label's index in the data set's labels; -1 if it is not one of them."""
        names = list(facts["labels"])
        index = np.array([names.index(label) if label in names else -1 for label in settings["labels"]], np.int64)
        predicted: np.ndarray = index[outputs["probabilities"].argmax(axis=1)]
        return predicted

    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        """See `evergreen.kinds.classify.metrics.quality`."""
        from evergreen.kinds.classify.metrics import quality

        return quality(split["labels"].astype(int), outputs["probabilities"])

    def breakdown(self, split: Split, outputs: Outputs) -> Breakdown:
        """Quality by label."""
        from evergreen.kinds.classify.metrics import by_label

        rows: list[dict[str, str | int]] = [
            {
                "label": one.label,
                "items": one.items,
                "precision": figures.percent(one.precision, one.precision_low, one.precision_high),
                "recall": figures.percent(one.recall, one.recall_low, one.recall_high),
                "F1": figures.percent(one.f1, items=one.items),
            }
            for one in by_label(split["labels"].astype(int), outputs["probabilities"], split.facts["labels"])
        ]
        return Breakdown("Quality by label", tuple(rows))

    def write(self, evaluated: Evaluated, folder: Path) -> None:
        """Write `predictions.parquet`, `mistakes.csv`, `per_class.json` and the pictures."""
        from evergreen.kinds.classify import pictures
        from evergreen.kinds.classify.metrics import by_label, calibration, confusion, label_quality

        split, names = evaluated.split, evaluated.split.facts["labels"]
        labels, probabilities = split["labels"].astype(int), evaluated.outputs["probabilities"]
        _write_predictions(folder / "predictions.parquet", evaluated, labels, probabilities, names)
        (folder / "mistakes.csv").write_bytes(_mistakes(evaluated, labels, probabilities, names))
        table = [asdict(one) for one in by_label(labels, probabilities, names)]
        (folder / "per_class.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        matrix = confusion(labels, probabilities)
        drawn: dict[str, tuple[Figure, list[str]]] = {
            "confusion.png": (pictures.confusion_matrix(matrix, names), []),
            "by_label.png": (pictures.quality_by_label(label_quality(matrix, names)), []),
            "reliability.png": (pictures.reliability(calibration(labels, probabilities)), []),
            "mistakes.png": pictures.commonest_mistakes(labels, probabilities, names, split["images"], evaluated.ids),
            "heat_maps.png": pictures.heat_maps(
                labels, probabilities, names, split["images"], evaluated.ids,
                lambda images: np.asarray(evaluated.run({"images": images})["probabilities"]),
            ),
        }  # fmt: skip
        for file, (figure, seen) in drawn.items():
            items = {"Items": " ".join(seen)} if seen else {}
            figure.savefig(folder / file, dpi=100, metadata={"Software": None} | items)

    def use(self, settings: Mapping[str, Any]) -> str:
        """Describe the image that the model takes, and its labels."""
        height, width, channels = settings["shape"]
        return (
            f"Takes one encoded image (it is brought to {width}×{height}, {'grey' if channels == 1 else 'colour'}); gives one of "
            f"{len(settings['labels'])} labels with its probability: {', '.join(map(markdown, settings['labels']))}."
        )

    def intervals(self, predictions: Path) -> dict[str, tuple[float, float]]:
        """The bootstrap interval of macro F1."""
        import pyarrow.parquet as pq

        from evergreen.kinds.classify.metrics import f1_macro_interval

        rows = pq.read_table(predictions, columns=["label", "predicted"])
        if not len(rows):
            return {}
        return {"f1_macro": f1_macro_interval(rows["label"].to_numpy(), rows["predicted"].to_numpy())}

    def review(self, predictions: Path | None, folders: Sequence[Path]) -> Review:
        """The most frequent mistakes with pictures, the quality by label, and the confusion matrix."""
        from evergreen.kinds.classify.mistakes import read_mistakes, rendered
        from evergreen.kinds.classify.thumbnails import thumbnail

        mistakes = None if predictions is None else read_mistakes(predictions, folders, thumbnail)
        return Review({"mistakes": mistakes and asdict(mistakes)}, "" if mistakes is None else rendered(mistakes))

    def plotted(self, split: Split, outputs: Outputs) -> str:
        """The actual and predicted label of each item."""
        text, names = io.StringIO(), split.facts["labels"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for actual, predicted in zip(split["labels"].tolist(), outputs["probabilities"].argmax(axis=1).tolist(), strict=True):
            writer.writerow([names[actual], names[predicted]])
        return text.getvalue()

    def learning_curve(self, history: Sequence[Mapping[str, float]]) -> Figure:
        """Loss and accuracy by epoch."""
        from evergreen.kinds.classify.pictures import learning_curve

        return learning_curve(history)

    def tally(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The number of right answers (`right`) and of all (`items`)."""
        return {"right": int((answers == labels).sum()), "items": len(labels)}

    def recorded_tally(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        """Compute the tally from the accuracy."""
        items = int(measured["test_items"] or 0)
        return {"right": round((measured["accuracy"] or 0.0) * items), "items": items}

    def worse(self, then: Mapping[str, float], now: Mapping[str, float], level: float) -> tuple[bool, str]:
        """Test with the interval of the difference of the two accuracies (`evergreen.evaluation.proportions.difference`)."""
        counts = [int(one[key]) for one in (then, now) for key in ("right", "items")]
        lost, low, high = difference(*counts, level=level)
        right_then, items_then, right_now, items_now = counts
        words = (
            f"{right_now / items_now:.1%} of {items_now:,} new items are right, against "
            f"{right_then / items_then:.1%} of {items_then:,} test items when the champion was registered: "
            f"{-100 * lost:+.1f} points ({1 - level:.4g} interval {-100 * high:+.1f} to {-100 * low:+.1f})"
        )
        return low > 0, words

    def gap(self, scenario: ImageScenario, workspace: Workspace, measured: Mapping[str, float | None]) -> Gap | None:
        """The gap in accuracy (`evergreen.kinds.classify.gap`)."""
        from evergreen.kinds.classify.gap import gap

        found = gap(workspace, scenario.name, measured)
        return None if found is None else found.reported

    def compare(self, scenario: ImageScenario, split: Split, champion: np.ndarray, challenger: np.ndarray) -> LabelComparison:
        """Compare the predicted labels of two models."""
        names, metric = split.facts["labels"], self.headline(scenario)
        return LabelComparison(split["labels"].astype(int), champion, challenger, names, metric, f"{split.name} item")

    def baseline(self, scenario: ImageScenario, split: Split, challenger: np.ndarray, train: Split) -> Baseline:
        """Compare with always predicting the most frequent label."""
        names = split.facts["labels"]
        learned = np.bincount(train["labels"], minlength=len(names)).tolist()
        return against_commonest(split["labels"].astype(int), challenger, names, learned, self.headline(scenario))


def _mistakes(evaluated: Evaluated, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> bytes:
    """The misclassified items as a CSV file, those with the highest probability first. With the labels in the column `label`
    corrected, the inbox takes it as a file of corrections."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    ids, sources, text = evaluated.ids, evaluated.sources, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "label", "predicted", "probability"])
    for at in sorted((predicted != labels).nonzero()[0].tolist(), key=lambda at: (-sure[at], ids[at])):
        writer.writerow([ids[at], sources[at], names[labels[at]], names[predicted[at]], f"{sure[at]:.3f}"])
    return text.getvalue().encode("utf-8-sig")  # Excel recognizes UTF-8 by the byte order mark


def _write_predictions(
    path: Path, evaluated: Evaluated, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = np.array(names, dtype=object)
    columns: dict[str, Any] = {
        "id": evaluated.ids,
        "source": evaluated.sources,
        "label": known[labels],
        "predicted": known[probabilities.argmax(axis=1)],
        "probability": probabilities.max(axis=1),
        **{f"p_{label}": probabilities[:, index] for index, label in enumerate(names)},
    }
    pq.write_table(pa.table(columns), path, compression="zstd")

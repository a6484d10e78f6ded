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
from evergreen.kinds.base.judge import NO_BREAKDOWN, Breakdown, Evaluated, Gap, Judge, Outputs, Plot, Review, SliceGaps
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.answers import ANSWER, ANSWERED, DISTANCE, REASONS, UNKNOWN, answered
from evergreen.kinds.classify.comparison import METRICS, LabelComparison, against_commonest, not_known
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.names import markdown
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OF_ANSWERS = (Metric("coverage", "answered"), Metric("accuracy_answered", "accuracy of the answers"))


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
        "coverage.png": "Accuracy against coverage",
    }
    tables = {"per_class.json": "Quality by label"}
    caution = (
        "It was measured on items like those it was trained on: from the same source, not looking alike across the splits. On other "
        "cameras, light or places it may do worse. A probability is what the network says; the calibration error above tells how far "
        "it is to be trusted."
    )
    plot = Plot("confusion.csv", "confusion", x="actual", y="predicted")

    def texts(self, measured: Mapping[str, float | None], metrics: Sequence[Metric]) -> dict[str, str]:
        """See `Judge.texts`; with what is answered, if the model does not always answer."""
        return super().texts(measured, [*metrics, *(metric for metric in OF_ANSWERS if metric.key in measured)])

    def predictions(self, outputs: Outputs, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> np.ndarray:
        """int64 `(items,)`: the answer's index in the data set's labels; -1 if it is not one of them, and what `not_known`
        gives for the most probable label if the model does not know."""
        names = list(facts["labels"])
        index = np.array([names.index(label) if label in names else -1 for label in settings["labels"]], np.int64)
        answer, unknown = answered(outputs)
        predicted: np.ndarray = np.where((unknown != ANSWERED) & (index[answer] >= 0), not_known(index[answer]), index[answer])
        return predicted

    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        """See `evergreen.kinds.classify.metrics.quality`, and `quality_of_answers` for a model that does not always answer."""
        from evergreen.kinds.classify.metrics import quality, quality_of_answers

        labels, probabilities = split["labels"].astype(int), outputs["probabilities"]
        return (
            quality_of_answers(labels, probabilities, *answered(outputs))
            if ANSWER in outputs
            else quality(labels, probabilities)
        )

    def breakdown(self, split: Split, outputs: Outputs) -> Breakdown:
        """Quality by label."""
        from evergreen.kinds.classify.metrics import confusion_of_answers, label_quality

        names = split.facts["labels"]
        matrix = confusion_of_answers(split["labels"].astype(int), *answered(outputs), len(names))
        rows: list[dict[str, str | int]] = [
            {
                "label": one.label,
                "items": one.items,
                "precision": figures.percent(one.precision, one.precision_low, one.precision_high),
                "recall": figures.percent(one.recall, one.recall_low, one.recall_high),
                "F1": figures.percent(one.f1, items=one.items),
            }
            for one in label_quality(matrix, names)
        ]
        return Breakdown("Quality by label", tuple(rows))

    def answer_rules(self, split: Split, outputs: Outputs, settings: Mapping[str, Any]) -> Breakdown:
        """What was requested of the answers, and what is reached on val and on these items."""
        from evergreen.kinds.classify.rules_table import notes, rows

        if "answers" not in settings:
            return NO_BREAKDOWN
        return Breakdown("Answers, and what it does not know", rows(split, outputs, settings), notes(settings))

    def slice_gaps(self, split: Split, outputs: Outputs, columns: Mapping[str, Sequence[str]], min_items: int) -> SliceGaps:
        """Recall and false alarms by label (`evergreen.kinds.classify.slices`)."""
        from evergreen.kinds.classify.slices import slice_gaps

        answer, unknown = answered(outputs)
        predicted = np.where(unknown == ANSWERED, answer, -1)
        return slice_gaps(split["labels"].astype(int), predicted, split.facts["labels"], columns, min_items)

    def write(self, evaluated: Evaluated, folder: Path) -> None:
        """Write `predictions.parquet`, `mistakes.csv`, `per_class.json` and the pictures, and `answers.json` for a model that
        has rules for its answers."""
        from evergreen.kinds.classify import pictures
        from evergreen.kinds.classify.metrics import calibration, confusion_of_answers, label_quality

        split, names = evaluated.split, evaluated.split.facts["labels"]
        labels, probabilities = split["labels"].astype(int), evaluated.outputs["probabilities"]
        _write_predictions(folder / "predictions.parquet", evaluated, labels, names)
        (folder / "mistakes.csv").write_bytes(_mistakes(evaluated, labels, names))
        answer, unknown = answered(evaluated.outputs)
        matrix = confusion_of_answers(labels, answer, unknown, len(names))
        table = [asdict(one) for one in label_quality(matrix, names)]
        (folder / "per_class.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        if rules := self.answer_rules(split, evaluated.outputs, evaluated.settings).rows:
            (folder / "answers.json").write_text(json.dumps(rules, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        drawn: dict[str, tuple[Figure, list[str]]] = {
            "confusion.png": (pictures.confusion_matrix(matrix, names), []),
            "by_label.png": (pictures.quality_by_label(label_quality(matrix, names)), []),
            "reliability.png": (pictures.reliability(calibration(labels, probabilities)), []),
            "coverage.png": (pictures.coverage(labels, probabilities, answer, unknown, names), []),
            "mistakes.png": pictures.commonest_mistakes(
                labels, probabilities, answer, unknown, names, split["images"], evaluated.ids
            ),
            "heat_maps.png": pictures.heat_maps(
                labels, probabilities, answer, unknown, names, split["images"], evaluated.ids, evaluated.model
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

        rows = pq.read_table(predictions)
        if not len(rows):
            return {}
        reasons = rows["unknown"].to_pylist() if "unknown" in rows.column_names else [""] * len(rows)
        known = np.array([not reason for reason in reasons])
        return {"f1_macro": f1_macro_interval(rows["label"].to_numpy(), rows["predicted"].to_numpy(), known)}

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
        for actual, predicted in zip(split["labels"].tolist(), answered(outputs)[0].tolist(), strict=True):
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
        """Compute the tally from the accuracy of the most probable label, which the answers are that it is compared with
        (`Codec.answers`)."""
        items, accuracy = int(measured["test_items"] or 0), measured.get("accuracy_most_probable", measured["accuracy"])
        return {"right": round((accuracy or 0.0) * items), "items": items}

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


def _mistakes(evaluated: Evaluated, labels: np.ndarray, names: Sequence[str]) -> bytes:
    """The misclassified items as a CSV file, those with the highest probability first. With the labels in the column `label`
    corrected, the inbox takes it as a file of corrections."""
    predicted, sure = _predicted(evaluated)
    ids, sources, text = evaluated.ids, evaluated.sources, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "label", "predicted", "probability"])
    for at in sorted((predicted != labels).nonzero()[0].tolist(), key=lambda at: (-sure[at], ids[at])):
        writer.writerow([ids[at], sources[at], names[labels[at]], names[predicted[at]], f"{sure[at]:.3f}"])
    return text.getvalue().encode("utf-8-sig")  # Excel recognizes UTF-8 by the byte order mark


def _predicted(evaluated: Evaluated) -> tuple[np.ndarray, np.ndarray]:
    """The label that was answered, or the most probable one, int64 `(items,)`, and its probability."""
    answer = answered(evaluated.outputs)[0]
    return answer, evaluated.outputs["probabilities"][np.arange(len(answer)), answer]


def _write_predictions(path: Path, evaluated: Evaluated, labels: np.ndarray, names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known, (predicted, sure) = np.array(names, dtype=object), _predicted(evaluated)
    probabilities, outputs = evaluated.outputs["probabilities"], evaluated.outputs
    columns: dict[str, Any] = {
        "id": evaluated.ids,
        "source": evaluated.sources,
        "label": known[labels],
        "predicted": known[predicted],
        "probability": sure,
        **({"unknown": [REASONS[reason] for reason in outputs[UNKNOWN].tolist()]} if UNKNOWN in outputs else {}),
        **({DISTANCE: outputs[DISTANCE]} if DISTANCE in outputs else {}),
        **{f"p_{label}": probabilities[:, index] for index, label in enumerate(names)},
    }
    pq.write_table(pa.table(columns), path, compression="zstd")

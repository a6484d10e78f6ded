"""evaluate: how good is the model on images that it never saw, and what does a prediction cost?

Reads   the test split, `outputs/NAME/model`; encoded test images of `data/NAME` for the latency.
Writes  `outputs/NAME/evaluation/` (predictions, quality by label, pictures), `outputs/NAME/metrics.json`,
        `outputs/NAME/plots/confusion.csv`: the same bytes whenever model and splits are. What differs from run to run (latency,
        energy of a prediction) goes to `outputs/NAME/record/evaluate.json`.

The model is measured in the form in which it will serve: on ONNX Runtime, from encoded bytes.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.data.dataset import batches, iter_images, iter_parts
from evergreen.energy.meter import Energy, Meter
from evergreen.errors import EvergreenError
from evergreen.evaluation.gap import gap
from evergreen.kinds.base import kind_of
from evergreen.planning.estimate import network_kind
from evergreen.preparation.arrays import Split, label_names
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file, replace_folder
from tasks.page import Page
from tasks.stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from evergreen.serving.scoring import Model

MACRO = {"f1_macro": "macro F1", "precision_macro": "macro precision", "recall_macro": "macro recall"}
MEASURE_SECONDS = 1.0  # of predictions, at least: of less, the energy can't be told


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the test split.

    Attributes:
        items: in it.
        metrics: quality (`evergreen.evaluation.metrics.quality`), `latency_ms` and `latency_p95_ms` of one encoded image, `items_per_second`,
            `energy_wh_per_1000`, `energy_uncertainty_wh_per_1000` and `seconds_per_1000` of single predictions (the energies None where they
            can't be measured), `model_bytes`.
        labels: quality by label (`evergreen.evaluation.metrics.LabelQuality`).
        gap: accuracy on val against that on test (`evergreen.evaluation.gap.Gap.as_json`); None without a val split, or in records of before.
    """

    items: int
    metrics: dict[str, float | None]
    labels: list[dict[str, Any]]
    gap: dict[str, Any] | None = None

    def __str__(self) -> str:
        m = self.metrics
        return (
            f"accuracy {figures.percent(m['accuracy'], m['accuracy_low'], m['accuracy_high'], self.items)}, "
            f"macro F1 {figures.percent(m['f1_macro'], items=self.items)} on {figures.count(self.items, 'test item')}; "
            f"{figures.duration((m['latency_ms'] or 0.0) / 1000)} an image."
        )


@dataclass(frozen=True)
class Serving:
    """What predictions take: measured, and so different from run to run."""

    latency_ms: float
    latency_p95_ms: float
    items_per_second: float
    energy_wh_per_1000: float | None
    energy_uncertainty_wh_per_1000: float | None
    seconds_per_1000: float
    energy_methods: tuple[str, ...]


def evaluate(scenario: Scenario, workspace: Workspace) -> Evaluation:
    """Measure the model on the test split.

    Raises:
        EvergreenError: model or splits are missing, or the test split is empty.
    """
    from evergreen.evaluation.metrics import by_label
    from evergreen.serving.scoring import Model

    name, kind = scenario.name, kind_of(scenario)
    splits, folder = workspace.splits(name), workspace.model(name)
    names, test = label_names(splits), Split.open(splits, "test")
    if not len(test):
        raise EvergreenError("the test split is empty", fix="Collect more images, or raise preprocess.test_share.")
    model = Model.open(folder)
    ids = test_ids(workspace, name)
    labels, probabilities = test.labels.astype(int), model.probabilities(test.images)

    quality = kind.measure(labels, probabilities)
    table = [asdict(entry) for entry in by_label(labels, probabilities, names)]
    fixed = {**quality, "test_items": len(test), "model_bytes": (folder / "model.onnx").stat().st_size}
    pictures = kind.draw(labels, probabilities, names, test.images, ids)
    pictures["learning_curve.png"] = kind.learning_curve(json.loads((folder / "history.json").read_text())), []
    with replace_folder(workspace.evaluation(name)) as writing:
        sources = _sources(workspace, name, ids)
        _write_predictions(writing / "predictions.parquet", ids, sources, labels, probabilities, names)
        (writing / "mistakes.csv").write_bytes(_mistakes(ids, sources, labels, probabilities, names))
        (writing / "per_class.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        for file, (figure, seen) in pictures.items():
            # The ids let `evergreen forget` find what shows an item.
            figure.savefig(writing / file, dpi=100, metadata={"Software": None} | ({"Items": " ".join(seen)} if seen else {}))
    replace_file(workspace.outputs(name) / "plots/confusion.csv", _confusion_csv(labels, probabilities, names))
    replace_file(workspace.outputs(name) / "metrics.json", (json.dumps(fixed, indent=1) + "\n").encode())

    wanted = ids[: scenario.evaluate.latency_items]
    serving = measure_serving(model, [image for _, image in iter_images(batches(workspace, name), wanted)])
    replace_file(workspace.record(name) / "evaluate.json", json.dumps(asdict(serving), indent=1).encode())
    measured = {key: value for key, value in asdict(serving).items() if key != "energy_methods"}
    apart = gap(workspace, name, fixed)
    return Evaluation(len(test), {**fixed, **measured}, table, None if apart is None else apart.as_json())


def of_1000_predictions(metrics: dict[str, float | None]) -> Energy:
    """What 1,000 predictions took, by `Evaluation.metrics`."""
    wh, uncertainty_wh = metrics.get("energy_wh_per_1000"), metrics.get("energy_uncertainty_wh_per_1000")
    seconds = metrics.get("seconds_per_1000") or 0.0
    if wh is None or uncertainty_wh is None:
        return Energy(None, None, (), seconds)
    return Energy(3600 * wh, 3600 * uncertainty_wh, (), seconds)


def test_ids(workspace: Workspace, name: str) -> list[str]:
    """The ids of the test split's items, in the order of its arrays."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    items = pq.read_table(workspace.splits(name) / "items.parquet", columns=["id", "split", "row"])
    test = items.filter(pc.equal(items["split"], "test")).sort_by("row")
    return [str(id) for id in test["id"].to_pylist()]


def measure_serving(model: Model, images: Sequence[bytes]) -> Serving:
    """Time single predictions, each from encoded bytes, over and over for `MEASURE_SECONDS` or more.

    Raises:
        EvergreenError: there are no images to measure with.
    """
    import numpy as np

    if not images:
        raise EvergreenError(
            "no encoded image of the test split is in the data set", fix="Bring it back with: dvc checkout data/SCENARIO"
        )
    model.predict(images[:1])
    seconds: list[float] = []
    with Meter() as meter:
        until = time.perf_counter() + MEASURE_SECONDS
        while time.perf_counter() < until or len(seconds) < len(images):
            started = time.perf_counter()
            model.predict([images[len(seconds) % len(images)]])
            seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    model.predict(images)
    together = time.perf_counter() - started
    spent = meter.spent() * (1000 / len(seconds))
    return Serving(
        latency_ms=1000 * float(np.median(seconds)),
        latency_p95_ms=1000 * float(np.quantile(seconds, 0.95)),
        items_per_second=len(images) / together,
        energy_wh_per_1000=spent.energy_wh,
        energy_uncertainty_wh_per_1000=spent.uncertainty_wh,
        seconds_per_1000=spent.seconds,
        energy_methods=spent.methods,
    )


def _sources(workspace: Workspace, name: str, ids: Sequence[str]) -> list[str]:
    """Where each item came from: its path in its source."""
    known = dict.fromkeys(ids, "")
    for rows in iter_parts(batches(workspace, name), ["id", "source"]):
        for id, source in zip(rows["id"].to_pylist(), rows["source"].to_pylist(), strict=True):
            if id in known:
                known[id] = source
    return [known[id] for id in ids]


def _mistakes(
    ids: Sequence[str], sources: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> bytes:
    """The test items that the model gets wrong, those first that it is surest of, as a CSV file. With the right label in the column
    `label` it is a file of corrections for the inbox."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "label", "predicted", "probability"])
    for at in sorted((predicted != labels).nonzero()[0].tolist(), key=lambda at: (-sure[at], ids[at])):
        writer.writerow([ids[at], sources[at], names[labels[at]], names[predicted[at]], f"{sure[at]:.3f}"])
    return text.getvalue().encode("utf-8-sig")  # the mark tells Excel that it is UTF-8


def _write_predictions(
    path: Path, ids: list[str], sources: list[str], labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = np.array(names, dtype=object)
    columns: dict[str, Any] = {
        "id": ids,
        "source": sources,
        "label": known[labels],
        "predicted": known[probabilities.argmax(axis=1)],
        "probability": probabilities.max(axis=1),
        **{f"p_{label}": probabilities[:, place] for place, label in enumerate(names)},
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _confusion_csv(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["actual", "predicted"])
    for actual, predicted in zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True):
        writer.writerow([names[actual], names[predicted]])
    return text.getvalue().encode()


def page(scenario: Scenario, workspace: Workspace, evaluation: Evaluation) -> Page:
    """Quality over all and by label, and what a prediction takes."""
    m, items, folder = evaluation.metrics, evaluation.items, workspace.evaluation(scenario.name)
    quality = {
        "accuracy": figures.percent(m["accuracy"], m["accuracy_low"], m["accuracy_high"]),
        **{name: figures.percent(m[key], items=items) for key, name in MACRO.items()},
        "log loss": figures.number(m["log_loss"], digits=3),
        "calibration error": figures.percent(m["calibration_error"]),
        "test items": figures.count(items),
    }
    serving = {
        "one image": f"{figures.number(m['latency_ms'])} ms (95 % of them within {figures.number(m['latency_p95_ms'])} ms)",
        "many images": f"{figures.number(m['items_per_second'])} images/s",
        "energy of 1,000 predictions": figures.energy(m["energy_wh_per_1000"], m["energy_uncertainty_wh_per_1000"]),
        "the model's size": figures.size(m["model_bytes"]),
    }
    by_label = [
        {
            "label": one["label"],
            "items": one["items"],
            "precision": figures.percent(one["precision"], one["precision_low"], one["precision_high"]),
            "recall": figures.percent(one["recall"], one["recall_low"], one["recall_high"]),
            "F1": figures.percent(one["f1"], items=one["items"]),
        }
        for one in evaluation.labels
    ]
    titles = {
        "confusion.png": "Confusion matrix",
        "by_label.png": "Right by label",
        "mistakes.png": "Commonest mistakes",
        "learning_curve.png": "Learning curve",
        "reliability.png": "Reliability",
    }
    pictures = {title: folder / file for file, title in titles.items() if (folder / file).exists()}
    return Page(
        tables={
            "Quality on the test split": [{"what": what, "value": value} for what, value in quality.items()],
            "What a prediction takes": [{"what": what, "value": value} for what, value in serving.items()],
            "Quality by label": by_label,
        },
        links=pictures,
        pictures=pictures,
    )


def work(scenario: Scenario, evaluation: Evaluation) -> tuple[float, str]:
    return float(evaluation.items), network_kind(scenario)


stage = Stage(evaluate, Evaluation, in_dvc=True, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)

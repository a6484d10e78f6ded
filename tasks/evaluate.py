"""evaluate: measure the model's quality on unseen items, and the cost of a prediction.

Reads   the test split, `outputs/NAME/model`; test items of `data/NAME` to measure latency.
Writes  `outputs/NAME/evaluation/` (predictions, tables, pictures), `outputs/NAME/metrics.json`, `outputs/NAME/plots/`: the same
        bytes for the same model and splits. Whatever differs from run to run (latency, energy of a prediction) goes to
        `outputs/NAME/record/evaluate.json`.

The exported model is measured, as it will be served: on ONNX Runtime. Latency and energy include decoding the encoded items.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.data.dataset import batches, iter_parts
from evergreen.data.slices import sliced_columns
from evergreen.energy.meter import Energy, Meter
from evergreen.errors import EvergreenError
from evergreen.kinds.base.judge import NO_BREAKDOWN, Breakdown, Evaluated, Gap, SliceGaps
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file, replace_folder
from tasks.page import Page, bullets
from tasks.stage import Stage

if TYPE_CHECKING:
    from evergreen.serving.scoring import Model

SLICES = "slices.csv"  # all comparisons of slices; the page and the card show the first ones
SHOWN_SLICES = 40
MEASURE_SECONDS = 1.0  # of predictions, at least: over less time, energy can't be measured


@dataclass(frozen=True)
class Evaluation:
    """What was measured on the test split.

    Attributes:
        items: number of items in the test split.
        metrics: quality (`Judge.measure`), `latency_ms` and `latency_p95_ms` for one item, `items_per_second`,
            `energy_wh_per_1000`, `energy_uncertainty_wh_per_1000` and `seconds_per_1000` for single predictions (the energies
            are None if they can't be measured), `model_bytes`.
        headline: the quality, in words.
        breakdown: quality on subsets of the items (`Judge.breakdown`).
        gap: quality on val compared with test (`Judge.gap`); None if unknown, or in results stored by earlier versions.
        answer_rules: when the model answers, and what that gives (`Judge.answer_rules`).
        slices: the first rows of the comparison of slices (`Judge.slice_gaps`); empty if the scenario has none.
    """

    items: int
    metrics: dict[str, float | None]
    headline: str
    breakdown: Breakdown
    gap: Gap | None = None
    answer_rules: Breakdown = NO_BREAKDOWN
    slices: Breakdown = NO_BREAKDOWN

    def __str__(self) -> str:
        latency = figures.duration((self.metrics["latency_ms"] or 0.0) / 1000)
        return f"{self.headline} on {figures.count(self.items, 'test item')}; {latency} an item."


@dataclass(frozen=True)
class Serving:
    """The measured cost of predictions, which differs from run to run."""

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
    from evergreen.serving.scoring import Model

    name, kind = scenario.name, kind_of(scenario)
    folder, test = workspace.model(name), open_split(workspace.splits(name), "test")
    if not len(test):
        raise EvergreenError("the test split is empty", fix="Collect more items, or raise preprocess.test_share.")
    model, ids = Model.open(folder), test_ids(workspace, name)
    outputs = model.run(test.arrays)

    measured = kind.judge.measure(test, outputs)
    settings = model.codec.settings
    breakdown, rules = kind.judge.breakdown(test, outputs), kind.judge.answer_rules(test, outputs, settings)
    columns = sliced_columns(scenario, workspace, ids)
    gaps = kind.judge.slice_gaps(test, outputs, columns, scenario.promote.min_slice_items)
    fixed = {**measured, "test_items": len(test), "model_bytes": (folder / "model.onnx").stat().st_size}
    with replace_folder(workspace.evaluation(name)) as writing:
        kind.judge.write(Evaluated(test, ids, _sources(workspace, name, ids), outputs, settings, model), writing)
        if gaps.figures:
            (writing / SLICES).write_text(_csv(gaps), encoding="utf-8-sig")  # Excel recognizes UTF-8 by the byte order mark
        curve = kind.judge.learning_curve(json.loads((folder / "history.json").read_text()))
        curve.savefig(writing / "learning_curve.png", dpi=100, metadata={"Software": None})
    replace_file(workspace.outputs(name) / "plots" / kind.judge.plot.file, kind.judge.plotted(test, outputs).encode())
    replace_file(workspace.outputs(name) / "metrics.json", (json.dumps(fixed, indent=1) + "\n").encode())

    serving = measure_serving(
        model,
        [item for _, item in kind.contract.items(scenario, batches(workspace, name), ids[: scenario.evaluate.latency_items])],
    )
    replace_file(workspace.record(name) / "evaluate.json", json.dumps(asdict(serving), indent=1).encode())
    spent = {key: value for key, value in asdict(serving).items() if key != "energy_methods"}
    headline = ", ".join(f"{title} {text}" for title, text in kind.judge.texts(fixed, kind.judge.metrics).items())
    between = kind.judge.gap(scenario, workspace, fixed)
    slices = replace(gaps.breakdown, rows=gaps.breakdown.rows[:SHOWN_SLICES])
    return Evaluation(len(test), {**fixed, **spent}, headline, breakdown, between, rules, slices)


def _csv(gaps: SliceGaps) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(gaps.figures[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(gaps.figures)
    return text.getvalue()


def of_1000_predictions(metrics: dict[str, float | None]) -> Energy:
    """The energy and time of 1,000 predictions, from `Evaluation.metrics`."""
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


def measure_serving(model: Model, items: Sequence[Any]) -> Serving:
    """Measure predictions of one item each, repeated for at least `MEASURE_SECONDS`, and then one prediction of all items at
    once.

    Raises:
        EvergreenError: there are no items to measure with.
    """
    import numpy as np

    if not items:
        raise EvergreenError(
            "no item of the test split is in the data set", fix="Bring it back with: dvc checkout data/SCENARIO"
        )
    model.predict(items[:1])
    seconds: list[float] = []
    with Meter() as meter:
        until = time.perf_counter() + MEASURE_SECONDS
        while time.perf_counter() < until or len(seconds) < len(items):
            started = time.perf_counter()
            model.predict([items[len(seconds) % len(items)]])
            seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    model.predict(items)
    together = time.perf_counter() - started
    spent = meter.spent() * (1000 / len(seconds))
    return Serving(
        latency_ms=1000 * float(np.median(seconds)),
        latency_p95_ms=1000 * float(np.quantile(seconds, 0.95)),
        items_per_second=len(items) / together,
        energy_wh_per_1000=spent.energy_wh,
        energy_uncertainty_wh_per_1000=spent.uncertainty_wh,
        seconds_per_1000=spent.seconds,
        energy_methods=spent.methods,
    )


def _sources(workspace: Workspace, name: str, ids: Sequence[str]) -> list[str]:
    """The path of each item in its source."""
    known = dict.fromkeys(ids, "")
    for rows in iter_parts(batches(workspace, name), ["id", "source"]):
        for id, source in zip(rows["id"].to_pylist(), rows["source"].to_pylist(), strict=True):
            if id in known:
                known[id] = source
    return [known[id] for id in ids]


def page(scenario: Scenario, workspace: Workspace, evaluation: Evaluation) -> Page:
    """Quality on all items and on subsets of them, and the cost of a prediction."""
    m, folder, judge = evaluation.metrics, workspace.evaluation(scenario.name), kind_of(scenario).judge
    measured = judge.texts(m, (*judge.metrics, *judge.details)) | {"test items": figures.count(evaluation.items)}
    serving = {
        "one item": f"{figures.number(m['latency_ms'])} ms (95 % of them within {figures.number(m['latency_p95_ms'])} ms)",
        "many items": f"{figures.number(m['items_per_second'])} items/s",
        "energy of 1,000 predictions": figures.energy(m["energy_wh_per_1000"], m["energy_uncertainty_wh_per_1000"]),
        "the model's size": figures.size(m["model_bytes"]),
    }
    titles = {**judge.pictures, "learning_curve.png": "Learning curve"}
    pictures = {title: folder / file for file, title in titles.items() if (folder / file).exists()}
    table = folder / SLICES
    notes = {"": evaluation.answer_rules.notes, evaluation.slices.title: evaluation.slices.notes}
    return Page(
        texts={heading: bullets(sentences) for heading, sentences in notes.items() if sentences},
        tables={
            "Quality on the test split": [{"what": what, "value": value} for what, value in measured.items()],
            "What a prediction takes": [{"what": what, "value": value} for what, value in serving.items()],
            evaluation.breakdown.title: evaluation.breakdown.rows,
            evaluation.answer_rules.title: evaluation.answer_rules.rows,
            "Slices, each against all other items": evaluation.slices.rows,
        },
        links=pictures | ({"All comparisons of slices": table} if table.exists() else {}),
        pictures=pictures,
    )


def work(scenario: Scenario, evaluation: Evaluation) -> tuple[float, str]:
    return float(evaluation.items), kind_of(scenario).learner.prediction_work(scenario)


stage = Stage(evaluate, Evaluation, in_dvc=True, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)

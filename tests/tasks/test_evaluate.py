"""evaluate: a real small model, measured on ONNX Runtime."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from evergreen import figures
from evergreen.data.dataset import batches
from evergreen.data.dataset import table as items_of
from evergreen.data.inbox import read_corrections
from evergreen.errors import EvergreenError
from evergreen.serving.scoring import Model
from tasks.evaluate import Evaluation, evaluate, page, stage
from tests.tiny import NAME, Tiny

MEASURED = {
    "latency_ms", "latency_p95_ms", "items_per_second", "energy_wh_per_1000", "energy_uncertainty_wh_per_1000", "seconds_per_1000",
}  # fmt: skip


def outputs(tiny: Tiny) -> dict[str, bytes]:
    """What DVC knows of evaluate."""
    folder = tiny.workspace.outputs(NAME)
    paths = [folder / "metrics.json", *folder.glob("plots/*"), *tiny.workspace.evaluation(NAME).iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_outputs_are_the_same_bytes_when_it_is_repeated(tiny: Tiny) -> None:
    before = outputs(tiny)
    assert set(before) == {
        "metrics.json",
        "plots/confusion.csv",
        *(
            f"evaluation/{file}"
            for file in (
                "predictions.parquet",
                "mistakes.csv",
                "per_class.json",
                "confusion.png",
                "by_label.png",
                "reliability.png",
                "coverage.png",
                "mistakes.png",
                "heat_maps.png",
                "learning_curve.png",
            )
        ),
    }
    evaluate(tiny.scenario, tiny.workspace)
    assert outputs(tiny) == before


def test_what_differs_from_run_to_run_is_kept_from_dvc(tiny: Tiny) -> None:
    recorded = json.loads((tiny.workspace.record(NAME) / "evaluate.json").read_text())
    assert set(recorded) == MEASURED | {"energy_methods"}
    assert recorded["latency_p95_ms"] >= recorded["latency_ms"] > 0 and recorded["items_per_second"] > 0
    assert recorded["energy_wh_per_1000"] is None or recorded["energy_wh_per_1000"] > 0
    reported = b"".join(outputs(tiny).values())
    assert not any(word.encode() in reported for word in (*MEASURED, "latency", "energy", "seconds"))
    assert set(tiny.evaluation.metrics) > MEASURED


def test_the_mistakes_are_listed_so_that_they_can_be_corrected(tiny: Tiny) -> None:
    content = (tiny.workspace.evaluation(NAME) / "mistakes.csv").read_bytes()
    rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    predictions = {row["id"]: row for row in pq.read_table(tiny.workspace.evaluation(NAME) / "predictions.parquet").to_pylist()}
    wrong = {id for id, row in predictions.items() if row["label"] != row["predicted"]}
    assert {row["id"] for row in rows} == wrong and len(rows) == len(wrong) > 0
    assert all(
        row["source"] == predictions[row["id"]]["source"] and row["label"] == predictions[row["id"]]["label"] for row in rows
    )
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    corrections = read_corrections(content)  # as the inbox reads it
    assert isinstance(corrections, list) and [row.id for row in corrections] == [row["id"] for row in rows]


def test_the_figures_are_those_of_the_predictions(tiny: Tiny) -> None:
    evaluation, folder = tiny.evaluation, tiny.workspace.evaluation(NAME)
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert evaluation.items == len(rows) == len(tiny.images)
    right = [row["label"] == row["predicted"] for row in rows]
    assert evaluation.metrics["accuracy"] == np.mean(right) > 0.3  # of ten labels
    for row in rows:
        of_labels = {label: row[f"p_{label}"] for label in "0123456789"}
        assert row["predicted"] == max(of_labels, key=lambda label: of_labels[label])
        assert row["probability"] == max(of_labels.values()) and sum(of_labels.values()) == pytest.approx(1, abs=1e-5)
    known = items_of(batches(tiny.workspace, NAME), ["id", "source"]).to_pylist()
    assert {row["id"]: row["source"] for row in rows}.items() <= {row["id"]: row["source"] for row in known}.items()
    metrics = json.loads((tiny.workspace.outputs(NAME) / "metrics.json").read_text())
    assert metrics["accuracy"] == evaluation.metrics["accuracy"] and metrics["test_items"] == len(rows)
    with open(tiny.workspace.outputs(NAME) / "plots/confusion.csv") as file:
        table = list(csv.DictReader(file))
    assert [(row["actual"], row["predicted"]) for row in table] == [(row["label"], row["predicted"]) for row in rows]
    assert sum(int(entry["items"]) for entry in evaluation.breakdown.rows) == len(rows)


def test_the_model_predicts_from_encoded_images_what_was_measured_on_pixels(tiny: Tiny) -> None:
    rows = pq.read_table(tiny.workspace.evaluation(NAME) / "predictions.parquet").to_pylist()
    predicted = Model.open(tiny.workspace.model(NAME)).predict(tiny.images)
    assert [row["id"] for row in rows] == [hashlib.sha256(image).hexdigest() for image in tiny.images]
    assert [prediction.label for prediction in predicted] == [row["predicted"] for row in rows]


def test_the_sheet_of_mistakes_names_the_items_that_it_shows(tiny: Tiny) -> None:
    from evergreen.data.versions import holds

    folder = tiny.workspace.evaluation(NAME)
    wrong = {row["id"] for row in pq.read_table(folder / "predictions.parquet").to_pylist() if row["label"] != row["predicted"]}
    right = {row["id"] for row in pq.read_table(folder / "predictions.parquet").to_pylist()} - wrong
    assert wrong and holds(folder / "mistakes.png", wrong) and not holds(folder / "mistakes.png", right)


def test_the_heat_maps_name_the_items_that_they_show(tiny: Tiny) -> None:
    from evergreen.data.versions import holds

    folder = tiny.workspace.evaluation(NAME)
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    surest_mistake = max((row for row in rows if row["label"] != row["predicted"]), key=lambda row: row["probability"])
    assert holds(folder / "heat_maps.png", {surest_mistake["id"]})
    assert holds(folder / "heat_maps.png", {row["id"] for row in rows if row["label"] == row["predicted"]})


def test_an_empty_test_split_is_refused(tiny: Tiny) -> None:
    for what in ("images", "labels"):
        path = tiny.workspace.splits(NAME) / f"test-{what}.npy"
        array = np.load(path)
        path.unlink()
        np.save(path, array[:0])
    with pytest.raises(EvergreenError, match="the test split is empty"):
        evaluate(tiny.scenario, tiny.workspace)


def test_it_is_unchanged_until_the_model_changes(tiny: Tiny) -> None:
    assert stage.recall(tiny.scenario, tiny.workspace) == tiny.evaluation
    path = tiny.workspace.model(NAME) / "history.json"
    reported = path.read_text()
    path.unlink()
    path.write_text(reported + " ")
    assert stage.recall(tiny.scenario, tiny.workspace) is None


def test_an_evaluation_reads_as_a_sentence_and_shows_its_tables(tiny: Tiny) -> None:
    evaluation = tiny.evaluation
    m = evaluation.metrics
    accuracy = figures.percent(m["accuracy"], m["accuracy_low"], m["accuracy_high"])
    assert f"accuracy {accuracy}" in str(evaluation) and str(evaluation).endswith("ms an item.")
    shown = page(tiny.scenario, tiny.workspace, evaluation)
    assert [row["label"] for row in shown.tables["Quality by label"]] == list("0123456789")
    cells = [str(cell) for rows in shown.tables.values() for row in rows for cell in row.values()]
    assert all(len(cell) < 40 and not re.search(r"\d{6}|\d\.\d{5}|e-\d", cell) for cell in cells)  # rounded, and never cut off
    values = {
        row["what"]: row["value"]
        for title in ("Quality on the test split", "What a prediction takes")
        for row in shown.tables[title]
    }
    assert (
        re.fullmatch(r"[\d.]+ % \([\d.]+ to [\d.]+ %\)", values["accuracy"]) and "Wh" in values["energy of 1,000 predictions"]
    )
    assert set(shown.pictures) == {
        "Confusion matrix",
        "Right by label",
        "Commonest mistakes",
        "Learning curve",
        "Reliability",
        "Where it looked",
        "Accuracy against coverage",
    }
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in shown.pictures.values())
    assert TypeAdapter(Evaluation).validate_json(json.dumps(asdict(evaluation))) == evaluation


def test_a_model_that_does_not_always_answer_is_reported_with_what_it_answers(tiny: Tiny) -> None:
    few = "val has 3 items with the label, and a recall of 99.0 % needs at least 99"
    rules = [
        {"label": "3", "target": "precision", "requested": 0.5, "threshold": 0.5},
        {"label": "8", "target": "recall", "requested": 0.99, "threshold": None, "why": few},
    ]
    counts = {"items": 50, "answered": 40, "right": 39, "unsure": 10, "unlike": 0}
    labels = {"3": {"items": 5, "answers": 4, "hits": 4}, "8": {"items": 3, "answers": 3, "hits": 3}}
    tiny.change_settings(answers={"unknown_below": 0.7, "thresholds": rules, "val": {**counts, "labels": labels}})
    before, evaluation = tiny.evaluation, evaluate(tiny.scenario, tiny.workspace)
    m, rows = evaluation.metrics, pq.read_table(tiny.workspace.evaluation(NAME) / "predictions.parquet").to_pylist()
    known = [row for row in rows if not row["unknown"]]
    assert {row["unknown"] for row in rows} == {"", "unsure"} and 0 < len(known) < len(rows)
    assert all(row["probability"] >= (0.5 if row["predicted"] == "3" else 0.7) for row in known)
    assert m["coverage"] == len(known) / len(rows)
    assert m["accuracy"] == sum(row["predicted"] == row["label"] for row in known) / len(rows)
    assert m["accuracy_most_probable"] == before.metrics["accuracy"] > m["accuracy"]
    assert f"answered {figures.percent(m['coverage'], m['coverage_low'], m['coverage_high'])}" in str(evaluation)
    table = {row["what"]: row for row in evaluation.answer_rules.rows}
    assert table["precision of 3"] | {"on test": ""} == {
        "what": "precision of 3", "requested": "at least 50.0 %", "chosen": "from 0.50 on",
        "on val": "100 % (51 to 100 %), 4 of 4", "on test": "",
    }  # fmt: skip
    assert table["recall of 8"]["chosen"] == "none" and table["unsure"]["on val"].endswith("10 of 50")
    assert table["answered"]["on test"].endswith(f"{len(known)} of {len(rows)}")
    assert table["accuracy of the answers"]["on val"].endswith("39 of 40")
    shown = page(tiny.scenario, tiny.workspace, evaluation)
    assert few in shown.texts[""].replace("\\", "")
    assert json.loads((tiny.workspace.evaluation(NAME) / "answers.json").read_text()) == list(evaluation.answer_rules.rows)
    assert TypeAdapter(Evaluation).validate_json(json.dumps(asdict(evaluation))) == evaluation


def test_gaps_between_slices_are_in_a_table_on_the_page_and_in_sentences(tiny: Tiny) -> None:
    scenario = tiny.scenario
    pattern = r"(?P<last>[05])\.png$|(?P<other>[1234])\.png$"
    settings = scenario.promote.model_copy(update={"slice_pattern": pattern, "min_slice_items": 5})
    sliced = scenario.model_copy(update={"promote": settings})
    evaluation = evaluate(sliced, tiny.workspace)
    lines = list(csv.DictReader((tiny.workspace.evaluation(NAME) / "slices.csv").read_text("utf-8-sig").splitlines()))
    assert {line["column"] for line in lines} == {"last", "other"} and {line["figure"] for line in lines} == {
        "recall",
        "false alarms",
    }
    for line in lines:
        assert int(line["items"]) + int(line["other_items"]) <= evaluation.items
    assert evaluation.slices.notes and len(evaluation.slices.rows) == min(len(lines), 40)
    shown = page(sliced, tiny.workspace, evaluation)
    assert shown.tables["Slices, each against all other items"] == evaluation.slices.rows
    assert shown.texts["Gaps between slices"].startswith("- ")
    text = json.dumps(asdict(evaluation))
    assert TypeAdapter(Evaluation).validate_python(json.loads(text)) == evaluation

"""register: a real small model into real MLflow."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen import figures
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.registry.models import aliases, connect, set_champion
from evergreen.training.export import compare
from tasks.register import Registration, git_commit, page, recalled
from tests.tiny import NAME, Tiny


def versions(tiny: Tiny) -> list[int]:
    return sorted(int(version.version) for version in tiny.client().search_model_versions("name='evergreen-quickstart'"))


def version_and_run(tiny: Tiny, number: int = 1) -> tuple[Any, Any]:
    client = tiny.client()
    version = client.get_model_version("evergreen-quickstart", str(number))
    return version, client.get_run(version.run_id)


def card(tiny: Tiny) -> str:
    text: str = connect(tiny.workspace).artifacts.load_text(f"runs:/{version_and_run(tiny)[1].info.run_id}/model_card.md")
    return text


def test_the_same_model_twice_is_one_version(registered: Tiny) -> None:
    first, second = registered.register(), registered.register()
    assert first == second and versions(registered) == [first.model_version] == [1]
    assert aliases(registered.workspace, NAME) == {"challenger": 1}


def test_a_registration_killed_before_its_alias_is_completed_and_not_repeated(registered: Tiny) -> None:
    registered.client().delete_registered_model_alias("evergreen-quickstart", "challenger")
    assert registered.register().model_version == 1
    assert versions(registered) == [1] and aliases(registered.workspace, NAME) == {"challenger": 1}


def test_another_model_is_another_version_and_the_champion_stays(registered: Tiny) -> None:
    set_champion(registered.workspace, NAME, 1)
    second = registered.register_confused()
    assert second.model_version == 2 and versions(registered) == [1, 2]
    assert aliases(registered.workspace, NAME) == {"champion": 1, "challenger": 2}


def test_the_form_that_runs_agrees_with_the_trained_one(registered: Tiny) -> None:
    test, learner = open_split(registered.workspace.splits(NAME), "test"), kind_of(registered.scenario).learner
    largest_difference = compare(registered.workspace.model(NAME), test, learner)
    assert largest_difference == registered.register().largest_difference < learner.largest_difference


def test_a_form_of_other_weights_is_refused_and_nothing_is_registered(registered: Tiny) -> None:
    import onnx
    from onnx import numpy_helper

    before = aliases(registered.workspace, NAME)
    path = registered.workspace.model(NAME) / "model.onnx"
    network = onnx.load(path)
    weights = max(network.graph.initializer, key=lambda constant: len(constant.raw_data))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.5), weights.name))
    path.unlink()
    onnx.save(network, path)
    with pytest.raises(EvergreenError, match="the model that would run differs from the trained one on .* test items"):
        registered.register()
    assert versions(registered) == [1] and aliases(registered.workspace, NAME) == before


def test_a_version_tells_what_it_was_made_from(registered: Tiny) -> None:
    version, run = version_and_run(registered)
    assert version.tags["data_version"] == run.data.tags["data_version"] == registered.data_version.data_version
    assert version.tags["fingerprint"] == registered.register().fingerprint
    assert version.tags["git_commit"] == (git_commit(registered.workspace) or "none")
    assert version.tags["energy_wh"] == "unknown" or float(version.tags["energy_wh"]) > 0
    files = {
        file.path
        for folder in ("lineage", "lineage/record", "evaluation", "keras", "")
        for file in registered.client().list_artifacts(run.info.run_id, folder)
    }
    assert {"lineage/data.dvc", "lineage/dvc.lock", "lineage/quickstart.yaml", "lineage/record/train.json"} < files
    assert {"evaluation/confusion.png", "keras/model.keras", "model_card.md"} < files
    lineage = connect(registered.workspace).artifacts.load_text(f"runs:/{run.info.run_id}/lineage/data.dvc")
    assert lineage == (registered.root / "data.dvc").read_text()


def test_the_run_tells_the_quality_on_the_test_split_beside_that_in_training(registered: Tiny) -> None:
    reported, found = version_and_run(registered)[1].data.metrics, registered.evaluation.metrics
    history = json.loads((registered.workspace.model(NAME) / "history.json").read_text())
    for name in ("accuracy", "accuracy_low", "f1_macro", "log_loss"):
        assert reported[f"test_{name}"] == found[name]
    assert reported["accuracy"] == history[-1]["accuracy"] and reported["val_accuracy"] == history[-1]["val_accuracy"]
    for name in ("latency_ms", "model_bytes", "test_items"):
        assert reported[name] == found[name]


def test_a_run_is_named_by_its_version_and_described_and_names_its_data(registered: Tiny) -> None:
    _, run = version_and_run(registered)
    assert run.info.run_name == "quickstart version 1, from scratch"
    assert "Handwritten digits" in run.data.tags["mlflow.note.content"] and "accuracy" in run.data.tags["mlflow.note.content"]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == (NAME, registered.data_version.data_version)
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    summary = json.loads((registered.workspace.splits(NAME) / "summary.json").read_text())
    assert json.loads(data.dataset.profile)["train_items"] == summary["splits"]["train"]


def test_a_version_is_described_by_its_card_and_the_model_by_the_scenario(registered: Tiny) -> None:
    assert version_and_run(registered)[0].description == card(registered)
    model = registered.client().get_registered_model("evergreen-quickstart")
    assert model.description == registered.scenario.description


def test_mlflows_charts_begin_with_quality(registered: Tiny) -> None:
    _, run = version_and_run(registered)
    sections = sorted({name.rpartition("/")[0] for name in run.data.metrics if "/" in name and not name.startswith("system/")})
    assert sections[0] == "quality"
    assert run.data.metrics["quality/test_accuracy"] == registered.evaluation.metrics["accuracy"]
    history = json.loads((registered.workspace.model(NAME) / "history.json").read_text())
    curve = registered.client().get_metric_history(run.info.run_id, "quality/val_loss")
    assert [point.value for point in curve] == [entry["val_loss"] for entry in history]


def test_it_is_stored_in_the_run_that_trained_it(registered: Tiny) -> None:
    trained = json.loads((registered.workspace.record(NAME) / "train.json").read_text())["run_id"]
    assert version_and_run(registered)[0].run_id == trained


def test_a_model_that_was_trained_without_mlflow_gets_a_run_with_its_epochs(tiny: Tiny) -> None:
    record = tiny.workspace.record(NAME) / "train.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"run_id": None}))
    registration = tiny.register()
    history = json.loads((tiny.workspace.model(NAME) / "history.json").read_text())
    logged = tiny.client().get_metric_history(registration.run_id, "loss")
    assert [entry.value for entry in logged] == [entry["loss"] for entry in history]


def test_the_model_card_has_the_figures(registered: Tiny) -> None:
    text, evaluation = card(registered), registered.evaluation
    for name, value in evaluation.metrics.items():
        shown = "unknown" if value is None else figures.short(value, 4) if isinstance(value, float) else f"{value:,}"
        assert f"| {name} | {shown} |" in text
    for row in evaluation.breakdown.rows:
        assert f"| {' | '.join(str(value) for value in row.values())} |" in text.splitlines()
    summary = json.loads((registered.workspace.splits(NAME) / "summary.json").read_text())
    assert f"{summary['splits']['train']:,} training, {summary['splits']['val']:,} validation" in text
    assert registered.data_version.data_version in text and "0, 1, 2, 3" in text


def test_the_model_card_tells_what_each_stage_took(registered: Tiny) -> None:
    rows = [line.split(" | ") for line in card(registered).splitlines()]
    for stage in ("preprocess", "train", "evaluate"):
        (row,) = [row for row in rows if row[0] == f"| {stage}"]
        assert row[2] == "unknown" or (" ± " in row[2] and "Wh (" in row[2] and "gCO2e" in row[3])


def test_the_model_card_tells_what_predictions_take_and_with_the_machines_making(tiny: Tiny) -> None:
    from tests.evergreen.data.test_versions import change

    change(tiny.workspace, "machine", embodied_kgco2e=300)
    tiny.register()
    (row,) = [line.split(" | ") for line in card(tiny).splitlines() if line.startswith("| 1,000 predictions")]
    assert row[1] == figures.duration(tiny.evaluation.metrics["seconds_per_1000"])
    assert row[2] == "unknown" or (" ± " in row[2] and "gCO2e" in row[3] and "gCO2e" in row[4])


def test_energy_that_is_not_known_is_reported_as_unknown_and_never_as_0(tiny: Tiny) -> None:
    path = tiny.workspace.record(NAME) / "stage-train.json"
    memory = json.loads(path.read_text())
    memory["energy"] |= {"energy_joules": None, "uncertainty_joules": None, "methods": []}
    path.write_text(json.dumps(memory))
    tiny.register()
    assert version_and_run(tiny)[0].tags["energy_wh"] == "unknown"
    (row,) = [line for line in card(tiny).splitlines() if line.startswith("| train |")]
    assert row.endswith("| unknown | unknown | unknown |")


def test_without_mlflow_it_ends_in_a_line_and_can_be_repeated(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing answers at the discard port
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(EvergreenError, match="could not be registered in MLflow.*nothing is trained twice"):
            registered.register()
    assert registered.register().model_version == 1


def test_it_is_unchanged_until_the_model_the_data_or_the_registry_change(registered: Tiny) -> None:
    last, earlier = registered.register(), (registered.data_version, registered.evaluation)
    assert recalled(registered.scenario, registered.workspace, *earlier, last) == last and last.created_at_ms > 0
    more = replace(registered.data_version, batches=("00000-abc", "00001-def"))
    assert recalled(registered.scenario, registered.workspace, more, registered.evaluation, last) is None
    registered.client().delete_model_version("evergreen-quickstart", "1")
    assert recalled(registered.scenario, registered.workspace, *earlier, last) is None
    again = registered.register()
    assert again.model_version != 1 and aliases(registered.workspace, NAME) == {"challenger": again.model_version}
    assert recalled(registered.scenario, registered.workspace, *earlier, again) == again


def test_in_another_store_it_is_registered_anew_and_found_again_in_either(
    registered: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, earlier = registered.register(), (registered.data_version, registered.evaluation)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    client = registered.client()
    client.create_registered_model("evergreen-quickstart")
    client.create_model_version("evergreen-quickstart", "somewhere", tags={"fingerprint": "of another model"})
    assert recalled(registered.scenario, registered.workspace, *earlier, last) is None
    theirs = registered.register()
    assert (theirs.model_version, theirs.fingerprint) == (2, last.fingerprint)
    assert recalled(registered.scenario, registered.workspace, *earlier, last) == theirs
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert recalled(registered.scenario, registered.workspace, *earlier, theirs) == last


def test_what_an_earlier_version_has_remembered_is_read(registered: Tiny) -> None:
    last = registered.register()
    kept = {key: value for key, value in asdict(last).items() if key != "created_at_ms"}
    found = recalled(
        registered.scenario, registered.workspace, registered.data_version, registered.evaluation, Registration(**kept)
    )
    assert found == last


def test_a_registration_reads_as_a_sentence_and_survives_json(registered: Tiny) -> None:
    registration = registered.register()
    assert str(registration).startswith(
        "evergreen-quickstart version 1; both forms agree on every test item (probabilities within 1 in 1"
    )
    assert Registration(**json.loads(json.dumps(asdict(registration)))) == registration
    assert page(registered.scenario, registered.workspace, registration).links == {}  # no server, no pages

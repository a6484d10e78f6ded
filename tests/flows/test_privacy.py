"""What a run leaves behind holds no metadata of the images that it was made from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from flows.report import write_report
from tasks import collect, evaluate, preprocess, promote, register, train, validate, version
from tests.evergreen.data.test_versions import repository
from tests.support.planted import FORMATS, PLACE, has_metadata, pixels

SCENARIO = {
    "name": "cameras",
    "kind": "classify",
    "seed": 1,
    "collect": {"path": "source", "max_bad": 0.5, "max_damaged": 0.5},
    "validate": {"labels": ["left", "right"], "max_conflict_share": 0.5},
    "preprocess": {"height": 16, "width": 16, "channels": 3, "look_alikes": False},
    "train": {"epochs": 1, "batch_size": 8, "learning_rate": 0.05, "filters": 4},
    "evaluate": {"latency_items": 10},
}


def fill(source: Path) -> None:
    for label in ("left", "right"):
        (source / label).mkdir(parents=True)
        for seed in range(5):
            for name, make in FORMATS.items():
                image = pixels(100 * seed + len(name) + (label == "left"))
                (source / label / f"{seed}.{name.lower()}").write_bytes(make(image, 6 if seed % 2 else None))
        conflicting = FORMATS["JPEG"](pixels(9999))
        (source / label / "both.jpg").write_bytes(conflicting)
        (source / label / "cut.jpg").write_bytes(conflicting[: conflicting.rindex(b"\xff\xd9") - 60])
        (source / label / "note.jpg").write_bytes(b"taken at " + PLACE)


def places(root: Path) -> tuple[set[str], int]:
    """The files with metadata of the source's images, and how many were looked into; tables and archives are unpacked."""
    found, looked_into = set(), 0
    for path in root.rglob("*"):
        if not path.is_file() or "source" in path.relative_to(root).parts:
            continue
        content = path.read_bytes()
        looked_into += 1
        if content.startswith(b"PAR1"):
            columns = pq.read_table(path).to_pydict().values()
            content += b"".join(each for column in columns for each in column if isinstance(each, bytes))
            content += "".join(each for column in columns for each in column if isinstance(each, str)).encode()
        if content.startswith(b"PK\3\4"):
            with zipfile.ZipFile(path) as archive:
                content += b"".join(archive.read(name) for name in archive.namelist())
        if has_metadata(content):
            found.add(str(path.relative_to(root)))
    return found, looked_into


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("tasks.evaluate.MEASURE_SECONDS", 0.01)
    monkeypatch.setenv("EVERGREEN_ROOT", str(tmp_path / "checkout"))
    workspace = repository(tmp_path / "checkout")
    fill(workspace.root / "source")
    with open(workspace.scenarios / "cameras.yaml", "w") as file:
        YAML().dump(SCENARIO, file)
    return workspace


@pytest.mark.slow
def test_position_and_serial_number_are_in_nothing_that_a_run_leaves_behind(workspace: Workspace) -> None:
    scenario = load_scenario(workspace.scenarios, "cameras")
    collection = collect.stage.perform(scenario, workspace).result
    assert collection.added > 60 and set(collection.quarantined) == {"label-conflict", "not-an-image", "truncated"}
    validate.stage.perform(scenario, workspace, collection)
    data_version = version.stage.perform(scenario, workspace, collection).result
    for module in (preprocess, train):
        module.stage.perform(scenario, workspace)
    evaluation = evaluate.stage.perform(scenario, workspace).result
    registration = register.stage.perform(scenario, workspace, data_version, evaluation).result
    promote.stage.perform(scenario, workspace, registration)
    write_report(workspace, ["cameras"])
    found, looked_into = places(workspace.root)
    assert found == set() and looked_into > 60
    inside = {path.relative_to(workspace.root).parts[0] for path in workspace.root.rglob("*") if path.is_file()}
    assert {"data", "outputs", "mlruns", "quarantine", ".evergreen", ".dvc"} <= inside


@pytest.mark.slow
def test_with_keep_metadata_they_are_in_the_staged_items_and_in_quarantine(workspace: Workspace) -> None:
    scenario = load_scenario(workspace.scenarios, "cameras")
    kept = scenario.model_copy(update={"collect": scenario.collect.model_copy(update={"keep_metadata": True})})
    collect.stage.perform(kept, workspace)
    assert {path.split("/")[0] for path in places(workspace.root)[0]} == {".evergreen", "quarantine"}

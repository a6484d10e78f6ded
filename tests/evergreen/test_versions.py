"""Versions of data and outputs: real DVC in repositories of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import EvergreenError
from evergreen.versions import (
    add_data,
    commit_stage,
    data_unchanged,
    data_version,
    fetch_data,
    fetch_others,
    push_data,
    restore,
    stage_status,
)
from evergreen.workspace import Workspace
from tests.support.shipped import ROOT, shipped


def repository(folder: Path) -> Workspace:
    """An Evergreen checkout in a git repository, with nothing collected yet."""
    for name in (".dvc/config", ".dvcignore", "dvc.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped() / name, folder / name)
    shutil.copytree(shipped() / "scenarios", folder / "scenarios")
    for name in ("tasks", "evergreen"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("/.evergreen/\n/outputs/\n/data\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return Workspace(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return repository(tmp_path / "checkout")


def change(workspace: Workspace, section: str, **settings: Any) -> None:
    """Change the quickstart's file."""
    from ruamel.yaml import YAML

    path = workspace.scenarios / "quickstart.yaml"
    document = YAML().load(path.read_text())
    document.setdefault(section, {}).update(settings)
    with open(path, "w") as file:
        YAML().dump(document, file)


def put(workspace: Workspace, name: str, content: str, batch: str = "00000-aaa") -> Path:
    part = workspace.data(name) / batch / "part-00000.parquet"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(content)
    return part


def clone(workspace: Workspace, folder: Path) -> Workspace:
    """What git would bring: `data.dvc`, but no data; with the first one's remote."""
    other = repository(folder)
    shutil.copy(workspace.root / "data.dvc", other.root)
    remote = workspace.private / "dvc-remote"
    (other.root / ".dvc/config.local").write_text(f"['remote \"local\"']\n    url = {remote}\n")
    return other


def forget_cache(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / ".dvc/cache")
    shutil.rmtree(workspace.root / ".dvc/tmp", ignore_errors=True)


def make_outputs(workspace: Workspace, content: str) -> None:
    """What preprocess of the quickstart would leave, in `dvc.lock` too."""
    workspace.splits("quickstart").mkdir(parents=True, exist_ok=True)
    (workspace.splits("quickstart") / "labels.json").write_text(content)
    commit_stage(workspace, "preprocess", "quickstart")


def everything(workspace: Workspace) -> dict[str, bytes]:
    kept = [workspace.root / "data.dvc", workspace.root / "dvc.lock"]
    for folder in ("data", "outputs"):
        kept += sorted(path for path in (workspace.root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(workspace.root)): path.read_bytes() for path in kept if path.exists()}


def test_where_nothing_was_collected_there_is_no_version(workspace: Workspace) -> None:
    assert data_version(workspace) is None and not data_unchanged(workspace)
    assert not fetch_data(workspace, "quickstart") and fetch_others(workspace, "quickstart")


def test_a_version_names_the_data_until_they_change(workspace: Workspace) -> None:
    part = put(workspace, "quickstart", "one")
    version = add_data(workspace)
    assert version == data_version(workspace) and len(version) == 32 and data_unchanged(workspace)
    part.unlink()
    part.write_text("two")
    assert not data_unchanged(workspace) and data_version(workspace) == version
    assert add_data(workspace) != version and data_unchanged(workspace)


def test_the_same_bytes_are_the_same_version_wherever_they_lie(workspace: Workspace, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    for checkout in (workspace, other):
        put(checkout, "quickstart", "one")
    assert add_data(workspace) == add_data(other)
    assert (workspace.root / "data.dvc").read_bytes() == (other.root / "data.dvc").read_bytes()


def test_a_damaged_data_dvc_names_no_version(workspace: Workspace) -> None:
    (workspace.root / "data.dvc").write_text("outs:\n")
    assert data_version(workspace) is None


def test_outside_git_it_is_said_how_to_get_inside(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError, match="is not set up for DVC.*git init"):
        add_data(Workspace(tmp_path))


def test_another_clone_gets_the_data_from_the_remote(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, "quickstart", "one")
    put(workspace, "cifar10", "two")
    add_data(workspace)
    assert push_data(workspace) == ""
    other = clone(workspace, tmp_path / "other")
    assert fetch_data(other, "quickstart")
    assert (other.data("quickstart") / "00000-aaa/part-00000.parquet").read_text() == "one"
    assert not other.data("cifar10").exists()
    assert fetch_others(other, "quickstart") and other.data("cifar10").exists()
    assert data_unchanged(other)


def test_data_that_are_here_are_not_fetched_over(workspace: Workspace) -> None:
    part = put(workspace, "quickstart", "one")
    add_data(workspace)
    part.unlink()
    part.write_text("mine")
    assert fetch_data(workspace, "quickstart") and part.read_text() == "mine"


def test_without_a_copy_in_the_remote_nothing_is_fetched_and_nothing_fails(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace)
    other = clone(workspace, tmp_path / "other")
    assert not fetch_data(other, "quickstart") and not fetch_others(other, "cifar10")


def test_a_push_without_a_remote_or_to_one_that_is_away_says_why(workspace: Workspace) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace)
    (workspace.private / "dvc-remote").write_text("a file where a folder should be")
    assert push_data(workspace)
    (workspace.root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    assert "dvc remote add" in push_data(workspace)


def test_a_stage_is_unchanged_until_its_inputs_its_settings_or_its_outputs_change(workspace: Workspace) -> None:
    put(workspace, "quickstart", "one")
    assert not stage_status(workspace, "preprocess", "quickstart").unchanged
    make_outputs(workspace, "[1]")
    before = stage_status(workspace, "preprocess", "quickstart")
    assert before.unchanged and before.outputs

    put(workspace, "quickstart", "two", batch="00001-bbb")
    assert not stage_status(workspace, "preprocess", "quickstart").unchanged
    shutil.rmtree(workspace.data("quickstart") / "00001-bbb")
    assert stage_status(workspace, "preprocess", "quickstart") == before

    change(workspace, "train", epochs=99)
    assert stage_status(workspace, "preprocess", "quickstart") == before  # it is a setting of another stage
    change(workspace, "preprocess", height=9)
    assert not stage_status(workspace, "preprocess", "quickstart").unchanged
    change(workspace, "preprocess", height=8)

    make_outputs(workspace, "[2]")
    after = stage_status(workspace, "preprocess", "quickstart")
    assert after.unchanged and after.outputs != before.outputs


def test_a_stage_without_outputs_cannot_be_committed(workspace: Workspace) -> None:
    put(workspace, "quickstart", "one")
    with pytest.raises(EvergreenError, match="preprocess of quickstart could not be committed"):
        commit_stage(workspace, "preprocess", "quickstart")


@pytest.fixture
def two_versions(workspace: Workspace) -> tuple[Workspace, bytes, bytes, dict[str, bytes]]:
    """A checkout at its second version; `data.dvc` and `dvc.lock` of the first, and what it held."""
    put(workspace, "quickstart", "one")
    add_data(workspace)
    make_outputs(workspace, "[1]")
    first = everything(workspace)
    put(workspace, "quickstart", "two", batch="00001-bbb")
    add_data(workspace)
    shutil.rmtree(workspace.splits("quickstart"))
    make_outputs(workspace, "[2]")
    return workspace, first["data.dvc"], first["dvc.lock"], first


def test_an_older_version_is_brought_back_whole_and_the_newer_again(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    workspace, data_dvc, dvc_lock, first = two_versions
    second = everything(workspace)
    restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert {name: content for name, content in everything(workspace).items() if name != "dvc.lock"} == {
        name: content for name, content in first.items() if name != "dvc.lock"
    }
    assert data_unchanged(workspace) and stage_status(workspace, "preprocess", "quickstart").unchanged
    restore(workspace, "quickstart", second["data.dvc"], second["dvc.lock"])
    assert everything(workspace).keys() == second.keys() and data_unchanged(workspace)


def test_where_the_cache_lacks_it_the_remote_gives_it(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    from dvc.repo import Repo

    workspace, data_dvc, dvc_lock, first = two_versions
    restore(workspace, "quickstart", data_dvc, dvc_lock)
    with Repo(str(workspace.root)) as repo:
        repo.push()
    shutil.rmtree(workspace.root / "data")
    shutil.rmtree(workspace.root / "outputs")
    forget_cache(workspace)
    restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert everything(workspace)["outputs/quickstart/splits/labels.json"] == b"[1]"
    assert everything(workspace)["data/quickstart/00000-aaa/part-00000.parquet"] == b"one"


def test_a_version_that_neither_has_leaves_all_as_it_was(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    workspace, data_dvc, dvc_lock, _ = two_versions
    before = everything(workspace)
    forget_cache(workspace)
    with pytest.raises(EvergreenError, match="could not be brought back"):
        restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert everything(workspace) == before


def test_a_version_of_which_only_the_outputs_are_missing_leaves_all_as_it_was(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    import hashlib

    workspace, data_dvc, dvc_lock, _ = two_versions
    before = everything(workspace)
    mark = hashlib.md5(b"[1]").hexdigest()
    (workspace.root / ".dvc/cache/files/md5" / mark[:2] / mark[2:]).unlink()
    with pytest.raises(EvergreenError, match="could not be brought back"):
        restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert everything(workspace) == before


def test_other_scenarios_stages_stay_in_the_lock(two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]]) -> None:
    workspace, data_dvc, dvc_lock, _ = two_versions
    put(workspace, "cifar10", "three")
    workspace.splits("cifar10").mkdir(parents=True)
    (workspace.splits("cifar10") / "labels.json").write_text("[3]")
    commit_stage(workspace, "preprocess", "cifar10")
    restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert "preprocess@cifar10" in (workspace.root / "dvc.lock").read_text()
    assert (workspace.splits("cifar10") / "labels.json").read_text() == "[3]"


def test_it_does_not_matter_from_which_folder_it_is_done(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.scenarios)
    put(workspace, "quickstart", "one")
    add_data(workspace)
    make_outputs(workspace, "[1]")
    assert data_unchanged(workspace) and stage_status(workspace, "preprocess", "quickstart").unchanged
    assert Path.cwd() == workspace.scenarios

"""Versions of data and outputs: real DVC in repositories of their own."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from evergreen.data import versions
from evergreen.data.versions import (
    add_data,
    data_unchanged,
    data_version,
    fetch_data,
    push_data,
    restore,
    restore_data,
    stage_status,
)
from evergreen.errors import EvergreenError
from evergreen.workspace import Workspace, replace_file
from tasks import dependencies
from tests.support.shipped import ROOT, shipped

ENTRY = {"plot": {"file": "confusion.csv", "template": "confusion", "x": "actual", "y": "predicted"}}

pytestmark = pytest.mark.slow  # runs DVC


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


def commit_stage(workspace: Workspace, stage: str, name: str) -> None:
    """As `Stage` does."""
    dependencies.write(workspace, name)
    versions.commit_stage(workspace, stage, name, functools.partial(dependencies.entry, workspace))


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
    assert data_version(workspace, "quickstart") is None and not data_unchanged(workspace, "quickstart")
    assert not fetch_data(workspace, "quickstart")


def test_a_version_names_the_data_until_they_change(workspace: Workspace) -> None:
    part = put(workspace, "quickstart", "one")
    version = add_data(workspace, "quickstart")
    assert version == data_version(workspace, "quickstart") and len(version) == 32 and data_unchanged(workspace, "quickstart")
    part.unlink()
    part.write_text("two")
    assert not data_unchanged(workspace, "quickstart") and data_version(workspace, "quickstart") == version
    assert add_data(workspace, "quickstart") != version and data_unchanged(workspace, "quickstart")


def test_the_same_bytes_are_the_same_version_wherever_they_lie(workspace: Workspace, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    for checkout in (workspace, other):
        put(checkout, "quickstart", "one")
    assert add_data(workspace, "quickstart") == add_data(other, "quickstart")
    assert (workspace.root / "data.dvc").read_bytes() == (other.root / "data.dvc").read_bytes()


def test_a_damaged_data_dvc_names_no_version(workspace: Workspace) -> None:
    (workspace.root / "data.dvc").write_text("outs:\n")
    assert data_version(workspace, "quickstart") is None


def test_outside_git_it_is_said_how_to_get_inside(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError, match="is not set up for DVC.*git init"):
        add_data(Workspace(tmp_path), "quickstart")


def test_another_clone_gets_a_scenarios_data_from_the_remote(workspace: Workspace, tmp_path: Path) -> None:
    for name, content in (("quickstart", "one"), ("cifar10", "two")):
        put(workspace, name, content)
        add_data(workspace, name)
        assert push_data(workspace, name) == ""
    other = clone(workspace, tmp_path / "other")
    assert fetch_data(other, "quickstart") and data_unchanged(other, "quickstart")
    assert (other.data("quickstart") / "00000-aaa/part-00000.parquet").read_text() == "one"
    assert not other.data("cifar10").exists()
    assert fetch_data(other, "cifar10") and data_unchanged(other, "cifar10")


def test_what_another_clone_has_added_comes_in_beside_what_is_here(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    push_data(workspace, "quickstart")
    other = clone(workspace, tmp_path / "other")
    fetch_data(other, "quickstart")
    put(other, "quickstart", "two", batch="00001-bbb")
    theirs = add_data(other, "quickstart")
    push_data(other, "quickstart")
    shutil.copy(other.root / "data.dvc", workspace.root)  # git pull
    assert not data_unchanged(workspace, "quickstart")
    assert fetch_data(workspace, "quickstart") and data_unchanged(workspace, "quickstart")
    assert data_version(workspace, "quickstart") == theirs
    # And where this clone has added something too, both are there.
    (workspace.data("quickstart") / "00001-bbb/part-00000.parquet").unlink()  # as after a kill
    put(workspace, "quickstart", "three", batch="00001-ccc")
    assert fetch_data(workspace, "quickstart")
    assert sorted(path.name for path in workspace.data("quickstart").iterdir()) == ["00000-aaa", "00001-bbb", "00001-ccc"]


def test_data_that_are_here_are_not_fetched_over(workspace: Workspace) -> None:
    part = put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    part.unlink()
    part.write_text("mine")
    assert fetch_data(workspace, "quickstart") and part.read_text() == "mine"


def test_without_a_copy_in_the_remote_nothing_is_fetched_and_nothing_fails(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    other = clone(workspace, tmp_path / "other")
    assert not fetch_data(other, "quickstart") and not fetch_data(other, "cifar10")


def test_a_push_without_a_remote_or_to_one_that_is_away_says_why(workspace: Workspace) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    (workspace.private / "dvc-remote").write_text("a file where a folder should be")
    assert push_data(workspace, "quickstart")
    (workspace.root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    assert "dvc remote add" in push_data(workspace, "quickstart")


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

    depends = workspace.dependencies("quickstart") / "preprocess.json"
    kept = depends.read_text()
    replace_file(depends, kept.replace('"code": {', '"code": {"another": "0",').encode())
    assert not stage_status(workspace, "preprocess", "quickstart").unchanged
    replace_file(depends, kept.encode())
    assert stage_status(workspace, "preprocess", "quickstart") == before

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
    add_data(workspace, "quickstart")
    make_outputs(workspace, "[1]")
    first = everything(workspace)
    put(workspace, "quickstart", "two", batch="00001-bbb")
    add_data(workspace, "quickstart")
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
    assert data_unchanged(workspace, "quickstart") and stage_status(workspace, "preprocess", "quickstart").unchanged
    restore(workspace, "quickstart", second["data.dvc"], second["dvc.lock"])
    assert everything(workspace).keys() == second.keys() and data_unchanged(workspace, "quickstart")


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


def entry(workspace: Workspace, name: str) -> dict[str, str]:
    """The files of a scenario that `data.dvc` names, with their hashes."""
    from dvc.repo import Repo

    with contextlib.chdir(workspace.root), Repo() as repo:
        tree = repo.stage.load_file("data.dvc")[0].outs[0].get_dir_cache()
        return {"/".join(key[1:]): hash_info.value for key, _, hash_info in tree if key[0] == name}


def test_a_checkout_leaves_other_scenarios_alone(two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]]) -> None:
    workspace, data_dvc, dvc_lock, _ = two_versions
    put(workspace, "cifar10", "three")
    add_data(workspace, "cifar10")
    workspace.splits("cifar10").mkdir(parents=True)
    (workspace.splits("cifar10") / "labels.json").write_text("[3]")
    commit_stage(workspace, "preprocess", "cifar10")
    put(workspace, "cifar10", "four", batch="00001-ddd")  # moved in, and not added yet
    put(workspace, "inspection", "five")  # never added
    before, others = everything(workspace), (entry(workspace, "cifar10"), data_version(workspace, "cifar10"))
    lock = (workspace.root / "dvc.lock").read_text()

    restore(workspace, "quickstart", data_dvc, dvc_lock)

    assert len(entry(workspace, "quickstart")) == 1
    after = everything(workspace)
    for path in ("data/cifar10", "data/inspection", "outputs/cifar10"):
        assert {n: c for n, c in after.items() if n.startswith(path)} == {n: c for n, c in before.items() if n.startswith(path)}
    assert (entry(workspace, "cifar10"), data_version(workspace, "cifar10")) == others
    assert stage_status(workspace, "preprocess", "quickstart").unchanged
    assert (workspace.root / "dvc.lock").read_text().partition("preprocess@cifar10")[2] in lock


def test_a_checkout_goes_back_to_what_was_there_also_where_no_version_named_it(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    workspace, data_dvc, dvc_lock, _ = two_versions
    put(workspace, "quickstart", "three", batch="00002-ccc")  # moved in before a kill
    before = restore(workspace, "quickstart", data_dvc, dvc_lock)
    assert before is not None and len(list(workspace.data("quickstart").iterdir())) == 1
    older = data_version(workspace, "quickstart")
    assert restore_data(workspace, "quickstart", before) == older
    assert (workspace.data("quickstart") / "00002-ccc/part-00000.parquet").read_text() == "three"
    assert data_version(workspace, "quickstart") == before and data_unchanged(workspace, "quickstart")
    with pytest.raises(EvergreenError, match="neither DVC's cache nor the remote has the list"):
        restore_data(workspace, "quickstart", "0" * 32)


@pytest.mark.parametrize(
    "moment", ["evergreen.data.versions._laid_out", "evergreen.data.versions.os.rename", "evergreen.data.versions._add"]
)
def test_a_checkout_that_fails_at_any_moment_leaves_all_as_it_was(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    workspace, data_dvc, dvc_lock, _ = two_versions
    before = everything(workspace)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(moment, fail)
    with pytest.raises(OSError, match="No space"):
        restore(workspace, "quickstart", data_dvc, dvc_lock)
    monkeypatch.undo()
    assert everything(workspace) == before


def test_after_a_checkout_that_was_killed_between_its_renames_the_data_are_there_again(
    two_versions: tuple[Workspace, bytes, bytes, dict[str, bytes]],
) -> None:
    workspace, _, _, _ = two_versions
    whole = {name: content for name, content in everything(workspace).items() if name.startswith("data/")}
    shutil.move(workspace.data("quickstart"), workspace.private / "outgoing")
    assert fetch_data(workspace, "quickstart") and data_unchanged(workspace, "quickstart")
    assert {name: content for name, content in everything(workspace).items() if name.startswith("data/")} == whole


def test_a_scenarios_version_is_of_its_own_items(workspace: Workspace, tmp_path: Path) -> None:
    part = put(workspace, "quickstart", "one")
    alone = add_data(workspace, "quickstart")
    put(workspace, "cifar10", "two")
    add_data(workspace, "cifar10")
    assert data_version(workspace, "quickstart") == alone != data_version(workspace, "cifar10")
    part.unlink()
    part.write_text("damaged")
    assert not data_unchanged(workspace, "quickstart") and data_unchanged(workspace, "cifar10")


def test_a_version_of_data_whose_list_of_files_is_lost_takes_what_is_here_and_warns(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")  # and not pushed
    other = clone(workspace, tmp_path / "other")
    put(other, "cifar10", "two")
    assert add_data(other, "cifar10") == data_version(other, "cifar10")
    assert "run your other scenarios" in caplog.text and "data.dvc is in git" in caplog.text


@pytest.mark.parametrize(
    ("file", "fix"),
    [("data.dvc", "git checkout --theirs data.dvc"), ("dvc.lock", "--theirs dvc.lock"), ("dvc.yaml", "both sides")],
)
def test_a_merge_conflict_is_said_in_a_line_with_the_way_out(workspace: Workspace, file: str, fix: str) -> None:
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    make_outputs(workspace, "[1]")
    path = workspace.root / file
    path.write_text(f"<<<<<<< HEAD\n{path.read_text()}=======\nouts:\n>>>>>>> theirs\n")
    for asked in (
        lambda: data_version(workspace, "quickstart"),
        lambda: data_unchanged(workspace, "quickstart"),
        lambda: add_data(workspace, "quickstart"),
        lambda: stage_status(workspace, "preprocess", "quickstart"),
        lambda: commit_stage(workspace, "preprocess", "quickstart"),
    ):
        with pytest.raises(EvergreenError, match=f"{file}, line 1: git has left a merge conflict.*{fix}"):
            asked()


def test_a_scenario_is_added_to_dvc_yaml_by_its_first_stage_and_dropped_where_its_file_is_gone(workspace: Workspace) -> None:
    for name in ("second", "third"):
        text = (workspace.scenarios / "quickstart.yaml").read_text().replace("name: quickstart", f"name: {name}")
        (workspace.scenarios / f"{name}.yaml").write_text(text)  # as a person copies it
        put(workspace, name, "one")
        workspace.splits(name).mkdir(parents=True)
        (workspace.splits(name) / "labels.json").write_text("[1]")
        assert not stage_status(workspace, "preprocess", name).unchanged
        commit_stage(workspace, "preprocess", name)
        assert stage_status(workspace, "preprocess", name).unchanged
        (workspace.scenarios / "second.yaml").unlink(missing_ok=True)
    # The second's file is gone, and the quickstart has never been run here: dvc repro would stop at either.
    reported = (workspace.root / "dvc.yaml").read_text()
    assert reported.startswith("# The stages after") and YAML(typ="safe").load(reported)["vars"] == [
        {"scenarios": {"third": ENTRY}}
    ], reported
    text = (workspace.scenarios / "third.yaml").read_text().replace("name: third", "name: fourth")
    (workspace.scenarios / "fourth.yaml").write_text(text)
    put(workspace, "fourth", "one")
    workspace.splits("fourth").mkdir(parents=True)
    (workspace.splits("fourth") / "labels.json").write_text("[1]")
    commit_stage(workspace, "preprocess", "fourth")
    assert YAML(typ="safe").load((workspace.root / "dvc.yaml").read_text())["vars"] == [
        {"scenarios": {"fourth": ENTRY, "third": ENTRY}}
    ]


def test_the_dvc_yaml_of_an_earlier_version_is_brought_up_to_date_with_all_its_scenarios(workspace: Workspace) -> None:
    put(workspace, "quickstart", "one")
    make_outputs(workspace, "[1]")
    for name in ("second", "broken"):
        text = (workspace.scenarios / "quickstart.yaml").read_text().replace("name: quickstart", f"name: {name}")
        (workspace.scenarios / f"{name}.yaml").write_text(text)
    (workspace.scenarios / "broken.yaml").write_text("name: broken\n")
    lock = YAML(typ="safe").load((workspace.root / "dvc.lock").read_text())
    lock["stages"] |= {f"preprocess@{name}": {"cmd": "x"} for name in ("second", "broken")}
    with open(workspace.root / "dvc.lock", "w") as file:
        YAML(typ="safe").dump(lock, file)
    (workspace.root / "dvc.yaml").write_text(
        "# Mine\nvars:\n  - names:\n      - broken\n      - never-run\n      - second\n      - quickstart\n  - size: 3\n\n"
        "stages:\n  preprocess:\n    matrix:\n      name: ${names}\n    cmd: python -m tasks.preprocess ${item.name}\n"
        "    deps:\n      - evergreen/gone.py\n  own:\n    cmd: echo ${size}\n"
    )
    assert not stage_status(workspace, "preprocess", "quickstart").unchanged
    commit_stage(workspace, "preprocess", "quickstart")
    pipeline = YAML(typ="safe").load((workspace.root / "dvc.yaml").read_text())
    shipped_stages = YAML(typ="safe").load(versions.PIPELINE.read_text())["stages"]
    assert pipeline["vars"] == [{"scenarios": {"quickstart": ENTRY, "second": ENTRY}}, {"size": 3}]
    assert pipeline["stages"] == shipped_stages | {"own": {"cmd": "echo ${size}"}}
    assert (workspace.root / "dvc.yaml").read_text().startswith("# Mine\n")
    assert stage_status(workspace, "preprocess", "quickstart").unchanged


def test_dvc_shows_the_plot_that_the_kind_says(workspace: Workspace) -> None:
    plot = {"file": "pairs.csv", "template": "scatter", "x": "a", "y": "b"}
    dependencies.write(workspace, "quickstart")
    workspace.splits("quickstart").mkdir(parents=True)
    put(workspace, "quickstart", "one")
    versions.commit_stage(workspace, "preprocess", "quickstart", lambda _: {"plot": plot})
    with Repo(str(workspace.root)) as repo:
        stages = {getattr(stage, "name", ""): stage for stage in repo.index.stages}
        [out] = [out for out in stages["evaluate@quickstart"].outs if out.plot]
    assert out.def_path == "outputs/quickstart/plots/pairs.csv"
    assert out.plot == {"template": "scatter", "x": "a", "y": "b"}


def test_the_committed_dvc_yaml_is_as_shipped() -> None:
    ours, shipped_one = (YAML(typ="safe").load(path.read_text()) for path in (ROOT / "dvc.yaml", versions.PIPELINE))
    assert ours["stages"] == shipped_one["stages"] and shipped_one["vars"] == [{"scenarios": {"quickstart": ENTRY}}]


def test_it_does_not_matter_from_which_folder_it_is_done(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.scenarios)
    put(workspace, "quickstart", "one")
    add_data(workspace, "quickstart")
    make_outputs(workspace, "[1]")
    assert data_unchanged(workspace, "quickstart") and stage_status(workspace, "preprocess", "quickstart").unchanged
    assert Path.cwd() == workspace.scenarios

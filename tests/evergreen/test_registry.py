"""The registry: real MLflow on SQLite, and a model that was really trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evergreen import registry
from evergreen.errors import EvergreenError, WrongUse
from evergreen.registry import Rollback, aliases, connect, crown, download, find_version, has_version, rollback, set_alias
from evergreen.scoring import load
from evergreen.workspace import Workspace
from tests.tiny import NAME, Tiny


def versions(registered: Tiny, more: int) -> Workspace:
    """The checkout, with so many more versions of the model's files. Aliases care only for numbers."""
    client = registered.client()
    first = client.get_model_version("evergreen-quickstart", "1")
    for _ in range(more):
        client.create_model_version("evergreen-quickstart", first.source, first.run_id)
    return registered.workspace


def test_without_a_model_there_are_no_aliases_and_it_is_said_how_to_train_one(tiny: Tiny) -> None:
    assert aliases(tiny.workspace, NAME) == {}
    assert not has_version(tiny.workspace, NAME, 1)
    for wanted in ("champion", "1"):
        with pytest.raises(WrongUse, match="there is none yet.*evergreen run quickstart"):
            find_version(tiny.workspace, NAME, wanted)


@pytest.mark.parametrize("wanted", ["2", "0", "champion", "no such thing", "-1", "1.0", "", "²"])
def test_a_wrong_version_is_a_wrong_use_that_lists_what_there_is(registered: Tiny, wanted: str) -> None:
    with pytest.raises(WrongUse) as refused:
        find_version(registered.workspace, NAME, wanted)
    assert "expected one of 1, or an alias: challenger" in str(refused.value) and "\n" not in str(refused.value)


def test_a_version_is_found_by_number_and_by_alias(registered: Tiny) -> None:
    assert find_version(registered.workspace, NAME, "1") == find_version(registered.workspace, NAME, "challenger") == 1


def test_whether_a_version_is_there_is_known_with_and_without_mlflow(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = versions(registered, more=1)
    for _ in ("as the store tells", "as MLflow tells"):
        assert [has_version(workspace, NAME, number) for number in (1, 2, 3)] == [True, True, False]
        assert not has_version(workspace, "cifar10", 1)
        uri = f"sqlite:////{workspace.mlruns / 'mlflow.db'}"  # another way to write it, which goes by MLflow
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    registered.client().delete_model_version("evergreen-quickstart", "2")
    assert not has_version(workspace, NAME, 2)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert not has_version(workspace, NAME, 2) and has_version(workspace, NAME, 1)


def test_a_new_champion_makes_the_old_one_previous(registered: Tiny) -> None:
    workspace = versions(registered, more=1)
    assert crown(workspace, NAME, 1) is None
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 1}
    assert crown(workspace, NAME, 2) == 1
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 2, "previous": 1}
    assert crown(workspace, NAME, 2) == 2
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 2, "previous": 1}


def test_a_rollback_puts_the_previous_champion_back_and_a_second_one_undoes_it(registered: Tiny) -> None:
    workspace = versions(registered, more=1)
    crown(workspace, NAME, 1)
    crown(workspace, NAME, 2)
    done = rollback(workspace, NAME)
    assert done == Rollback(NAME, champion=1, previous=2) and "version 1 is the champion again" in str(done)
    assert (aliases(workspace, NAME)["champion"], aliases(workspace, NAME)["previous"]) == (1, 2)
    assert rollback(workspace, NAME) == Rollback(NAME, champion=2, previous=1)
    assert (aliases(workspace, NAME)["champion"], aliases(workspace, NAME)["previous"]) == (2, 1)


def test_without_a_previous_champion_there_is_no_rollback(registered: Tiny) -> None:
    for _ in ("no champion", "the first champion", "a promotion killed between its two steps"):
        before = aliases(registered.workspace, NAME)
        with pytest.raises(WrongUse, match="no previous champion.*evergreen promote quickstart --version N --force"):
            rollback(registered.workspace, NAME)
        assert aliases(registered.workspace, NAME) == before
        crown(registered.workspace, NAME, 1)
        if "champion" in before:
            set_alias(registered.workspace, NAME, "previous", 1)


def test_a_promotion_killed_between_its_two_steps_leaves_the_champion_in_use_and_can_be_repeated(
    registered: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = versions(registered, more=1)
    crown(workspace, NAME, 1)
    step = registry.set_alias

    def killed(workspace: Workspace, name: str, alias: str, version: int) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        step(workspace, name, alias, version)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry, "set_alias", killed)
        crown(workspace, NAME, 2)
    assert aliases(workspace, NAME)["champion"] == 1
    crown(workspace, NAME, 2)
    assert (aliases(workspace, NAME)["champion"], aliases(workspace, NAME)["previous"]) == (2, 1)


def test_a_checkout_that_was_moved_keeps_its_models(registered: Tiny) -> None:
    before = load(registered.workspace, NAME, "1").predict(registered.images)
    moved = Tiny(registered.root.rename(registered.root.with_name("moved to another place")))
    assert aliases(moved.workspace, NAME) == {"challenger": 1}
    folder = download(moved.workspace, NAME, "challenger")
    assert folder.is_relative_to(moved.root) and (folder / "artifacts/model.onnx").is_file()
    assert load(moved.workspace, NAME, "1").predict(moved.images) == before
    run_id = moved.client().get_model_version("evergreen-quickstart", "1").run_id
    mlflow = connect(moved.workspace)
    assert "evergreen-quickstart" in mlflow.artifacts.load_text(f"runs:/{run_id}/model_card.md")
    second = moved.register_confused()
    assert second.model_version == 2 and not registered.root.exists()


def test_two_copies_of_a_checkout_do_not_touch_each_other(registered: Tiny, tmp_path: Path) -> None:
    copy = Tiny(shutil.copytree(registered.root, tmp_path / "copy", symlinks=True))
    crown(copy.workspace, NAME, 1)
    assert copy.register_confused().model_version == 2
    assert aliases(registered.workspace, NAME) == {"challenger": 1} and not has_version(registered.workspace, NAME, 2)
    assert download(registered.workspace, NAME, "1").is_relative_to(registered.root)


@pytest.mark.parametrize("root", ["evergreen:///artifacts", "mlflow-artifacts:/1"])
@pytest.mark.parametrize("way_out", ["../../scenarios", "%2e%2e/%2e%2e/scenarios"])
def test_no_address_leads_out_of_mlruns(registered: Tiny, root: str, way_out: str) -> None:
    mlflow = connect(registered.workspace)
    with pytest.raises(EvergreenError, match="leads out of mlruns"):
        mlflow.artifacts.download_artifacts(f"{root}/{way_out}")


def test_a_users_own_mlflow_is_used_where_it_is_named(
    registered: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    assert registry.tracking_uri(registered.workspace).endswith("theirs.db")
    assert aliases(registered.workspace, NAME) == {}

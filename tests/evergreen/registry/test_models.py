"""The registry: real MLflow on SQLite, and a model that was really trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evergreen.errors import EvergreenError, WrongUse
from evergreen.registry import models as registry
from evergreen.registry.models import (
    Held,
    Rollback,
    aliases,
    connect,
    download,
    find_version,
    last_refusal,
    look_up,
    refuse,
    rollback,
    set_alias,
    set_champion,
)
from evergreen.serving.scoring import load
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
    assert look_up(tiny.workspace, NAME, "no such model") == Held(None, None, 0, {})
    for requested in ("champion", "1"):
        with pytest.raises(WrongUse, match="there is none yet.*evergreen run quickstart"):
            find_version(tiny.workspace, NAME, requested)


def fingerprints(tiny: Tiny) -> dict[int, str]:
    found = tiny.client().search_model_versions(f"name='evergreen-{NAME}'")
    return {int(version.version): version.tags.get("fingerprint", "") for version in found}


def mark(tiny: Tiny, version: int = 1) -> str:
    return fingerprints(tiny)[version]


def test_a_model_in_no_use_is_said_to_be_in_none_and_how_to_use_it(registered: Tiny) -> None:
    with pytest.raises(WrongUse, match="no version champion.*evergreen promote quickstart --version 1 --force"):
        load(registered.workspace, NAME)


@pytest.mark.parametrize("requested", ["2", "0", "champion", "no such thing", "-1", "1.0", "", "²"])
def test_a_wrong_version_is_a_wrong_use_that_lists_what_there_is(registered: Tiny, requested: str) -> None:
    with pytest.raises(WrongUse) as refused:
        find_version(registered.workspace, NAME, requested)
    assert "expected one of 1, or an alias: challenger" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["nope", "../quickstart", "Quick start", ""])
def test_a_scenario_that_is_not_there_is_said_to_be_none(registered: Tiny, name: str) -> None:
    with pytest.raises(WrongUse, match="there is no such scenario; expected one of .*quickstart"):
        find_version(registered.workspace, name, "1")


def test_a_version_is_found_by_number_and_by_alias(registered: Tiny) -> None:
    assert find_version(registered.workspace, NAME, "1") == find_version(registered.workspace, NAME, "challenger") == 1


def by_client(tiny: Tiny, fingerprint: str) -> Held:
    """What MLflow's own client says, asked without a filter."""
    client = tiny.client()
    found = client.search_registered_models(f"name='evergreen-{NAME}'")
    versions = [one for one in client.search_model_versions() if one.name == f"evergreen-{NAME}"]
    return Held.of(
        [(int(v.version), v.run_id, v.creation_timestamp) for v in versions if v.tags.get("fingerprint") == fingerprint],
        {alias: int(number) for model in found for alias, number in model.aliases.items()},
    )


def test_the_query_of_the_local_store_says_what_mlflows_client_says(registered: Tiny) -> None:
    workspace, client, name, first = registered.workspace, registered.client(), f"evergreen-{NAME}", mark(registered)

    def asked(fingerprint: str) -> Held:
        held = look_up(workspace, NAME, fingerprint)
        assert held == by_client(registered, fingerprint)
        return held

    assert asked(first).version == 1 and asked("none").version is None
    second = mark(registered, registered.register_confused().model_version)
    client.create_registered_model("evergreen-other")
    client.create_model_version("evergreen-other", client.get_model_version(name, "1").source, tags={"fingerprint": first})
    client.set_registered_model_alias("evergreen-other", "champion", "1")
    set_champion(workspace, NAME, 2)
    assert (asked(first).version, asked(second).version) == (1, 2)
    assert asked(first).aliases == {"challenger": 2, "champion": 2}
    client.set_registered_model_alias(name, "champion", "1")  # a person, on MLflow's page
    assert asked(second).aliases["champion"] == 1
    client.delete_registered_model_alias(name, "champion")
    assert asked(second).aliases == {"challenger": 2}
    client.delete_model_version(name, "2")
    assert asked(second) == Held(None, None, 0, {}) and asked(first).version == 1
    before = asked(first).created_at_ms
    client.delete_registered_model(name)
    assert asked(first) == Held(None, None, 0, {})
    again = registered.register()
    assert again.model_version == 1 and asked(first).created_at_ms > before  # another version under the same number


def test_another_file_of_a_store_is_asked_as_its_own(registered: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = mark(registered)
    own = look_up(registered.workspace, NAME, fingerprint)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    assert look_up(registered.workspace, NAME, fingerprint) == Held(None, None, 0, {})
    shutil.copy(registered.workspace.mlruns / "mlflow.db", tmp_path / "theirs.db")
    assert look_up(registered.workspace, NAME, fingerprint) == own
    (tmp_path / "theirs.db").write_bytes(b"no database")
    with pytest.raises(EvergreenError, match="theirs.db"):
        look_up(registered.workspace, NAME, fingerprint)


def test_a_refusal_is_on_record_with_its_reason_and_the_last_one_counts(registered: Tiny) -> None:
    assert last_refusal(registered.workspace, NAME, 1) is None
    for reason in ("no better than chance", "worse for 3"):
        refuse(registered.workspace, NAME, 1, reason, None, "digest")
    found = last_refusal(registered.workspace, NAME, 1)
    assert found and (found.reason, found.champion, found.settings) == ("worse for 3", None, "digest")


def test_a_new_champion_makes_the_old_one_previous(registered: Tiny) -> None:
    workspace = versions(registered, more=1)
    assert set_champion(workspace, NAME, 1) is None
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 1}
    assert set_champion(workspace, NAME, 2) == 1
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 2, "previous": 1}
    assert set_champion(workspace, NAME, 2) == 2
    assert aliases(workspace, NAME) == {"challenger": 1, "champion": 2, "previous": 1}


def test_a_rollback_puts_the_previous_champion_back_and_a_second_one_undoes_it(registered: Tiny) -> None:
    workspace = versions(registered, more=1)
    set_champion(workspace, NAME, 1)
    set_champion(workspace, NAME, 2)
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
        set_champion(registered.workspace, NAME, 1)
        if "champion" in before:
            set_alias(registered.workspace, NAME, "previous", 1)


def test_a_promotion_killed_between_its_two_steps_leaves_the_champion_in_use_and_can_be_repeated(
    registered: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = versions(registered, more=1)
    set_champion(workspace, NAME, 1)
    step = registry.set_alias

    def killed(workspace: Workspace, name: str, alias: str, version: int) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        step(workspace, name, alias, version)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry, "set_alias", killed)
        set_champion(workspace, NAME, 2)
    assert aliases(workspace, NAME)["champion"] == 1
    set_champion(workspace, NAME, 2)
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
    set_champion(copy.workspace, NAME, 1)
    assert copy.register_confused().model_version == 2
    assert aliases(registered.workspace, NAME) == {"challenger": 1} and fingerprints(registered) == {1: mark(registered)}
    assert download(registered.workspace, NAME, "1").is_relative_to(registered.root)


@pytest.mark.parametrize(
    "theirs", [{}, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_REGISTRY_URI": "http://127.0.0.1:10"}]
)
def test_connecting_leaves_the_environment_as_it_was(
    registered: Tiny, theirs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    mlflow = connect(registered.workspace)
    assert dict(os.environ) == before
    assert mlflow.get_tracking_uri() == registry.tracking_uri(registered.workspace)
    assert mlflow.get_registry_uri() == registry.registry_uri(registered.workspace)
    if not theirs:
        experiment = mlflow.MlflowClient().get_experiment(mlflow.MlflowClient().create_experiment("another"))
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")
        load(registered.workspace, NAME, "1")
        assert dict(os.environ) == before


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

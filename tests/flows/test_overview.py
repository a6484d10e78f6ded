"""`evergreen list`, `status` and `delete`."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from evergreen.errors import WrongUse
from evergreen.registry.models import set_alias
from evergreen.serving.champion import champion
from evergreen.workspace import Workspace
from flows.overview import scenario_rows, status
from flows.removal import plan_removal, remove_scenario
from tests.tiny import NAME, Tiny


def test_list_shows_the_champion_with_its_accuracy_as_mlflow_has_it(registered: Tiny) -> None:
    by_name = {row.name: row for row in scenario_rows(registered.workspace)}
    assert by_name[NAME].champion is None and by_name[NAME].items == 500
    set_alias(registered.workspace, NAME, "champion", 1)
    row = {row.name: row for row in scenario_rows(registered.workspace)}[NAME]
    client = registered.client()
    measured = client.get_run(client.get_model_version(f"evergreen-{NAME}", "1").run_id).data.metrics
    assert row.champion == 1
    assert (row.measured["accuracy"], row.measured["accuracy_low"]) == (
        measured["test_accuracy"],
        measured["test_accuracy_low"],
    )
    assert row.measured["accuracy"] == registered.evaluation.metrics["accuracy"]
    assert list(row.to_dict()) == [
        "name", "items", "champion", "accuracy", "accuracy_low", "accuracy_high", "last_run", "schedule", "problem",
    ]  # fmt: skip
    assert row.last_run is not None and row.schedule is not None


def test_a_scenario_that_can_not_be_read_hides_no_other(workspace: Workspace) -> None:
    (workspace.scenarios / "broken.yaml").write_text("name: broken\nkind: classify\ncolect: {}\n")
    rows = {row.name: row for row in scenario_rows(workspace)}
    assert set(rows) == {
        "agriculture",
        "broken",
        "cifar10",
        "inspection",
        "medical",
        "quickstart",
        "retail",
        "security",
        "traffic",
    }
    assert "colect" in (rows["broken"].problem or "")
    assert rows["cifar10"].problem is None and rows["cifar10"].items == 0
    assert rows["cifar10"].to_dict()["accuracy"] is None


def test_list_needs_none_of_the_heavy_libraries(registered: Tiny) -> None:
    set_alias(registered.workspace, NAME, "champion", 1)
    script = f"""
        import sys
        from pathlib import Path
        from evergreen.workspace import Workspace
        from flows.overview import scenario_rows
        from flows.tables import show_scenarios
        show_scenarios(scenario_rows(Workspace(Path({str(registered.root)!r}))), sys.stdout)
        heavy = {{"tensorflow", "keras", "mlflow", "prefect", "great_expectations", "dvc", "scipy", "pandas"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "%" in done.stdout


def test_status_says_what_would_run_next_and_why(tiny: Tiny) -> None:
    (tiny.root / "inbox" / NAME / "7").mkdir(parents=True)
    (tiny.root / "inbox" / NAME / "7" / "new.png").write_bytes(b"...")
    seen = {one.name: one for one in status(tiny.workspace, []).scenarios}
    assert seen["cifar10"].next_stage == "collect" and "never" in seen["cifar10"].why
    assert seen[NAME].inbox == "1 image"
    with pytest.raises(WrongUse, match="Did you mean quickstart"):
        status(tiny.workspace, ["quikstart"])


def test_status_names_what_is_running(workspace: Workspace) -> None:
    with workspace.lock("run-quickstart"):
        script = f"""
            from pathlib import Path
            from evergreen.workspace import Workspace
            from flows.overview import status
            print(status(Workspace(Path({str(workspace.root)!r})), ["quickstart"]).running)
            print(status(Workspace(Path({str(workspace.root)!r})), ["cifar10"]).running)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert "run of quickstart since" in done.stdout.splitlines()[0], done.stderr
    assert done.stdout.splitlines()[1] == "()"
    assert status(workspace, ["quickstart"]).running == ()


def test_a_deleted_scenario_leaves_every_other_one_as_it_was(registered: Tiny) -> None:
    workspace = registered.workspace
    others = {path: path.read_bytes() for path in workspace.scenarios.glob("*.yaml") if path.stem != NAME}
    data = {path: path.read_bytes() for path in workspace.data(NAME).rglob("*") if path.is_file()}
    assert data
    plan = plan_removal(workspace, NAME)
    assert f"outputs/{NAME}" in plan.removes and any("registered model" in sentence for sentence in plan.keeps)
    assert workspace.outputs(NAME).is_dir()  # a plan does nothing

    assert remove_scenario(workspace, NAME) == plan
    assert not (workspace.scenarios / f"{NAME}.yaml").exists() and not workspace.outputs(NAME).exists()
    for name in ("dvc.yaml", "dvc.lock", "prefect.yaml"):
        assert NAME not in (registered.root / name).read_text().replace("evaluate@quickstart`", "")
    assert "cifar10" in (registered.root / "prefect.yaml").read_text()
    assert {path: path.read_bytes() for path in others} == others
    assert {path: path.read_bytes() for path in data} == data
    set_alias(workspace, NAME, "champion", 1)  # the model is still registered
    assert champion(workspace, NAME) is not None
    with pytest.raises(WrongUse, match="no such scenario"):
        remove_scenario(workspace, NAME)


def test_a_scenario_that_is_running_is_not_deleted(workspace: Workspace) -> None:
    script = f"""
        from pathlib import Path
        from evergreen.errors import WrongUse
        from evergreen.workspace import Workspace
        from flows.removal import remove_scenario
        try:
            remove_scenario(Workspace(Path({str(workspace.root)!r})), "quickstart")
        except WrongUse as error:
            print(error)
    """
    with workspace.lock("run-quickstart"):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert "can't be deleted while it runs" in done.stdout, done.stderr
    assert (workspace.scenarios / "quickstart.yaml").exists()

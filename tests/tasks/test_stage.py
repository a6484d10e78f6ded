"""The mechanism that all stages share, on small stages that count how often they run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evergreen.energy.meter import Energy
from evergreen.errors import DataRefused
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.page import Page
from tasks.stage import Rehearsal, Run, Stage, WouldRun


@dataclass(frozen=True)
class Counted:
    """How often the work was done, and on what."""

    times: int
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"done {self.times} times."


def tally(workspace: Workspace, name: str) -> int:
    """Add one line to the file `name`; the number of lines."""
    with open(workspace.root / name, "a") as file:
        file.write(".")
    return len((workspace.root / name).read_text())


def count(scenario: Scenario, workspace: Workspace, *earlier: Any) -> Counted:
    """Count one more time.

    More is not to be said.
    """
    times = tally(workspace, "count")
    if (workspace.root / "fail").exists():
        raise DataRefused("it was not meant to be", fix="Remove the file fail.")
    return Counted(times, ("a", *map(str, earlier)))


def fetch(scenario: Scenario, workspace: Workspace) -> Counted:
    """Get something from a world that fails at first."""
    times = tally(workspace, "fetch")
    if (workspace.root / "refuse").exists():
        raise DataRefused("it is not fit")
    if times < 2:
        raise ConnectionError("no answer")
    return Counted(times)


def same_words(scenario: Scenario, workspace: Workspace, *earlier_and_last: Any) -> bool:
    *earlier, last = earlier_and_last
    return bool(last.words == ("a", *map(str, earlier)))


def shown(scenario: Scenario, workspace: Workspace, result: Counted) -> Page:
    return Page(
        tables={"How often": [{"times": result.times}]},
        links={"The file": workspace.outputs("count")},
        texts={"Why": "because it was **asked**"},
    )


STAGE = Stage(count, Counted, unchanged=same_words, page=shown)
OUTSIDE = Stage(fetch, Counted, retries=1)


@pytest.fixture
def quickstart(workspace: Workspace) -> Scenario:
    return load_scenario(workspace.scenarios, "quickstart")


def memory(workspace: Workspace) -> Path:
    return workspace.record("quickstart") / "stage-count.json"


def test_a_stage_has_the_name_of_its_function() -> None:
    assert (STAGE.name, OUTSIDE.name) == ("count", "fetch")


def test_a_stage_that_nobody_ran_has_nothing_to_recall(workspace: Workspace, quickstart: Scenario) -> None:
    assert STAGE.recall(quickstart, workspace) is None
    assert STAGE.cost(quickstart, workspace) is None


def test_the_first_time_it_runs_and_the_second_time_it_is_unchanged(workspace: Workspace, quickstart: Scenario) -> None:
    first, second = (STAGE.perform(quickstart, workspace, "x") for _ in range(2))
    assert (first.stage, first.state, first.result) == ("count", "ran", Counted(1, ("a", "x")))
    assert (second.stage, second.state, second.result) == ("count", "unchanged", Counted(1, ("a", "x")))
    assert (workspace.root / "count").read_text() == "."


def test_it_runs_again_when_its_own_judgement_says_so(workspace: Workspace, quickstart: Scenario) -> None:
    STAGE.perform(quickstart, workspace, "x")
    assert STAGE.perform(quickstart, workspace, "y").result == Counted(2, ("a", "y"))


def test_a_stage_without_a_judgement_runs_every_time(workspace: Workspace, quickstart: Scenario) -> None:
    always = Stage(count, Counted)
    assert [always.perform(quickstart, workspace).state for _ in range(2)] == ["ran", "ran"]


def test_what_dvc_calls_for_runs_though_it_seems_unchanged(workspace: Workspace, quickstart: Scenario) -> None:
    STAGE.perform(quickstart, workspace)
    assert STAGE.perform(quickstart, workspace, by_dvc=True).result.times == 2


def test_a_forced_stage_runs_though_it_is_unchanged(workspace: Workspace, quickstart: Scenario) -> None:
    STAGE.perform(quickstart, workspace, "x")
    assert STAGE.perform(quickstart, workspace, "x", force=True).result.times == 2
    with pytest.raises(WouldRun):
        Rehearsal(quickstart, workspace, force=True)(STAGE, "x")


def test_settings_for_one_run_are_its_own(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))
    own = load_scenario(workspace.scenarios, "quickstart")
    with Run.of("quickstart", train={"epochs": 3}, retraining={"start_from": None}) as run:
        assert run.scenario.train == own.train.model_copy(update={"epochs": 3}) and run.scenario.retraining == own.retraining
        assert run.requested == {"train.epochs": 3} and not run.force
    assert load_scenario(workspace.scenarios, "quickstart") == own


def test_two_scenarios_have_memories_of_their_own(workspace: Workspace, quickstart: Scenario) -> None:
    STAGE.perform(quickstart, workspace)
    assert STAGE.perform(load_scenario(workspace.scenarios, "cifar10"), workspace).state == "ran"


def test_its_cost_is_that_of_the_last_real_run(workspace: Workspace, quickstart: Scenario) -> None:
    ran = STAGE.perform(quickstart, workspace)
    assert isinstance(ran.energy, Energy)
    assert STAGE.cost(quickstart, workspace) == ran.energy
    STAGE.perform(quickstart, workspace)
    assert STAGE.cost(quickstart, workspace) == ran.energy
    assert json.loads(memory(workspace).read_text())["seconds"] == ran.seconds > 0


def test_a_stage_that_fails_leaves_no_memory(workspace: Workspace, quickstart: Scenario) -> None:
    STAGE.perform(quickstart, workspace, "x")
    (workspace.root / "fail").touch()
    with pytest.raises(DataRefused, match="not meant to be"):
        STAGE.perform(quickstart, workspace, "y")
    assert not memory(workspace).exists()
    (workspace.root / "fail").unlink()
    assert STAGE.perform(quickstart, workspace, "x").state == "ran"  # though the last memory but one fitted


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"result": {}}', '{"result": {"times": "many"}}', '{"result": 3}'])
def test_a_memory_that_cannot_be_understood_is_none(workspace: Workspace, quickstart: Scenario, content: str) -> None:
    STAGE.perform(quickstart, workspace)
    memory(workspace).write_text(content)
    assert STAGE.recall(quickstart, workspace) is None
    assert STAGE.cost(quickstart, workspace) is None
    assert STAGE.perform(quickstart, workspace).state == "ran"


@pytest.mark.parametrize("moment", ["while the work is done", "before it is remembered"])
def test_a_stage_killed_at_any_moment_runs_again(workspace: Workspace, quickstart: Scenario, moment: str) -> None:
    STAGE.perform(quickstart, workspace, "x")
    code = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from evergreen.scenario.loading import load_scenario
        from evergreen.workspace import Workspace
        from tasks.stage import Stage
        from tests.tasks.test_stage import Counted, count, same_words

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        workspace = Workspace(Path(sys.argv[1]))
        if {moment!r} == "while the work is done":
            sys.addaudithook(lambda event, given: die() if event == "open" and str(given[0]).endswith("/count") else None)
        else:
            sys.addaudithook(lambda event, given: die() if event == "os.rename" else None)
        stage = Stage(count, Counted, unchanged=same_words)
        stage.perform(load_scenario(workspace.scenarios, "quickstart"), workspace, "y")
    """
    killed = subprocess.run([sys.executable, "-c", code, str(workspace.root)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert not memory(workspace).exists()
    assert STAGE.perform(quickstart, workspace, "y").state == "ran"


def test_a_rehearsal_runs_nothing_and_ends_at_the_first_stage_that_would(workspace: Workspace, quickstart: Scenario) -> None:
    with pytest.raises(WouldRun, match="count"):
        Rehearsal(quickstart, workspace)(STAGE, "x")
    assert not (workspace.root / "count").exists()
    STAGE.perform(quickstart, workspace, "x")
    rehearsal = Rehearsal(quickstart, workspace)
    assert rehearsal(STAGE, "x") == Counted(1, ("a", "x"))
    assert [(outcome.stage, outcome.state) for outcome in rehearsal.outcomes] == [("count", "unchanged")]
    with pytest.raises(WouldRun):
        rehearsal(STAGE, "y")
    assert (workspace.root / "count").read_text() == "."


def test_a_rehearsal_of_a_scenario_holds_its_lock(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))
    with Rehearsal.of("quickstart") as rehearsal:
        assert isinstance(rehearsal, Rehearsal) and rehearsal.scenario.name == "quickstart"
        assert (workspace.private / "locks" / "run-quickstart.holder.json").exists()
    assert not (workspace.private / "locks" / "run-quickstart.holder.json").exists()


@pytest.fixture(scope="module")
def prefect_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Prefect of the tests' own, with its database in a temporary folder; gives where it keeps results."""
    storage = tmp_path_factory.mktemp("storage")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DO_NOT_TRACK", "1")
        environment.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, PREFECT_RESULTS_DEFAULT_SERIALIZER, temporary_settings
        from prefect.testing.utilities import prefect_test_harness

        as_configured = {PREFECT_RESULTS_DEFAULT_SERIALIZER: "json", PREFECT_LOCAL_STORAGE_PATH: storage}
        with prefect_test_harness(server_startup_timeout=120), temporary_settings(as_configured):
            yield storage


def in_a_flow(quickstart: Scenario, workspace: Workspace, *calls: tuple[Any, ...]) -> tuple[Any, list[Any], list[Any]]:
    """Call stages in a flow, as the training flow does: the flow's state, its task runs and its artifacts, in order."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId

    @flow(persist_result=False)
    def small() -> list[Any]:
        run = Run(quickstart, workspace)
        return [run(stage, *earlier) for stage, *earlier in calls]

    state = small(return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    until = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:  # the server learns of the states of task runs from events, which may come later than the flow's end
            task_runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
            if len(task_runs) == len(calls) and all(run.state and run.state.is_final() for run in task_runs):
                break
            assert time.monotonic() < until, task_runs
            time.sleep(0.1)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    return state, sorted(task_runs, key=lambda run: run.start_time), artifacts


@pytest.mark.servers
@pytest.mark.usefixtures("prefect_storage")
def test_prefect_shows_a_stage_as_completed_and_then_as_unchanged(workspace: Workspace, quickstart: Scenario) -> None:
    state, task_runs, artifacts = in_a_flow(quickstart, workspace, (STAGE, "x"), (STAGE, "x"))
    assert state.result() == [Counted(1, ("a", "x"))] * 2
    assert [(run.name, run.state.type.value, run.state.name) for run in task_runs] == [
        ("count", "COMPLETED", "Completed"),
        ("count", "COMPLETED", "Unchanged"),
    ]
    assert [run.state.message for run in task_runs] == ["done 1 times."] * 2
    assert {(artifact.type, artifact.key, artifact.description) for artifact in artifacts} == {
        ("markdown", "quickstart-count", "done 1 times.")
    }
    assert artifacts[0].data == (
        "### Why\n\nbecause it was **asked**\n\n### How often\n\n| times |\n| --- |\n| 1 |\n\n### Where to look\n\n"
        "- The file: `outputs/count`"
    )


@pytest.mark.servers
@pytest.mark.usefixtures("prefect_storage")
def test_what_the_outside_world_failed_at_is_tried_again(workspace: Workspace, quickstart: Scenario) -> None:
    state, task_runs, _ = in_a_flow(quickstart, workspace, (OUTSIDE,))
    assert state.result() == [Counted(2)]
    assert [(run.state.name, run.run_count) for run in task_runs] == [("Completed", 2)]


@pytest.mark.servers
def test_refused_data_is_not_tried_again(workspace: Workspace, quickstart: Scenario, prefect_storage: Path) -> None:
    (workspace.root / "refuse").touch()
    state, task_runs, _ = in_a_flow(quickstart, workspace, (OUTSIDE,))
    assert isinstance(state.result(raise_on_failure=False), DataRefused)
    assert [(run.state.type.value, run.run_count) for run in task_runs] == [("FAILED", 1)]
    assert (workspace.root / "fetch").read_text() == "."
    for kept in prefect_storage.iterdir():  # Prefect keeps the exception: as text, never as a pickle
        assert "it is not fit" in str(json.loads(kept.read_text()))

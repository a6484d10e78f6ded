"""What all stages have in common.

A stage is a plain function `(scenario, workspace, …) -> result`. `Stage` wraps it in a Prefect task and adds what is the same
for every stage: the check whether it has to run at all, retries, a time limit, the measurement of its cost, a log line, and the
page that Prefect shows (`tasks.page`). `Run` is one pass of a flow over its stages.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from evergreen import progress
from evergreen.energy.ledger import Cost, Entry, device, note
from evergreen.energy.meter import Energy, Meter
from evergreen.errors import WrongUse
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.stopping import STOPPED, check, stop_allowed, stop_postponed, stop_requested, supervise
from evergreen.workspace import Workspace, replace_file, room_for
from tasks import dependencies
from tasks.page import Page, publish

log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Outcome:
    """What one stage did in one run."""

    stage: str
    state: Literal["ran", "unchanged"]
    seconds: float
    energy: Energy
    result: Any


@dataclass(frozen=True)
class Stage:
    """A stage as a flow calls it.

    Args:
        function: does the work: `(scenario, workspace, *earlier results) -> result`. The result is a frozen dataclass whose
            `str` is one readable sentence.
        result_type: that dataclass.
        in_dvc: DVC decides whether the stage is unchanged, and its outputs are committed to DVC.
        unchanged: called with the same arguments and the last result; True if a rerun would give that result. Without it, a
            stage in DVC is unchanged if DVC says so, and any other stage always runs.
        recalled: replaces `unchanged` if part of the result is in a store that others modify too. Called with the same
            arguments and the last result; returns the result that a rerun would give, according to the store's current state,
            or None if the stage must run.
        page: what to show of the result on Prefect's page.
        work: the amount of work and its kind (see `evergreen.energy.ledger.Entry`), from which the next run's cost is
            estimated.
        retries: how often Prefect retries; only for stages that talk to the outside world.
        timeout_seconds: after this time Prefect ends the stage.
    """

    function: Callable[..., Any]
    result_type: type
    in_dvc: bool = False
    unchanged: Callable[..., bool] | None = None
    recalled: Callable[..., Any] | None = None
    page: Callable[[Scenario, Workspace, Any], Page] = lambda *_: Page()
    work: Callable[[Scenario, Any], tuple[float, str]] = lambda *_: (1.0, "")
    retries: int = 0
    timeout_seconds: float = 24 * 3600

    @property
    def name(self) -> str:
        """The stage's name, which is that of its function."""
        return self.function.__name__

    def __call__(self, scenario: Scenario, workspace: Workspace, *earlier: Any, force: bool = False) -> Outcome:
        """Run the stage as a Prefect task (within a flow), unless it is unchanged.

        Args:
            force: run it even so.
        """
        from prefect import Task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Completed

        def work() -> Any:
            try:
                with stop_allowed():
                    outcome = self.perform(scenario, workspace, *earlier, force=force)
            except BaseException:
                if not stop_requested():
                    raise
                return cancelled()
            result = outcome.result
            publish(workspace, scenario.name, self.name, str(result), lambda: self.page(scenario, workspace, result))
            name = "Unchanged" if outcome.state == "unchanged" else None
            return Completed(name=name, message=str(outcome.result), data=outcome)

        from evergreen.errors import EvergreenError, Unreachable

        def may_go_better(_task: Any, _run: Any, state: Any) -> bool:
            """The project's own errors are final; only `Unreachable` and unexpected exceptions are worth a retry."""
            failure = state.result(raise_on_failure=False)
            return isinstance(failure, Unreachable) or not isinstance(failure, EvergreenError)

        prefect_task = Task(
            work,
            name=self.name,
            description=(self.function.__doc__ or "").partition("\n")[0],
            task_run_name=self.name,
            retries=self.retries,
            retry_delay_seconds=[1.0, 5.0, 20.0][: self.retries] or None,
            retry_condition_fn=may_go_better,
            timeout_seconds=self.timeout_seconds,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        # The function returns a state, so the call asks for the state rather than for a result.
        with stop_postponed():
            state = prefect_task(return_state=True)
        check()
        outcome: Outcome = state.result()
        return outcome

    def perform(
        self, scenario: Scenario, workspace: Workspace, *earlier: Any, by_dvc: bool = False, force: bool = False
    ) -> Outcome:
        """Run the stage without Prefect: skip it if unchanged, measure its cost, commit it to `dvc.lock`, and store its result.

        Args:
            by_dvc: called by DVC, which has already decided that the stage must run and will commit it.
            force: run it even if it is unchanged.
        """
        with room_for(f"for {self.name}"):
            return self._perform(scenario, workspace, *earlier, by_dvc=by_dvc, force=force)

    def _perform(self, scenario: Scenario, workspace: Workspace, *earlier: Any, by_dvc: bool, force: bool) -> Outcome:
        meter, started = Meter(), time.monotonic()
        state: Literal["ran", "unchanged"] = "unchanged"
        result, outputs = None, ""
        try:
            with meter, progress.task(self.name):
                result = None if by_dvc or force else self.recall(scenario, workspace, *earlier)
                if result is None:
                    state = "ran"
                    self._memory(scenario, workspace).unlink(missing_ok=True)
                    if self.in_dvc and not by_dvc:
                        dependencies.write(workspace, scenario.name)
                    result = self.function(scenario, workspace, *earlier)
                    if self.in_dvc and not by_dvc:
                        from evergreen.data.versions import commit_stage

                        entry = functools.partial(dependencies.entry, workspace)
                        outputs = commit_stage(workspace, self.name, scenario.name, entry)
        finally:
            outcome = Outcome(self.name, state, time.monotonic() - started, meter.spent(), result)
            if state == "ran":
                self._account(scenario, workspace, outcome)
        if state == "ran":
            self._remember(scenario, workspace, outcome, outputs)
        log.info("%-10s %s %s", self.name, result, "" if state == "ran" else "(unchanged)")
        return outcome

    def recall(self, scenario: Scenario, workspace: Workspace, *earlier: Any) -> Any:
        """The result that a rerun would give, if it is known without running the stage; else None."""
        from pydantic import TypeAdapter, ValidationError

        try:
            memory = json.loads(self._memory(scenario, workspace).read_text())
            result: Any = TypeAdapter(self.result_type).validate_python(memory["result"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None
        if self.in_dvc:
            from evergreen.data.versions import stage_status

            dependencies.write(workspace, scenario.name)
            status = stage_status(workspace, self.name, scenario.name)
            # The stored result must belong to the current outputs, as DVC may have checked out others. If DVC ran the stage,
            # the outputs were not recorded.
            if not status.unchanged or memory.get("outputs") not in ("", status.outputs):
                return None
        if self.recalled:
            return self.recalled(scenario, workspace, *earlier, result)
        unchanged = self.unchanged or (lambda *_: self.in_dvc)
        return result if unchanged(scenario, workspace, *earlier, result) else None

    def cost(self, scenario: Scenario, workspace: Workspace) -> Energy | None:
        """The energy used by the stage's last actual run, which made the current outputs; None if it is unknown."""
        try:
            return Energy(**json.loads(self._memory(scenario, workspace).read_text())["energy"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _memory(self, scenario: Scenario, workspace: Workspace) -> Path:
        return workspace.record(scenario.name) / f"stage-{self.name}.json"

    def _remember(self, scenario: Scenario, workspace: Workspace, outcome: Outcome, outputs: str) -> None:
        memory = {
            "result": asdict(outcome.result),
            "outputs": outputs,
            "seconds": outcome.seconds,
            "energy": asdict(outcome.energy),
        }
        replace_file(self._memory(scenario, workspace), json.dumps(memory, indent=1, default=str).encode())

    def _account(self, scenario: Scenario, workspace: Workspace, outcome: Outcome) -> None:
        """Add an entry to the ledger, even if the stage failed: the energy has been spent anyway."""
        energy, done = outcome.energy, outcome.result
        work, kind = (None, "") if done is None else self.work(scenario, done)
        try:
            cost = Cost.of(scenario, outcome.seconds, energy.energy_wh, energy.uncertainty_wh)
            note(workspace, scenario.name, Entry(self.name, _now(), device(), work, kind, cost))
        except (OSError, WrongUse) as error:  # a failure to write the ledger must not undo finished work
            log.warning("What %s took could not be written into the ledger (%s).", self.name, error)


@dataclass
class Run:
    """One pass of a flow over its stages: `run(stage, …)` performs one and returns its result.

    Attributes:
        scenario: the scenario, with the settings requested for this run instead of the file's.
        requested: those settings by name (`train.epochs`); they are never written to the scenario's file.
        force: run every stage, even if it is unchanged.
    """

    scenario: Scenario
    workspace: Workspace
    outcomes: list[Outcome] = field(default_factory=list)
    requested: dict[str, Any] = field(default_factory=dict)
    force: bool = False

    @classmethod
    @contextlib.contextmanager
    def of(cls, name: str, *, force: bool = False, **sections: Mapping[str, Any]) -> Iterator[Self]:
        """Load the scenario and hold its lock, so that a second run of the same scenario waits.

        Args:
            sections: settings for this run only, by section and name; None keeps the file's value.
        """
        workspace = Workspace.find()
        scenario = load_scenario(workspace.scenarios, name)
        requested: dict[str, Any] = {}
        for section, settings in sections.items():
            given = {key: value for key, value in settings.items() if value is not None}
            scenario = scenario.model_copy(update={section: getattr(scenario, section).model_copy(update=given)})
            requested |= {f"{section}.{key}": value for key, value in given.items()}
        with workspace.lock(f"run-{name}"):
            yield cls(scenario, workspace, requested=requested, force=force)

    def __call__(self, stage: Stage, *earlier: Any) -> Any:
        """Run a stage, unless it is unchanged, and return its result."""
        outcome = stage(self.scenario, self.workspace, *earlier, force=self.force)
        self.outcomes.append(outcome)
        return outcome.result

    def cost(self) -> Cost:
        """The cost of this pass so far."""
        energy = sum((outcome.energy for outcome in self.outcomes), start=Energy.nothing())
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        return Cost.of(self.scenario, seconds, energy.energy_wh, energy.uncertainty_wh)


def cancelled() -> Any:
    """The Prefect state of a run or stage that was stopped by a person or the system."""
    from prefect.states import Cancelled

    return Cancelled(message=STOPPED)


class WouldRun(Exception):
    """A rehearsal reached a stage that has to run."""


class Rehearsal(Run):
    """A pass over the stages that runs none of them: it raises `WouldRun` at the first stage that has to run."""

    def __call__(self, stage: Stage, *earlier: Any) -> Any:
        """Return the result of an unchanged stage.

        Raises:
            WouldRun: the stage has to run.
        """
        started = time.monotonic()
        with Meter() as meter:
            result = None if self.force else stage.recall(self.scenario, self.workspace, *earlier)
        if result is None:
            raise WouldRun(stage.name)
        self.outcomes.append(Outcome(stage.name, "unchanged", time.monotonic() - started, meter.spent(), result))
        return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(stage: Stage) -> None:
    """The body of `python -m tasks.STAGE NAME`, the command in `dvc.yaml`. It does the same work as in the flow; DVC has
    already decided that the stage must run, and commits it afterwards.

    An error is printed as one line on standard error and determines the exit status.
    """
    import sys

    from evergreen.environment import configure, in_utf8
    from evergreen.errors import EvergreenError

    def work() -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        try:
            workspace = Workspace.find()
            configure(workspace)
            scenario = load_scenario(workspace.scenarios, sys.argv[1])
            stage.perform(scenario, workspace, by_dvc=True)
        except EvergreenError as error:
            print(f"{stage.name}: {error}", file=sys.stderr)
            return error.exit_status
        return 0

    def stopped(status: int) -> int:
        print(f"{stage.name}: {STOPPED}", file=sys.stderr)
        return status

    if len(sys.argv) != 2:
        print(f"usage: python -m tasks.{stage.name} SCENARIO", file=sys.stderr)
        raise SystemExit(2)
    in_utf8()
    raise SystemExit(supervise(work, stopped))

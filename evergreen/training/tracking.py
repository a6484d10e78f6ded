"""The MLflow run of a training. If MLflow becomes unreachable, one warning is logged and the training goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evergreen.kinds.base.kind import kind_of
from evergreen.registry.records import charted
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("evergreen")


class Tracker:
    """Logs a training to MLflow. As a context manager it ends the run: as failed or killed if an exception leaves the block.

    Args:
        experiment: of the run.
        description: of the training, for the run's name: "from scratch".
    """

    def __init__(self, scenario: Scenario, workspace: Workspace, *, experiment: str, description: str) -> None:
        self.scenario, self.workspace, self.experiment = scenario, workspace, experiment
        self.kind = kind_of(scenario)
        self.run_name = f"{scenario.name}, {description}, {datetime.now():%Y-%m-%d %H:%M}"
        self.reachable = True
        self.mlflow: Any = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        if self.mlflow is not None:
            with contextlib.suppress(Exception):
                self.mlflow.end_run(status)

    def start_run(self, run_id: str | None, parameters: dict[str, Any]) -> str | None:
        """Open a run.

        Args:
            run_id: of an earlier attempt's run, which is reopened; a new run is created if it is None or no longer exists.
            parameters: of the run.

        Returns:
            The run's id; `run_id` if MLflow can't be reached.
        """

        def start() -> None:
            from evergreen.environment import threads
            from evergreen.registry.models import connect

            self.mlflow = connect(self.workspace)
            self.mlflow.set_experiment(self.experiment)
            try:
                self.run = self.mlflow.start_run(run_id=run_id, run_name=self.run_name, log_system_metrics=True)
            except self.mlflow.MlflowException:
                if run_id is None:
                    raise
                self.run = self.mlflow.start_run(run_name=self.run_name, log_system_metrics=True)
            self.mlflow.log_params(parameters)
            self.mlflow.set_tags({"scenario": self.scenario.name, **threads()})

        self._try(start)
        return self.run.info.run_id if self.reachable else run_id

    def log_metrics(self, metrics: dict[str, float], epoch: int) -> None:
        self._try(lambda: self.mlflow.log_metrics(charted(metrics, self.kind), step=epoch))

    def log_figure(self, figure: Figure, name: str) -> None:
        self._try(lambda: self.mlflow.log_figure(figure, name))

    def _try(self, work: Callable[[], None]) -> None:
        if not self.reachable:
            return
        try:
            work()
        except Exception as error:
            self.reachable = False
            log.warning("MLflow can't be reached (%s): the training goes on, without its figures there.", error)


class Untracked(Tracker):
    """Logs nothing: for trainings that only help to compare, such as those on a fold."""

    def _try(self, work: Callable[[], None]) -> None:
        self.reachable = False

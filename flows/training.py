"""The training flow: from labelled items to a model that is promoted if it beats the champion. `flows/stages.py` lists its
stages."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from evergreen.scenario.settings import Name
from flows.links import run_links
from flows.publishing import failure_shown, publish_training
from flows.retention import remove_expired
from flows.schedules import activate_schedule
from flows.stages import planned, stages_in_order
from flows.stoppable import stoppable
from flows.summary import TrainingSummary
from flows.visible import progress_shown
from tasks.stage import Run

log = logging.getLogger("evergreen")


@flow(name="training", flow_run_name="training-{scenario}", persist_result=False)
@stoppable
def training(
    scenario: Name, force: bool = False, epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
) -> TrainingSummary:
    """Collect, check and version a scenario's images, train and evaluate a model on them, and promote it if it is better.

    Args:
        scenario: which scenario: the name of a file in scenarios/, without its ending.
        force: run every stage, even if nothing has changed since the last run.
        epochs: train for so many epochs, in this run alone; None for as many as the scenario says.
    """
    with failure_shown(scenario):
        with progress_shown(scenario), Run.of(scenario, force=force, train={"epochs": epochs}) as run:
            remove_expired(run.scenario, run.workspace)
            expected = planned(run, "any")
            summary = replace(stages_in_order(run), estimate=expected)
        publish_training(run.workspace, summary)
    activate_schedule(run.workspace, scenario)
    return replace(summary, links=run_links(scenario, summary.run_id))


def show_unchanged(summary: TrainingSummary) -> None:
    """Show a run in which nothing changed on Prefect's page, as already completed: there is nothing to orchestrate."""
    from prefect import Task, get_client
    from prefect.client.schemas.objects import State
    from prefect.states import Completed

    scenario = summary.scenario
    state: State[Any] = Completed(name="Unchanged", message="Nothing has changed since the last run.")
    try:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(training, parameters={"scenario": scenario}, name=f"training-{scenario}", state=state)
            for name in summary.stages:
                task = Task(lambda: None, name=name)
                client.create_task_run(task, run.id, dynamic_key=name, name=name, state=Completed(name="Unchanged"))
    except Exception as error:  # noqa: BLE001 (if the page is unreachable, a run that had nothing to do must not fail)
        log.warning("That nothing has changed could not be shown on Prefect's page (%s).", error)

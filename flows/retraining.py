"""The retraining flow: from what has come in to a better champion, if there is a reason to."""

from __future__ import annotations

from typing import Any

from prefect import flow

from evergreen.registry import aliases
from evergreen.scenario import Name
from flows.attempt import begin
from flows.stages import stages_in_order
from flows.summary import publish
from tasks.stage import Run


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
def retraining(scenario: Name) -> Any:
    """Bring a scenario's champion up to date with its images. A scenario that was never trained has nothing to keep fresh.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
    """
    begin()
    with Run.of(scenario) as run:
        if "champion" not in aliases(run.workspace, scenario):
            return nothing_to_do(f"{scenario} has no champion yet: start its training first.")
        summary = stages_in_order(run)
    publish(summary)
    return summary


def nothing_to_do(reason: str) -> Any:
    """The state of a run that ended well without having done anything."""
    from prefect.states import Completed

    return Completed(name="Nothing to do", message=reason)

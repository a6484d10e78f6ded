"""The retraining flow: from what has come in to a better champion, if there is a reason to. Its stages stand in `flows/stages.py`."""

from __future__ import annotations

from typing import Any

from prefect import flow

from evergreen.scenario import Name
from flows.attempt import begin
from flows.stages import retraining_in_order
from flows.summary import publish
from tasks.stage import Run


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
def retraining(scenario: Name) -> dict[str, Any]:
    """Take in what the inbox holds, and train again if there is a reason to. The gate decides whether the new model is better.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
    """
    begin()
    with Run.of(scenario) as run:
        summary = retraining_in_order(run)
    if not summary["trained"]:
        return nothing_to_do(summary)
    publish(summary)
    return summary


def nothing_to_do(summary: dict[str, Any]) -> Any:
    """The state of a run that ended well without having trained."""
    from prefect.states import Completed

    return Completed(name="Nothing to do", message=summary["reason"], data=summary)

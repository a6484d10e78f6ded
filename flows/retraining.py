"""The retraining flow: from what has come in to a better champion, if there is a reason to. Its stages stand in `flows/stages.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from evergreen.scenario import Name
from flows.attempt import begin
from flows.stages import retraining_in_order
from flows.summary import publish
from tasks.stage import Run


@flow(name="retraining", flow_run_name="retraining-{scenario}", persist_result=False)
def retraining(scenario: Name, reason_found_at: datetime | None = None) -> dict[str, Any]:
    """Take in what the inbox holds, and train again if there is a reason to. The gate decides whether the new model is better.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
        reason_found_at: set by a run that waits for a clean hour; its deadline is counted from then.
    """
    begin()
    with Run.of(scenario) as run:
        summary = retraining_in_order(run, reason_found_at)
    if not summary["trained"]:
        return nothing_to_do(summary)
    publish(summary)
    return summary


def nothing_to_do(summary: dict[str, Any]) -> Any:
    """The state of a run that ended well without having trained."""
    from prefect.states import Completed

    return Completed(name="Nothing to do", message=summary["reason"], data=summary)

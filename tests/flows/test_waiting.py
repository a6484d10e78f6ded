"""A start that is put off, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flows.waiting import REASON_FOUND_AT, reason_found_at
from tests.flows.conftest import Up

CODE = """if True:
    from datetime import UTC, datetime
    from flows.waiting import can_wait, start_later
    assert can_wait()
    when, found_at = datetime(2036, 1, 1, 12, tzinfo=UTC), datetime(2035, 12, 31, 12, tzinfo=UTC)
    for _ in range(2):
        print(start_later("quickstart", when, found_at, "cleaner then"))
"""


@pytest.mark.servers
def test_a_start_that_is_put_off_is_one_scheduled_run_of_the_same_deployment(up: Up) -> None:
    deployment = up.ask("deployments/name/retraining/quickstart")
    done = up.checkout.run(
        "python", "-c", CODE, PREFECT_API_URL=f"{up.prefect_url}/api",
        PREFECT__RUNTIME__DEPLOYMENT__ID=deployment["id"], PREFECT__RUNTIME__FLOW_RUN__ID="7b4f2c50-0000-4000-8000-000000000000",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.split() == ["retraining-quickstart-waits"] * 2
    found = up.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["retraining-quickstart-waits"]}}})
    (run,) = found
    assert run["state"]["type"] == "SCHEDULED" and run["deployment_id"] == deployment["id"]
    assert run["expected_start_time"].startswith("2036-01-01T12:00")
    assert run["parameters"] == {"scenario": "quickstart"}  # what only the project needs is no parameter that a person sees
    assert run["labels"][REASON_FOUND_AT] == "2035-12-31T12:00:00+00:00"
    up.ask(f"flow_runs/{run['id']}", method="DELETE")


@pytest.mark.parametrize(
    ("labels", "found"), [({}, None), ({REASON_FOUND_AT: "2035-12-31T12:00:00+00:00"}, datetime(2035, 12, 31, 12, tzinfo=UTC))]
)
def test_a_run_that_has_waited_knows_since_when(labels: dict[str, str], found: datetime | None) -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect.context import FlowRunContext

    assert reason_found_at() is None  # outside a flow
    run = FlowRun.model_construct(labels=labels)
    with FlowRunContext.model_construct(flow_run=run):
        assert reason_found_at() == found


@pytest.mark.servers
def test_a_run_from_the_command_line_cannot_wait(up: Up) -> None:
    done = up.checkout.run("python", "-c", "from flows.waiting import can_wait; print(can_wait())")
    assert (done.status, done.out.strip()) == (0, "False")

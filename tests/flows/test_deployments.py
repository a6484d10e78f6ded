"""Runs that are started, cancelled and killed while `evergreen up` runs: as from Prefect's page, which asks its server the
same."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.flows.conftest import Up
from tests.flows.receivers import Receivers

pytestmark = [pytest.mark.slow, pytest.mark.servers]


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for a true answer, and give it."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds:.0f} s"
        time.sleep(0.2)
    return answer


def start(up: Up, deployment: str) -> str:
    """A quick run, as the page starts it; gives its id."""
    found = up.ask(f"deployments/name/{deployment}")
    return str(up.ask(f"deployments/{found['id']}/create_flow_run", {})["id"])


def state(up: Up, run: str) -> str:
    return str(up.ask(f"flow_runs/{run}")["state"]["type"])


def trains(up: Up, run: str) -> bool:
    tasks = up.ask("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}})
    states = {task["name"]: task["state"] for task in tasks}  # None in the moment in which a task begins
    return (states.get("train") or {}).get("type") == "RUNNING"


def learns(up: Up, since: float) -> bool:
    """Whether an epoch has ended since then."""
    checkpoints = up.checkout.root / ".evergreen" / "checkpoints" / "quickstart"
    return any(path.stat().st_mtime > since for path in checkpoints.rglob("*") if path.is_file())


def processes(run: str) -> list[psutil.Process]:
    """Those that work on the run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def what_counts(up: Up) -> dict[str, Any]:
    """The data, the lock file and the champion."""
    root = up.checkout.root
    with sqlite3.connect(root / "mlruns" / "mlflow.db") as store:
        named = store.execute("SELECT alias, version FROM registered_model_aliases ORDER BY alias").fetchall()
    return {
        "data": sorted(str(path.relative_to(root)) for path in (root / "data").rglob("*") if path.is_file()),
        "dvc": {name: (root / name).read_bytes() for name in ("data.dvc", "dvc.lock")},
        "aliases": named,
        "half": [str(path) for path in (root / "outputs").rglob(".*.tmp")],
    }


def retrainings(up: Up) -> list[str]:
    """Those that something has started, by their ids; not those that wait for their hour."""
    runs = up.ask("flow_runs/filter", {"flows": {"name": {"any_": ["retraining"]}}})
    return [run["id"] for run in runs if not run["auto_scheduled"]]


def lock_is_free(up: Up) -> bool:
    with FileLock(up.checkout.root / ".evergreen" / "locks" / "run-quickstart.lock", timeout=0.1):
        return True


@contextlib.contextmanager
def epochs(up: Up, number: int) -> Iterator[None]:
    """So many for the quickstart; afterwards as many as before."""
    path = up.checkout.root / "scenarios" / "quickstart.yaml"
    text = path.read_text()
    path.write_text(text.replace("epochs: ", f"epochs: {number} # "))
    try:
        yield
    finally:
        path.write_text(text)


def test_the_deployments_are_there_with_their_schedules_queues_and_forms(up: Up) -> None:
    for flow in ("training", "retraining"):
        there = up.ask(f"deployments/name/{flow}/quickstart")
        assert there["parameters"] == {"scenario": "quickstart"}
        field = there["parameter_openapi_schema"]["properties"]["scenario"]
        assert field["type"] == "string" and field["pattern"] and "scenarios/" in field["description"]
        assert len(there["schedules"]) == (flow == "retraining")
        assert up.ask(f"work_queues/{there['work_queue_id']}")["concurrency_limit"] == 1


def schedules(up: Up, name: str) -> list[tuple[str, bool]]:
    """Cron and whether it is active, of a retraining."""
    there = up.ask(f"deployments/name/retraining/{name}")
    return sorted((one["schedule"]["cron"], one["active"]) for one in there["schedules"])


def test_only_what_has_been_run_once_is_retrained_by_schedule(up: Up) -> None:
    assert [active for _, active in schedules(up, "quickstart")] == [True]
    assert [active for _, active in schedules(up, "inspection")] == [False]
    there = up.ask("deployments/name/retraining/inspection")
    assert "once the scenario has been run" in there["description"]
    assert {pool["name"] for pool in up.ask("work_pools/filter", {})} == {"cpu"}  # no scenario asks for another one
    summary = up.checkout.workspace.record("inspection") / "summary.json"
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.touch()
    try:
        done = up.checkout.evergreen("deploy", "--json", **up.reported)
        assert done.status == 0 and not any("inspection" in sentence for sentence in done.json["messages"]), done.err
        assert any("cifar10" in sentence and "first run" in sentence for sentence in done.json["messages"])
        assert [active for _, active in schedules(up, "inspection")] == [True]
    finally:
        summary.unlink()


def test_a_schedule_changed_on_the_page_stays_until_the_scenario_says_another(up: Up) -> None:
    there = up.ask("deployments/name/retraining/cifar10")
    own = there["schedules"][0]
    page = {"cron": "1 2 * * *", "timezone": "Europe/Berlin"}
    up.ask(f"deployments/{there['id']}/schedules/{own['id']}", {"schedule": page, "active": False}, "PATCH")
    up.ask(f"deployments/{there['id']}/schedules", [{"schedule": {"cron": "3 4 * * *"}, "active": True}])
    assert up.checkout.evergreen("deploy", **up.reported).status == 0
    assert schedules(up, "cifar10") == [("1 2 * * *", False), ("3 4 * * *", True)]
    scenario = up.checkout.root / "scenarios" / "cifar10.yaml"
    text = scenario.read_text()
    try:
        up.checkout.change("cifar10", "45 3 * * SUN", "7 7 * * SUN")
        assert up.checkout.evergreen("deploy", **up.reported).status == 0
        assert schedules(up, "cifar10") == [("3 4 * * *", True), ("7 7 * * SUN", False)]
    finally:
        scenario.write_text(text)


def test_what_prefect_refuses_keeps_nothing_else_from_being_deployed(up: Up) -> None:
    bad = up.checkout.root / "scenarios" / "bad.yaml"
    shipped = (up.checkout.root / "scenarios" / "quickstart.yaml").read_text()
    bad.write_text(shipped.replace("quickstart", "bad").replace("15 3 * * *", "0 3 LW * *"))
    declared = up.checkout.root / "prefect.yaml"
    before = declared.read_bytes()
    declared.write_text(
        declared.read_text() + "  - name: theirs\n    entrypoint: nowhere.py:nothing\n    work_pool:\n      name: cpu\n"
    )
    there = up.ask("deployments/name/training/quickstart")
    try:
        done = up.checkout.evergreen("deploy", "--json", **up.reported)
        assert done.status == 0, done.err
        assert any("bad.yaml" in sentence and "cron" in sentence for sentence in done.json["messages"])
        assert any(
            "theirs" in sentence and "nowhere.py" in sentence and "^^" not in sentence for sentence in done.json["messages"]
        )
        assert up.ask("deployments/name/training/quickstart")["updated"] > there["updated"]
    finally:
        bad.unlink()
        declared.write_bytes(before)


def test_deploying_again_changes_nothing_and_keeps_what_was_paused_on_the_page(up: Up) -> None:
    there = up.ask("deployments/name/retraining/inspection")
    up.ask(f"deployments/{there['id']}/schedules/{there['schedules'][0]['id']}", {"active": False}, "PATCH")
    before = {automation["name"] for automation in up.ask("automations/filter", {})}
    done = up.checkout.evergreen("deploy", "--json")
    assert done.status == 0, done.err
    assert "No notifications" in done.json["messages"][-1]  # this command's environment names no address: they are gone
    after = [automation["name"] for automation in up.ask("automations/filter", {})]
    assert len(after) == len(set(after))
    assert before - set(after) == {f"evergreen: tell of {about}" for about in ("failure", "promotion", "drift")}
    assert up.ask("deployments/name/retraining/inspection")["schedules"][0]["active"] is False
    assert up.ask("deployments/name/retraining/inspection")["id"] == there["id"]
    assert up.checkout.evergreen("deploy", **up.reported).status == 0


def test_one_run_at_a_time_and_whether_it_is_killed_or_cancelled_the_next_one_has_its_turn(
    up: Up, receivers: Receivers
) -> None:
    """A training learns for hours. Drift asks for a retraining, which waits. The worker is killed with -9: the training is
    marked as crashed, and the retraining has its turn, and finds nothing to do. Another training is cancelled, and leaves
    nothing. The next one ends well."""
    with epochs(up, 10_000):
        began = time.time()
        training = start(up, "training/quickstart")
        until(lambda: trains(up, training) and learns(up, began))
        drift = (
            "from evergreen.environment import configure; from evergreen.workspace import Workspace; configure(Workspace.find()); "
            "from evergreen.monitoring.drift import Drift; from flows.events import emit_drift; "
            "print(emit_drift('quickstart', Drift(True, 0.05, 500, 2000, 'they are darker', ())))"
        )
        reported = up.checkout.run(sys.executable, "-c", drift)
        assert reported.out.split() == ["True"], reported.err
        retraining = until(lambda: retrainings(up))[0]
        before = what_counts(up)
        assert state(up, retraining) == "SCHEDULED" and trains(up, training)

        next(child for child in up.process.children(recursive=True) if "worker" in child.cmdline()).kill()
        until(lambda: state(up, training) == "CRASHED")
        assert what_counts(up) == before
        until(lambda: state(up, retraining) == "COMPLETED")
        assert up.ask(f"flow_runs/{retraining}")["state"]["name"] == "Nothing to do"
        assert what_counts(up) == before and not processes(training)

        began = time.time()
        cancelled = start(up, "training/quickstart")
        until(lambda: trains(up, cancelled) and learns(up, began))
        assert processes(cancelled)
        assert up.ask(f"flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING"}})["status"] == "ACCEPT"
        until(lambda: state(up, cancelled) == "CANCELLED")
        until(lambda: not processes(cancelled), 30)
        assert what_counts(up) == before
        assert lock_is_free(up)
    with epochs(up, 1):
        following = start(up, "training/quickstart")
        until(lambda: state(up, following) == "COMPLETED")
    assert state(up, training) == "CRASHED" and state(up, cancelled) == "CANCELLED"

    texts = until(lambda: len(receivers.received.webhooks) >= 2 and receivers.received.webhooks)
    assert any(
        "they are darker" in reported["text"] and reported["resource"] == "evergreen.scenario.quickstart" for reported in texts
    )
    assert any("training-quickstart: Crashed" in reported["text"] for reported in texts)
    until(lambda: any("they are darker" in mail for mail in receivers.received.mails))


def test_a_run_of_the_command_line_that_is_cancelled_on_the_page_ends_as_cancelled(up: Up) -> None:
    with epochs(up, 10_000):
        began = time.time()
        command = [sys.executable, "-m", "flows.cli", "run"]
        process = psutil.Popen(command, cwd=up.checkout.root, env=up.checkout.environment, stderr=subprocess.PIPE)
        until(lambda: learns(up, began))
        run = up.ask(
            "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        )[0]["id"]
        family = process.children(recursive=True)
        assert up.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})["status"] == "ACCEPT"
        _, said = process.communicate(timeout=120)
        assert process.returncode == 143 and b"cancelled on Prefect's page" in said and b"Traceback" not in said
        assert state(up, run) == "CANCELLED" and lock_is_free(up)
        assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert up.checkout.evergreen("run", "--epochs", "1").status == 0

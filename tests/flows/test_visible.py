"""A flow's progress and failures on Prefect's page, with a real Prefect."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from evergreen import progress
from evergreen.errors import DataRefused
from evergreen.workspace import Workspace
from flows.publishing import failure_shown
from flows.stoppable import speak
from flows.visible import progress_shown
from tests.tasks.test_stage import prefect_storage as prefect_storage

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("prefect_storage")]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is reported is waited for."""
    monkeypatch.setattr("flows.visible.LAST_WORDS_SECONDS", 120.0)


def artifacts_of(body: Any) -> tuple[Any, dict[str, Any]]:
    """What a flow leaves: its state, and its artifacts by key."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    state = flow(body, name="small", persist_result=False)(return_state=True)
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return state, {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=own)}


def test_work_that_lasts_has_a_progress_artifact_which_ends_at_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.visible.SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("flows.visible.EVERY_SECONDS", 0.0)

    def body() -> None:
        with progress_shown("quickstart"), progress.task("train", total=4, unit="steps") as report:
            for step in range(4):
                report(step + 1)
        with progress_shown("quickstart"), progress.task("of unknown size"):
            pass

    _, found = artifacts_of(body)
    assert set(found) == {"quickstart-train-progress"}
    shown = found["quickstart-train-progress"]
    assert (shown.type, shown.data) == ("progress", 100.0) and shown.description.startswith("train: done in ")


def test_work_that_fails_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.visible.SHOWN_AFTER_SECONDS", 0.0)

    def body() -> None:
        with progress_shown("quickstart"), progress.task("train", total=4, unit="steps") as report:
            report(1)
            raise ValueError("no")

    state, found = artifacts_of(body)
    assert state.is_failed() and found["quickstart-train-progress"].data == 25.0


def test_what_is_done_in_a_moment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.visible.SHOWN_AFTER_SECONDS", 600.0)

    def body() -> None:
        with progress_shown("quickstart"), progress.task("train", total=1, unit="steps") as report:
            report(1)

    assert artifacts_of(body)[1] == {}


def test_a_run_that_fails_opens_with_what_happened_and_what_to_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))
    docs = workspace.data_docs("quickstart") / "index.html"
    docs.parent.mkdir(parents=True)
    docs.touch()

    def body() -> None:
        with failure_shown("quickstart"):
            raise DataRefused("the label *a* is missing", fix="Repair the source.")

    state, found = artifacts_of(body)
    assert state.is_failed()
    shown = found["quickstart-summary"]
    assert shown.description == r"Failed: the label \*a\* is missing. Repair the source."
    assert "`outputs/quickstart/data-docs/index.html`" in shown.data


def test_a_process_that_a_worker_started_logs_what_the_command_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("evergreen")
    for before, after in ((logging.NOTSET, logging.INFO), (logging.DEBUG, logging.DEBUG)):
        monkeypatch.setattr(log, "level", before)
        speak()
        assert log.level == after

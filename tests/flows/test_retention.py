"""Retention: what is older than the scenario allows is removed for good, is said before, and does not come back."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evergreen.data.dataset import Quarantine, batches, forgotten, read_quarantine, table
from evergreen.data.inbox import inbox_of
from evergreen.data.versions import add_data, data_unchanged, data_version, push_data
from evergreen.privacy.forgetting import journal
from evergreen.privacy.retention import expired
from evergreen.review.decisions import Decisions
from evergreen.scenario.settings import Collect
from evergreen.workspace import Workspace
from flows import forget as flow
from flows.overview import status
from flows.retention import remove_expired
from flows.stages import nothing_changed
from flows.tables import show_status
from tasks.collect import collect
from tests.evergreen.data.test_versions import change, repository
from tests.flows.test_forget import id_of, traces
from tests.tasks import test_preprocess
from tests.tasks.test_preprocess import add_batch, digit, rows
from tests.tiny import NAME, Tiny

DAYS = 30
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LIMIT = NOW - timedelta(days=DAYS)
OLD, EDGE, NEW = (500, 501), (502,), (503, 504)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return repository(tmp_path / "checkout")


@pytest.fixture
def aged(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A checkout with a champion, whose first 500 digits are new, and five more: two too old by a second, one exactly as old as
    allowed, and two new ones. One too old and one new one are of the same group."""
    workspace = registered.workspace
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    change(workspace, "collect", builtin=None, path="../source", retention_days=DAYS)
    for part in batches(workspace, NAME):
        _redated(part, NOW - timedelta(days=1))
    for numbers, at in ((OLD, LIMIT - timedelta(seconds=1)), (EDGE, LIMIT), (NEW, NOW)):
        monkeypatch.setattr(test_preprocess, "WHEN", at)
        add_batch(workspace, [(*digit(number), "a part" if number in (500, 503) else None, None) for number in numbers])
    add_data(workspace, NAME)
    push_data(workspace, NAME)
    registered.promote(force=True)
    return registered


def _redated(folder: Any, at: datetime) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in folder.glob("*.parquet"):
        rows = pq.read_table(part)
        column = rows.schema.get_field_index("collected_at")
        field = rows.schema.field(column)
        path = part.with_suffix(".new")
        pq.write_table(rows.set_column(column, field, pa.array([at] * len(rows), field.type)), path)
        path.replace(part)


def ids(workspace: Workspace) -> set[str]:
    return set(table(batches(workspace, NAME), ["id"])["id"].to_pylist())


@pytest.mark.slow
def test_what_is_older_is_removed_for_good_what_is_as_old_as_allowed_stays_and_keeps_its_split(aged: Tiny) -> None:
    from tasks.preprocess import preprocess

    workspace = aged.workspace
    preprocess(aged.scenario, workspace)
    splits = {row["id"]: (row["split"], row["left_out"]) for row in rows(workspace)}
    before = expired(aged.scenario, workspace, NOW)
    assert before is not None and (before.items, before.oldest) == (2, LIMIT)
    assert str(before) == "collected before 2026-10-02 12:00 UTC (collect.retention_days: 30): 2 items"
    done = remove_expired(aged.scenario, workspace, NOW)
    assert done == before and not journal(workspace, NAME).exists()
    assert ids(workspace) == {id_of(number) for number in (*range(500), *EDGE, *NEW)}
    assert traces(workspace, OLD) == set()
    preprocess(aged.scenario, workspace)
    assert {row["id"]: (row["split"], row["left_out"]) for row in rows(workspace)} == {
        id: split for id, split in splits.items() if id in ids(workspace)
    }
    assert remove_expired(aged.scenario, workspace, NOW) is None


@pytest.mark.slow
def test_the_source_does_not_bring_them_back(aged: Tiny) -> None:
    workspace = aged.workspace
    remove_expired(aged.scenario, workspace, NOW)
    for number in (*OLD, *EDGE):
        image, label = digit(number)
        (workspace.root.parent / "source" / label).mkdir(parents=True, exist_ok=True)
        (workspace.root.parent / "source" / label / f"{number}.png").write_bytes(image)
    collection = collect(aged.scenario, workspace)
    assert (collection.forgotten, collection.known, collection.added) == (2, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["rewrite_data", "delete_objects", "clean_models"])
def test_a_run_interrupted_in_between_is_completed_by_the_next(aged: Tiny, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    workspace = aged.workspace

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow, step, killed)
        with pytest.raises(KeyboardInterrupt):
            remove_expired(aged.scenario, workspace, NOW)
    assert journal(workspace, NAME).exists()
    assert remove_expired(aged.scenario, workspace, NOW) is None
    assert not journal(workspace, NAME).exists() and traces(workspace, OLD) == set()


def prepared(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    change(workspace, "collect", builtin=None, path="../source", retention_days=DAYS)
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))


def test_quarantine_and_what_the_inbox_has_taken_in_are_covered_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.scenario.loading import load_scenario

    prepared(workspace, monkeypatch)
    scenario = load_scenario(workspace.scenarios, NAME)
    with Quarantine(workspace, NAME) as quarantine:
        for name, at in (("old.png", LIMIT - timedelta(seconds=1)), ("edge.png", LIMIT)):
            quarantine.add(name, "unreadable", "no", id=None, data=None, label=None, size_bytes=1, collected_at=at)
    taken = inbox_of(scenario, workspace) / "taken" / "3" / "x.png"
    waiting = inbox_of(scenario, workspace) / "3" / "y.png"
    for file in (taken, waiting):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    found = expired(scenario, workspace, NOW)
    assert found is not None and (found.items, found.quarantined, found.taken) == (0, 1, 0)
    remove_expired(scenario, workspace, NOW)
    assert [record["source"] for record in read_quarantine(workspace, NAME)] == ["edge.png"] and taken.exists()
    later = datetime.now(UTC) + timedelta(days=DAYS, seconds=5)
    remove_expired(scenario, workspace, later)
    assert not taken.exists() and waiting.exists() and read_quarantine(workspace, NAME) == []


def test_what_was_refused_long_ago_and_accepted_since_stays_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.scenario.loading import load_scenario

    prepared(workspace, monkeypatch)
    image, label = digit(1)
    with Quarantine(workspace, NAME) as quarantine:
        quarantine.add(
            "x.png", "label-conflict", "two", id=id_of(1), data=image, label=label, size_bytes=1,
            collected_at=LIMIT - timedelta(seconds=1),
        )  # fmt: skip
    monkeypatch.setattr(test_preprocess, "WHEN", NOW)
    add_batch(workspace, [(image, label, None, None)])
    waiting = inbox_of(load_scenario(workspace.scenarios, NAME), workspace) / label / "x.png"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(image)
    before = add_data(workspace, NAME)
    done = remove_expired(load_scenario(workspace.scenarios, NAME), workspace, NOW)
    assert done is not None and (done.items, done.quarantined) == (0, 1)
    assert data_version(workspace, NAME) == before and data_unchanged(workspace, NAME) and waiting.exists()
    assert ids(workspace) == {id_of(1)} and forgotten(batches(workspace, NAME)) == set()
    assert not [path for path in traces(workspace, (1,)) if path.startswith("quarantine/")]
    assert remove_expired(load_scenario(workspace.scenarios, NAME), workspace, NOW) is None


def test_while_a_review_is_open_nothing_is_removed_and_the_next_run_does_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from evergreen.scenario.loading import load_scenario

    prepared(workspace, monkeypatch)
    scenario = load_scenario(workspace.scenarios, NAME)
    with Decisions.opened(workspace, scenario, "anna"):
        assert remove_expired(scenario, workspace, NOW) is None and not caplog.records
        with Quarantine(workspace, NAME) as quarantine:
            at = LIMIT - timedelta(seconds=1)
            quarantine.add("x.png", "unreadable", "no", id=None, data=None, label=None, size_bytes=1, collected_at=at)
        assert remove_expired(scenario, workspace, NOW) is None and len(read_quarantine(workspace, NAME)) == 1
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "Not deleted yet, as evergreen review quickstart is open: what was collected before 2026-10-02 12:00 UTC "
        "(collect.retention_days: 30): 1 in quarantine. Close it, and the next run does it."
    )
    remove_expired(scenario, workspace, NOW)
    assert read_quarantine(workspace, NAME) == []


def test_it_is_said_before_and_a_run_with_nothing_else_to_do_does_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(workspace, monkeypatch)
    monkeypatch.setattr(test_preprocess, "WHEN", datetime.now(UTC).replace(microsecond=0) - timedelta(days=DAYS + 1))
    add_batch(workspace, [(*digit(number), None, None) for number in range(3)])
    [seen] = status(workspace, [NAME]).scenarios
    assert seen.retention.endswith("(collect.retention_days: 30): 3 items")
    shown = io.StringIO()
    show_status(status(workspace, [NAME]), shown)
    assert f"{NAME}: the next run deletes permanently what was collected before" in shown.getvalue()
    assert nothing_changed(NAME) is None and ids(workspace) == {id_of(number) for number in range(3)}
    [other] = status(workspace, ["cifar10"]).scenarios
    assert other.retention == ""


def test_until_then_it_says_when_the_first_item_will_be_too_old(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from evergreen.scenario.loading import load_scenario

    prepared(workspace, monkeypatch)
    monkeypatch.setattr(test_preprocess, "WHEN", NOW - timedelta(days=10))
    add_batch(workspace, [(*digit(1), None, None)])
    found = expired(load_scenario(workspace.scenarios, NAME), workspace, NOW)
    assert str(found) == "nothing is older than 30 days (collect.retention_days); the first item reaches it on 2026-11-21"


def test_by_default_and_for_built_in_sets_nothing_is_ever_too_old() -> None:
    assert Collect.model_validate({"path": "x"}).retention_days is None
    assert "retention_days" not in Collect.model_validate({"path": "x"}).model_dump()
    with pytest.raises(ValidationError, match="items of your own"):
        Collect.model_validate({"builtin": "digits", "retention_days": 3})

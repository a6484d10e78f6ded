"""A person's decisions: nothing is lost at a kill, and each can be undone until it is taken in."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.data.inbox import Inbox, inbox_of, read_corrections
from evergreen.errors import EvergreenError, WrongUse
from evergreen.review.decisions import Decisions
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tests.support.shipped import shipped

ONE, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"one", b"other"))


@pytest.fixture
def scenario(workspace: Workspace) -> Scenario:
    return load_scenario(workspace.scenarios, "quickstart")


def opened(workspace: Workspace, scenario: Scenario) -> Decisions:
    """As a new process opens them."""
    return Decisions(workspace, scenario, "anna")


def corrections(workspace: Workspace, scenario: Scenario) -> dict[str, str]:
    """What `evergreen retrain` would read."""
    found: dict[str, str] = {}
    for file in Inbox.look_into(inbox_of(scenario, workspace), 0.0).corrections:
        rows = read_corrections(Path(os.fsdecode(file.path)).read_bytes())
        assert not isinstance(rows, str) and not any(row.problem for row in rows)
        found |= {row.id: row.label for row in rows}
    return found


def take_in(workspace: Workspace, scenario: Scenario) -> None:
    """What `evergreen retrain` does with the files in the inbox at its end."""
    Inbox.look_into(inbox_of(scenario, workspace), 0.0).put_away()


def test_a_correction_is_in_the_inbox_at_once_with_its_author(workspace: Workspace, scenario: Scenario) -> None:
    opened(workspace, scenario).label("errors", ONE, "3", None)
    [file] = inbox_of(scenario, workspace).glob("*.csv")
    assert list(csv.DictReader(file.open())) == [{"id": ONE, "label": "3", "by": "anna"}]


def test_an_item_that_is_corrected_twice_has_one_line_with_the_last_label(workspace: Workspace, scenario: Scenario) -> None:
    decisions = opened(workspace, scenario)
    decisions.label("errors", ONE, "3", None)
    decisions.label("unsure", ONE, "5", None)
    assert corrections(workspace, scenario) == {ONE: "5"} == decisions.pending()
    decisions.undo("unsure")
    assert corrections(workspace, scenario) == {ONE: "3"} == decisions.pending()


def test_what_is_taken_in_stays_and_the_next_correction_begins_a_new_file(workspace: Workspace, scenario: Scenario) -> None:
    decisions = opened(workspace, scenario)
    decisions.label("errors", ONE, "3", None)
    take_in(workspace, scenario)
    assert decisions.pending() == {}
    with pytest.raises(WrongUse, match="in the data set already"):
        decisions.undo("errors")
    decisions.label("errors", OTHER, "5", None)
    assert corrections(workspace, scenario) == {OTHER: "5"}
    assert len(list((inbox_of(scenario, workspace) / "taken").glob("*.csv"))) == 1


def test_a_file_without_a_label_moves_to_its_labels_folder_and_back(workspace: Workspace, scenario: Scenario) -> None:
    inbox = inbox_of(scenario, workspace)
    for path, content in (("unlabelled/monday/a.png", b"new"), ("3/a.png", b"another")):
        (inbox / path).parent.mkdir(parents=True, exist_ok=True)
        (inbox / path).write_bytes(content)
    opened(workspace, scenario).label("inbox", "unlabelled/monday/a.png", "3", "3")
    assert (inbox / "3/a-1.png").read_bytes() == b"new" and (inbox / "3/a.png").read_bytes() == b"another"
    later = opened(workspace, scenario)
    assert [one.item for one in later.moved()] == ["unlabelled/monday/a.png"]
    later.undo("inbox")
    assert (inbox / "unlabelled/monday/a.png").read_bytes() == b"new" and not (inbox / "3/a-1.png").exists()


def test_only_one_process_decides_at_a_time(workspace: Workspace, scenario: Scenario) -> None:
    with (
        Decisions.opened(workspace, scenario, "anna"),
        pytest.raises(WrongUse, match="review-quickstart"),
        Decisions.opened(workspace, scenario, "ben"),
    ):
        pass


def test_kept_and_skipped_items_do_not_come_again_until_they_are_asked_for(workspace: Workspace, scenario: Scenario) -> None:
    decisions = opened(workspace, scenario)
    labels = {ONE: "3", OTHER: "5"}
    decisions.keep("errors", ONE, "3")
    decisions.skip("errors", OTHER)
    later = opened(workspace, scenario)
    assert later.settled("errors", labels.__getitem__) == {ONE, OTHER}
    assert later.settled("unsure", labels.__getitem__) == {ONE}  # it was skipped in the other queue alone
    later.show_skipped("errors")
    assert later.settled("errors", labels.__getitem__) == {ONE}
    assert later.settled("errors", (labels | {ONE: "8"}).__getitem__) == set()  # somebody else has changed its label since
    assert corrections(workspace, scenario) == {}


class Killed(BaseException):
    """Ends a decision half-way."""


@pytest.mark.parametrize("at", ["_write_csv", "_move"])
def test_a_kill_between_the_log_and_the_inbox_loses_nothing(
    workspace: Workspace, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    inbox = inbox_of(scenario, workspace)
    (inbox / "unlabelled").mkdir(parents=True)
    (inbox / "unlabelled/a.png").write_bytes(b"new")
    decisions = opened(workspace, scenario)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Decisions, at, kill)
        if at == "_move":
            decisions.label("inbox", "unlabelled/a.png", "3", "3")
        else:
            decisions.label("errors", ONE, "3", None)
    later = opened(workspace, scenario)
    assert (inbox / "3/a.png").exists() if at == "_move" else corrections(workspace, scenario) == {ONE: "3"}
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Decisions, at, kill)
        later.undo("inbox" if at == "_move" else "errors")
    opened(workspace, scenario)
    assert (inbox / "unlabelled/a.png").exists() and corrections(workspace, scenario) == {}


def put(workspace: Workspace, scenario: Scenario, content: bytes) -> Path:
    file = inbox_of(scenario, workspace) / "unlabelled/a.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("log_of_earlier_version", [False, True])
def test_the_next_start_leaves_a_new_file_where_the_last_decision_moved_another_one(
    workspace: Workspace, scenario: Scenario, log_of_earlier_version: bool
) -> None:
    put(workspace, scenario, b"old")
    opened(workspace, scenario).label("inbox", "unlabelled/a.png", "3", "3")
    if log_of_earlier_version:
        log = workspace.review(scenario.name) / "decisions.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        short = [{key: one[key] for key in one if key not in ("identity", "request")} for one in lines]
        log.write_text("".join(json.dumps(one) + "\n" for one in short))
    new = put(workspace, scenario, b"new")
    decisions = opened(workspace, scenario)
    assert new.read_bytes() == b"new" and len(decisions.moved()) == 1
    undone = decisions.undo("inbox")
    assert undone is not None and (decisions.inbox / undone.item).read_bytes() == b"old" and new.read_bytes() == b"new"


def test_a_decision_that_cannot_be_applied_is_not_in_force(workspace: Workspace, scenario: Scenario) -> None:
    file = put(workspace, scenario, b"new")
    (file.parents[1] / "3").write_bytes(b"a file where the label's folder would be")
    decisions = opened(workspace, scenario)
    with pytest.raises(EvergreenError, match="could not be saved"):
        decisions.label("inbox", "unlabelled/a.png", "3", "3", "a request")
    for one in (decisions, opened(workspace, scenario)):
        assert one.moved() == [] and one.count() == 0 and one.undo("inbox") is None and one.done("a request") is None
    assert file.read_bytes() == b"new"


def test_an_undo_that_cannot_be_applied_leaves_the_decision(
    workspace: Workspace, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = opened(workspace, scenario)
    decisions.label("errors", ONE, "3", None)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "inbox")

    with monkeypatch.context() as patched, pytest.raises(EvergreenError, match="Permission denied"):
        patched.setattr(Decisions, "_write_csv", refuse)
        decisions.undo("errors")
    for one in (decisions, opened(workspace, scenario)):
        assert one.pending() == {ONE: "3"} == corrections(workspace, scenario)


def test_review_opens_where_the_last_decision_can_no_longer_be_applied(
    workspace: Workspace, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(workspace, scenario, b"new")
    decisions = opened(workspace, scenario)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Decisions, "_move", kill)
        decisions.label("inbox", "unlabelled/a.png", "3", "3")
    (file.parents[1] / "3").write_bytes(b"a file where the label's folder would be")
    assert opened(workspace, scenario).count() == 0 and file.exists()


def test_a_line_that_a_kill_left_incomplete_is_no_decision(workspace: Workspace, scenario: Scenario) -> None:
    opened(workspace, scenario).label("errors", ONE, "3", None)
    log = workspace.review(scenario.name) / "decisions.jsonl"
    log.write_bytes(log.read_bytes() + b'{"number": 7, "acti')
    later = opened(workspace, scenario)
    later.label("errors", OTHER, "5", None)
    assert opened(workspace, scenario).pending() == {ONE: "3", OTHER: "5"} == corrections(workspace, scenario)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("label"), st.sampled_from("ab"), st.sampled_from("0123")),
        st.tuples(st.sampled_from(["keep", "skip", "undo", "restart", "take in"]), st.sampled_from("ab"), st.just("1")),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps=STEPS)
def test_after_any_work_the_inbox_has_exactly_the_last_labels_that_are_not_taken_in(steps: list[Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(shipped() / "scenarios", folder / "scenarios")
        workspace = Workspace(folder)
        scenario = load_scenario(workspace.scenarios, "quickstart")
        decisions = opened(workspace, scenario)
        expected: list[tuple[str, str, str]] = []  # the decisions in force since the last take-in
        for action, item, label in steps:
            if action == "restart":
                decisions = opened(workspace, scenario)
            elif action == "take in":
                take_in(workspace, scenario)
                expected = [("taken", one, label) if kind == "label" else (kind, one, label) for kind, one, label in expected]
            elif action == "undo":
                if expected and expected[-1][0] == "taken":
                    with pytest.raises(WrongUse):
                        decisions.undo("errors")
                else:
                    assert (decisions.undo("errors") is None) == (not expected)
                    expected = expected[:-1]
            else:
                expected.append((action, item, label))
                if action == "label":
                    decisions.label("errors", item, label, None)
                elif action == "keep":
                    decisions.keep("errors", item, label)
                else:
                    decisions.skip("errors", item)
            assert corrections(workspace, scenario) == decisions.pending()
            assert decisions.pending() == {one: label for kind, one, label in expected if kind == "label"}
    finally:
        shutil.rmtree(folder)

"""receive: from the inbox into a batch, with nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.dataset import read_quarantine, staged, table
from tasks import version
from tasks.receive import clear, page, receive
from tests.tasks.test_preprocess import digit
from tests.tiny import NAME, Tiny


@pytest.fixture
def inbox(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a data set that holds the digits 0 to 499."""
    monkeypatch.setattr("evergreen.inbox.SETTLED_SECONDS", -1)
    return tiny.root / "inbox" / NAME


def put(inbox: Path, numbers: range, label: str | None = None) -> None:
    for number in numbers:
        image, right = digit(number)
        path = inbox / (label or right) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def test_new_items_become_a_batch_of_the_data_set_and_leave_the_inbox(tiny: Tiny, inbox: Path) -> None:
    put(inbox, range(500, 520))
    arrival = receive(tiny.scenario, tiny.workspace)
    assert arrival.collection.added == 20 and len(arrival.taken) == 20
    (batch,) = staged(tiny.workspace, NAME)
    assert batch.name.startswith("00001-") and len(table([batch])) == 20
    version.version(tiny.scenario, tiny.workspace, arrival.collection)
    assert clear(tiny.scenario, tiny.workspace, arrival) == 20
    assert str(arrival) == "the inbox: 20 items seen: 20 new, 0 known."
    assert not receive(tiny.scenario, tiny.workspace).taken


def test_killed_before_the_inbox_is_cleared_the_next_run_knows_the_items_and_clears_it(tiny: Tiny, inbox: Path) -> None:
    put(inbox, range(500, 510))
    version.version(tiny.scenario, tiny.workspace, receive(tiny.scenario, tiny.workspace).collection)
    again = receive(tiny.scenario, tiny.workspace)
    assert (again.collection.known, again.collection.added, again.collection.batch) == (10, 0, None)
    assert clear(tiny.scenario, tiny.workspace, again) == 10


def test_bad_items_go_to_quarantine_and_do_not_stop_the_rest(tiny: Tiny, inbox: Path) -> None:
    put(inbox, range(500, 502))
    put(inbox, range(502, 503), "eight")
    put(inbox, range(1), "7" if digit(0)[1] != "7" else "1")
    (inbox / "3").mkdir(exist_ok=True)
    (inbox / "3" / "broken.png").write_bytes(digit(503)[0][:40])
    (inbox / "3" / "text.jpg").write_text("no image")
    arrival = receive(tiny.scenario, tiny.workspace)
    assert arrival.collection.added == 2 and arrival.collection.seen == 6
    reasons = {record["source"]: record["reason"] for record in read_quarantine(tiny.workspace, NAME)}
    assert reasons["eight/502.png"] == "unknown-label"
    assert sum(arrival.collection.quarantined.values()) == 4 == len(reasons)
    assert "label-conflict" in reasons.values()
    assert page(tiny.scenario, tiny.workspace, arrival).tables["collected"][1] == {"items": "new", "count": 2}


def test_an_empty_inbox_changes_nothing(tiny: Tiny, inbox: Path) -> None:
    arrival = receive(tiny.scenario, tiny.workspace)
    assert str(arrival) == "the inbox: nothing to take in."
    assert arrival.collection.batch is None and not tiny.workspace.staging(NAME).exists()


def test_what_stays_is_told(tiny: Tiny, inbox: Path) -> None:
    inbox.mkdir(parents=True)
    (inbox / "loose.png").write_bytes(digit(500)[0])
    (inbox / "3.zip.part").write_bytes(b"half")
    assert str(receive(tiny.scenario, tiny.workspace)) == (
        "the inbox: nothing to take in. 1 files may still be being written: next time. "
        "1 files are in no label's folder, and stay: loose.png."
    )

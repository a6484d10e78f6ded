"""What lies in the inbox, and how it compares: real digits, a real champion, real DVC and MLflow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from evergreen.data.dataset import Records, batches, corrections, known_ids, read_quarantine, table
from evergreen.data.versions import data_unchanged, data_version
from evergreen.errors import DataRefused
from evergreen.kinds.classify.contract import ImageContract
from evergreen.registry.models import rollback
from evergreen.registry.origin import ORIGIN, LastRetraining, Origin
from evergreen.workspace import Workspace
from tasks import monitor as monitor_file
from tasks.monitor import Findings, Taken, last_retraining_file, monitor, page, take_in
from tasks.preprocess import preprocess
from tests.evergreen.data.test_versions import change, repository
from tests.tasks.test_preprocess import add_batch, digit, digits, rows, scenario
from tests.tiny import NAME, Tiny

FEATURES = (*ImageContract.properties, "embedding", "predicted label")


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """A checkout with 200 digits and an empty inbox."""
    workspace = repository(tmp_path / "small")
    relax(workspace)
    add_batch(workspace, digits(0, 200))
    return workspace


def relax(workspace: Workspace) -> None:
    change(workspace, "validate", min_items_per_label=5)
    change(workspace, "retraining", settle_seconds=0)


def drop(workspace: Workspace, numbers: range, label: str | None = None, darken: float = 1.0) -> None:
    """Put digits into the inbox, by their label or another one."""
    for number in numbers:
        image, own = digit(number)
        if darken != 1:
            pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
            image = cv2.imencode(".png", (pixels * darken).astype(np.uint8))[1].tobytes()
        path = workspace.root / "inbox" / NAME / (label or own) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def correct(workspace: Workspace, *lines: str, file: str = "fixes.csv") -> None:
    path = workspace.root / "inbox" / NAME / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["id,label,by", *lines]) + "\n")


def id_of(number: int) -> str:
    return hashlib.sha256(digit(number)[0]).hexdigest()


def other(number: int) -> str:
    """A label that is not the digit's."""
    return str((int(digit(number)[1]) + 1) % 10)


def taken(workspace: Workspace) -> Taken:
    from evergreen.scenario.loading import load_scenario

    return take_in(load_scenario(workspace.scenarios, NAME), workspace)


def waiting(workspace: Workspace) -> list[str]:
    folder = workspace.root / "inbox" / NAME
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and "taken" not in p.parts)


def label_of(workspace: Workspace, number: int) -> str:
    return known_ids(workspace, NAME)[bytes.fromhex(id_of(number))]


def test_an_empty_inbox_changes_nothing(small: Workspace) -> None:
    assert str(taken(small)) == "nothing came"
    assert data_version(small, NAME) is None


def test_new_images_become_a_part_of_a_new_data_version_and_leave_the_inbox(small: Workspace) -> None:
    drop(small, range(195, 210))  # five of them are known
    first = taken(small)
    assert (first.added, first.known) == (10, 5)
    assert len(known_ids(small, NAME)) == 210 and len(batches(small, NAME)) == 2
    assert data_unchanged(small, NAME) and waiting(small) == []


def test_files_of_an_unknown_label_stay_and_are_taken_once_the_label_is_known(small: Workspace) -> None:
    drop(small, range(200, 203))
    drop(small, range(203, 209), label="owl")
    (small.root / "inbox" / NAME / "loose.png").write_bytes(digit(210)[0])
    (small.root / "inbox" / NAME / "3" / "torn.png").parent.mkdir(exist_ok=True)
    (small.root / "inbox" / NAME / "3" / "torn.png").write_bytes(digit(211)[0][:50])
    result = taken(small)
    assert result.added == 3 and result.unknown == {"owl": 6, "": 1} and sum(result.quarantined.values()) == 1
    assert "left because validate.labels lacks their label: 'owl', 6 files; 1 file in no label's folder" in str(result)
    assert waiting(small) == [*(f"{number}.png" for number in range(203, 209)), "loose.png"]
    text = (small.scenarios / f"{NAME}.yaml").read_text().replace("collect:", "collect:\n  rename: {owl: '9'}")
    (small.scenarios / f"{NAME}.yaml").write_text(text)
    assert taken(small).added == 6 and waiting(small) == ["loose.png"]


def test_a_label_in_another_form_is_taken_or_named_with_the_one_that_was_meant(small: Workspace) -> None:
    drop(small, range(200, 202), label=" 3 ")
    drop(small, range(202, 204), label="\uff13")  # a wide 3
    result = taken(small)
    assert (result.added, result.unknown, result.meant) == (2, {"\uff13": 2}, {"\uff13": "3"})
    assert "2 files (did you mean '3'?)" in str(result)


def test_a_half_copied_file_is_taken_the_next_time(small: Workspace) -> None:
    drop(small, range(200, 202))
    half = small.root / "inbox" / NAME / digit(200)[1] / "200.png"
    half.rename(half.with_name("200.png.part"))
    first = taken(small)
    assert first.added == 1 and len(first.left) == 1 and waiting(small) == ["200.png.part"]
    half.with_name("200.png.part").rename(half)
    assert taken(small).added == 1 and waiting(small) == []


def test_a_correction_changes_the_label_and_keeps_the_old_one_on_record(small: Workspace) -> None:
    part = next(batches(small, NAME)[0].iterdir())
    before = part.read_bytes()
    correct(small, f"{id_of(7)},{other(7)},Ada")
    assert taken(small).corrected == 1
    assert label_of(small, 7) == other(7)
    (one,) = corrections(batches(small, NAME))
    assert (one.old_label, one.by, one.source) == (digit(7)[1], "Ada", "fixes.csv")
    assert part.read_bytes() == before and data_unchanged(small, NAME)
    assert table(batches(small, NAME), ["label"], Records())["label"].to_pylist()[7] == digit(7)[1]


def test_the_same_correction_twice_changes_nothing_the_second_time(small: Workspace) -> None:
    correct(small, f"{id_of(7)},{other(7)},")
    taken(small)
    named = data_version(small, NAME)
    correct(small, f"{id_of(7)},{other(7)},", f"{id_of(7)},{other(7)},", file="again.csv")
    result = taken(small)
    assert (result.corrected, result.corrections_known) == (0, 2)
    assert data_version(small, NAME) == named and waiting(small) == []


def test_corrections_that_cannot_be_made_are_in_quarantine_with_their_reason(small: Workspace) -> None:
    correct(small, f"{id_of(999)},3,", f"{id_of(7)},owl,", ",3,", f"{id_of(8)},1,", f"{id_of(8)},2,")
    correct(small, f"{id_of(9)},{other(9)},", file="good.csv")
    (small.root / "inbox" / NAME / "torn.csv").write_bytes(b"\xff\xfe\x00")
    result = taken(small)
    assert result.corrected == 1 and result.corrections_refused == {
        "correction-unknown-id": 1, "correction-unknown-label": 1, "correction-unreadable": 3, "corrections-unreadable": 1,
    }  # fmt: skip
    assert waiting(small) == [] and len(read_quarantine(small, NAME)) == 6


def test_a_path_as_long_as_an_id_is_not_recorded_as_one(small: Workspace) -> None:
    correct(small, f"{'x' * 60}.png,3,", f"{id_of(999)},3,")
    taken(small)
    assert [record["id"] for record in read_quarantine(small, NAME)] == [None, id_of(999)]


def test_a_correction_may_name_the_item_by_its_path_or_the_beginning_of_its_id(small: Workspace) -> None:
    sources = table(batches(small, NAME), ["id", "source"]).to_pylist()
    source = {row["id"]: row["source"] for row in sources}
    correct(
        small,
        f"{source[id_of(7)]},{other(7)},",
        f"C:\\pictures\\{source[id_of(8)]},{other(8)},",
        f"{id_of(9)[:12]},{other(9)},",
    )
    assert taken(small).corrected == 3
    assert [label_of(small, number) for number in (7, 8, 9)] == [other(number) for number in (7, 8, 9)]


def test_a_name_that_several_items_have_is_refused_with_them(small: Workspace) -> None:
    for label in ("3", "4"):
        path = small.root / "inbox" / NAME / label / "same.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(digit(300 + int(label))[0])
    taken(small)
    correct(small, "same.png,5,", "3/same.png,5,", "nowhere.png,5,", f"{id_of(303)[:10]},6,")
    result = taken(small)
    assert result.corrections_refused == {"correction-ambiguous": 1, "correction-unknown-id": 1, "correction-unreadable": 2}
    details = {record["reason"]: record["detail"] for record in read_quarantine(small, NAME)}
    assert "3/same.png" in details["correction-ambiguous"] and id_of(304)[:12] in details["correction-ambiguous"]
    assert "several labels: 5, 6" in details["correction-unreadable"]


def test_an_item_and_its_correction_may_come_together(small: Workspace) -> None:
    drop(small, range(200, 201))
    correct(small, f"{id_of(200)},{other(200)},")
    assert (taken(small).corrected, label_of(small, 200)) == (1, other(200))


def test_the_source_may_go_on_saying_what_was_corrected(small: Workspace) -> None:
    correct(small, f"{id_of(7)},{other(7)},")
    taken(small)
    drop(small, range(7, 8))
    result = taken(small)
    assert (result.known, result.quarantined) == (1, {})


def test_no_item_changes_its_split_by_a_correction_or_by_new_items(small: Workspace) -> None:
    preprocess(scenario(), small)
    before = {row["id"]: row for row in rows(small)}
    correct(small, *[f"{id_of(number)},{other(number)}," for number in range(60)])
    drop(small, range(200, 230))
    taken(small)
    preprocess(scenario(), small)
    after = {row["id"]: row for row in rows(small)}
    assert len(after) == 230
    assert all(after[id]["split"] == row["split"] for id, row in before.items())
    assert after[id_of(5)]["label"] == other(5)


def test_data_that_are_refused_stay_in_the_inbox_and_the_data_set_as_it_was(small: Workspace) -> None:
    change(small, "validate", max_brightness_shift=0.05)
    drop(small, range(200, 220), darken=0.2)
    with pytest.raises(DataRefused, match="brightness"):
        taken(small)
    assert len(waiting(small)) == 20 and len(batches(small, NAME)) == 1
    assert not small.staging(NAME).exists()


@pytest.mark.parametrize("where", ["validate", "version", "put_away"])
def test_a_kill_in_between_leaves_what_the_next_time_ends_as_if_nothing_had_happened(
    small: Workspace, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(small, range(200, 210))
    correct(small, f"{id_of(7)},{other(7)},", f"{id_of(205)},{other(205)},")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if where == "put_away":
            patch.setattr("evergreen.data.inbox.Inbox.put_away", killed)
        elif where == "version":  # the batches are in place, and DVC has not heard of them
            patch.setattr("tasks.version.add_data", killed)
        else:
            patch.setattr(monitor_file, "validate", killed)
        with pytest.raises(Killed):
            taken(small)
    assert len(waiting(small)) == 11
    taken(small)
    assert waiting(small) == [] and data_unchanged(small, NAME)
    assert len(known_ids(small, NAME)) == 210 and len(batches(small, NAME)) == 3 and len(corrections(batches(small, NAME))) == 2
    assert (label_of(small, 7), label_of(small, 205)) == (other(7), other(205))


def monitored(tiny: Tiny) -> Findings:
    return monitor(tiny.scenario, tiny.workspace)


def again(tiny: Tiny) -> int:
    """Put the champion's test digits into the inbox, packed otherwise: new items in which nothing has drifted; returns how
    many."""
    labels = known_ids(tiny.workspace, NAME)
    for place, image in enumerate(tiny.images):
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
        path = tiny.root / "inbox" / NAME / labels[hashlib.sha256(image).digest()] / f"again-{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
    return len(tiny.images)


def test_the_champion_is_asked_about_what_is_new_to_it(registered: Tiny) -> None:
    relax(registered.workspace)
    assert monitored(registered).champion is None
    registered.promote()
    calm = monitored(registered)
    assert (calm.champion, calm.new_items, calm.quality, calm.drift, calm.unknown) == (1, 0, None, None, ())
    assert calm.age_days is not None and 0 <= calm.age_days < 1
    repacked = again(registered)
    correct(registered.workspace, f"{id_of(7)},{other(7)},")
    seen = monitored(registered)
    assert (seen.new_items, seen.corrected_items) == (repacked, 1)
    assert seen.drift is not None and not seen.drift.drifted, str(seen.drift)
    shown = page(registered.scenario, registered.workspace, seen)
    assert [(row["feature"], row["drift"]) for row in shown.tables["Drift by feature"]] == [(one, False) for one in FEATURES]
    found = shown.texts["What each feature has found"].splitlines()
    assert [line.split(":")[0] for line in found] == [f"- {feature}" for feature in FEATURES]
    assert shown.pictures["Drift"].read_bytes().startswith(b"\x89PNG")
    right = round(registered.evaluation.metrics["accuracy"] * len(registered.images))
    assert seen.quality is not None and seen.quality.then == {"right": right, "items": len(registered.images)}
    assert seen.quality.now == {"right": right, "items": repacked}  # they look the same to the champion


def test_the_origin_and_the_reference_travel_with_the_version(registered: Tiny) -> None:
    from evergreen.monitoring.drift import Observations
    from evergreen.registry.models import download

    artifacts = download(registered.workspace, NAME, "1") / "artifacts"
    origin = Origin.load(artifacts / ORIGIN)
    assert origin is not None and origin.batches == registered.data_version.batches
    known = Observations.load(artifacts / "reference.npz")
    assert len(known) > 100 and len(known.labels) == 10


def test_a_champion_without_an_origin_is_said_not_guessed(registered: Tiny) -> None:
    from evergreen.registry.models import download

    registered.promote()
    (download(registered.workspace, NAME, "1") / "artifacts" / ORIGIN).unlink()
    seen = monitored(registered)
    assert seen.age_days is None and seen.drift is None and "without its origin" in seen.unknown[0]


def test_what_a_retraining_had_is_not_new_after_a_person_has_rolled_its_model_back(registered: Tiny) -> None:
    workspace = registered.workspace
    registered.promote()
    add_batch(workspace, [(*digit(number), None, None) for number in range(500, 520)])
    registered.register_confused()
    registered.promote(force=True)
    had = tuple(folder.name for folder in batches(workspace, NAME))
    LastRetraining(2, had, "2026-01-01T00:00:00+00:00").save(last_retraining_file(workspace, NAME))
    rollback(workspace, NAME)
    seen = monitored(registered)
    assert (seen.champion, seen.new_items) == (1, 0)
    # Another one than the person's choice is in use: then the items are new to it.
    LastRetraining(2, had, "2099-01-01T00:00:00+00:00").save(last_retraining_file(workspace, NAME))
    assert monitored(registered).new_items == 20

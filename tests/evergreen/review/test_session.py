"""What a person is shown: likely label errors of real images, and what a champion gave for items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.data.dataset import batches
from evergreen.kinds.classify.kind import CLASSIFY
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

"""Whether a model is as good on test as on val."""

import json
from pathlib import Path

import pytest

from evergreen.kinds.classify.gap import AccuracyGap, gap
from evergreen.workspace import Workspace


def checkout(folder: Path, val_accuracy: float | None, val_items: int) -> Workspace:
    workspace = Workspace(folder)
    history = [{"loss": 1.0}, {"loss": 0.5, **({} if val_accuracy is None else {"val_accuracy": val_accuracy})}, {"loss": 0.4}]
    for path, content in (
        (workspace.model("xray") / "settings.json", {"best_epoch": 2}),
        (workspace.model("xray") / "history.json", history),
        (workspace.splits("xray") / "summary.json", {"splits": {"val": val_items}}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return workspace


def test_a_difference_beyond_chance_is_said_with_what_to_do(tmp_path: Path) -> None:
    found = gap(checkout(tmp_path, 0.989, 524), "xray", {"accuracy": 0.876, "test_items": 624})
    assert found is not None and found.beyond_chance
    assert found.difference == pytest.approx(518 / 524 - 547 / 624)
    assert 0.07 < found.low < found.difference < found.high < 0.16
    sentence = str(found)
    assert sentence.startswith("98.9 % on val, but 87.6 % on test: 11 points (")
    assert "collect more images like those of test" in sentence
    assert found.reported.sentence == sentence and found.reported.figures["val_items"] == 524


def test_a_difference_that_may_be_chance_is_not_made_much_of(tmp_path: Path) -> None:
    found = gap(checkout(tmp_path, 0.95, 60), "xray", {"accuracy": 0.9, "test_items": 60})
    assert found is not None and not found.beyond_chance
    assert found.reported.sentence is None


def test_a_test_split_that_is_easier_is_said_to_be() -> None:
    assert "easier than val" in str(AccuracyGap(0.8, 1000, 0.95, 1000, -0.15, -0.18, -0.12, True))


@pytest.mark.parametrize(("val_accuracy", "val_items"), [(None, 100), (0.9, 0)])
def test_without_a_validation_split_nothing_is_said(tmp_path: Path, val_accuracy: float | None, val_items: int) -> None:
    assert gap(checkout(tmp_path, val_accuracy, val_items), "xray", {"accuracy": 0.9, "test_items": 100}) is None
    assert gap(Workspace(tmp_path / "empty"), "xray", {"accuracy": 0.9, "test_items": 100}) is None

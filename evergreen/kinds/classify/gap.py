"""Compares a model's accuracy on the test split with that on the validation split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from evergreen import figures
from evergreen.kinds.base.judge import Gap
from evergreen.workspace import Workspace

# The kept epoch is the one with the best result on val, so a slightly better value there is expected: only a difference that is
# very unlikely to be chance counts.
LEVEL = 0.01


@dataclass(frozen=True)
class AccuracyGap:
    """Accuracy on val at the kept epoch, and on test.

    Attributes:
        val, test: the accuracies, fractions of `val_items` and `test_items`.
        difference: `val` minus `test`. `low` and `high` are its confidence interval at level 1 - `LEVEL`
            (`evergreen.evaluation.proportions.difference`).
        beyond_chance: whether the interval excludes 0.
    """

    val: float
    val_items: int
    test: float
    test_items: int
    difference: float
    low: float
    high: float
    beyond_chance: bool

    def __str__(self) -> str:
        val, test = figures.percent(self.val, items=self.val_items), figures.percent(self.test, items=self.test_items)
        apart = figures.points(abs(self.difference), *sorted((abs(self.low), abs(self.high)))).replace("+", "")
        said = f"{val} on val, but {test} on test: {apart} apart, which is not chance"
        if self.difference < 0:
            return f"{said}. The test split is easier than val: expect less of new images than the test says."
        return (
            f"{said}. Test images differ from those trained on (another source, camera, patient or time?): expect new images "
            "to do as test does, see the commonest mistakes, and collect more images like those of test."
        )

    @property
    def reported(self) -> Gap:
        """The figures, and a sentence about the difference if it is beyond chance."""
        return Gap(asdict(self), str(self) if self.beyond_chance else None)


def gap(workspace: Workspace, name: str, metrics: Mapping[str, float | None]) -> AccuracyGap | None:
    """The gap of the model in `outputs/NAME`.

    Args:
        metrics: the model's `tasks.evaluate.Evaluation.metrics`.

    Returns:
        The gap; None if there is no val split or a file cannot be read.
    """
    from evergreen.evaluation.proportions import difference

    try:
        settings = json.loads((workspace.model(name) / "settings.json").read_text())
        history = json.loads((workspace.model(name) / "history.json").read_text())
        val_items = int(json.loads((workspace.splits(name) / "summary.json").read_text())["splits"]["val"])
        val = float(history[settings["best_epoch"] - 1]["val_accuracy"])
        # Val is judged by the most probable label, before it was chosen on it when to answer.
        test = float(metrics.get("accuracy_most_probable") or metrics["accuracy"] or 0)
        test_items = int(metrics["test_items"] or 0)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    if not val_items or not test_items:
        return None
    apart, low, high = difference(round(val * val_items), val_items, round(test * test_items), test_items, level=LEVEL)
    return AccuracyGap(val, val_items, test, test_items, apart, low, high, low > 0 or high < 0)

"""What the parts of a kind do where it says nothing else, and what is made of them for people."""

from __future__ import annotations

import hashlib

from evergreen.evaluation.gate import Slice
from evergreen.kinds.base.expectations import of_the_collection
from evergreen.kinds.classify.kind import CLASSIFY
from evergreen.registry.card import comparison
from evergreen.registry.records import charted
from evergreen.scenario.settings import Validate
from tests.support.kinds import examples, tiny_kind_installed
from tests.support.readings.kind import READINGS


def test_items_are_counted_by_label_only_where_labels_are_names() -> None:
    with tiny_kind_installed():
        images, readings = (examples()[name].scenario() for name in ("classify", "readings"))
    assert CLASSIFY.contract.by_label(images, ["light", "dark", "light"]) == {"dark": 1, "light": 2}
    assert READINGS.contract.by_label(readings, [1.5, 1.5, 20.0]) == {"readings": 3}


def test_a_file_of_the_inbox_is_an_item_unless_the_kind_says_which_items_it_holds() -> None:
    content = b"2023-01-01,4.5\n\n2023-01-02,5\n"
    with tiny_kind_installed():
        images, readings = (examples()[name].scenario() for name in ("classify", "readings"))
    assert CLASSIFY.contract.ids_in(images, content) == {hashlib.sha256(content).hexdigest()}
    assert READINGS.contract.ids_in(readings, content) == {
        hashlib.sha256(day).hexdigest() for day in (b"2023-01-01", b"2023-01-02")
    }


def test_the_metrics_of_the_kind_have_a_section_of_their_own_in_mlflow() -> None:
    metrics = {
        "test_accuracy": 0.9,
        "test_mean_absolute_error": 1.2,
        "val_mean_absolute_error": 1.1,
        "val_loss": 2.0,
        "loss": 3.0,
    }
    assert charted(metrics, READINGS).keys() - metrics.keys() == {
        "quality/test_mean_absolute_error", "quality/val_mean_absolute_error", "quality/val_loss",
    }  # fmt: skip
    assert charted(metrics, CLASSIFY).keys() - metrics.keys() == {"quality/test_accuracy", "quality/val_loss"}


def test_slices_are_shown_by_the_metric_and_in_its_unit() -> None:
    row = Slice("source", "2023.csv", 40, 30, 10, 1.5, 1.31, 1.72, None, None, None, 0.9)
    text = comparison(4, "better", [row], READINGS.judge.metrics[0])
    assert "| items | number | champion's mean error (95 %) |" in text
    assert "| source 2023.csv | 40 | 1.50 °C (1.31 to 1.72) | – | 30 | 10 | 0.9 |" in text


def test_what_may_be_copied_or_contradict_is_expected_of_every_collection() -> None:
    suite = of_the_collection(Validate.model_validate({"max_conflict_share": 0.125}))
    assert [(one.column, one.max_value, one.meta["expected"]) for one in suite] == [
        ("duplicate_share", 0.5, "at most 50 %"),
        ("conflict_share", 0.125, "at most 12.5 %"),
    ]

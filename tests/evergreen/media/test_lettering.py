"""lettering: text that people chose is drawn as it stands."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

from evergreen.kinds.classify.answers import Answering
from evergreen.kinds.classify.pictures import commonest_mistakes, confusion_matrix
from evergreen.media import lettering
from evergreen.media.lettering import drawable, fonts_for, remedy

TRAPS = [
    ["$5", "$10"],
    ["$10-$20", "$20-$50"],
    ["US$_$", "EUR"],
    ["$5_$", "b"],
    ["$$", "$"],
    ["$\\mu$m", "b"],
    ["\\$", "$\\frac{"],
]


@pytest.mark.parametrize("labels", TRAPS)
def test_a_label_with_dollar_signs_is_drawn_as_it_stands(labels: list[str]) -> None:
    figure = confusion_matrix(np.eye(len(labels), dtype=int), labels)
    figure.savefig(io.BytesIO(), dpi=50)
    ticks = figure.axes[0].get_xticklabels() + figure.axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == labels * 2 and not any(tick.get_parse_math() for tick in ticks)
    images, wrong = np.zeros((2, 8, 8, 3), np.uint8), np.eye(2)[::-1]
    answered = Answering().decide(wrong, None)
    mistakes, shown = commonest_mistakes(np.arange(2), wrong, *answered, labels, images, ["one", "two"])
    mistakes.savefig(io.BytesIO(), dpi=50)
    assert sorted(shown) == ["one", "two"]


@pytest.mark.parametrize(
    "labels", [["猫", "狗"], ["ネコ", "개"], ["قط", "كلب"], ["बिल्ली", "cat"], ["🐱", "dog"], ["größe", "кошка"]]
)
def test_no_label_is_drawn_as_empty_boxes(labels: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each letter that its fonts do not have
        confusion_matrix(np.eye(2, dtype=int), labels).savefig(io.BytesIO(), dpi=50)


def test_letters_that_no_font_has_are_replaced_by_the_labels_number_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    lettering._warn.cache_clear()
    for _ in range(2):
        texts, _ = drawable(["cat", "\U0001f9ff\U000e0100\U0010fffd"])  # the last one is for private use: no font has it
        assert texts == ["cat", "label 2"]
    assert len(caplog.records) == 1 and "sudo apt install" in caplog.text


def test_plain_text_needs_no_other_font() -> None:
    assert fonts_for(["cat", "Größe", "кошка", "50 % μm"]) == (("DejaVu Sans",), frozenset())


def test_the_package_that_has_the_letters_is_named() -> None:
    assert remedy("猫") == remedy("ね") == remedy("개") == "sudo apt install fonts-noto-cjk"
    assert remedy("ब") == "sudo apt install fonts-noto-core" and remedy("🐱") == "sudo apt install fonts-symbola"

"""The question that `evergreen new` asks at a terminal, where the labels could be more than one level of folders."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from evergreen.kinds.classify.folder_layout import understand
from flows.scenarios import ask

SHAPES = Counter({(colour, shape): 10 for colour in ("red", "blue") for shape in ("circle", "square")})


@pytest.mark.parametrize(
    ("answer", "labels"), [("\n", {"circle", "square"}), ("1\n", {"red", "blue"}), ("5\n1\n", {"red", "blue"})]
)
def test_the_answer_decides_and_enter_takes_what_is_most_plausible(
    answer: str, labels: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    layout = understand(SHAPES, ask=ask)
    assert set(layout.label.counts) == labels and not any("In doubt" in reason for reason in layout.reasons)
    shown = capsys.readouterr().err
    assert "1: blue, red (2)" in shown and "2: circle, square (2)" in shown

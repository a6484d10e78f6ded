"""What people see at a terminal: nothing that it has to break, and never silence."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.flows.conftest import Checkout
from tests.support.terminal import in_a_terminal, lines, too_wide

pytestmark = pytest.mark.slow

COLOUR = re.compile(r"\x1b\[[0-9;]*3[1-7]")


def at_a_terminal(checkout: Checkout, columns: int, *arguments: str, typed: str = "", **environment: str) -> str:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    status, text = in_a_terminal(command, columns, checkout.environment | environment, checkout.root, typed)
    assert status == 0, text
    return text


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("list",), ("status",), ("doctor",), ("run",), ("report",)], ids=" ".join
)
def test_no_command_writes_a_line_that_the_terminal_must_break(
    trained: tuple[Checkout, Any], columns: int, arguments: tuple[str, ...]
) -> None:
    assert too_wide(at_a_terminal(trained[0], columns, *arguments), columns) == []


def test_training_and_tuning_show_a_bar_with_the_time_left_and_no_silence(checkout: Checkout) -> None:
    checkout.change("quickstart", "epochs: ", "epochs: 6 # ")
    text = at_a_terminal(checkout, 80, "run")
    assert too_wide(text, 80) == []
    shown = lines(text)
    assert any(re.search(r"train [━─]{20} +\d+ % .*epoch \d of 6", line) for line in shown)
    for what in ("Starting Prefect", "Starting TensorFlow"):
        assert any(what in line for line in shown)
    assert COLOUR.search(text) and "\x1b[?25l" not in text
    assert not re.search(r"\d[eE][-+]\d", "\n".join(shown))
    tuned = at_a_terminal(checkout, 80, "tune", "quickstart", "--budget-wh", "1", "--trials", "1", NO_COLOR="1")
    assert too_wide(tuned, 80) == [] and not COLOUR.search(tuned)
    assert any(re.search(r"trial 0 [━─]{20} ", line) for line in lines(tuned))


def test_new_fits_the_terminal_and_delete_asks_and_says_what_it_keeps(checkout: Checkout, tmp_path: Path) -> None:
    for number, label in enumerate(("good", "bad")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for shade in range(12):
            Image.new("L", (16, 16), 20 * shade + number).save(tmp_path / "images" / label / f"{shade}.png")
    text = at_a_terminal(checkout, 80, "new", "parts", "--images", str(tmp_path / "images"))
    assert too_wide(text, 80) == [] and (checkout.root / "scenarios/parts.yaml").exists()
    estimated = at_a_terminal(checkout, 80, "run", "parts", "--estimate")
    assert too_wide(estimated, 80) == [] and "24 items counted in the source" in " ".join(lines(estimated))
    deleted = at_a_terminal(checkout, 80, "delete", "parts", typed="y\n")
    assert "Delete parts? [y/N]" in deleted and "evergreen-parts" in deleted and too_wide(deleted, 80) == []
    assert not (checkout.root / "scenarios/parts.yaml").exists()
    assert (checkout.root / "scenarios/quickstart.yaml").exists()


def test_scripts_are_never_asked(trained: tuple[Checkout, Any]) -> None:
    done = trained[0].evergreen("delete", "quickstart", "--json")
    assert done.status == 2 and "--yes" in done.json["error"]
    listed = {row["name"]: row for row in trained[0].evergreen("list", "--json").json["scenarios"]}
    assert listed["quickstart"]["champion"] == 1
    assert re.fullmatch(r"evergreen \d+\.\d+\.\d+\n", trained[0].evergreen("--version").out)
    assert "Did you mean quickstart?" in trained[0].evergreen("run", "quikstart").err
    assert "Begin here" in trained[0].evergreen().out

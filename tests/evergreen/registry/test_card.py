"""The model card as people read it."""

from __future__ import annotations

from evergreen.evaluation.gate import Slice
from evergreen.kinds.base.judge import NO_BREAKDOWN, Breakdown
from evergreen.kinds.classify.comparison import ACCURACY
from evergreen.registry.card import CardCost, ModelCard, comparison
from evergreen.scenario.loading import load_scenario
from tests.conftest import ROOT

QUICKSTART = load_scenario(ROOT / "scenarios", "quickstart")
TRAINING = {
    "seed": 7,
    "best_epoch": 3,
    "precision": "float32",
    "labels": ["a", "b"],
    "shape": [8, 8, 1],
    "start": {"version": 4},
}
SLICES = (
    Slice("label", "a*b", 1200, 3, 1, 0.9, 0.88, 0.92, 0.95, 0.93, 0.96, 0.0123),
    Slice("camera", "x", 0, 0, 0, None, None, None, None, None, None, None),
)


def card(**changed: object) -> str:
    known: dict[str, object] = {
        "metrics": {"accuracy": 0.91234, "latency_ms": None, "test_items": 1234},
        "breakdown": Breakdown("Quality by label", ({"label": "a_b", "items": 12},)),
        "answer_rules": NO_BREAKDOWN,
        "slices": NO_BREAKDOWN,
        "gap": "98 % on val, but 87 % on test",
        "splits": {"train": 1250, "val": 10, "test": 20},
        "left_out": 3,
        "data_version": "0a1b",
        "git_commit": None,
        "training": TRAINING,
        "costs": (CardCost("train", "3 s", "1 Wh", "2 g", "3 g"),),
    }
    return ModelCard(**{**known, **changed}).markdown(QUICKSTART)  # type: ignore[arg-type]


def test_it_says_what_the_model_is_how_good_and_at_what_cost() -> None:
    lines = card().splitlines()
    assert lines[0] == "# evergreen-quickstart"
    assert "- Data version `0a1b`, git commit `none`, seed 7, best epoch 3, float32, trained from version 4." in lines
    assert any(line.startswith("- 1,250 training, 10 validation and 20 test items; 3 left out because ") for line in lines)
    at = lines.index("## Quality on the test split")
    assert lines[at + 1 : at + 13] == [
        "", "| metric | value |", "|---|---|", "| accuracy | 0.9123 |", "| latency_ms | unknown |", "| test_items | 1,234 |", "",
        "**98 % on val, but 87 % on test**", "", "### Quality by label", "", "| label | items |",
    ]  # fmt: skip
    assert lines[at + 13 : at + 17] == ["|---|---|", r"| a\_b | 12 |", "", "## What it took"]
    assert "| train | 3 s | 1 Wh | 2 g | 3 g |" in lines
    assert card().endswith(f"## Before you use it\n\n{lines[-1]}\n") and lines[-1]


def test_it_says_when_the_model_answers_and_what_could_not_be_chosen() -> None:
    rules = Breakdown(
        "Answers", ({"what": "recall of fire", "on test": "90 %"},), ("No threshold is set for smoke: few items.",)
    )
    lines = card(answer_rules=rules).splitlines()
    at = lines.index("### Answers")
    assert lines[at + 1 : at + 8] == [
        "", "| what | on test |", "|---|---|", "| recall of fire | 90 % |", "", "No threshold is set for smoke: few items.", "",
    ]  # fmt: skip
    assert lines[at + 8] == "## What it took"


def test_gaps_between_slices_stand_in_it_also_if_there_is_no_row() -> None:
    slices = Breakdown("Gaps between slices", (), ("Nothing can be concluded about camera a_b.",))
    lines = card(slices=slices).splitlines()
    at = lines.index("### Gaps between slices")
    assert lines[at + 1 : at + 4] == ["", r"Nothing can be concluded about camera a\_b.", ""]


def test_parts_that_there_are_not_leave_no_gap_in_it() -> None:
    lines = card(gap=None, breakdown=NO_BREAKDOWN).splitlines()
    at = lines.index("| test_items | 1,234 |")
    assert lines[at + 1 : at + 3] == ["", "## What it took"]
    assert not any(one == two == "" for one, two in zip(lines, lines[1:], strict=False))


def test_a_comparison_has_a_line_for_each_slice() -> None:
    text = comparison(1, "better by *much*", SLICES, ACCURACY)
    lines = text.splitlines()
    assert lines[0].startswith("## Against version 1, the champion on 20") and lines[0].endswith(" UTC")
    assert lines[2] == r"It was better by \*much\*."
    assert lines[5] == "|---|---|---|---|---|---|---|"
    assert lines[6] == (r"| label a\*b | 1,200 | 90.0 % (88.0 to 92.0 %) | 95.0 % (93.0 to 96.0 %) | 3 | 1 | 0.0123 |")
    assert lines[7] == "| camera x | 0 | – | – | 0 | 0 | too few |"
    assert len(lines) == 8 and text.endswith("\n")


def test_of_a_first_model_it_says_what_the_gate_said() -> None:
    lines = comparison(None, "better than always naming one label", (), ACCURACY).splitlines()
    assert lines[0].startswith("## Against no champion, on 20")
    assert lines[2] == "Asked whether it may be the first one, the gate said: better than always naming one label."

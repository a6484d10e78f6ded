"""Gaps between slices: what is said of them is what the items support, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from evergreen.kinds.base.judge import SliceGaps
from evergreen.kinds.classify.slices import slice_gaps

NAMES = ["crack", "good", "dust"]


def predictions(found: dict[str, tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray, dict[str, list[str]]]:
    """Items of slices of the column `camera`: cracks, of them found, good items, of them taken for cracks."""
    labels, predicted, cameras = [], [], []
    for camera, (cracks, hits, good, alarms) in found.items():
        labels += [0] * cracks + [1] * good
        predicted += [0] * hits + [1] * (cracks - hits) + [0] * alarms + [1] * (good - alarms)
        cameras += [camera] * (cracks + good)
    return np.array(labels), np.array(predicted), {"camera": cameras}


def compared(found: dict[str, tuple[int, int, int, int]], names: list[str] = NAMES) -> SliceGaps:
    labels, predicted, columns = predictions(found)
    return slice_gaps(labels, predicted, names, columns, 30)


def test_a_gap_that_chance_does_not_explain_is_said_in_a_sentence_with_its_interval() -> None:
    gaps = compared({"east": (100, 70, 200, 2), "west": (100, 95, 200, 2), "south": (100, 94, 200, 3)})
    [east] = [one for one in gaps.figures if (one["value"], one["label"], one["figure"]) == ("east", "crack", "recall")]
    assert (east["hits"], east["items"], east["other_hits"], east["other_items"]) == (70, 100, 189, 200)
    assert east["difference"] == pytest.approx(0.70 - 0.945)
    assert east["difference_low"] < east["difference"] < east["difference_high"] < 0
    first = gaps.breakdown.notes[0]
    assert first.startswith(
        'Recall of "crack" is lower for camera "east": 70 % (60 to 78 %) of 100 items, against 94.5 % of the 200 others.'
    )
    assert "more than chance explains (p < 0.001 over 15 comparisons)" in first
    assert gaps.breakdown.rows[0]["slice"] == "camera east" and str(gaps.breakdown.rows[0]["chance explains it"]).startswith(
        "no, "
    )


def test_more_false_alarms_in_a_slice_are_a_gap_too() -> None:
    gaps = compared({"east": (60, 57, 200, 40), "west": (60, 57, 200, 2), "south": (60, 57, 200, 2)})
    assert gaps.breakdown.notes[0].startswith(
        'False alarms of "crack" are higher for camera "east": 20 % (15 to 26 %) of 200 items'
    )


def test_a_gap_that_may_be_chance_is_not_made_much_of() -> None:
    gaps = compared({"east": (100, 90, 100, 3), "west": (100, 94, 100, 2), "south": (100, 93, 100, 4)})
    assert gaps.breakdown.notes[:-1] == ("No gap between slices is larger than chance explains, in 15 comparisons.",)
    assert len(gaps.figures) == len(gaps.breakdown.rows) == 18


def test_one_gap_in_twenty_that_looks_significant_is_not_reported_as_one() -> None:
    """Of 36 comparisons without any gap, about two have p-values below 0.05; in most draws none is reported."""
    random, reported = np.random.default_rng(0), 0
    for _ in range(20):
        labels = random.integers(0, 3, 600)
        predicted = np.where(random.random(600) < 0.8, labels, random.integers(0, 3, 600))
        columns = {name: random.choice(list("abc"), 600).tolist() for name in ("site", "day")}
        gaps = slice_gaps(labels, predicted, ["x", "y", "z"], columns, 30)
        reported += any("more than chance" in sentence for sentence in gaps.breakdown.notes)
    assert reported <= 3


def test_of_two_slices_one_sentence_says_it_all_and_the_test_counts_once() -> None:
    gaps = compared({"day": (100, 95, 100, 0), "night": (100, 60, 100, 0)}, ["crack", "good"])
    sentence, _ = gaps.breakdown.notes
    assert sentence.startswith('Recall of "crack" is lower for camera "night"')
    assert sentence.endswith("(p < 0.001 over 2 comparisons).")
    assert len({one["p_value"] for one in gaps.figures if one["label"] == "crack"}) == 1
    assert {one["figure"] for one in gaps.figures} == {"recall"}


def test_slices_with_the_same_counts_are_tests_of_their_own() -> None:
    same = (100, 90, 100, 3)
    gaps = compared({"east": same, "west": same, "south": same, "north": (100, 80, 100, 3)})
    judged = [one for one in gaps.figures if one["p_value"] is not None]
    assert len(judged) == 20  # four slices; recall and false alarms of two labels, and false alarms of the third
    [north] = [one for one in judged if (one["value"], one["label"], one["figure"]) == ("north", "crack", "recall")]
    alone = fisher_exact([[80, 20], [270, 30]]).pvalue
    assert north["p_value"] == min(one["p_value"] for one in judged) == pytest.approx(20 * alone)


def test_of_small_slices_nothing_is_concluded_however_bad_they_look() -> None:
    gaps = compared({"east": (20, 0, 5, 5), "west": (200, 198, 200, 1), "south": (200, 198, 200, 1)})
    assert not any(one["value"] == "east" for one in gaps.figures)
    assert gaps.breakdown.notes[-2].startswith(
        'Nothing can be concluded about camera "east": that needs at least 30 test items'
    )
    few_cracks = compared({"east": (20, 0, 100, 0), "west": (200, 198, 200, 1), "south": (200, 198, 200, 1)})
    [east] = [one for one in few_cracks.figures if (one["value"], one["label"], one["figure"]) == ("east", "crack", "recall")]
    assert east["p_value"] is None and not any(
        "Recall" in sentence and "east" in sentence for sentence in few_cracks.breakdown.notes
    )
    assert "too few items to conclude anything" in {row["chance explains it"] for row in few_cracks.breakdown.rows}


def test_many_small_slices_are_counted_and_cost_nothing() -> None:
    labels = np.tile([0, 1], 10_000)
    gaps = slice_gaps(labels, labels, NAMES, {"source": [str(number) for number in range(20_000)]}, 30)
    assert gaps.figures == () and gaps.breakdown.notes[0].startswith('Nothing can be concluded about source "0"')
    assert "and 19,995 more" in gaps.breakdown.notes[0]


def test_without_slices_or_with_one_value_there_is_nothing_to_compare() -> None:
    labels, predicted, _ = predictions({"east": (50, 40, 50, 1)})
    for columns in ({}, {"camera": ["east"] * 100}):
        gaps = slice_gaps(labels, predicted, NAMES, columns, 30)
        assert (gaps.figures, gaps.breakdown.rows, gaps.breakdown.notes) == ((), (), ())

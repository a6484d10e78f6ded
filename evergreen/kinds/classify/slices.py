"""Compares the quality for each label between slices of the test items, such as those of each camera.

Two figures are compared, each between the items of a slice and all others: *recall*, the fraction of a label's items that are
recognized, and *false alarms*, the fraction of other labels' items that are taken for it. Of two labels, the false alarms of
one are what the recall of the other lacks, and are not counted again.

An interval of a difference is Newcombe's, at 95 %. Whether chance explains it is tested by Fisher's exact test, two-sided, with
Holm's correction for all comparisons together, since one in twenty would look significant by chance alone. The tests take items
as independent. Items of one group (a clip, a patient) are not, so that a gap of a few groups may look more certain than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from evergreen import figures
from evergreen.evaluation.multiple_testing import holm
from evergreen.evaluation.proportions import difference, interval
from evergreen.kinds.base.judge import Breakdown, SliceGaps

LEVEL = 0.05  # the probability of any false statement, over all comparisons
EXPLAINED = (
    "Each slice is compared with all other test items; differences have 95 % intervals, and tests are corrected for their number and take items as "
    "independent. evaluation/slices.csv has all comparisons.",
)
NAMED = 5  # slices that a sentence names
RECALL, FALSE_ALARMS = "recall", "false alarms"


@dataclass(frozen=True)
class Gap:
    """A figure in a slice, and for all other items.

    Attributes:
        column, value: the slice.
        label: the label.
        figure: `RECALL` or `FALSE_ALARMS`.
        hits, items: the figure in the slice is their ratio; `low` and `high` are the ends of its 95 % interval.
        other_hits, other_items: the same for all items outside the slice.
        difference: of the two ratios, with its 95 % interval; None where either has no items.
        p_value: the probability of a difference at least as large if there were none, corrected for all comparisons; None if
            there are too few items on either side.
    """

    column: str
    value: str
    label: str
    figure: str
    hits: int
    items: int
    low: float | None
    high: float | None
    other_hits: int
    other_items: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None

    @property
    def beyond_chance(self) -> bool:
        """True if chance does not explain the difference."""
        return self.p_value is not None and self.p_value <= LEVEL

    @property
    def is_worse(self) -> bool:
        """True if the slice is worse than the others."""
        return ((self.difference or 0.0) < 0) == (self.figure == RECALL)


def slice_gaps(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], columns: Mapping[str, Sequence[str]], min_items: int
) -> SliceGaps:
    """Compare each slice with all other items, label by label.

    Args:
        labels: int `(items,)`, indices in `names`.
        predicted: int `(items,)`, the same of the answers; -1 where the model does not know.
        columns: the slices, as a value for each item, by the column's name. A column with one value gives no slice.
        min_items: with fewer items on either side nothing is concluded.
    """
    slices = Counter((column, value) for column, values in columns.items() if len(set(values)) > 1 for value in values)
    large = [one for one in sorted(slices) if slices[one] >= min_items]
    values = Counter(column for column, _ in slices)
    found = _tested([gap for one in large for gap in _gaps(labels, predicted, names, columns, *one)], values, min_items)
    judged = {(gap.column, gap.value) for gap in found if gap.p_value is not None}
    small = [one for one in sorted(slices) if one not in judged]
    shown = sorted(found, key=lambda gap: 2.0 if gap.p_value is None else gap.p_value)
    notes = (*_sentences(found, small, values, min_items), *(EXPLAINED if found else ()))
    return SliceGaps(tuple(asdict(gap) for gap in found), Breakdown("Gaps between slices", tuple(map(_row, shown)), notes))


def _gaps(
    labels: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    column: str,
    value: str,
) -> Iterator[Gap]:
    """The gaps of a slice, not tested yet."""
    inside = np.array([one == value for one in columns[column]])
    for index, label in enumerate(names):
        claimed = predicted == index
        figures_of_label = ((RECALL, labels == index), (FALSE_ALARMS, labels != index))
        for figure, counted in figures_of_label[: 1 if len(names) == 2 and (predicted >= 0).all() else 2]:
            hits, items = int((claimed & counted & inside).sum()), int((counted & inside).sum())
            other_hits, other_items = int((claimed & counted & ~inside).sum()), int((counted & ~inside).sum())
            apart: tuple[float | None, float | None, float | None] = (None, None, None)
            if items and other_items:
                apart = difference(hits, items, other_hits, other_items, level=0.05)
            ends: tuple[float | None, float | None] = interval(hits, items) if items else (None, None)
            yield Gap(column, value, label, figure, hits, items, *ends, other_hits, other_items, *apart, None)


def _tested(found: Sequence[Gap], values: Mapping[str, int], min_items: int) -> list[Gap]:
    """The gaps with their corrected p-values. Where a column has two values, each is all that the other is not, and one test
    counts for both.

    Args:
        values: the number of values, by the column's name.
    """
    tests = [(gap.column, gap.value if values[gap.column] > 2 else None, gap.label, gap.figure) for gap in found]
    p_values = {
        test: _fisher(gap) for test, gap in zip(tests, found, strict=True) if min(gap.items, gap.other_items) >= min_items
    }
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [replace(gap, p_value=corrected.get(test)) for test, gap in zip(tests, found, strict=True)]


def _fisher(gap: Gap) -> float:
    from scipy.stats import fisher_exact

    table = [[gap.hits, gap.items - gap.hits], [gap.other_hits, gap.other_items - gap.other_hits]]
    return float(fisher_exact(table).pvalue)


def _row(gap: Gap) -> dict[str, str | int]:
    chance = "too few items to conclude anything"
    if gap.p_value is not None:
        chance = f"{'no' if gap.beyond_chance else 'yes'}, {figures.probability(gap.p_value)}"
    return {
        "slice": f"{gap.column} {gap.value}",
        "label": gap.label,
        "figure": gap.figure,
        "items": gap.items,
        "in the slice": figures.percent(gap.hits / gap.items, gap.low, gap.high) if gap.items else "none",
        "others": figures.percent(gap.other_hits / gap.other_items, items=gap.other_items) if gap.other_items else "none",
        "difference": figures.points(gap.difference, gap.difference_low, gap.difference_high),
        "chance explains it": chance,
    }


def _sentences(
    found: Sequence[Gap], small: Sequence[tuple[str, str]], values: Mapping[str, int], min_items: int
) -> Iterator[str]:
    """A sentence for each gap that chance does not explain, and one about the slices of which nothing can be concluded.

    Args:
        small: these slices.
        values: the number of values, by the column's name.
    """
    judged = [gap for gap in found if gap.p_value is not None]
    tests = sum(1.0 if values[gap.column] > 2 else 0.5 for gap in judged)  # of two values one test counts for both
    beyond = sorted((gap for gap in judged if gap.beyond_chance), key=lambda gap: (not gap.is_worse, gap.p_value))
    for gap in beyond:
        if gap.is_worse or values[gap.column] > 2:  # of two values one sentence says it all
            yield _sentence(gap, int(tests))
    if judged and not beyond:
        yield f"No gap between slices is larger than chance explains, in {figures.count(int(tests), 'comparison')}."
    if small:
        named = ", ".join(f'{column} "{value}"' for column, value in small[:NAMED])
        more = f" and {len(small) - NAMED:,} more" if len(small) > NAMED else ""
        yield (
            f"Nothing can be concluded about {named}{more}: that needs at least {min_items:,} test items with a label (or without it) in "
            "the slice, and as many outside it (promote.min_slice_items)."
        )


def _sentence(gap: Gap, comparisons: int) -> str:
    assert gap.difference is not None
    direction = "lower" if gap.difference < 0 else "higher"
    verb = "are" if gap.figure == FALSE_ALARMS else "is"
    inside = figures.percent(gap.hits / gap.items, gap.low, gap.high)
    others = figures.percent(gap.other_hits / gap.other_items, items=gap.other_items)
    apart = figures.points(gap.difference, gap.difference_low, gap.difference_high)
    return (
        f'{gap.figure.capitalize()} of "{gap.label}" {verb} {direction} for {gap.column} "{gap.value}": {inside} of {figures.count(gap.items, "item")}, '
        f"against {others} of the {gap.other_items:,} others. That is {apart}, more than chance explains "
        f"({figures.probability(gap.p_value)} over {figures.count(comparisons, 'comparison')})."
    )

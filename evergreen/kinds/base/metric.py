"""Metrics of quality: name, direction, and formatting of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from evergreen import figures


@dataclass(frozen=True)
class Metric:
    """A metric of quality.

    Attributes:
        key: the name in records and settings, such as `accuracy`; with `_low` and `_high` appended for the ends of its 95 %
            interval.
        title: the name that is shown.
        higher_is_better: whether larger values are better.
        unit: of its values; "%" for fractions (0 to 1), which are shown as percentages.
        margins: whether the margins in the section `promote` are differences of the metric, or fractions of the champion's
            value.
    """

    key: str
    title: str
    higher_is_better: bool = True
    unit: str = "%"
    margins: Literal["absolute", "relative"] = "absolute"

    def text(self, value: float | None, low: float | None = None, high: float | None = None, items: int | None = None) -> str:
        """Format a value, with as many digits as its interval or the number of items justifies."""
        if self.unit == "%":
            return figures.percent(value, low, high, items)
        if value is None or low is None or high is None:
            return f"{figures.number(value)} {self.unit}".rstrip()
        half = (high - low) / 2
        shown, lowest, highest = (figures.number(one, half).partition(" ±")[0] for one in (value, low, high))
        return f"{shown} {self.unit}".rstrip() + f" ({lowest} to {highest})"

    def gain_text(self, gain: float) -> str:
        """Format a gain, as computed by `gain`, with its sign."""
        if self.margins == "relative":
            return f"{100 * gain:+.1f} %"
        if self.unit == "%":
            return figures.points(gain)
        return f"{'-' if gain < 0 else '+'}{figures.number(abs(gain))} {self.unit}".rstrip()

    def margin_text(self, margin: float) -> str:
        """Format a margin, without a sign."""
        if self.margins == "relative" or self.unit == "%":
            return figures.percent(margin)
        return f"{figures.number(margin)} {self.unit}".rstrip()

    def gain(self, champion: Any, challenger: Any) -> Any:
        """How much better the challenger's values are than the champion's, absolute or relative as `margins` says. Numbers or
        arrays."""
        better = challenger - champion if self.higher_is_better else champion - challenger
        return better / abs(champion) if self.margins == "relative" else better

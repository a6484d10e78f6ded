"""A figure of quality: its name, its direction, and how people read its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from evergreen import figures


@dataclass(frozen=True)
class Metric:
    """A figure of quality.

    Attributes:
        key: its name in records and settings, such as `accuracy`; with `_low` and `_high` for the ends of its 95 % interval.
        title: for people.
        higher_is_better: or lower.
        unit: of its values; "%" for fractions (0 to 1), which people see as percentages.
        margins: whether the margins of the section `promote` are differences of the metric, or fractions of the champion's value.
    """

    key: str
    title: str
    higher_is_better: bool = True
    unit: str = "%"
    margins: Literal["absolute", "relative"] = "absolute"

    def text(self, value: float | None, low: float | None = None, high: float | None = None, items: int | None = None) -> str:
        """A value for people, with the digits that its interval carries, or that so many items do."""
        if self.unit == "%":
            return figures.percent(value, low, high, items)
        if value is None or low is None or high is None:
            return f"{figures.number(value)} {self.unit}".rstrip()
        half = (high - low) / 2
        shown, lowest, highest = (figures.number(one, half).partition(" ±")[0] for one in (value, low, high))
        return f"{shown} {self.unit}".rstrip() + f" ({lowest} to {highest})"

    def gain_text(self, gain: float) -> str:
        """How much better a challenger is, signed, as `gain` gives it."""
        if self.margins == "relative":
            return f"{100 * gain:+.1f} %"
        if self.unit == "%":
            return figures.points(gain)
        return f"{'-' if gain < 0 else '+'}{figures.number(abs(gain))} {self.unit}".rstrip()

    def margin_text(self, margin: float) -> str:
        """A margin, without a sign."""
        if self.margins == "relative" or self.unit == "%":
            return figures.percent(margin)
        return f"{figures.number(margin)} {self.unit}".rstrip()

    def gain(self, champion: Any, challenger: Any) -> Any:
        """By how much the challenger's values are better than the champion's, in the terms of the margins. Numbers or arrays."""
        better = challenger - champion if self.higher_is_better else champion - challenger
        return better / abs(champion) if self.margins == "relative" else better

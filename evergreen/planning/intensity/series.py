"""What a grid emits over time, in grams of CO2 equivalents a kWh.

All figures are averages over what the grid generates at the place where the energy is drawn (average-intensity, location-based
by the GHG Protocol's Scope 2 Guidance). What one more kWh would cause, the marginal intensity, is another figure and not given
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from evergreen.errors import WrongUse

if TYPE_CHECKING:
    import pandas as pd

HALF_HOUR = timedelta(minutes=30)
# In which a grid moves little and steadily; what it did in a longer one is unknown.
LONGEST_FILLED_GAP = timedelta(hours=3)


@dataclass(frozen=True, eq=False)
class IntensitySeries:
    """A grid's intensity, one value a step, without holes: an unknown step is NaN.

    Attributes:
        start: of the first step, with a time zone; kept in UTC.
        step: length of every step, above zero.
        intensity_gco2e_per_kwh: float64 `(steps,)`, 0 or more, NaN where unknown: the mean over the step.
        zone: of the grid, as its source names it.
        source: of the figures, for people.
    """

    start: datetime
    step: timedelta
    intensity_gco2e_per_kwh: np.ndarray
    zone: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", in_utc(self.start, "an intensity series' start"))

    def __len__(self) -> int:
        return len(self.intensity_gco2e_per_kwh)

    @property
    def end(self) -> datetime:
        """Of the last step."""
        return self.start + len(self) * self.step

    def known_by(self, moment: datetime) -> IntensitySeries:
        """The steps that have ended by `moment`: what can be known of the past then."""
        ended = (in_utc(moment, "the moment") - self.start) // self.step
        return self._with(self.intensity_gco2e_per_kwh[: max(ended, 0)])

    def between(self, start: datetime, end: datetime) -> IntensitySeries:
        """The steps that lie within `start` to `end`."""
        first = max(-((self.start - in_utc(start, "the start")) // self.step), 0)
        ended = self.known_by(end).intensity_gco2e_per_kwh
        return self._with(ended[first:], self.start + first * self.step)

    def as_pandas(self) -> pd.Series:
        """float64, indexed by the start of each step in UTC."""
        import pandas as pd

        return pd.Series(self.intensity_gco2e_per_kwh, pd.date_range(self.start, periods=len(self), freq=self.step))

    def interpolated(self, longest: timedelta = LONGEST_FILLED_GAP) -> IntensitySeries:
        """With every gap of at most `longest` between two known steps filled by a straight line; longer ones stay unknown.

        A filled value leans on the one after the gap. Judge the past by it, but forecast from the series as it was.
        """
        values = self.as_pandas()
        known = values.notna()
        gap_steps = (~known).groupby(known.cumsum()).transform("sum")  # of the gap in which a step lies
        filled = values.interpolate(limit_area="inside")
        return self._with(filled.where(known | (gap_steps <= longest / self.step)).to_numpy())

    def with_step(self, step: timedelta) -> IntensitySeries:
        """The same in steps of another length: means over longer ones, repeated in shorter ones.

        Raises:
            WrongUse: neither length is a multiple of the other.
        """
        if step == self.step:
            return self
        if step < self.step and not self.step % step:
            return IntensitySeries(
                self.start, step, np.repeat(self.intensity_gco2e_per_kwh, self.step // step), self.zone, self.source
            )
        if step % self.step:
            raise WrongUse(
                f"an intensity in steps of {self.step} can't be given in steps of {step}",
                expected="a step that divides the other", fix="Take another step.",
            )  # fmt: skip
        means = self.as_pandas().resample(step, origin="epoch").mean()
        return IntensitySeries(floor(self.start, step), step, means.to_numpy(), self.zone, self.source)

    def _with(self, values: np.ndarray, start: datetime | None = None) -> IntensitySeries:
        return IntensitySeries(start or self.start, self.step, values, self.zone, self.source)


def in_utc(moment: datetime, what: str) -> datetime:
    """Raises:
    WrongUse: it doesn't say in which time zone it is.
    """
    if moment.tzinfo is None:
        raise WrongUse(f"{what} has no time zone", expected="a time with one", received=moment, fix="Add it: tzinfo=UTC.")
    return moment.astimezone(UTC)


def floor(moment: datetime, step: timedelta) -> datetime:
    """The last moment up to `moment` that is a whole number of steps after 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step

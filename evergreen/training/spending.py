"""The time and energy that a training has spent, over all its attempts."""

from __future__ import annotations

import time

from evergreen.energy.meter import Energy, Meter


class Spending:
    """What a training has spent so far; an attempt begins when this is created.

    Args:
        meter: measures this attempt.
        seconds, energy_wh: spent by earlier attempts; energy is None if unknown.
    """

    def __init__(self, meter: Meter, seconds: float, energy_wh: float | None) -> None:
        self._meter, self._started = meter, time.monotonic()
        self._seconds_before, self._energy_wh_before = seconds, energy_wh

    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def total(self) -> Energy:
        """What was spent so far, of which earlier attempts' uncertainty is not known and counts as in this attempt."""
        now, energy_wh = self._meter.spent(), self.energy_wh()
        if energy_wh is None or not now.energy_wh or now.uncertainty_wh is None:
            return Energy(None, None, (), self.seconds())
        whole = now * (energy_wh / now.energy_wh)
        return Energy(whole.energy_joules, whole.uncertainty_joules, now.methods, self.seconds())

    def energy_wh(self) -> float | None:
        """The energy spent so far; None if unknown."""
        now, before = self._meter.spent().energy_wh, self._energy_wh_before
        return None if now is None or before is None else before + now

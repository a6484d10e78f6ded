"""What gives a grid's intensity, and the simplest one: a constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from evergreen.errors import EvergreenError, WrongUse
from evergreen.planning.intensity.series import HALF_HOUR, IntensitySeries, floor, in_utc


class NoIntensity(EvergreenError):
    """The intensity can't be had now. Work that waits for a clean hour starts at once instead."""


class Provider(Protocol):
    """A source of a grid's intensity."""

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """The steps from `start` to `end`, as far as they are known.

        Raises:
            NoIntensity: it can't be had now.
            WrongUse: what was asked for, or the file, is wrong.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """The same at any hour, where no more is known: a figure of the year, such as `evergreen.energy.carbon.intensity` gives.

    Attributes:
        gco2e_per_kwh: 0 or more.
    """

    gco2e_per_kwh: float
    zone: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gco2e_per_kwh) and self.gco2e_per_kwh >= 0):
            raise WrongUse(
                "the constant carbon intensity is no intensity", expected="grams of CO2e a kWh, 0 or more",
                received=self.gco2e_per_kwh, fix="Take your grid's figure of last year.",
            )  # fmt: skip

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        first = floor(in_utc(start, "the start"), HALF_HOUR)
        steps = max((in_utc(end, "the end") - first) // HALF_HOUR, 0)
        return IntensitySeries(first, HALF_HOUR, np.full(steps, float(self.gco2e_per_kwh)), self.zone, "a constant")

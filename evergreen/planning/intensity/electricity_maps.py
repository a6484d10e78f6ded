"""The intensity of most of the world's grids, from Electricity Maps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evergreen.errors import WrongUse
from evergreen.planning.intensity.provider import NoIntensity
from evergreen.planning.intensity.series import IntensitySeries
from evergreen.planning.intensity.service import Http, Points, even, moment_of, value_of

TOKEN = "ELECTRICITYMAPS_TOKEN"


@dataclass(frozen=True)
class ElectricityMaps:
    """Electricity Maps, https://portal.electricitymaps.com/docs/api, version 3: life-cycle intensity, hourly.

    Its token is read from the environment variable ELECTRICITYMAPS_TOKEN at each question, and kept nowhere.
    """

    zone: str
    cache: Path
    base_url: str = "https://api.electricitymap.org"
    timeout_seconds: float = 10.0
    pause_seconds: float = 1.0

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        token = os.environ.get(TOKEN, "")
        if not token:
            raise WrongUse(
                f"{TOKEN} is not set", expected="a token of Electricity Maps", fix="Set it, or take another provider."
            )
        http = Http(
            self.base_url, self.cache, self.timeout_seconds, pause_seconds=self.pause_seconds, headers={"auth-token": token},
            if_refused=f"Set {TOKEN} to a valid one.",
        )  # fmt: skip
        path = f"/v3/carbon-intensity/past-range?zone={quote(self.zone)}&start={{start}}&end={{end}}"
        points = http.points(path, start, end, self._points)
        return even(points, timedelta(hours=1), start, end, self.zone, "Electricity Maps")

    def _points(self, answer: Any) -> Points:
        other = next((row["zone"] for row in answer["data"] if row.get("zone", self.zone) != self.zone), None)
        if other is not None:
            raise NoIntensity(
                "Electricity Maps answered for another zone", expected=self.zone, received=other, fix="Correct the zone."
            )
        return {moment_of(row["datetime"]): value_of(row["carbonIntensity"]) for row in answer["data"]}

"""The intensity of Great Britain's grid, from its operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen.planning.intensity.series import HALF_HOUR, IntensitySeries
from evergreen.planning.intensity.service import Http, Points, even, moment_of, value_of


@dataclass(frozen=True)
class GreatBritain:
    """The national Carbon Intensity API of Great Britain, https://carbon-intensity.github.io/api-definitions: what was emitted,
    by half hours, of generation and imports; its own forecast is not used."""

    cache: Path
    base_url: str = "https://api.carbonintensity.org.uk"
    timeout_seconds: float = 10.0
    pause_seconds: float = 1.0
    zone: str = field(default="GB", init=False)

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        http = Http(self.base_url, self.cache, self.timeout_seconds, pause_seconds=self.pause_seconds)
        points = http.points("/intensity/{start}/{end}", start, end, self._points)
        return even(points, HALF_HOUR, start, end, self.zone, "GB Carbon Intensity API")

    def _points(self, answer: Any) -> Points:
        return {moment_of(row["from"]): value_of(row["intensity"]["actual"]) for row in answer["data"]}

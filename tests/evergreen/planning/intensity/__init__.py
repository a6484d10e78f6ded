"""What these tests share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from evergreen.planning.intensity.series import IntensitySeries

MONDAY = datetime(2020, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def values_of(found: IntensitySeries) -> list[float | None]:
    """Its values, None where unknown."""
    return [None if np.isnan(value) else float(value) for value in found.intensity_gco2e_per_kwh]

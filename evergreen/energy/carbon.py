"""The carbon emissions of energy, by the intensity of a country's grid from CodeCarbon's bundled tables (no network)."""

from __future__ import annotations

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.energy.meter import Energy
from evergreen.errors import WrongUse


@dataclass(frozen=True)
class Intensity:
    """A grid's emissions per kWh, as a mean over a year, including the life cycle.

    Attributes:
        gco2e_per_kwh: grams of CO2 equivalents.
        source: of the figure.
        year: of the figure.
    """

    gco2e_per_kwh: float
    source: str
    year: int


def intensity(country: str) -> Intensity:
    """The intensity of a country's grid.

    Args:
        country: ISO 3166-1 alpha-3 code.

    Raises:
        WrongUse: the country is not in the tables.
    """
    known = _grids()
    grid = known.get(country)
    if grid is None or not grid.get("carbon_intensity"):
        raise WrongUse(
            "no carbon intensity is known for the scenario's country", expected="an ISO 3166-1 alpha-3 code such as DEU or USA",
            received=country, fix="Correct country in the scenario, or name a country with a similar grid.",
        )  # fmt: skip
    return Intensity(
        float(grid["carbon_intensity"]), f"Our World in Data by CodeCarbon, {grid['country_name']}", int(grid["year"])
    )


def carbon_gco2e(energy: Energy, grid: Intensity) -> float | None:
    """Grams of CO2 equivalents: kWh times intensity. None if the energy is unknown."""
    return None if energy.energy_wh is None else energy.energy_wh / 1000 * grid.gco2e_per_kwh


@functools.cache
def _grids() -> dict[str, dict[str, Any]]:
    package = importlib.util.find_spec("codecarbon")
    assert package is not None and package.submodule_search_locations  # a pinned requirement
    path = Path(package.submodule_search_locations[0]) / "data/private_infra/global_energy_mix.json"
    grids: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return grids

"""Carbon of energy: the intensity of a country's grid, from the tables that CodeCarbon carries (no network)."""

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
    """What a grid emits for a kWh, as a mean over a year, life cycle included.

    Attributes:
        gco2e_per_kwh: grams of CO2 equivalents.
        source: of the figure.
        year: that it is of.
    """

    gco2e_per_kwh: float
    source: str
    year: int


def intensity(country: str) -> Intensity:
    """The intensity of a country's grid.

    Args:
        country: ISO 3166-1 alpha-3 code.

    Raises:
        WrongUse: the tables don't know the country.
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
    """Grams of CO2 equivalents: kWh times intensity. None where the energy is unknown."""
    return None if energy.energy_wh is None else energy.energy_wh / 1000 * grid.gco2e_per_kwh


@functools.cache
def _grids() -> dict[str, dict[str, Any]]:
    package = importlib.util.find_spec("codecarbon")
    assert package is not None and package.submodule_search_locations  # a locked requirement
    path = Path(package.submodule_search_locations[0]) / "data/private_infra/global_energy_mix.json"
    grids: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return grids

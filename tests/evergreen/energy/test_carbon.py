"""Carbon of energy, by the tables that travel with the project."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.energy.carbon import Intensity, carbon_gco2e, intensity
from evergreen.energy.meter import Energy
from evergreen.errors import WrongUse

GERMANY = intensity("DEU")


def test_grids_differ_as_countries_do() -> None:
    known = {country: intensity(country) for country in ("DEU", "FRA", "NOR", "POL", "USA")}
    assert all(0 < grid.gco2e_per_kwh < 1500 and grid.year >= 2020 for grid in known.values())
    assert known["NOR"].gco2e_per_kwh < known["FRA"].gco2e_per_kwh < known["DEU"].gco2e_per_kwh < known["POL"].gco2e_per_kwh


def test_a_figure_names_where_it_is_from() -> None:
    assert "Our World in Data" in GERMANY.source and "Germany" in GERMANY.source


@pytest.mark.parametrize("country", ["XYZ", "deu", "DE", "", "Germany"])
def test_a_country_that_is_not_known_is_refused_and_not_guessed(country: str) -> None:
    with pytest.raises(WrongUse, match="no carbon intensity is known.*Correct country in the scenario"):
        intensity(country)


def test_a_kilowatt_hour_emits_the_grids_intensity() -> None:
    assert carbon_gco2e(Energy(3.6e6, 0.0, ("rapl",), 1.0), Intensity(380.0, "a table", 2024)) == 380.0


def test_of_unknown_energy_the_carbon_is_unknown_and_never_0() -> None:
    assert carbon_gco2e(Energy(None, None, (), 5.0), GERMANY) is None
    assert carbon_gco2e(Energy.nothing(), GERMANY) == 0


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_the_carbon_of_a_sum_is_the_sum_of_the_carbon(one: float, other: float) -> None:
    first, second = Energy(one, 0.0, ("rapl",), 1.0), Energy(other, 0.0, ("rapl",), 1.0)
    apart = (carbon_gco2e(first, GERMANY) or 0) + (carbon_gco2e(second, GERMANY) or 0)
    assert carbon_gco2e(first + second, GERMANY) == pytest.approx(apart)

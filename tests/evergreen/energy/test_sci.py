"""The Software Carbon Intensity, by the specification's own examples and as it must behave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.energy.meter import Energy
from evergreen.energy.sci import embodied_gco2e, footprint
from evergreen.scenario.loading import load_scenario, parse_scenario
from evergreen.scenario.settings import Machine, Scenario
from tests.support.shipped import shipped

QUICKSTART = load_scenario(shipped() / "scenarios", "quickstart")
HOUR, YEAR = 3600.0, 365 * 24 * 3600.0


def scenario(machine: Machine | None, country: str = "DEU") -> Scenario:
    return QUICKSTART.model_copy(update={"machine": machine, "country": country})


def test_the_specifications_example_of_a_machine_reserved_for_an_hour() -> None:
    # SCI 1.1.0, "Embodied emissions": 1000 kg over four years, reserved for one hour, are around 28 g.
    machine = Machine(embodied_kgco2e=1000, lifespan_years=4)
    assert (
        embodied_gco2e(machine, HOUR) == pytest.approx(1_000_000 / (4 * 365 * 24)) and 28 < embodied_gco2e(machine, HOUR) < 29
    )


def test_the_guides_example_of_twenty_thousand_requests_on_a_rented_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SCI guide's quick guide: a host of 1230.3 kg, 4 years, 4 of 32 processors, a month, 1329 g for its energy, 20,000
    # requests.
    from evergreen.energy.carbon import Intensity

    monkeypatch.setattr("evergreen.energy.sci.intensity", lambda country: Intensity(443.0, "as reported", 2023))
    machine = Machine(embodied_kgco2e=1230.3, lifespan_years=4, share=4 / 32)
    energy = Energy(3.0 * 3.6e6, 0.0, ("estimate",), YEAR / 12)  # 3 kWh at 443 g/kWh
    one = footprint(scenario(machine), energy, units=20_000)
    assert one.carbon_gco2e == pytest.approx(1329 / 20_000)
    assert one.embodied_gco2e == pytest.approx(1_230_300 / 48 * 4 / 32 / 20_000)
    assert one.sci_gco2e == pytest.approx(0.2266, abs=5e-5)


def test_without_the_machine_or_the_energy_it_is_unknown_and_never_0() -> None:
    energy, machine = Energy(3600.0, 360.0, ("rapl",), 60.0), Machine(embodied_kgco2e=300)
    without = footprint(scenario(None), energy)
    assert without.carbon_gco2e and (without.embodied_gco2e, without.sci_gco2e) == (None, None)
    unmeasured = footprint(scenario(machine), Energy(None, None, (), 60.0))
    assert unmeasured.embodied_gco2e and (unmeasured.carbon_gco2e, unmeasured.sci_gco2e) == (None, None)


def test_the_uncertainty_of_the_energy_is_that_of_the_carbon() -> None:
    one = footprint(scenario(None), Energy(3600.0, 1440.0, ("estimate",), 60.0))
    assert one.carbon_gco2e and one.carbon_uncertainty_gco2e == pytest.approx(0.4 * one.carbon_gco2e)


amounts = st.floats(1e-3, 1e6)


@given(amounts, amounts, amounts, st.integers(1, 10_000))
def test_it_scales_with_the_work_and_not_with_the_number_of_units(
    kgco2e: float, joules: float, seconds: float, units: int
) -> None:
    machine = scenario(Machine(embodied_kgco2e=kgco2e))
    once = footprint(machine, Energy(joules, 0.1 * joules, ("rapl",), seconds)).sci_gco2e
    many = footprint(machine, Energy(joules, 0.1 * joules, ("rapl",), seconds) * units, units).sci_gco2e
    assert once is not None and many == pytest.approx(once)


@pytest.mark.parametrize(
    ("machine", "hint"),
    [
        ("{embodied_kgco2e: 0}", "greater than 0"),
        ("{embodied_kgco2e: -5}", "greater than 0"),
        ("{embodied_kgco2e: .nan}", "finite"),
        ("{embodied_kgco2e: 300, lifespan_years: 0}", "greater than 0"),
        ("{embodied_kgco2e: 300, share: 1.5}", "less than or equal to 1"),
        ("{lifespan_years: 4}", "missing"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_name(tmp_path: Path, machine: str, hint: str) -> None:
    from evergreen.errors import WrongUse

    path = tmp_path / "quickstart.yaml"
    path.write_text((shipped() / "scenarios" / "quickstart.yaml").read_text() + f"machine: {machine}\n")
    with pytest.raises(WrongUse, match=f"machine.*{hint}"):
        parse_scenario(path)


def test_a_part_of_the_work_takes_a_part_of_the_energy() -> None:
    spent: Any = Energy(100.0, 5.0, ("rapl",), 10.0) * 0.25
    assert (spent.energy_joules, spent.uncertainty_joules, spent.methods, spent.seconds) == (25.0, 1.25, ("rapl",), 2.5)
    assert (Energy(None, None, (), 10.0) * 2).energy_joules is None

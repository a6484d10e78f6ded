"""The Software Carbon Intensity: the emissions of a unit of work, including the machine's embodied emissions.

By the Green Software Foundation's specification 1.1 (ISO/IEC 21031:2024): SCI = (E · I + M) per R, where E is the energy in
kWh, I the grid's intensity, and M = TE · TS · RS the part of the emissions of making and disposing of the machine (TE) for the
reserved fractions of its time (TS) and its resources (RS).

The boundary is the machine that runs the stages, without the network, the cooling, or the servers of Prefect and MLflow. The
functional units are 1,000 predictions and one training run (all stages). The intensity is the local grid's yearly average
(location-based).
"""

from __future__ import annotations

from dataclasses import dataclass

from evergreen.energy.carbon import carbon_gco2e, intensity
from evergreen.energy.meter import Energy
from evergreen.scenario.settings import Machine, Scenario

SECONDS_PER_YEAR = 365 * 24 * 3600  # as in the specification's example


@dataclass(frozen=True)
class Footprint:
    """The footprint of one functional unit. Unknown values are None.

    Attributes:
        energy_wh, energy_uncertainty_wh: the true value is within the latter of the former.
        carbon_gco2e, carbon_uncertainty_gco2e: of that energy (E · I), without the uncertainty of the grid's intensity.
        embodied_gco2e: M; None if the scenario doesn't describe the machine.
        sci_gco2e: the sum; None if a part is unknown, since neither may be left out.
    """

    energy_wh: float | None
    energy_uncertainty_wh: float | None
    carbon_gco2e: float | None
    carbon_uncertainty_gco2e: float | None
    embodied_gco2e: float | None

    @property
    def sci_gco2e(self) -> float | None:
        """Operational plus embodied carbon, in grams of CO2e; None if either is unknown."""
        if self.carbon_gco2e is None or self.embodied_gco2e is None:
            return None
        return self.carbon_gco2e + self.embodied_gco2e


def footprint(scenario: Scenario, energy: Energy, units: float = 1.0) -> Footprint:
    """The footprint of one unit.

    Args:
        scenario: with its grid and machine.
        energy: of all the units together, with the time for which the machine was reserved.
        units: their number; 0.25 for 250 predictions if a thousand are the unit.

    Raises:
        WrongUse: the intensity of the grid of the scenario's country is unknown.
    """
    one = energy * (1 / units)
    grid = intensity(scenario.country)
    carbon = carbon_gco2e(one, grid)
    uncertainty = None if one.uncertainty_wh is None else one.uncertainty_wh / 1000 * grid.gco2e_per_kwh
    embodied = None if scenario.machine is None else embodied_gco2e(scenario.machine, one.seconds)
    return Footprint(one.energy_wh, one.uncertainty_wh, carbon, uncertainty, embodied)


def embodied_gco2e(machine: Machine, seconds: float) -> float:
    """M: the part of the machine's embodied emissions for so many seconds of use."""
    time_fraction = seconds / (machine.lifespan_years * SECONDS_PER_YEAR)
    return 1000 * machine.embodied_kgco2e * time_fraction * machine.share

"""Measures the energy of a piece of work: by counters if the machine has them, else by a model, always with its uncertainty.

- `nvml`: the energy counters of the GPUs that this process may use (NVML, `nvmlDeviceGetTotalEnergyConsumption`). Uncertainty:
  5 % (arXiv 2312.02741), plus a GPU's consumption in 0.1 s.
- `rapl`: the energy counters of the processor packages and memory (Linux powercap, `intel-rapl`; AMD's too). Uncertainty: 5 %.
- `estimate`: processor seconds of the process and its children, times watts per thread, plus memory in use. Uncertainty: 40 %
  (arXiv 2509.22092).

The model covers only this process and its children. Counters measure whole devices, and `own_part` estimates the run's part:
energy above the device's idle power is divided among programs by their use; the run's part of the idle power is all of it if
the run has the device to itself, else between its fraction of the use and all. The effect of other active programs is part of
the uncertainty. The idle power is as measured by `evergreen doctor`; without it, all that was counted may be idle power.

Unknown values are None, never 0.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from evergreen.energy.methods import POWERCAP, Gpus, Method, Model, Rapl, Work, idle_watts, machine_seconds, processor_seconds

READ_EVERY_SECONDS = 60.0  # RAPL's counters wrap around after some 20 minutes at full load


@dataclass(frozen=True)
class Energy:
    """The energy and time that something took.

    Attributes:
        energy_joules: None if unknown.
        uncertainty_joules: the true value is within this of it; None if unknown.
        methods: of measurement: `nvml`, `rapl`, `estimate`, or several; empty if unknown.
        seconds: the duration.
    """

    energy_joules: float | None
    uncertainty_joules: float | None
    methods: tuple[str, ...]
    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))

    @classmethod
    def nothing(cls) -> Energy:
        """The energy of no work, as the start of a sum."""
        return cls(0.0, 0.0, (), 0.0)

    @property
    def energy_wh(self) -> float | None:
        """The energy in watt-hours; None if nothing was measured."""
        return None if self.energy_joules is None else self.energy_joules / 3600

    @property
    def uncertainty_wh(self) -> float | None:
        """The standard uncertainty in watt-hours; None if nothing was measured."""
        return None if self.uncertainty_joules is None else self.uncertainty_joules / 3600

    def __mul__(self, factor: float) -> Energy:
        """Scale by a factor of 0 or more, for a part of the work or for more of the same."""
        joules = None if self.energy_joules is None else self.energy_joules * factor
        uncertainty = None if self.uncertainty_joules is None else self.uncertainty_joules * factor
        return Energy(joules, uncertainty, self.methods, self.seconds * factor)

    def __add__(self, other: Energy) -> Energy:
        """The sum. The uncertainties add up, since they have the same causes; the sum is unknown if either part is."""
        methods = tuple(sorted({*self.methods, *other.methods}))
        seconds = self.seconds + other.seconds
        if (
            self.energy_joules is None
            or other.energy_joules is None
            or self.uncertainty_joules is None
            or other.uncertainty_joules is None
        ):
            return Energy(None, None, (), seconds)
        return Energy(
            self.energy_joules + other.energy_joules, self.uncertainty_joules + other.uncertainty_joules, methods, seconds
        )


class Meter:
    """Measures what happens inside `with Meter() as meter:`; `meter.spent()` can be read at any time. Meters may be nested.

    Args:
        powercap: the folder with RAPL's counters.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._rapl = Rapl(powercap, idle_watts())
        self._of_processor: tuple[Method, ...] = (self._rapl, Model())  # the first that gives a result is used
        self._gpus = Gpus()
        self._ended: Energy | None = None

    def __enter__(self) -> Meter:
        self._started = time.monotonic()
        self._own, self._machine = processor_seconds(), machine_seconds()
        for method in (*self._of_processor, self._gpus):
            method.start()
        self._stop = threading.Event()
        if self._rapl.readable:
            threading.Thread(target=self._keep_reading, name="energy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = self._measure()
        self._stop.set()

    def spent(self) -> Energy:
        """The energy since the start, or of the whole block once it has ended."""
        return self._ended or self._measure()

    def _keep_reading(self) -> None:
        while not self._stop.wait(READ_EVERY_SECONDS):
            self._rapl.read()

    def _measure(self) -> Energy:
        seconds = time.monotonic() - self._started
        work = Work(seconds, max(0.0, processor_seconds() - self._own), machine_seconds() - self._machine)
        measured = ((method.name, part) for method in self._of_processor if (part := method.spent(work)) is not None)
        parts = dict([next(measured)])
        if self._gpus.present:
            of_gpus = self._gpus.spent(work)
            if of_gpus is None:  # there are GPUs, but they can't be measured
                return Energy(None, None, (), seconds)
            parts[self._gpus.name] = of_gpus
        joules = sum(part.joules for part in parts.values())
        return Energy(joules, sum(part.uncertainty_joules for part in parts.values()), tuple(sorted(parts)), seconds)


def available_methods() -> tuple[str, ...]:
    """The methods that a meter would use on this machine; none if it can't measure, as with a GPU without a counter."""
    with Meter() as meter:
        pass
    return meter.spent().methods

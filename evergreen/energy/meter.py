"""What a piece of work took in energy: by counters where the machine has them, else by a model, always with its uncertainty.

| method | what is read | uncertainty |
|---|---|---|
| `nvml` | the energy counters of the GPUs that are ours to use (NVML, `nvmlDeviceGetTotalEnergyConsumption`) | 5 % (arXiv 2312.02741) |
| `rapl` | the processor packages' and memory's energy counters (Linux powercap, `intel-rapl`; AMD's too) | 5 % |
| `estimate` | processor seconds of the process and its children, times watts a thread; memory in use | 40 % (arXiv 2509.22092) |

The model sees only this process and its children. Counters see whole devices, and `own_share` says which part of that is the run's: what the
device takes above its idle power belongs to programs as they use it; its idle power to a run that has it alone, and to some part between its
share of the use and all where it hasn't. How far others were active is in the uncertainty. The idle power is what `evergreen doctor` has
measured; without it, all that was counted may be idle power.

What can't be known is None, never 0.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from evergreen.energy.methods import POWERCAP, Gpus, Method, Model, Rapl, Work, idle_watts, machine_seconds, processor_seconds

READ_EVERY_SECONDS = 60.0  # RAPL's counters turn over after some 20 minutes at full load


@dataclass(frozen=True)
class Energy:
    """What something took.

    Attributes:
        energy_joules: None where it is unknown.
        uncertainty_joules: the true value is within this of it; None where it is unknown.
        methods: how it was found: `nvml`, `rapl`, `estimate`, or several; empty where it is unknown.
        seconds: that it took.
    """

    energy_joules: float | None
    uncertainty_joules: float | None
    methods: tuple[str, ...]
    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))

    @classmethod
    def nothing(cls) -> Energy:
        """Of no work at all: where a sum begins."""
        return cls(0.0, 0.0, (), 0.0)

    @property
    def energy_wh(self) -> float | None:
        """The same in watt-hours; None where nothing was measured."""
        return None if self.energy_joules is None else self.energy_joules / 3600

    @property
    def uncertainty_wh(self) -> float | None:
        """The standard uncertainty in watt-hours; None where nothing was measured."""
        return None if self.uncertainty_joules is None else self.uncertainty_joules / 3600

    def __mul__(self, factor: float) -> Energy:
        """So many times of it, 0 or more: what a part of the work took, or what more of the same will."""
        joules = None if self.energy_joules is None else self.energy_joules * factor
        uncertainty = None if self.uncertainty_joules is None else self.uncertainty_joules * factor
        return Energy(joules, uncertainty, self.methods, self.seconds * factor)

    def __add__(self, other: Energy) -> Energy:
        """Both together. The uncertainties add up, since they have the same causes; with an unknown part all is unknown."""
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
        powercap: where the system shows RAPL's counters.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._rapl = Rapl(powercap, idle_watts())
        self._of_processor: tuple[Method, ...] = (self._rapl, Model())  # the first that can tell
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
        """Since the beginning, or of the whole once it has ended."""
        return self._ended or self._measure()

    def _keep_reading(self) -> None:
        while not self._stop.wait(READ_EVERY_SECONDS):
            self._rapl.read()

    def _measure(self) -> Energy:
        seconds = time.monotonic() - self._started
        work = Work(seconds, max(0.0, processor_seconds() - self._own), machine_seconds() - self._machine)
        told = ((method.name, part) for method in self._of_processor if (part := method.spent(work)) is not None)
        parts = dict([next(told)])
        if self._gpus.present:
            of_gpus = self._gpus.spent(work)
            if of_gpus is None:  # there are some, and they don't tell
                return Energy(None, None, (), seconds)
            parts[self._gpus.name] = of_gpus
        joules = sum(part.joules for part in parts.values())
        return Energy(joules, sum(part.uncertainty_joules for part in parts.values()), tuple(sorted(parts)), seconds)


def available_methods() -> tuple[str, ...]:
    """What a meter would go by on this machine; none where it can't tell, as with a GPU without a counter."""
    with Meter() as meter:
        pass
    return meter.spent().methods

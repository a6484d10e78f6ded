"""What a piece of work took in energy: by counters where the machine has them, else by a model, always with its uncertainty.

| method | what is read | uncertainty |
|---|---|---|
| `nvml` | the GPUs' own energy counters (NVML, `nvmlDeviceGetTotalEnergyConsumption`) | 5 % (arXiv 2312.02741) |
| `rapl` | the processor packages' and memory's energy counters (Linux powercap, `intel-rapl`; AMD's too) | 5 %, and the share of other programs |
| `estimate` | processor seconds of the process and its children, times watts a thread; memory in use | 40 % (arXiv 2509.22092) |

Counters see the whole machine, the model only this process and its children. What can't be known is None, never 0.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

POWERCAP = Path("/sys/class/powercap")
NVIDIA = Path("/proc/driver/nvidia/gpus")
COUNTER_UNCERTAINTY = 0.05
ESTIMATE_UNCERTAINTY = 0.40
WATTS_PER_THREAD = 4.0  # CodeCarbon's, of a processor it doesn't know (codecarbon.core.cpu.DEFAULT_POWER_PER_CORE)
WATTS_PER_GIB = 3 / 8  # of memory, as CodeCarbon takes it
READ_EVERY_SECONDS = 60.0  # RAPL's counters turn over after some 20 minutes at full load
BUSY_SECONDS = 1.0  # of processor time, in which no real counter stands still


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
        return None if self.energy_joules is None else self.energy_joules / 3600

    @property
    def uncertainty_wh(self) -> float | None:
        return None if self.uncertainty_joules is None else self.uncertainty_joules / 3600

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
        self._rapl = Rapl(powercap)
        self._gpus = Gpus()
        self._ended: Energy | None = None

    def __enter__(self) -> Meter:
        self._started, self._memory_bytes = time.monotonic(), _memory_bytes()
        self._processor, self._machine = _processor_seconds(), _machine_seconds()
        self._gpus.start()
        self._stop = threading.Event()
        if self._rapl.start():
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
        of_processor = self._of_processor(seconds)
        of_gpus = self._gpus.spent()
        if of_gpus is None:  # there are some, and they don't tell
            return Energy(None, None, (), seconds)
        methods = tuple(sorted({of_processor[2], *(("nvml",) if self._gpus.present else ())}))
        return Energy(of_processor[0] + of_gpus, of_processor[1] + COUNTER_UNCERTAINTY * of_gpus, methods, seconds)

    def _of_processor(self, seconds: float) -> tuple[float, float, str]:
        """Joules, their uncertainty, and the method."""
        ours = max(0.0, _processor_seconds() - self._processor)
        counted = self._rapl.read()
        if counted is not None and (counted > 0 or ours < BUSY_SECONDS):
            machine = _machine_seconds() - self._machine
            others = 1 - min(1.0, ours / machine) if machine > 0 else 0.0
            return counted, counted * (COUNTER_UNCERTAINTY + others), "rapl"
        memory_gib = (self._memory_bytes + _memory_bytes()) / 2 / 2**30
        joules = ours * watts_per_thread() + seconds * memory_gib * WATTS_PER_GIB
        return joules, joules * ESTIMATE_UNCERTAINTY, "estimate"


class Rapl:
    """The energy counters of the processor packages and their memory. Each turns over at its own range."""

    def __init__(self, powercap: Path) -> None:
        self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _counts(zone)]
        self._last: dict[Path, int] = {}
        self._microjoules = 0
        self._lock = threading.Lock()
        self.readable = False

    def start(self) -> bool:
        """Returns whether there are counters that this user may read."""
        self._last = {zone: value for zone in self._zones if (value := _number(zone / "energy_uj")) is not None}
        self.readable = bool(self._zones) and len(self._last) == len(self._zones)
        return self.readable

    def read(self) -> float | None:
        """Joules since the start; None where the counters can't be read, or no longer."""
        with self._lock:
            for zone, before in self._last.items():
                now = _number(zone / "energy_uj")
                if now is not None and now < before:  # it has turned over
                    before -= _number(zone / "max_energy_range_uj") or 0
                if now is None or now < before:
                    self.readable = False
                    break
                self._microjoules += now - before
                self._last[zone] = now
            return self._microjoules / 1e6 if self.readable else None


class Gpus:
    """NVIDIA's own counters: millijoules since the driver was loaded."""

    def __init__(self) -> None:
        self.present = NVIDIA.is_dir() and any(NVIDIA.iterdir())
        self._before: list[int] | None = None

    def start(self) -> None:
        self._before = _gpu_millijoules() if self.present else []

    def spent(self) -> float | None:
        """Joules since the start; 0 where there is no GPU, None where there is one without a counter."""
        if not self.present:
            return 0.0
        now = _gpu_millijoules()
        if now is None or self._before is None or len(now) != len(self._before):
            return None
        return sum(after - before for after, before in zip(now, self._before, strict=True)) / 1000


def available_methods() -> tuple[str, ...]:
    """What a meter would go by on this machine."""
    with Meter() as meter:
        pass
    return meter.spent().methods


@functools.cache
def watts_per_thread() -> float:
    """Of this machine's processor at full load: from the thermal design power in CodeCarbon's table where it is listed and all
    its threads are ours to see, else CodeCarbon's 4 W."""
    with contextlib.suppress(OSError):
        told = Path("/proc/cpuinfo").read_text()
        model = re.search(r"^model name\s*: (.*)$", told, re.MULTILINE)
        threads = len(re.findall(r"^processor\s*:", told, re.MULTILINE))
        if model and threads and "hypervisor" not in told:
            watts = thermal_design_power(model[1])
            if watts is not None:
                return watts / threads
    return WATTS_PER_THREAD


def thermal_design_power(model: str) -> float | None:
    """Watts of a processor by its name, as the system tells it, from CodeCarbon's table; None where it isn't listed."""
    package = importlib.util.find_spec("codecarbon")
    if package is None or not package.submodule_search_locations:
        return None
    told = _words(model)
    best, watts = 0, None
    with open(Path(package.submodule_search_locations[0]) / "data/hardware/cpu_power.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            named = _words(row["Name"])
            if len(named) > max(best, 1) and named <= told:
                best, watts = len(named), float(row["TDP"])
    return watts


def _words(name: str) -> set[str]:
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*$|\d+-Core Processor|\bProcessor\b", " ", name, flags=re.IGNORECASE)
    return set(name.lower().split())


def _counts(zone: Path) -> bool:
    """Whether a zone is a package, or the memory beside one: others are parts of a package."""
    with contextlib.suppress(OSError):
        name = (zone / "name").read_text().strip()
        return name.startswith("package") or name == "dram"
    return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _gpu_millijoules() -> list[int] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]
    except Exception:  # no library, no driver, no counter: whatever it is, nothing was measured
        return None


def _tree() -> list[Any]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return list(psutil.Process().children(recursive=True))
    return []


def _processor_seconds() -> float:
    """Of this process, its living children, and those of its children that have ended."""
    import psutil

    total = sum(os.times()[:4])
    for child in _tree():
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def _machine_seconds() -> float:
    """Processor time of all programs of the machine."""
    import psutil

    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _memory_bytes() -> int:
    """In use by this process and its children. What they share is counted for each."""
    import psutil

    total = 0
    for process in [psutil.Process(), *_tree()]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total

"""The three methods by which `evergreen.energy.meter` finds what was spent, behind one interface: RAPL's counters, NVML's counters, and a model."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import math
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evergreen.environment import IDLE_WATTS

POWERCAP = Path("/sys/class/powercap")
NVIDIA = Path("/proc/driver/nvidia/gpus")
COUNTER_UNCERTAINTY = 0.05
ESTIMATE_UNCERTAINTY = 0.40
WATTS_PER_THREAD = 4.0  # CodeCarbon's, of a processor it doesn't know (codecarbon.core.cpu.DEFAULT_POWER_PER_CORE)
WATTS_PER_GIB = 3 / 8  # of memory, as CodeCarbon takes it
BUSY_SECONDS = 1.0  # of processor time, in which no real counter stands still; of the clock, for a GPU's


@dataclass(frozen=True)
class Work:
    """What ran while a meter did.

    Attributes:
        seconds: of the clock.
        own: processor seconds of this process and its children.
        machine: processor seconds of all programs.
    """

    seconds: float
    own: float
    machine: float

    @property
    def share(self) -> float:
        """Of the use of the processors, 0 to 1; 1 where it can't be told."""
        return min(1.0, self.own / self.machine) if self.machine > 0 else 1.0


@dataclass(frozen=True)
class Part:
    """Joules by one method, and within what of them the true value is."""

    joules: float
    uncertainty_joules: float


class Method(Protocol):
    """A way to tell what was spent: `start`, and then `spent` at any time."""

    name: str

    def start(self) -> None:
        """Begin to count."""

    def spent(self, work: Work) -> Part | None:
        """None where this method can't tell, or no longer."""


def own_share(counted: float, share: float, idle: float) -> Part:
    """What of a device's counted energy is the run's own.

    Args:
        counted: joules of the device.
        share: of the device's use that is the run's, 0 to 1.
        idle: joules that it would have taken with nothing running.
    """
    idle = min(idle, counted)
    active = counted - idle
    own = idle * (1 + share) / 2 + active * share
    # Of the idle part anything from the run's share to all may be its own. That a processor second takes the same power in all programs is an
    # assumption, wrong by half at most (by judgement); it matters most where others are as active.
    doubt = idle * (1 - share) / 2 + active * share * (1 - share) / 2
    return Part(own, COUNTER_UNCERTAINTY * own + doubt)


class Rapl:
    """The energy counters of the processor packages and their memory. Each turns over at its own range."""

    name = "rapl"

    def __init__(self, powercap: Path, idle_watts: float | None = None) -> None:
        self._zones: list[Path] = []
        with contextlib.suppress(OSError):  # a folder that may not be looked into has no counters for us
            self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _counts(zone)]
        self._idle_watts = idle_watts
        self._last: dict[Path, int] = {}
        self._microjoules = 0
        self._lock = threading.Lock()
        self.readable = False

    def start(self) -> None:
        """Finds out whether there are counters that this user may read: `readable`."""
        self._last = {zone: value for zone in self._zones if (value := _number(zone / "energy_uj")) is not None}
        self.readable = bool(self._zones) and len(self._last) == len(self._zones)

    def spent(self, work: Work) -> Part | None:
        counted = self.read()
        if counted is None or (counted == 0 and work.own >= BUSY_SECONDS):
            return None
        return own_share(counted, work.share, counted if self._idle_watts is None else self._idle_watts * work.seconds)

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


class Model:
    """What the processor seconds and the memory of this process and its children take, as CodeCarbon reckons where it has no counter."""

    name = "estimate"

    def start(self) -> None:
        self._memory_bytes = _memory_bytes()

    def spent(self, work: Work) -> Part | None:
        memory_gib = (self._memory_bytes + _memory_bytes()) / 2 / 2**30
        joules = work.own * watts_per_thread() + work.seconds * memory_gib * WATTS_PER_GIB
        return Part(joules, joules * ESTIMATE_UNCERTAINTY)


class Gpus:
    """NVIDIA's own counters, millijoules since the driver was loaded, of the GPUs that CUDA_VISIBLE_DEVICES leaves to this process."""

    name = "nvml"

    def __init__(self) -> None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        self.present = not hidden and gpu_count() > 0
        self._before: dict[str, int] | None = None

    def start(self) -> None:
        self._before = _gpu_millijoules() if self.present else {}

    def spent(self, work: Work) -> Part | None:
        """None where a GPU has no counter, or one that can't be right: gone, fallen back, or standing still."""
        now = _gpu_millijoules()
        if now is None or self._before is None or now.keys() != self._before.keys():
            return None
        counted = [now[gpu] - self._before[gpu] for gpu in now]
        if min(counted) < 0 or (min(counted) == 0 and work.seconds >= BUSY_SECONDS):
            return None
        joules = sum(counted) / 1000
        return own_share(joules, _gpu_share(), joules)


def idle_watts() -> float | None:
    """Of the processors and their memory when nothing runs, as `evergreen doctor` has measured it; None where nobody knows."""
    with contextlib.suppress(KeyError, ValueError):
        watts = float(os.environ[IDLE_WATTS])
        return watts if math.isfinite(watts) and watts > 0 else None
    return None


def measure_idle_watts(seconds: float, powercap: Path = POWERCAP) -> float | None:
    """What the processors and their memory take while this process sleeps; None without counters, or where other programs take more than a
    twentieth of the processors' time."""
    rapl, before, started = Rapl(powercap), machine_seconds(), time.monotonic()
    rapl.start()
    time.sleep(seconds)
    counted, passed = rapl.read(), time.monotonic() - started
    busy = (machine_seconds() - before) / (passed * (os.cpu_count() or 1))
    return counted / passed if counted and busy <= 0.05 else None


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


def gpu_count() -> int:
    """NVIDIA GPUs of this machine, by the driver."""
    try:
        return len(list(NVIDIA.iterdir()))
    except OSError:
        return 0


def _gpu_millijoules() -> dict[str, int] | None:
    """By each GPU's address; None where any can't tell."""
    try:
        return {_gpu_address(gpu): _nvml().nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in _gpus()}
    except Exception:  # noqa: BLE001 (no library, no driver, no counter: whatever it is, nothing was measured)
        return None


def _gpu_share() -> float:
    """Of the processes on the GPUs that are ours, at least one of them; 1 where nobody tells. In a container the numbers of processes are others,
    and none would seem to be ours."""
    try:
        running = {process.pid for gpu in _gpus() for process in _nvml().nvmlDeviceGetComputeRunningProcesses(gpu)}
    except Exception:  # noqa: BLE001 (the same: nothing is known of the other processes)
        return 1.0
    ours = running & {os.getpid(), *(child.pid for child in _tree())}
    return max(1, len(ours)) / max(1, len(running))


def _gpus() -> list[Any]:
    """NVML's handles of the GPUs that this process may use."""
    nvml = _nvml()
    nvml.nvmlInit()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name) for name in names
    ]


def _gpu_address(gpu: Any) -> str:
    return str(_nvml().nvmlDeviceGetPciInfo(gpu).busId)


def _nvml() -> Any:
    import pynvml

    return pynvml


def _tree() -> list[Any]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return list(psutil.Process().children(recursive=True))
    return []


def processor_seconds() -> float:
    """Of this process, its living children, and those of its children that have ended."""
    import psutil

    total = sum(os.times()[:4])
    for child in _tree():
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def machine_seconds() -> float:
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

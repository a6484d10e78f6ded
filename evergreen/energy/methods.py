"""The three methods by which `evergreen.energy.meter` measures energy, behind one interface: RAPL's counters, NVML's
counters, and a model."""

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
WATTS_PER_THREAD = 4.0  # CodeCarbon's, for an unknown processor (codecarbon.core.cpu.DEFAULT_POWER_PER_CORE)
WATTS_PER_GIB = 3 / 8  # of memory, as in CodeCarbon
# Between two steps of an H100's counter, as measured (bench/README.md); what was spent since the last step is not counted yet.
GPU_COUNTER_SECONDS = 0.1
BUSY_SECONDS = 1.0  # of processor time (wall-clock time for a GPU) in which a working counter must advance


@dataclass(frozen=True)
class Work:
    """What ran during a measurement.

    Attributes:
        seconds: wall-clock time.
        own: processor seconds of this process and its children.
        machine: processor seconds of all programs.
    """

    seconds: float
    own: float
    machine: float

    @property
    def fraction(self) -> float:
        """This process's fraction of the processors' use, 0 to 1; 1 if unknown."""
        return min(1.0, self.own / self.machine) if self.machine > 0 else 1.0


@dataclass(frozen=True)
class Part:
    """Joules by one method; the true value is within the uncertainty of them."""

    joules: float
    uncertainty_joules: float


class Method(Protocol):
    """A way to measure energy: `start`, and then `spent` at any time."""

    name: str

    def start(self) -> None:
        """Start counting."""

    def spent(self, work: Work) -> Part | None:
        """The energy since the start; None if this method can't measure it, or no longer."""


def own_part(counted: float, fraction: float, idle: float) -> Part:
    """Estimate the run's part of a device's counted energy.

    Args:
        counted: joules of the device.
        fraction: the run's fraction of the device's use, 0 to 1.
        idle: joules that the device would have taken with nothing running.
    """
    idle = min(idle, counted)
    active = counted - idle
    own = idle * (1 + fraction) / 2 + active * fraction
    # Of the idle part, anything from the run's fraction to all may be its own. That a processor second takes the same power in
    # all programs is an assumption, wrong by half at most (by judgement); it matters most if others are equally active.
    doubt = idle * (1 - fraction) / 2 + active * fraction * (1 - fraction) / 2
    return Part(own, COUNTER_UNCERTAINTY * own + doubt)


class Rapl:
    """The energy counters of the processor packages and their memory. Each wraps around at its own range."""

    name = "rapl"

    def __init__(self, powercap: Path, idle_watts: float | None = None) -> None:
        self._zones: list[Path] = []
        with contextlib.suppress(OSError):  # counters in an unreadable folder can't be used
            self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _counts(zone)]
        self._idle_watts = idle_watts
        self._last: dict[Path, int] = {}
        self._microjoules = 0
        self._lock = threading.Lock()
        self.readable = False

    def start(self) -> None:
        """Start counting, and set `readable`: whether there are counters that this user may read."""
        self._last = {zone: value for zone in self._zones if (value := _number(zone / "energy_uj")) is not None}
        self.readable = bool(self._zones) and len(self._last) == len(self._zones)

    def spent(self, work: Work) -> Part | None:
        counted = self.read()
        if counted is None or (counted == 0 and work.own >= BUSY_SECONDS):
            return None
        return own_part(counted, work.fraction, counted if self._idle_watts is None else self._idle_watts * work.seconds)

    def read(self) -> float | None:
        """Joules since the start; None if the counters can't be read, or no longer."""
        with self._lock:
            for zone, before in self._last.items():
                now = _number(zone / "energy_uj")
                if now is not None and now < before:  # it has wrapped around
                    before -= _number(zone / "max_energy_range_uj") or 0
                if now is None or now < before:
                    self.readable = False
                    break
                self._microjoules += now - before
                self._last[zone] = now
            return self._microjoules / 1e6 if self.readable else None


class Model:
    """An estimate from the processor seconds and memory of this process and its children, as by CodeCarbon without counters."""

    name = "estimate"

    def start(self) -> None:
        self._memory_bytes = _memory_bytes()

    def spent(self, work: Work) -> Part | None:
        memory_gib = (self._memory_bytes + _memory_bytes()) / 2 / 2**30
        joules = work.own * watts_per_thread() + work.seconds * memory_gib * WATTS_PER_GIB
        return Part(joules, joules * ESTIMATE_UNCERTAINTY)


class Gpus:
    """NVIDIA's own counters, in millijoules since the driver was loaded, of the GPUs that CUDA_VISIBLE_DEVICES makes visible to
    this process."""

    name = "nvml"

    def __init__(self) -> None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        self.present = not hidden and gpu_count() > 0
        self._before: dict[str, int] | None = None

    def start(self) -> None:
        self._before = _gpu_millijoules() if self.present else {}

    def spent(self, work: Work) -> Part | None:
        """None if a GPU has no counter, or an implausible one: it has disappeared, decreased or not advanced."""
        now = _gpu_millijoules()
        if now is None or self._before is None or now.keys() != self._before.keys():
            return None
        counted = [now[gpu] - self._before[gpu] for gpu in now]
        if min(counted) < 0 or (min(counted) == 0 and work.seconds >= BUSY_SECONDS):
            return None
        joules = sum(counted) / 1000
        own = own_part(joules, _gpu_fraction(), joules)
        not_counted = own.joules * min(1.0, GPU_COUNTER_SECONDS / work.seconds)
        return Part(own.joules, own.uncertainty_joules + not_counted)


def idle_watts() -> float | None:
    """The idle power of the processors and their memory, as measured by `evergreen doctor`; None if unknown."""
    with contextlib.suppress(KeyError, ValueError):
        watts = float(os.environ[IDLE_WATTS])
        return watts if math.isfinite(watts) and watts > 0 else None
    return None


def measure_idle_watts(seconds: float, powercap: Path = POWERCAP) -> float | None:
    """Measure the power of the processors and their memory while this process sleeps; None without counters, or if other
    programs use more than a twentieth of the processors' time."""
    rapl, before, started = Rapl(powercap), machine_seconds(), time.monotonic()
    rapl.start()
    time.sleep(seconds)
    counted, passed = rapl.read(), time.monotonic() - started
    busy = (machine_seconds() - before) / (passed * (os.cpu_count() or 1))
    return counted / passed if counted and busy <= 0.05 else None


@functools.cache
def watts_per_thread() -> float:
    """The power per thread of this machine's processor at full load: from its thermal design power in CodeCarbon's table if it
    is listed and the machine isn't virtual, so that all threads are visible; else CodeCarbon's 4 W."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
        threads = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
        if model and threads and "hypervisor" not in text:
            watts = thermal_design_power(model[1])
            if watts is not None:
                return watts / threads
    return WATTS_PER_THREAD


def thermal_design_power(model: str) -> float | None:
    """A processor's watts in CodeCarbon's table, by the name that the system reports; None if it isn't listed."""
    package = importlib.util.find_spec("codecarbon")
    if package is None or not package.submodule_search_locations:
        return None
    words = _words(model)
    best, watts = 0, None
    with open(Path(package.submodule_search_locations[0]) / "data/hardware/cpu_power.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            named = _words(row["Name"])
            if len(named) > max(best, 1) and named <= words:
                best, watts = len(named), float(row["TDP"])
    return watts


def _words(name: str) -> set[str]:
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*$|\d+-Core Processor|\bProcessor\b", " ", name, flags=re.IGNORECASE)
    return set(name.lower().split())


def _counts(zone: Path) -> bool:
    """Whether a zone is a package or the memory beside one; other zones are parts of a package."""
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
    """The number of NVIDIA GPUs of this machine, according to the driver."""
    try:
        return len(list(NVIDIA.iterdir()))
    except OSError:
        return 0


def _gpu_millijoules() -> dict[str, int] | None:
    """The counters by GPU address; None if any can't be read."""
    try:
        return {_gpu_address(gpu): _nvml().nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in _gpus()}
    except Exception:  # noqa: BLE001 (no library, no driver, no counter: whatever it is, nothing was measured)
        return None


def _gpu_fraction() -> float:
    """This run's fraction of the processes on the GPUs, counting at least one as its own; 1 if unknown. In a container, process
    ids differ from those that the driver reports, so that no process would seem to be the run's."""
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
    """Processor time of this process, its running children, and its children that have ended."""
    import psutil

    total = sum(os.times()[:4])
    for child in _tree():
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def machine_seconds() -> float:
    """Processor time of all programs on the machine."""
    import psutil

    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _memory_bytes() -> int:
    """Memory in use by this process and its children. Shared memory is counted for each."""
    import psutil

    total = 0
    for process in [psutil.Process(), *_tree()]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total

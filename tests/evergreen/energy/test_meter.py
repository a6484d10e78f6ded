"""Energy: by counters in a folder laid out as Linux shows RAPL's, by the estimate, and as sums."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.energy import meter as energy
from evergreen.energy import methods as metering
from evergreen.energy.meter import Energy, Meter, available_methods
from evergreen.energy.methods import (
    Rapl,
    Work,
    idle_watts,
    measure_idle_watts,
    own_part,
    thermal_design_power,
    watts_per_thread,
)
from evergreen.environment import IDLE_WATTS

RANGE = 262_143_328_850  # as processors tell it
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of these tests are of the processor, on which no other program runs."""
    monkeypatch.setattr(metering, "NVIDIA", tmp_path / "no-gpus")
    monkeypatch.setattr(energy, "machine_seconds", lambda: 0.0)
    monkeypatch.delenv(IDLE_WATTS, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def same_user() -> Iterator[None]:
    """Who read without permission (`lock`) is root again afterwards."""
    before = os.geteuid()
    yield
    os.seteuid(before)


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """One package, at a counter value far from 0."""
    folder = tmp_path / "powercap"
    zone(folder, "intel-rapl:0", "package-0", 1_000_000_000)
    return folder


def zone(powercap: Path, place: str, name: str, microjoules: int) -> Path:
    folder = powercap / place
    folder.mkdir(parents=True)
    for file, content in {"name": name, "energy_uj": microjoules, "max_energy_range_uj": RANGE}.items():
        (folder / file).write_text(f"{content}\n")
    return folder


def count(powercap: Path, joules: float, place: str = "intel-rapl:0") -> None:
    """The zone's counter goes on by so much, and turns over at its range."""
    file = powercap / place / "energy_uj"
    file.write_text(f"{(int(file.read_text()) + round(joules * 1e6)) % RANGE}\n")


def burn(seconds: float) -> None:
    """Use so much processor time; a program's is counted in hundredths of a second, so that a little less is counted."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def joules(spent: Energy) -> float:
    assert spent.energy_joules is not None and spent.uncertainty_joules is not None
    assert 0 <= spent.uncertainty_joules < math.inf and spent.energy_joules >= 0 and spent.seconds > 0
    return spent.energy_joules


def test_the_counters_difference_is_what_was_spent(powercap: Path) -> None:
    with Meter(powercap) as meter:
        count(powercap, 12.5)
    spent = meter.spent()
    assert (joules(spent), spent.methods) == (12.5, ("rapl",))
    assert spent.uncertainty_joules >= 0.05 * 12.5  # type: ignore[operator]
    assert spent.energy_wh == 12.5 / 3600


def test_what_is_counted_afterwards_does_not_belong_to_it(powercap: Path) -> None:
    with Meter(powercap) as meter:
        count(powercap, 1)
    count(powercap, 1000)
    assert joules(meter.spent()) == 1


def test_what_was_spent_can_be_read_while_it_runs(powercap: Path) -> None:
    with Meter(powercap) as meter:
        readings = [joules(meter.spent())]
        for _ in range(2):
            count(powercap, 3)
            readings.append(joules(meter.spent()))
    assert readings == [0, 3, 6] and joules(meter.spent()) == 6


def test_a_counter_that_turns_over_goes_on_counting(powercap: Path) -> None:
    rapl = Rapl(powercap)
    (powercap / "intel-rapl:0/energy_uj").write_text(f"{RANGE - 2_000_000}\n")
    rapl.start()
    count(powercap, 5)
    assert rapl.read() == 5
    count(powercap, 1)
    assert rapl.read() == 6


def test_the_turn_overs_of_long_work_are_seen_while_it_runs(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "READ_EVERY_SECONDS", 0.001)
    file, turn = powercap / "intel-rapl:0/energy_uj", RANGE / 1e6
    with Meter(powercap) as meter:
        for step in range(1, 6):
            # In one write: a reader between truncation and writing would see a counter that has gone.
            beside, value = file.with_name("next"), (1_000_000_000 + round(step * turn / 2 * 1e6)) % RANGE
            beside.write_text(f"{value}\n")
            beside.replace(file)
            while meter._rapl._last[file.parent] != value:
                time.sleep(0.001)
    assert joules(meter.spent()) == pytest.approx(2.5 * turn)


@pytest.mark.parametrize("range_reported", [None, "junk", "1000000"])
def test_a_counter_that_falls_back_without_a_range_to_explain_it_is_not_believed(
    powercap: Path, range_reported: str | None
) -> None:
    folder = powercap / "intel-rapl:0"
    with Meter(powercap) as meter:
        (folder / "energy_uj").write_text("5\n")
        (folder / "max_energy_range_uj").unlink()
        if range_reported is not None:
            (folder / "max_energy_range_uj").write_text(range_reported)
    assert joules(meter.spent()) > 0 and meter.spent().methods == ("estimate",)


def test_memory_beside_the_package_counts_and_parts_of_the_package_do_not(powercap: Path) -> None:
    places = {"intel-rapl:0:0": "core", "intel-rapl:0:1": "uncore", "intel-rapl:0:2": "dram", "intel-rapl:1": "psys"}
    for place, name in places.items():
        zone(powercap, place, name, 0)
    with Meter(powercap) as meter:
        count(powercap, 10)
        count(powercap, 2, "intel-rapl:0:2")
        for part in ("intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1"):
            count(powercap, 100, part)
    assert joules(meter.spent()) == 12


def test_two_packages_add_up(powercap: Path) -> None:
    zone(powercap, "intel-rapl:1", "package-1", 7)
    with Meter(powercap) as meter:
        count(powercap, 10)
        count(powercap, 4, "intel-rapl:1")
    assert joules(meter.spent()) == 14


def lock(file: Path) -> None:
    file.chmod(0)
    if os.geteuid() == 0:  # root reads every file
        os.seteuid(65534)


def make_nonsense(file: Path) -> None:
    file.write_text("")


UNREADABLE = {"gone": Path.unlink, "not permitted": lock, "nonsense": make_nonsense}


@pytest.mark.parametrize("how", UNREADABLE)
def test_counters_that_cannot_be_read_make_it_an_estimate(powercap: Path, how: str) -> None:
    UNREADABLE[how](powercap / "intel-rapl:0/energy_uj")
    with Meter(powercap) as meter:
        burn(0.02)
    assert joules(meter.spent()) > 0 and meter.spent().methods == ("estimate",)


@pytest.mark.parametrize("how", UNREADABLE)
def test_counters_that_go_away_in_the_midst_make_it_an_estimate_of_the_whole(powercap: Path, how: str) -> None:
    with Meter(powercap) as meter:
        burn(0.1)
        count(powercap, 1e6)
        UNREADABLE[how](powercap / "intel-rapl:0/energy_uj")
    spent = meter.spent()
    assert spent.methods == ("estimate",) and 0.08 * watts_per_thread() <= joules(spent) < 1e6


def test_one_package_of_two_is_not_taken_for_the_machine(powercap: Path) -> None:
    make_nonsense(zone(powercap, "intel-rapl:1", "package-1", 7) / "energy_uj")
    with Meter(powercap) as meter:
        count(powercap, 10)
    assert meter.spent().methods == ("estimate",)


def test_a_counter_that_stands_still_while_the_processor_works_is_not_believed(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "BUSY_SECONDS", 0.05)
    with Meter(powercap) as meter:
        burn(0.1)
    assert meter.spent().methods == ("estimate",) and joules(meter.spent()) >= 0.08 * watts_per_thread()


def test_a_counter_that_stands_still_while_nothing_happens_is_believed(powercap: Path) -> None:
    with Meter(powercap) as meter:
        pass
    assert (joules(meter.spent()), meter.spent().methods) == (0, ("rapl",))


def test_without_counters_it_is_estimated_with_a_wide_margin(tmp_path: Path) -> None:
    with Meter(tmp_path / "nothing") as meter:
        burn(0.1)
    spent = meter.spent()
    assert joules(spent) >= 0.08 * watts_per_thread()
    assert spent.uncertainty_joules == pytest.approx(0.4 * joules(spent)) and spent.methods == ("estimate",)


def test_programs_that_it_starts_are_counted_while_they_run_and_when_they_have_ended(tmp_path: Path) -> None:
    code = f"{BURN.format(seconds=0.3)}print('done', flush=True)\ninput()"
    with Meter(tmp_path / "nothing") as meter:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout and child.stdout.readline() == "done\n"
        running = joules(meter.spent())
        child.communicate("\n")
    ended = joules(meter.spent())
    assert min(running, ended) > 0.25 * watts_per_thread()


def test_programs_that_ended_before_are_not_counted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BURN.format(seconds=0.5)], check=True)
    with Meter(tmp_path / "nothing") as meter:
        pass
    assert joules(meter.spent()) < 0.5 * watts_per_thread()


def test_a_meter_within_a_meter_measures_its_part(powercap: Path) -> None:
    with Meter(powercap) as outer:
        count(powercap, 1)
        with Meter(powercap) as first:
            count(powercap, 2)
        with Meter(powercap) as second:
            count(powercap, 4)
    assert [joules(meter.spent()) for meter in (outer, first, second)] == [7, 2, 4]


def test_work_that_fails_was_spent_all_the_same(powercap: Path) -> None:
    meter = Meter(powercap)
    with pytest.raises(ZeroDivisionError), meter:
        count(powercap, 3)
        1 / 0  # noqa: B018
    count(powercap, 3)
    assert joules(meter.spent()) == 3


class Nvml:
    """NVIDIA's library with two GPUs, as far as it is asked: counters in millijoules and the processes on each."""

    def __init__(self) -> None:
        self.millijoules: dict[int, int] = {0: 5_000_000, 1: 7_000_000}
        self.processes: dict[int, list[int]] = {0: [], 1: []}

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return self._known(number)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:
        return self._known(int(name.removeprefix("GPU-")))

    def nvmlDeviceGetPciInfo(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(busId=f"0000:0{gpu}:00.0")

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        return self.millijoules[self._known(gpu)]

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.processes[gpu]]

    def _known(self, gpu: int) -> int:
        if gpu not in self.millijoules:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(metering, "NVIDIA", tmp_path / "gpus")
    library = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


@pytest.fixture
def ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is measured takes ten seconds."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("evergreen.energy.meter.time.monotonic", lambda: next(clock))


def test_gpus_add_up_with_the_processor(powercap: Path, nvml: Nvml, ten_seconds: None) -> None:
    with Meter(powercap) as meter:
        count(powercap, 3)
        nvml.millijoules[0] += 20_000
        nvml.millijoules[1] += 4_000
    assert joules(meter.spent()) == 27 and meter.spent().methods == ("nvml", "rapl")
    # In the tenth of a second between two steps of their counters the GPUs take a hundredth of their 24 joules.
    assert meter.spent().uncertainty_joules == pytest.approx(0.05 * 27 + 24 / 100)


@pytest.mark.parametrize(("visible", "expected"), [("1", 7.0), ("GPU-0", 23.0), ("0,1", 27.0), ("", 3.0), ("-1", 3.0)])
def test_only_the_gpus_that_are_ours_to_use_count(
    powercap: Path, nvml: Nvml, monkeypatch: pytest.MonkeyPatch, visible: str, expected: float
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with Meter(powercap) as meter:
        count(powercap, 3)
        nvml.millijoules = {0: 5_020_000, 1: 7_004_000}
    assert joules(meter.spent()) == expected


def test_a_gpu_that_others_use_as_well_is_ours_in_part_with_a_wide_margin(powercap: Path, nvml: Nvml) -> None:
    nvml.processes = {0: [os.getpid(), 1], 1: []}
    with Meter(powercap) as meter:
        nvml.millijoules[0] += 100_000
    spent = meter.spent()
    assert joules(spent) == 75 and spent.uncertainty_joules == pytest.approx(
        25 + 0.05 * 75 + 75 * min(1, 0.1 / spent.seconds)  # of 50 to 100
    )


def gone(nvml: Nvml) -> None:
    del nvml.millijoules[1]


def fallen_back(nvml: Nvml) -> None:
    nvml.millijoules[1] = 12


def standing_still(nvml: Nvml) -> None:
    nvml.millijoules[0] += 20_000


def unsupported(nvml: Nvml) -> None:
    def refuse(gpu: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize("fault", [gone, fallen_back, standing_still, unsupported])
def test_a_gpu_that_does_not_tell_makes_it_unknown_and_never_0(
    powercap: Path, nvml: Nvml, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Nvml], None]
) -> None:
    monkeypatch.setattr(metering, "BUSY_SECONDS", 0.01)
    with Meter(powercap) as meter:
        count(powercap, 3)
        time.sleep(0.02)
        fault(nvml)
    spent = meter.spent()
    assert (spent.energy_joules, spent.uncertainty_joules, spent.energy_wh, spent.uncertainty_wh) == (None,) * 4
    assert spent.methods == () and spent.seconds > 0


def test_a_gpu_without_the_library_makes_it_unknown(powercap: Path, nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it could not be imported
    with Meter(powercap) as meter:
        count(powercap, 3)
    assert meter.spent().energy_joules is None


@pytest.mark.skipif(not Path("/proc/driver/nvidia/gpus").is_dir(), reason="no NVIDIA GPU")
def test_a_gpu_counts_as_its_own_counter_says(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "NVIDIA", Path("/proc/driver/nvidia/gpus"))
    with Meter(powercap) as meter:
        time.sleep(1.5)  # an idle one takes watts too
    assert joules(meter.spent()) > 0 and meter.spent().methods == ("nvml", "rapl")


@pytest.mark.parametrize(
    ("fraction", "idle", "own", "doubt"),
    [
        (1.0, 40.0, 100.0, 0.0),  # alone: all of it
        (0.5, 0.0, 50.0, 12.5),  # half as active as the machine
        (0.5, 40.0, 60.0, 17.5),  # 60 active, of which half; and of 40 idle ones 20 to 40
        (0.5, 100.0, 75.0, 25.0),
        (0.5, 1e9, 75.0, 25.0),  # no more than was counted
        (0.0, 40.0, 20.0, 20.0),
    ],
)
def test_what_is_above_idle_is_shared_by_use_and_the_idle_part_is_reported_with_its_doubt(
    fraction: float, idle: float, own: float, doubt: float
) -> None:
    part = own_part(100.0, fraction, idle)
    assert part.joules == pytest.approx(own) and part.uncertainty_joules == pytest.approx(doubt + 0.05 * own)


@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1e6))
def test_the_runs_own_is_never_more_than_was_counted_and_the_doubt_covers_both_conventions(
    counted: float, fraction: float, idle: float
) -> None:
    part = own_part(counted, fraction, idle)
    assert 0 <= part.joules <= counted * (1 + 1e-9)
    idle = min(idle, counted)
    for convention in (fraction, 1.0):  # idle power shared by use, or all of it the run's
        assert abs(convention * idle + (counted - idle) * fraction - part.joules) <= part.uncertainty_joules + 1e-6


def test_the_idle_power_that_was_measured_narrows_the_margin(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IDLE_WATTS, "10")
    rapl, without = Rapl(powercap, idle_watts()), Rapl(powercap)
    for one in (rapl, without):
        one.start()
    count(powercap, 100)
    work = Work(seconds=2, own=4, machine=5)
    known, unknown = rapl.spent(work), without.spent(work)
    assert known is not None and unknown is not None
    assert known.joules == pytest.approx(20 * 0.9 + 80 * 0.8) and unknown.joules == pytest.approx(90)
    assert known.uncertainty_joules < unknown.uncertainty_joules


@pytest.mark.parametrize("reported", ["", "much", "nan", "inf", "-3", "0"])
def test_an_idle_power_that_makes_no_sense_is_none(monkeypatch: pytest.MonkeyPatch, reported: str) -> None:
    monkeypatch.setenv(IDLE_WATTS, reported)
    assert idle_watts() is None


def test_the_idle_power_is_measured_on_an_idle_machine_alone(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "machine_seconds", lambda: 0.0)
    counting = threading.Timer(0.05, count, (powercap, 6.0))
    counting.start()
    watts = measure_idle_watts(0.2, powercap)
    counting.join()
    assert watts == pytest.approx(30, rel=0.5)
    busy = iter((0.0, 1e6))
    monkeypatch.setattr(metering, "machine_seconds", lambda: next(busy))
    assert measure_idle_watts(0.01, powercap) is None
    monkeypatch.setattr(metering, "machine_seconds", lambda: 0.0)
    assert measure_idle_watts(0.01, powercap / "nothing") is None


def test_the_methods_of_this_machine_are_reported() -> None:
    assert available_methods() in {("rapl",), ("estimate",)}


amounts = st.floats(0, 1e9)
methods = st.sets(st.sampled_from(["nvml", "rapl", "estimate"]), min_size=1).map(sorted).map(tuple)
known = st.builds(Energy, amounts, amounts, methods, amounts)
unknown = st.builds(Energy, st.none(), st.none(), st.just(()), amounts)
energies = known | unknown


@given(st.lists(energies, max_size=6))
def test_a_sum_is_unknown_if_a_part_is_and_uncertainties_add_up_otherwise(parts: list[Energy]) -> None:
    total = sum(parts, start=Energy.nothing())
    assert total.seconds == pytest.approx(sum(part.seconds for part in parts))
    if any(part.energy_joules is None for part in parts):
        assert (total.energy_joules, total.uncertainty_joules, total.energy_wh, total.uncertainty_wh) == (None,) * 4
        assert total.methods == ()
    else:
        assert set(total.methods) == {method for part in parts for method in part.methods}
        assert total.energy_joules == pytest.approx(sum(part.energy_joules or 0 for part in parts))
        assert total.uncertainty_joules == pytest.approx(sum(part.uncertainty_joules or 0 for part in parts))


@given(energies, energies)
def test_the_order_of_a_sum_does_not_matter(one: Energy, other: Energy) -> None:
    assert one + other == other + one


@given(energies)
def test_it_survives_the_way_through_json(spent: Energy) -> None:
    assert Energy(**json.loads(json.dumps(asdict(spent)))) == spent
    assert spent + Energy.nothing() == spent


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", 15),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", 28),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", 145),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 210),
        ("AMD EPYC 7742 64-Core Processor", 225),
        ("AMD Ryzen 7 5800X 8-Core Processor", 105),
        ("AMD EPYC", None),
        ("Intel(R) Xeon(R) Processor", None),
        ("Quantum 9000", None),
        ("", None),
    ],
)
def test_a_processors_power_is_found_by_the_name_that_the_system_tells(name: str, watts: float | None) -> None:
    assert thermal_design_power(name) == watts


def test_every_processor_has_some_power_a_thread() -> None:
    assert 0 < watts_per_thread() < 100

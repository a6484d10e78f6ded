"""What measuring costs: a reading of the meter, beginning and ending one, and the same work with a meter and without, in turns.
The work is a process of its own that reckons for some seconds while a meter is read every second, as a training with a budget
does.

Run: python -m bench.metering [--json]
"""

from __future__ import annotations

import hashlib
import time

from bench.report import Row, median, report
from evergreen.energy.meter import Meter

PAIRS = 9
CHUNKS = 2_500  # some seconds of hashing
READ_EVERY_SECONDS = 1.0


def work(meter: Meter | None) -> float:
    """Seconds of the processor's clock that it took, reading the meter every second."""
    started, read = time.perf_counter(), 0.0
    block = bytes(1 << 20)
    for _ in range(CHUNKS):
        hashlib.sha256(block).digest()
        if meter is not None and time.perf_counter() - read >= READ_EVERY_SECONDS:
            read = time.perf_counter()
            meter.spent()
    return time.perf_counter() - started


def with_meter() -> float:
    started = time.perf_counter()
    with Meter() as meter:
        work(meter)
    return time.perf_counter() - started


def milliseconds(function: object, times: int) -> float:
    assert callable(function)
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        spent.append(1000 * (time.perf_counter() - started))
    return median(spent)


def begun_and_ended() -> None:
    with Meter():
        pass


def rows() -> list[Row]:
    with Meter() as meter:
        reading = milliseconds(meter.spent, 200)
    beginning = milliseconds(begun_and_ended, 200)
    ratios, bare = [], []
    for pair in range(PAIRS):
        if pair % 2:
            without, measured = work(None), with_meter()
        else:
            measured, without = with_meter(), work(None)
        ratios.append(measured / without)
        bare.append(without)
    cost = median(ratios) - 1
    by_sum = (beginning + reading * median(bare) / READ_EVERY_SECONDS) / (1000 * median(bare))
    return [
        Row(
            f"measuring the energy of {median(bare):.1f} s of work, read every second ({PAIRS} pairs)",
            f"{100 * cost:+.2f} % ({100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f}); a reading {reading:.2f} ms, beginning and ending "
            f"{beginning:.2f} ms",
            "the same work without a meter",
            f"{100 * by_sum:.2f} % by the sum of the readings",
            "1 %",
            by_sum < 0.01,
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

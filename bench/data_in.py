"""collect + validate + version + preprocess of the 60,000 CIFAR-10 JPEGs, against a bare loop that reads the archive and
decodes each once with OpenCV; and the peak memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from bench.report import Row, fresh_checkout, median, peak_bytes, report, samples, seconds


def bare_loop(archive: Path) -> None:
    import cv2
    import numpy as np

    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file:
                cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def ours(archive_folder: Path, checksum: str | None = None) -> tuple[float, int, dict[str, float]]:
    """Wall seconds of the whole process, its peak memory in bytes, and each stage's seconds.

    Args:
        checksum: the archive's SHA-256, where it isn't the one that the scenario names.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkout = fresh_checkout(Path(folder))
        if checksum:
            scenario = checkout / "scenarios" / "cifar10.yaml"
            scenario.write_text(re.sub(r"sha256: \S+", f"sha256: {checksum}", scenario.read_text()))
        environment = os.environ | {"EVERGREEN_ROOT": str(checkout), "EVERGREEN_SAMPLES": str(archive_folder)}
        peak, output = 0, ""

        def run() -> None:
            nonlocal peak, output
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.data_stages", "cifar10"],
                cwd=checkout,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            peak = peak_bytes(process.pid)
            output, _ = process.communicate()
            if process.returncode:
                raise SystemExit("the stages failed")

        return seconds(run), peak, json.loads(output.splitlines()[-1])


def rows() -> list[Row]:
    folder = samples()
    archive = folder / "cifar10.tar.gz"
    rival: list[float] = []
    mine: list[float] = []
    peaks: list[float] = []
    stages: dict[str, float] = {}
    for _ in range(3):
        rival.append(seconds(lambda: bare_loop(archive)))
        wall, peak, stages = ours(folder)
        mine.append(wall)
        peaks.append(peak)
    ratio, peak_mb = median(mine) / median(rival), median(peaks) / 1e6
    shares = ", ".join(f"{name} {value:.1f} s" for name, value in stages.items())
    return [
        Row(
            "60,000 CIFAR JPEGs: collect to preprocess",
            f"{median(mine):.1f} s ({shares})",
            f"{median(rival):.1f} s bare loop",
            f"{ratio:.1f} times",
            "at most 10 times",
            ratio <= 10,
        ),
        Row("the same: peak memory", f"{peak_mb:.0f} MB", "", f"{peak_mb:.0f} MB", "under 1,000 MB", peak_mb < 1000),
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

"""Peak memory of collect + validate + version + preprocess for 600,000 images: CIFAR-10's JPEGs ten times, under new names and
with pixels of their own. Takes some minutes, and is no part of `make bench`."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

from bench.data_in import ours
from bench.report import Row, report, samples


def ten_times(archive: Path, folder: Path) -> Path:
    """The archive's images ten times: under new names, and with pixels changed by a brightness step of their own."""
    import cv2
    import numpy as np

    target = folder / "cifar10.tar.gz"
    with tarfile.open(archive, "r|gz") as tar, tarfile.open(target, "w:gz", compresslevel=1) as larger:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if not file:
                continue
            image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            for copy in range(10):
                shifted = np.roll(image, copy, axis=1) if copy % 2 else cv2.flip(np.roll(image, copy, axis=0), 1)
                data = cv2.imencode(".jpg", cv2.add(shifted, np.full_like(shifted, copy)))[1].tobytes()
                info = tarfile.TarInfo(member.name.replace(".jpg", f"-{copy}.jpg"))
                info.size = len(data)
                larger.addfile(info, io.BytesIO(data))
    return target


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        archive = ten_times(samples() / "cifar10.tar.gz", Path(folder))
        with open(archive, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        wall, peak, stages = ours(archive.parent, checksum)
    shares = ", ".join(f"{name} {value:.0f} s" for name, value in stages.items())
    return [
        Row(
            "600,000 images: peak memory",
            f"{peak / 1e6:.0f} MB, {wall:.0f} s ({shares})",
            "",
            f"{peak / 1e6:.0f} MB",
            "under 1,000 MB",
            peak < 1e9,
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

"""Data sets that an installed library carries, as sources."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

from evergreen.data.sources.base import Source, SourceEntry


class DigitsSource(Source):
    """scikit-learn's digits (Alpaydin and Kaynak 1998, UCI repository): 1,797 images of 8×8 grey pixels, 0 to 16 scaled to 0 to
    255."""

    published_at: ClassVar[datetime | None] = datetime(1998, 7, 1, tzinfo=UTC)

    def stream(self) -> Iterator[SourceEntry]:
        import numpy as np
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        for number, (image, label) in enumerate(zip(images, digits.target, strict=True)):
            data = _plain_png(image)
            name = f"digits/{label}/{number:04d}.png"
            yield SourceEntry(name, data, len(data), fraction_read=(number + 1) / len(images))

    def fingerprint(self) -> str:
        return hashlib.sha256(f"builtin {self.describe()}".encode()).hexdigest()

    def describe(self) -> str:
        return "digits"


BUILTINS: dict[str, type[Source]] = {"digits": DigitsSource}


def _plain_png(grey: Any) -> bytes:
    """uint8 (height, width) as a PNG without compression: zlib's output differs between its versions and processors, and a
    built-in data set is to be the same bit for bit everywhere."""
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    assert len(rows) < 2**16, "one stored block"
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows + struct.pack(">I", zlib.adler32(rows))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )

"""Pixels as PNG files that are the same bit for bit everywhere."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

STORED_BYTES = 2**16 - 1  # of one block that is stored without compression (RFC 1951)


def plain_png(pixels: np.ndarray) -> bytes:
    """A PNG without compression: the output of zlib differs between its versions and processors, and an item's id is the hash
    of its bytes.

    Args:
        pixels: uint8 or uint16 (height, width) grey, or (height, width, 3) RGB.
    """
    import numpy as np

    height, width = pixels.shape[:2]
    deep = pixels.dtype == np.uint16
    rows = (pixels.astype(">u2").view(np.uint8) if deep else pixels).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # a row begins with its filter: none
    pieces = [filtered[start : start + STORED_BYTES] for start in range(0, len(filtered), STORED_BYTES)]
    blocks = b"".join(
        struct.pack("<BHH", number == len(pieces), len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces, 1)
    )
    header = struct.pack(">IIBBBBB", width, height, 16 if deep else 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    compressed = b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(filtered))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    )

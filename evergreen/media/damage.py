"""Detects damage that image decoders tolerate: they write a warning to standard error, and return pixels, many of them wrong.

Neither OpenCV nor Pillow returns these warnings, so the process that inspects images (`evergreen.media.isolated`) reads its own
standard error after each image. Formats with a checksum (PNG) are checked by it. Damage in formats with neither checksum nor
markers cannot be detected: BMP, uncompressed TIFF, and most damage to WebP, GIF and AVIF.
"""

from __future__ import annotations

import os
import re
import struct
import zlib

from evergreen.media.images import BadImage

# Encoders pad a file to whole words; a decoder that lost its position in the data almost always leaves more bytes than that.
PADDING_BYTES = 3
SECTOR_BYTES = 512  # of a disk: the smallest unit that is lost, and then read as zeros
# libjpeg's messages (jerror.h) about pixel data. It prints only the first warning of an image.
CORRUPT = re.compile(r"Corrupt JPEG data: (?!bad ICC|\d+ extraneous).*|Premature end of JPEG file|Inconsistent progression.*")
EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")


class StandardError:
    """Redirects this process's standard error to memory, to be read after each image."""

    def __init__(self) -> None:
        memory = os.memfd_create("stderr")
        os.dup2(memory, 2)
        os.close(memory)

    def read(self) -> str:
        """The text that was written since the last call."""
        if os.lseek(2, 0, os.SEEK_CUR) == 0:  # for almost every image
            return ""
        text = os.pread(2, 2**16, 0).decode("utf-8", "replace")
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return text


def refuse_damaged(data: bytes, format_name: str, errors: StandardError) -> None:
    """Check an image that was just decoded, using the warnings that the decoder wrote.

    Args:
        format_name: `Header.format`.

    Raises:
        BadImage: the image is `damaged`.
    """
    warnings = errors.read()
    found = None
    if format_name == "JPEG" and warnings:
        found = _jpeg_damage(data, warnings, errors)
    elif format_name == "TIFF" and warnings:
        found = _tiff_damage(data, warnings)
    elif format_name == "PNG":
        found = _png_damage(data)
    elif format_name == "WEBP":
        found = _webp_damage(data)
    if found:
        raise BadImage("damaged", found)


def _jpeg_damage(data: bytes, warnings: str, errors: StandardError) -> str | None:
    if found := CORRUPT.search(warnings):
        return f"its decoder says: {found[0]}"
    # The first warning was harmless and hides any later ones: decode again without the parts that can cause harmless warnings.
    import cv2
    import numpy as np

    bare = _without_metadata(data)
    cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_GRAYSCALE)
    warnings = errors.read()
    if found := CORRUPT.search(warnings):
        return f"its decoder says: {found[0]}"
    if found := EXTRANEOUS.search(warnings):
        number, end = int(found[1]), bare.find(b"\xff\xd9", bare.find(b"\xff\xda"))
        padding = found[2] == "d9" and (number <= PADDING_BYTES or len(set(bare[end - number : end])) == 1)
        return None if padding else f"its decoder says: {found[0]}"
    return None


def _without_metadata(data: bytes) -> bytes:
    """Reduce a JPEG to tables, frame header and pixel data, without application segments, comments or stray bytes in its
    header. In a sequential one, set the unused parameters of the first scan as the standard requires (ITU-T T.81, B.2.3)."""
    kept, position, sequential = [b"\xff\xd8"], 2, True
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in (0x00, 0x01, 0xFF, 0xD8, 0xD9) or 0xD0 <= marker <= 0xD7:
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if marker == 0xDA:
            segment = segment[:-3] + b"\x00\x3f\x00" if sequential else segment
            return b"".join([*kept, segment, data[end:]])
        sequential = sequential and marker not in (0xC2, 0xC6, 0xCA, 0xCE)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        position = end
    return data


def _tiff_damage(data: bytes, warnings: str) -> str | None:
    if found := CORRUPT.search(warnings):  # the pixels are JPEG data
        return f"its decoder says: {found[0]}"
    if "ERROR" not in warnings:
        return None
    from evergreen.media.images import decode_with_pillow, read_header

    try:  # OpenCV continues after an error; Pillow does not, and reads some compressions that OpenCV cannot
        decode_with_pillow(read_header(data), data, 1)
    except BadImage as bad:
        return bad.detail
    return None


def _png_damage(data: bytes) -> str | None:
    """Verify the checksum of each chunk on which pixels depend (its name begins with a capital letter)."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            break
        if name[:1].isupper() and zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of its chunk {name.decode('latin-1')!r} is wrong"
        if name == b"IEND":
            break
        position = end + 4
    return None


def _webp_damage(data: bytes) -> str | None:
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if name in (b"VP8 ", b"VP8L", b"ALPH") and bytes(SECTOR_BYTES) in data[position + 8 : position + 8 + length]:
            return f"its compressed pixels have a hole of {SECTOR_BYTES} or more zero bytes"
        position += 8 + length + length % 2
    return None

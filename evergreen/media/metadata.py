"""Removes metadata from encoded images: position, camera and serial number, times, names, comments, previews, and whatever
else is not part of the picture.

Pixels stay as they are, bit for bit: parts of the file are left out, and nothing is encoded again. What stays is a list of
what a decoder needs; so what is not known here is removed as well. Colour profiles and resolutions stay. Of the EXIF data only
the orientation stays, in a block of 26 bytes, if it is not the usual one: rotating the pixels of a JPEG would mean to encode
them again, and every decoder used here applies the orientation.

AVIF and HEIF are containers in which parts refer to each other by position. One with metadata is stored as PNG (`as_png`), with
the same pixels; so is any image that cannot be read without what was removed.

Libraries were looked for. Pillow and those that build on it encode pixels again; piexif removes EXIF data alone, and leaves
XMP, IPTC, comments and what follows the image; exiv2 and its bindings are GPL; exiftool is a program in Perl.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator

from evergreen.media.images import BadImage, Header, decode, exif_orientation, opened

# PNG's chunks that pixels, their colours and their size depend on (third edition of the standard, and APNG).
PNG_CHUNKS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT cICP mDCV cLLI bKGD pHYs acTL fcTL fdAT".split(),
)
WEBP_CHUNKS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF"))
# TIFF's fields that pixels, their colours and their size depend on, by number (TIFF 6.0 and supplements; 34675: ICC profile).
TIFF_FIELDS = frozenset(
    (*range(254, 260), 262, 263, 264, 265, 266, 273, 274, *range(277, 285), *range(290, 294), 296, 301, *range(317, 326), 332, 334, 336)
    + (*range(338, 343), 347, *range(529, 533), 34675)
)  # fmt: skip
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TIFF_PIXELS = ((273, 279), (324, 325))  # fields with the positions and the lengths of strips, and of tiles
OLD_JPEG = 6  # a compression of TIFF whose tables are anywhere in the file
SIGNS_IN_CONTAINER = (b"Exif", b"mime", b"uri ", b"uuid", b"udta")  # types of items and boxes of AVIF and HEIF with metadata
END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # the next marker of a JPEG; those before it belong to the pixels


def without_metadata(data: bytes) -> bytes | None:
    """Remove what is not part of the picture, without decoding it.

    Args:
        data: an encoded image, also a damaged or truncated one.

    Returns:
        The same object if there is nothing to remove; None if this is no image, or one of which parts cannot be left out.
    """
    for start, cleaned in _FORMATS.items():
        if re.match(start, data, re.DOTALL):
            try:
                left = cleaned(data)
            except (struct.error, IndexError, ValueError, KeyError):
                return None
            return data if left == data else left
    return None


def as_png(data: bytes, header: Header) -> bytes:
    """Encode an image as PNG without metadata, with its orientation applied. The colour profile stays.

    Raises:
        BadImage: it cannot be decoded, or PNG cannot hold its pixels (`metadata-stays`).
    """
    from PIL import ImageOps

    sink = io.BytesIO()
    try:
        with opened(header.format, data) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            kept = turned if turned.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else turned.convert("RGB")
            kept.save(sink, "PNG", icc_profile=image.info.get("icc_profile"))
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds on mutated bytes)
        raise _stays(str(error)) from None
    if header.deep or not (decode(data, 3, header.width * header.height) == decode(sink.getvalue(), 3, 2**31)).all():
        raise _stays("PNG would change its pixels")
    return sink.getvalue()


def _stays(why: str) -> BadImage:
    return BadImage(
        "metadata-stays",
        f"its metadata (position, camera, times) cannot be removed: {why}; save it again without, or set collect.keep_metadata: true",
    )


def _exif(orientation: int) -> bytes:
    """EXIF data (TIFF, big-endian) with the orientation alone."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes) -> bytes:
    """Keep tables, frames, scans, JFIF without its preview, the colour profile and Adobe's colour transform (ITU-T T.81, B)."""
    kept, position, is_turned = [b"\xff\xd8"], 2, False
    while (position := data.find(b"\xff", position)) >= 0:
        while position < len(data) and data[position] == 0xFF:
            position += 1
        if position >= len(data):
            break
        marker = data[position]
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            break
        if not (0xC0 <= marker <= 0xCF or 0xDA <= marker <= 0xFE):  # these have no length
            position += 1
            continue
        end = position + 1 + int.from_bytes(data[position + 1 : position + 3], "big")
        if end > len(data) or end < position + 3:
            break
        body = data[position + 3 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and not is_turned:
            orientation = exif_orientation(body[6:])
            is_turned, left = orientation > 1, b"Exif\0\0" + _exif(orientation) if orientation > 1 else None
        else:
            left = _jpeg_segment(marker, body)
        if left is not None:
            kept.append(b"\xff" + bytes([marker]) + (len(left) + 2).to_bytes(2, "big") + left)
        if marker == 0xDA:
            found = END_OF_SCAN.search(data, end)
            kept.append(data[end : found.start() if found else len(data)])
            end = found.start() if found else len(data)
        position = end
    return b"".join(kept)


def _jpeg_segment(marker: int, body: bytes) -> bytes | None:
    """What stays of a segment; None if nothing does."""
    if marker == 0xE0 and body.startswith(b"JFIF\0"):
        return body[:12] + b"\0\0"  # a preview of 0×0 pixels
    if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
        return body
    if marker == 0xEE and body.startswith(b"Adobe"):
        return body[:12]
    return body if marker <= 0xDF else None


def _png(data: bytes) -> bytes:
    kept, position = [data[:8]], 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if name in PNG_CHUNKS:
            kept.append(data[position:end])
        elif name == b"eXIf" and (orientation := exif_orientation(data[position + 8 : end - 4])) > 1:
            kept.append(_png_chunk(name, _exif(orientation)))
        if name == b"IEND":
            break
        position = end
    return b"".join(kept)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _webp(data: bytes) -> bytes:
    """See RFC 9649; the flags of `VP8X` say which chunks there are."""
    kept, orientation = [], 1
    for name, body in _webp_chunks(data):
        if name in WEBP_CHUNKS:
            kept.append((name, body))
        elif name == b"EXIF" and orientation == 1:
            orientation = exif_orientation(body.removeprefix(b"Exif\0\0"))
    if orientation > 1:
        kept.append((b"EXIF", _exif(orientation)))
    if kept and kept[0][0] == b"VP8X":
        flags = kept[0][1][0] & ~0x0C | (0x08 if orientation > 1 else 0)
        kept[0] = (b"VP8X", bytes([flags]) + kept[0][1][1:])
    chunks = b"".join(struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2) for name, body in kept)
    return struct.pack("<4sI4s", b"RIFF", len(chunks) + 4, b"WEBP") + chunks


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _gif(data: bytes) -> bytes:
    """Keep images, how each is shown, and a colour profile; leave out comments, texts and data of applications (GIF89a)."""
    position = 13 + _gif_colours(data[10])
    kept = [data[:position]]
    while position < len(data) and data[position] in (0x21, 0x2C):
        begin = position
        if data[position] == 0x2C:
            position += 10 + _gif_colours(data[position + 9]) + 1
        else:
            position += 2
        is_kept = data[begin] == 0x2C or data[begin + 1] == 0xF9 or data[begin + 3 : begin + 14] == b"ICCRGBG1012"
        while position < len(data) and data[position]:
            position += data[position] + 1
        position += 1
        if is_kept:
            kept.append(data[begin:position])
    return b"".join(kept) + (b";" if data[position : position + 1] == b";" else b"")


def _gif_colours(flags: int) -> int:
    """The bytes of a colour table, from the flags before it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(data: bytes) -> bytes:
    """BMP has no metadata: cut off what follows pixels and colour profile."""
    start, header = struct.unpack_from("<I", data, 10)[0], struct.unpack_from("<I", data, 14)[0]
    if header < 40:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = size = 0
    else:
        width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    if compression in (0, 3, 6):
        size = (width * bits + 31) // 32 * 4 * abs(height)
    end = start + size
    if header >= 124:
        place, length = struct.unpack_from("<II", data, 14 + 112)
        end = max(end, 14 + place + length) if length else end
    return data[:end]


def _tiff(data: bytes) -> bytes:
    """Copy the fields and the pixels of each image into an empty file, at their places, so that no position changes.

    Raises:
        ValueError: a part is missing, or parts overlap so much that all of them together are longer than the file.
    """
    order, is_big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    pointer = order + ("Q" if is_big else "I")
    start = 16 if is_big else 8
    (place,) = struct.unpack_from(pointer, data, start - struct.calcsize(pointer))
    directories, pieces = {0: data[:start]}, _Pieces(data)
    while place and place not in directories:
        directories[place], following = _tiff_directory(data, place, order, is_big, pieces)
        place = following
    copy = bytearray(
        max(begin + length for begin, length in (*pieces.places, *((at, len(kept)) for at, kept in directories.items())))
    )
    view = memoryview(copy)
    for begin, length in pieces.places:
        view[begin : begin + length] = memoryview(data)[begin : begin + length]
    for at, kept in directories.items():
        view[at : at + len(kept)] = kept
    return bytes(copy)


class _Pieces:
    """The places of what is copied from a file. Honest files hardly share any of it: together they are not longer than the
    file, which limits the time and the memory that a crafted one takes."""

    def __init__(self, data: bytes) -> None:
        self.places: list[tuple[int, int]] = []
        self._size = self._left = len(data)

    def count(self, length: int) -> None:
        """Count what is read.

        Raises:
            ValueError: together it is longer than the file.
        """
        self._left -= length
        if self._left < 0:
            raise ValueError("its parts overlap")

    def add(self, begin: int, length: int) -> None:
        """Add a place.

        Raises:
            ValueError: it is not within the file, or together they are longer than the file.
        """
        self.count(length)
        if begin + length > self._size:
            raise ValueError("a part is missing")
        self.places.append((begin, length))


def _tiff_directory(data: bytes, place: int, order: str, is_big: bool, pieces: _Pieces) -> tuple[bytes, int]:
    """The directory of an image without fields that pixels do not need, and the position of the next directory, 0 for none.

    Args:
        pieces: the places of what the fields point to, and of the pixels, are added.
    """
    number, pointer = (order + "Q", order + "Q") if is_big else (order + "H", order + "I")
    width, size = struct.calcsize(pointer), 4 + 2 * struct.calcsize(pointer)
    (fields,) = struct.unpack_from(number, data, place)
    first = place + struct.calcsize(number)
    pieces.count(fields * size)
    entries, numbers = [], {}
    for at in range(first, first + fields * size, size):
        field, kind, count = struct.unpack_from(order + "HH" + pointer[1], data, at)
        if field not in TIFF_FIELDS:
            continue
        inside, length = at + 4 + width, TIFF_SIZES[kind] * count
        if length > width:
            (where,) = struct.unpack_from(pointer, data, inside)
            pieces.add(where, length)
            entries.append(data[at : at + size])
        else:
            where = inside
            entries.append(data[at : inside + length].ljust(size, b"\0"))
        if kind in (3, 4, 16):
            numbers[field] = (f"{order}{count}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", where)

    def values(field: int) -> tuple[int, ...]:
        return struct.unpack_from(numbers[field][0], data, numbers[field][1]) if field in numbers else ()

    if values(259) == (OLD_JPEG,):
        raise ValueError("its tables are anywhere")
    for starts, lengths in TIFF_PIXELS:
        for begin, length in zip(values(starts), values(lengths), strict=True):
            pieces.add(begin, length)
    (following,) = struct.unpack_from(pointer, data, first + fields * size)
    return struct.pack(number, len(entries)) + b"".join(entries) + struct.pack(pointer, following), following


def _container(data: bytes) -> bytes:
    """AVIF and HEIF without metadata are kept as they are.

    Raises:
        ValueError: there is metadata, which cannot be left out.
    """
    if any(sign in data for sign in SIGNS_IN_CONTAINER):
        raise ValueError("there is metadata")
    return data


_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    rb"\xff\xd8\xff": _jpeg,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"RIFF....WEBP": _webp,
    rb"GIF8[79]a": _gif,
    rb"II[*+]\0|MM\0[*+]": _tiff,
    rb"BM": _bmp,
    rb"....ftyp": _container,
}

"""Pictures in every format, with a position, a camera's serial number and other metadata in every place where it can be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin

SERIAL = b"SN-4711-0815"
PLACE = b"52.5163N 13.3777E"
POSITION = ((52, 1), (30, 1), (587_654, 10_000))  # degrees, minutes, seconds
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d exif:GPSLatitude="' + PLACE + b'" aux:SerialNumber="' + SERIAL + b'"/></x:xmpmeta>'
)
NEEDLES = (SERIAL, PLACE, *(b"".join(struct.pack(f"{order}II", *pair) for pair in POSITION) for order in "<>"))


def has_metadata(content: bytes) -> bool:
    """Whether any of what was planted is in these bytes."""
    return any(needle in content for needle in NEEDLES)


def pixels(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Smooth colours, the same for the same seed."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def exif(orientation: int | None = None) -> Image.Exif:
    """EXIF data of a camera, with a position."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x010E] = "Maker", "Model", PLACE.decode()
    if orientation:
        tags[0x0112] = orientation
    tags.get_ifd(0x8769)[0xA431] = SERIAL.decode()
    tags.get_ifd(0x8825).update({1: "N", 2: tuple(top / bottom for top, bottom in POSITION)})
    tags.get_ifd(0x8825)[18] = PLACE.decode()
    return tags


def _saved(image: Image.Image, format_name: str, orientation: int | None, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, exif=exif(orientation), **options)
    return file.getvalue()


def jpeg(image: Image.Image, orientation: int | None = None) -> bytes:
    """With EXIF, XMP, IPTC, a comment, a preview of another image and what phones write behind the image."""
    data = _saved(image, "JPEG", orientation, quality=90, icc_profile=b"a colour profile" * 10)
    parts = (
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        (0xED, b"Photoshop 3.0\0" + PLACE),
        (0xE2, b"MPF\0" + PLACE),
        (0xFE, SERIAL),
    )
    segments = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in parts)
    return data[:2] + segments + data[2:] + b"SEFT" + SERIAL


def png(image: Image.Image, orientation: int | None = None) -> bytes:
    """With EXIF, texts of three kinds, a time, an unknown chunk, and bytes after the end."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", PLACE.decode())
    texts.add_text("Raw profile type iptc", SERIAL.decode(), zip=False)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    data = _saved(image, "PNG", orientation, pnginfo=texts)
    body = b"prVt" + SERIAL
    chunk = struct.pack(">I", len(SERIAL)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:-12] + chunk + data[-12:] + PLACE


def webp(image: Image.Image, orientation: int | None = None) -> bytes:
    """With EXIF and XMP, and bytes after the end."""
    return _saved(image, "WEBP", orientation, lossless=True, xmp=XMP) + SERIAL


def tiff(image: Image.Image, orientation: int | None = None) -> bytes:
    """With EXIF, XMP, a description, and bytes that no field points to."""
    file = io.BytesIO()
    tags = exif(orientation)
    tags[700], tags[305] = XMP, "Software"
    image.save(file, "TIFF", exif=tags, compression="tiff_lzw")
    return file.getvalue() + SERIAL


def avif(image: Image.Image, orientation: int | None = None) -> bytes:
    """With EXIF and XMP."""
    return _saved(image, "AVIF", orientation, xmp=XMP, speed=10)


def gif(image: Image.Image, orientation: int | None = None) -> bytes:
    """With a comment and XMP; a GIF has no orientation."""
    file = io.BytesIO()
    image.quantize(64).save(file, "GIF", comment=PLACE)
    data = file.getvalue()
    return data[:-1] + b"\x21\xff\x0bXMP DataXMP" + bytes([len(SERIAL)]) + SERIAL + b"\0;" + PLACE


def bmp(image: Image.Image, orientation: int | None = None) -> bytes:
    """With bytes after the end, as there is no other place."""
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue() + SERIAL


FORMATS: dict[str, Callable[..., bytes]] = {
    "JPEG": jpeg, "PNG": png, "WEBP": webp, "TIFF": tiff, "AVIF": avif, "GIF": gif, "BMP": bmp,
}  # fmt: skip
TURNED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")  # formats with an orientation

"""Images that can be decoded although part of their data is lost or changed: what their decoders warn of, and what is
harmless."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evergreen.media.images import BadImage, Inspection, decode
from evergreen.media.isolated import Inspectors


@pytest.fixture(scope="module")
def verdict() -> Iterator[Callable[[bytes], str]]:
    """Asks an inspecting process about one image: `good`, or the reason why it is bad."""
    with Inspectors(10**6, processes=1) as inspectors:

        def ask(data: bytes) -> str:
            answer = inspectors.submit([data]).result()[0].found
            return "good" if isinstance(answer, Inspection) else answer.reason

        yield ask


def picture(format_name: str, seed: int = 0, **options: Any) -> bytes:
    """An image with as much detail as a photograph."""
    rough = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rough).resize((200, 200), Image.Resampling.BICUBIC).save(file, format_name, **options)
    return file.getvalue()


def hole(data: bytes, first: float = 0.5, share: float = 0.15) -> bytes:
    """A part of the file as zeros."""
    start, length = int(len(data) * first), int(len(data) * share)
    return data[:start] + bytes(length) + data[start + length :]


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "other tables": {"optimize": True},
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_with_a_hole_is_damaged(verdict: Callable[[bytes], str], kind: str) -> None:
    for seed in range(4):
        intact = picture("JPEG", seed, **JPEGS[kind])
        assert verdict(intact) == "good"
        assert verdict(hole(intact)) == "damaged"


def test_a_damaged_jpeg_would_have_been_decoded_with_wrong_pixels(verdict: Callable[[bytes], str]) -> None:
    intact = picture("JPEG")
    wrong = np.abs(decode(hole(intact), 3).astype(int) - decode(intact, 3)).max(axis=2) > 16
    assert wrong.mean() > 0.1
    assert verdict(hole(intact)) == "damaged"


def test_most_changed_runs_of_bytes_in_a_jpeg_are_noticed(verdict: Callable[[bytes], str]) -> None:
    chance, noticed = random.Random(1), 0
    for seed in range(40):
        data = picture("JPEG", seed)
        start = chance.randint(700, len(data) - 200)
        noticed += verdict(data[:start] + chance.randbytes(100) + data[start + 100 :]) == "damaged"
    assert noticed >= 24  # those that are not, decode to as many blocks as the header says


def sof_at(data: bytes) -> int:
    return data.index(b"\xff\xc0")


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "bytes after the end": lambda data: data + b"appended by a phone" * 50,
    "zeros before the end": lambda data: data[:-2] + bytes(64) + data[-2:],
    "two bytes before the end": lambda data: data[:-2] + b"ab" + data[-2:],
    "stray bytes in the header": lambda data: data[: sof_at(data)] + b"stray" + data[sof_at(data) :],
    "an unknown JFIF version": lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\7\7"),
    "unusual parameters of the scan": lambda data: data.replace(b"\x03\x11\x00\x3f\x00", b"\x03\x11\x00\x00\x00"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_harmless_in_a_jpeg_does_not_count_and_hides_no_damage(verdict: Callable[[bytes], str], what: str) -> None:
    data = HARMLESS[what](picture("JPEG"))
    assert data != picture("JPEG")
    assert verdict(data) == "good"
    assert np.array_equal(decode(data, 3), decode(picture("JPEG"), 3))
    assert verdict(HARMLESS[what](hole(picture("JPEG")))) == "damaged"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_png_with_a_wrong_checksum_is_damaged(verdict: Callable[[bytes], str], mode: str) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(picture("PNG"))).convert(mode).save(file, "PNG")
    intact = file.getvalue()
    at = intact.index(b"IDAT")
    length = int.from_bytes(intact[at - 4 : at], "big")
    damaged = bytearray(intact)
    damaged[at + 4 + length] ^= 1  # of the checksum itself: the pixels are right, but who could know
    assert verdict(intact) == "good"
    assert verdict(bytes(damaged)) in ("damaged", "undecodable")


def test_a_wrong_checksum_of_a_remark_in_a_png_is_harmless(verdict: Callable[[bytes], str]) -> None:
    intact = picture("PNG")
    remark = b"tEXt" + b"Comment\0hello"
    chunk = (len(remark) - 4).to_bytes(4, "big") + remark + (zlib.crc32(remark) ^ 1).to_bytes(4, "big")
    assert verdict(intact[:33] + chunk + intact[33:]) == "good"


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg"])
def test_a_compressed_tiff_with_a_hole_is_bad(verdict: Callable[[bytes], str], compression: str) -> None:
    intact = picture("TIFF", compression=compression)
    assert verdict(intact) == "good"
    assert verdict(hole(intact)) in ("damaged", "undecodable")


def test_a_deflated_tiff_with_changed_bytes_is_damaged(verdict: Callable[[bytes], str]) -> None:
    data = bytearray(picture("TIFF", compression="tiff_adobe_deflate"))
    data[len(data) // 2] ^= 0x10
    assert verdict(bytes(data)) == "damaged"


def test_a_webp_with_a_hole_is_damaged(verdict: Callable[[bytes], str]) -> None:
    assert verdict(picture("WEBP")) == "good"
    assert verdict(hole(picture("WEBP", quality=95))) == "damaged"


def test_the_reason_says_what_the_decoder_says() -> None:
    with Inspectors(10**6, processes=1) as inspectors:
        answer = inspectors.submit([hole(picture("JPEG"))]).result()[0].found
    assert isinstance(answer, BadImage)
    assert answer.detail.startswith("its decoder says: Corrupt JPEG data: ") and "\n" not in answer.detail

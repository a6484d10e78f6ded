"""Metadata: nothing of it is left in an image, whatever the format, and every pixel stays the same."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evergreen.media.images import BadImage, decode, read_header
from evergreen.media.isolated import Inspectors, Privacy
from evergreen.media.metadata import as_png, without_metadata
from tests.support.planted import FORMATS, POSITION, SERIAL, TURNED, exif, has_metadata, pixels


@pytest.fixture(scope="module")
def cleaned() -> Iterator[Callable[[bytes], bytes]]:
    """Gives an image as an inspecting process returns it."""
    with Inspectors(10**6, processes=1, privacy=Privacy(keep_metadata=False)) as inspectors:

        def clean(data: bytes) -> bytes:
            [verdict] = inspectors.submit([data]).result()
            assert not isinstance(verdict.found, BadImage), verdict.found
            return data if verdict.content is None else verdict.content

        yield clean


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_of_it_is_left_and_every_pixel_is_the_same(cleaned: Callable[[bytes], bytes], format_name: str) -> None:
    data = FORMATS[format_name](pixels())
    left = cleaned(data)
    assert has_metadata(data) and not has_metadata(left)
    assert (decode(left, 3) == decode(data, 3)).all()
    assert read_header(left).format == ("PNG" if format_name == "AVIF" else format_name)
    with Image.open(io.BytesIO(left)) as image:
        assert not dict(image.getexif()) or format_name == "TIFF"  # Pillow counts a TIFF's own fields among them
        assert not {"comment", "xmp", "photoshop", "Comment"} & set(image.info)
    assert without_metadata(left) is left


@pytest.mark.parametrize("format_name", TURNED)
@pytest.mark.parametrize("orientation", [2, 6, 8])
def test_the_orientation_stays_so_that_the_picture_is_the_right_way_up(
    cleaned: Callable[[bytes], bytes], format_name: str, orientation: int
) -> None:
    data = FORMATS[format_name](pixels(), orientation)
    left = cleaned(data)
    assert not has_metadata(left) and (decode(left, 3) == decode(data, 3)).all()
    upright = decode(FORMATS[format_name](pixels()), 3)
    assert decode(left, 3).shape != upright.shape or (decode(left, 3) != upright).any()
    assert (read_header(left).width, read_header(left).height) == ((64, 48) if orientation == 2 else (48, 64))


def test_a_jpeg_keeps_its_colour_profile_and_its_very_pixels_encoded() -> None:
    data = FORMATS["JPEG"](pixels())
    left = without_metadata(data)
    assert left is not None and Image.open(io.BytesIO(left)).info["icc_profile"] == b"a colour profile" * 10
    scan = data[data.index(b"\xff\xda") : data.rindex(b"\xff\xd9") + 2]
    assert left.endswith(scan) and left.startswith(b"\xff\xd8\xff\xe0")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}, {"quality": 100}]
)
def test_a_jpeg_without_metadata_is_left_alone_however_it_is_encoded(options: dict[str, int]) -> None:
    file = io.BytesIO()
    pixels().save(file, "JPEG", **options)
    data = file.getvalue()
    assert without_metadata(data) is data


def test_a_preview_inside_jfif_is_removed() -> None:
    file = io.BytesIO()
    pixels().save(file, "JPEG")
    data = file.getvalue()
    preview = b"\xff\xe0" + struct.pack(">H", 16 + 12) + b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"previewprevi"
    left = without_metadata(data[:2] + preview + data[20:])
    assert left is not None and b"preview" not in left and (decode(left, 3) == decode(data, 3)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_grey_transparent_and_deep_images_stay_the_same(cleaned: Callable[[bytes], bytes], format_name: str, mode: str) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (20, 30), np.uint16)
    image = Image.fromarray(values) if mode == "I;16" else pixels(3, (30, 20)).convert(mode)
    if (format_name, mode) == ("TIFF", "LA"):
        image = pixels(3, (30, 20)).convert("RGBA")
    data = FORMATS[format_name](image)
    left = cleaned(data)
    assert has_metadata(data) and not has_metadata(left) and read_header(left) == read_header(data)
    if mode == "I;16":
        flags = cv2.IMREAD_UNCHANGED
        assert (cv2.imdecode(np.frombuffer(left, np.uint8), flags) == values).all()
    else:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(left))), np.asarray(Image.open(io.BytesIO(data))))


def test_a_bigtiff_and_one_in_tiles_stay_the_same() -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (40, 50, 3), np.uint16)
    data = cv2.imencode(".tiff", values, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    file = io.BytesIO()
    pixels().save(file, "TIFF", big_tiff=True, tiffinfo={270: SERIAL.decode() * 3}, compression="tiff_adobe_deflate")
    for original in (data, file.getvalue()):
        left = without_metadata(original + SERIAL)
        assert left is not None and SERIAL not in left and read_header(left) == read_header(original)
        flags = cv2.IMREAD_UNCHANGED
        unchanged = [cv2.imdecode(np.frombuffer(each, np.uint8), flags) for each in (left, original)]
        assert np.array_equal(*unchanged)


@pytest.mark.parametrize("directories", [1, 400])
def test_a_tiff_whose_parts_overlap_is_not_copied_many_times(directories: int) -> None:
    """Each of 1,200 fields points to nearly the whole file, each time from another position on."""
    body, each, places = bytearray(b"II*\0" + struct.pack("<I", 8)), 1_200 // directories, []
    for number in range(directories):
        following = len(body) + 2 + 12 * each + 4 if number + 1 < directories else 0
        body += struct.pack("<H", each)
        for _ in range(each):
            places.append(len(body) + 8)
            body += struct.pack("<HHII", 34675, 7, 100_000, 0)
        body += struct.pack("<I", following)
    for number, place in enumerate(places):
        struct.pack_into("<I", body, place, len(body) + number)
    data = bytes(body) + bytes(102_000)
    tracemalloc.start()
    try:
        assert without_metadata(data) is None
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
    finally:
        tracemalloc.stop()


def test_an_image_that_only_png_can_hold_without_its_metadata_is_encoded_as_png() -> None:
    data = FORMATS["AVIF"](pixels(), 6)
    assert without_metadata(data) is None
    left = as_png(data, read_header(data))
    assert left.startswith(b"\x89PNG") and not has_metadata(left) and (decode(left, 3) == decode(data, 3)).all()


def test_an_avif_without_metadata_is_left_alone() -> None:
    file = io.BytesIO()
    pixels().save(file, "AVIF", speed=10)
    data = file.getvalue()
    assert without_metadata(data) is data


def test_what_is_no_image_has_no_part_that_may_be_kept() -> None:
    assert without_metadata(b"") is None and without_metadata(b"position: 52 N") is None
    assert without_metadata(b"\xff\xd8\xff") == b"\xff\xd8"


@settings(max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_a_damaged_image_loses_its_metadata_too_and_nothing_raises(format_name: str, data: st.DataObject) -> None:
    whole = bytearray(FORMATS[format_name](pixels()))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    left = without_metadata(cut)
    assert left is None or len(left) <= len(cut) + 40


@settings(max_examples=60)
@given(
    st.integers(0, 2**16),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from([1, 3, 6, 7]),
)
def test_whatever_the_picture_its_pixels_stay_the_same(
    seed: int, width: int, height: int, format_name: str, orientation: int
) -> None:
    data = FORMATS[format_name](pixels(seed, (width, height)), orientation)
    left = without_metadata(data)
    left = as_png(data, read_header(data)) if left is None else left
    assert not has_metadata(left) and (decode(left, 3) == decode(data, 3)).all()


def test_the_planted_position_is_one_that_readers_find() -> None:
    found = Image.open(io.BytesIO(FORMATS["JPEG"](pixels()))).getexif().get_ifd(0x8825)[2]
    assert [round(float(one), 4) for one in found] == [round(top / bottom, 4) for top, bottom in POSITION]
    assert exif().get_ifd(0x8769)[0xA431] == SERIAL.decode()

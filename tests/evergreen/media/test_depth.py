"""Images of more than 8 bits a value: which values are black and white, and that all readers agree about it."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evergreen.media.depth import MIN_LEVELS, Sample, extremes, levels, may_be_deep, sampled_range
from evergreen.media.images import BadImage, PixelRange, decode, inspect, prepare, read_header

TWELVE = PixelRange(0, 4095)


def written(values: np.ndarray, extension: str = ".png") -> bytes:
    """(height, width) or (height, width, 3 or 4), RGB order, as OpenCV writes it."""
    if values.ndim == 3:
        values = np.concatenate([values[:, :, 2::-1], values[:, :, 3:]], axis=2)
    return cv2.imencode(extension, values)[1].tobytes()


def plain_tiff(values: np.ndarray, kind: int) -> bytes:
    """An uncompressed grey TIFF; `kind` is its SampleFormat: 1 unsigned, 2 signed, 3 floating point."""
    height, width = values.shape
    data = values.tobytes()
    tags = {
        256: width,
        257: height,
        258: 8 * values.itemsize,
        259: 1,
        262: 1,
        273: 0,
        277: 1,
        278: height,
        279: len(data),
        339: kind,
    }
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def twelve_bits(seed: int = 0, shape: tuple[int, ...] = (12, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape).astype(np.uint16)


def expected(values: np.ndarray, low: float = 0, high: float = 4095) -> np.ndarray:
    return np.rint((values.astype(float) - low).clip(0, high - low) * 255 / (high - low)).astype(np.uint8)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_twelve_bits_keep_256_levels_with_a_range_and_16_without(extension: str) -> None:
    values = np.linspace(0, 4095, 4096).astype(np.uint16).reshape(64, 64)
    data = written(values, extension)
    assert read_header(data).deep
    assert np.array_equal(decode(data, 1, pixel_range=TWELVE)[:, :, 0], expected(values))
    assert len(np.unique(decode(data, 1, pixel_range=TWELVE))) == 256
    assert len(np.unique(decode(data, 1))) == 16  # what a model without a range learned with, it goes on seeing


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_opencv_and_pillow_read_the_same_values(extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(twelve_bits(), extension)
    first = decode(data, 1, pixel_range=TWELVE)
    monkeypatch.setattr("evergreen.media.images._decode_with_cv2", lambda *_: None)
    assert np.array_equal(decode(data, 1, pixel_range=TWELVE), first)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4"])
def test_grey_tiffs_of_each_kind_that_pillow_writes_are_read(compression: str, kind: str) -> None:
    values = twelve_bits().astype(kind)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", compression=compression)
    assert np.array_equal(decode(file.getvalue(), 1, pixel_range=TWELVE)[:, :, 0], expected(values))


@pytest.mark.parametrize(("kind", "code"), [(np.int16, 2), (np.int32, 2), (np.uint32, 1), (np.float32, 3)])
def test_signed_long_and_floating_point_values_are_read_in_their_own_units(kind: Any, code: int) -> None:
    low = 0 if kind == np.uint32 else -1000
    values = (twelve_bits().astype(np.int32) + low).astype(kind)
    found = decode(plain_tiff(values, code), 1, pixel_range=PixelRange(low, low + 4095))
    assert np.array_equal(found[:, :, 0], expected(values, low, low + 4095))


def test_without_a_range_floating_point_is_refused_and_the_refusal_names_the_key() -> None:
    with pytest.raises(BadImage, match="floating point, and preprocess.range does not say") as bad:
        decode(plain_tiff(twelve_bits().astype(np.float32), 3), 1)
    assert bad.value.reason == "undecodable"


def test_kinds_of_values_that_are_not_read_say_what_to_do() -> None:
    with pytest.raises(BadImage, match="save it with 8 or 16 bits a value"):
        read_header(plain_tiff(twelve_bits().astype(np.float64), 3))


def test_what_is_no_number_is_black_and_infinity_white() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    assert decode(plain_tiff(values, 3), 1, pixel_range=PixelRange(0, 1))[:, :, 0].tolist() == [[0, 255], [0, 128]]


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_colours_of_16_bits_keep_their_order_and_share_one_range(extension: str) -> None:
    values = twelve_bits(shape=(12, 16, 3))
    data = written(values, extension)
    assert read_header(data).channels == 3
    assert np.array_equal(decode(data, 3, pixel_range=TWELVE), expected(values))
    grey = cv2.cvtColor(expected(values), cv2.COLOR_RGB2GRAY)
    assert np.array_equal(decode(data, 1, pixel_range=TWELVE)[:, :, 0], grey)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_what_is_transparent_in_16_bits_is_white(extension: str) -> None:
    values = np.concatenate([twelve_bits(shape=(12, 16, 3)), np.full((12, 16, 1), 65535, np.uint16)], axis=2)
    values[0, 0, 3] = 0
    pixels = decode(written(values, extension), 3, pixel_range=TWELVE)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(pixels[1:], expected(values[1:, :, :3]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_a_turned_image_of_16_bits_is_turned_upright(format_name: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options = {"exif": exif.tobytes()} if format_name == "PNG" else {"tiffinfo": {0x0112: orientation}}
    Image.fromarray(twelve_bits()).save(file, format_name, **options)  # type: ignore[arg-type]
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))))
    pixels = decode(file.getvalue(), 1, pixel_range=TWELVE)[:, :, 0]
    assert np.array_equal(pixels, expected(upright))
    header = inspect(file.getvalue(), pixel_range=TWELVE).header
    assert (header.height, header.width) == pixels.shape


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "JPEG", "BMP", "GIF", "WEBP"])
def test_a_range_changes_no_image_of_8_bits(format_name: str, mode: str) -> None:
    file = io.BytesIO()
    try:
        Image.fromarray(twelve_bits(shape=(12, 16, 3)).astype(np.uint8)).convert(mode).save(file, format_name)
    except (OSError, ValueError):
        pytest.skip("there is no such file")
    data = file.getvalue()
    assert not read_header(data).deep
    for channels in (1, 3):
        assert np.array_equal(decode(data, channels, pixel_range=TWELVE), decode(data, channels))  # type: ignore[arg-type]


def test_image_statistics_are_those_of_the_range() -> None:
    data = written(np.repeat([[0, 2048]], 8, axis=0).astype(np.uint16))
    found = inspect(data, pixel_range=PixelRange(0, 2048))
    assert found.brightness == pytest.approx(0.5) and found.contrast == pytest.approx(0.5)
    assert inspect(data).contrast < 0.02


def test_the_range_leaves_out_hot_pixels_and_odd_images_and_keeps_rare_bright_ones() -> None:
    images = [np.random.default_rng(seed).integers(500, 900, (40, 40)).astype(np.uint16) for seed in range(200)]
    for image in images:
        image[0, 0] = 65_535  # a hot pixel in each
    images[0][:] = 60_000  # one image of 200 is overexposed
    for image in images[1:11]:
        image[10:14, 10:14] = 3_000  # one in twenty has a bright spot of a hundredth of its pixels
    found = sampled_range(written(image) for image in images)
    assert found is not None and found.low in range(500, 505) and found.high == 3_000


def test_the_range_does_not_depend_on_the_order_and_hardly_on_the_number() -> None:
    images = [written(np.random.default_rng(seed).integers(100, 4000, (8, 8)).astype(np.uint16)) for seed in range(700)]
    assert sampled_range(images) == sampled_range(reversed(images)) == sampled_range([*images, *images])


def test_a_sample_holds_512_images_at_most_and_each_content_once() -> None:
    sample = Sample()
    for number in range(2_000):
        data = str(number % 1_000).encode()
        if sample.has_room_for(data):
            sample.add(data, (number % 1_000, 4_000))
    assert len(sample) == 512


def test_images_of_8_bits_have_no_range() -> None:
    data = written(np.zeros((4, 4), np.uint8))
    assert extremes(data) is None and sampled_range([data, data]) is None and not may_be_deep(data)
    assert may_be_deep(written(twelve_bits())) and may_be_deep(written(twelve_bits(), ".tif"))


def test_a_range_of_16_bits_leaves_12_bits_fewer_levels_than_are_asked_for() -> None:
    assert levels(PixelRange(0, 65_535), TWELVE) == 17 < MIN_LEVELS
    assert levels(TWELVE, TWELVE) == 256 and levels(PixelRange(50_000, 60_000), TWELVE) == 1


@given(st.integers(0, 2**32), st.floats(-1e4, 6e4), st.floats(1, 6e4), st.sampled_from([".png", ".tif"]), st.integers(4, 20))
@settings(max_examples=40, deadline=None)
def test_a_models_input_is_the_scaled_image_whatever_the_range(
    seed: int, low: float, extent: float, extension: str, side: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 65_536, (side, side)).astype(np.uint16)
    found = prepare(written(values, extension), side, side, 1, pixel_range=PixelRange(low, low + extent))
    assert (
        np.abs(found[:, :, 0].astype(int) - expected(values, low, low + extent)).max() <= 1
    )  # floats are rounded in another order

"""Images get the size of a network's input: stretched, padded or cropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.data.sources.png import plain_png
from evergreen.media.images import prepare
from evergreen.media.resizing import resize

SIDES = st.integers(1, 40)
MODES = ("stretch", "fit", "crop")


def test_fit_keeps_the_aspect_ratio_and_pads_with_the_colour_of_the_border() -> None:
    image = np.full((10, 20, 3), (40, 80, 120), np.uint8)
    image[4:6, 8:12] = 255  # a square of 2 × 4 in the middle
    found = resize(image, 40, 40, "fit")
    assert found.shape == (40, 40, 3)
    assert (found[:10] == (40, 80, 120)).all() and (found[30:] == (40, 80, 120)).all()
    bright = np.argwhere(found[:, :, 0] > 147)
    assert np.ptp(bright[:, 0]) + 1 == 4 and np.ptp(bright[:, 1]) + 1 == 8  # twice as large, and twice as wide as high


def test_the_padding_is_the_mean_of_all_four_sides() -> None:
    image = np.array([[10, 20], [30, 40], [50, 60], [70, 80]], np.uint8)
    found = resize(image, 4, 4, "fit")
    # first row 10, 20; last 70, 80; left 10, 30, 50, 70; right 20, 40, 60, 80: 540 / 12 = 45
    assert (found[:, [0, 3]] == 45).all()
    np.testing.assert_array_equal(found[:, 1:3], image)


def test_crop_takes_the_middle_and_keeps_the_aspect_ratio() -> None:
    image = np.zeros((10, 30), np.uint8)
    image[:, 10:20] = 200
    np.testing.assert_array_equal(resize(image, 10, 10, "crop"), np.full((10, 10), 200, np.uint8))
    np.testing.assert_array_equal(resize(image, 5, 15, "crop"), resize(image, 5, 15, "stretch"))  # nothing to cut off


def test_stretch_takes_the_whole_image() -> None:
    image = np.zeros((10, 30), np.uint8)
    image[:, 10:20] = 200
    found = resize(image, 10, 9, "stretch")
    assert (found[:, :3] == 0).all() and (found[:, 3:6] == 200).all() and (found[:, 6:] == 0).all()


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(MODES), st.booleans())
def test_every_image_gets_the_size_and_only_values_between_its_own(
    rows: int, columns: int, height: int, width: int, mode: str, colour: bool
) -> None:
    image = np.random.default_rng(rows).integers(50, 200, (rows, columns, 3) if colour else (rows, columns), np.uint8)
    found = resize(image, height, width, mode)  # type: ignore[arg-type]
    assert found.shape == (height, width, *image.shape[2:]) and found.dtype == np.uint8
    assert image.min() <= found.min() and found.max() <= image.max()


@given(SIDES, SIDES, st.integers(1, 5))
def test_without_a_change_of_the_aspect_ratio_all_modes_are_one(rows: int, columns: int, times: int) -> None:
    image = np.random.default_rng(rows).integers(0, 256, (rows, columns), np.uint8)
    found = [resize(image, rows * times, columns * times, mode) for mode in MODES]  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("mode", MODES)
def test_an_encoded_image_is_prepared_in_the_requested_way(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 3), np.uint8)
    expected = resize(pixels, 12, 12, mode)  # type: ignore[arg-type]
    np.testing.assert_array_equal(prepare(plain_png(pixels), 12, 12, 3, mode=mode), expected)  # type: ignore[arg-type]

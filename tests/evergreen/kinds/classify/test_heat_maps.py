from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.kinds.classify.answers import Answering
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.heat_maps import GRID, by_class_activation, by_occlusion, hottest
from evergreen.kinds.classify.pictures import heat_maps


def always(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answers of a model that always answers."""
    return Answering().decide(probabilities, None)


class Constant:
    """A network with the same probabilities for every image."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = np.array(probabilities, np.float32)
        self.codec = ImageCodec({"labels": [str(number) for number in range(len(probabilities))], "shape": [8, 8, 1]})

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": np.tile(self.probabilities, (len(arrays["images"]), 1))}

    def further(self, output: str, arrays: Mapping[str, np.ndarray]) -> None:
        return None


def bright(part: tuple[slice, slice]) -> object:
    """A network for which an image is of label 1 if a part of it is bright, and which ignores the rest."""

    def predict(images: np.ndarray) -> np.ndarray:
        light = images[:, part[0], part[1]].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - light, light], axis=1)

    return predict


def scene(height: int, width: int, part: tuple[slice, slice], channels: int = 1) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 60, (height, width, channels), np.uint8)
    image[part] = 250
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "row", "column"), [(40, 40, 5, 30), (30, 60, 20, 10), (64, 20, 50, 10), (7, 9, 1, 7)]
)
def test_the_hottest_point_lies_in_the_part_that_the_answer_rests_on(
    height: int, width: int, row: int, column: int, channels: int
) -> None:
    reach = max(1, min(height, width) // 8)
    part = (slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1))
    heat = by_occlusion(bright(part), scene(height, width, part, channels), 1)
    assert heat.dtype == np.float32 and max(heat.shape) == min(GRID, max(height, width))
    at = hottest(heat, (height, width))
    # A square covers three cells, so its middle may lie a cell beside a part that is smaller than that.
    cell = max(height, width) / max(heat.shape)
    assert part[0].start - cell <= at[0] < part[0].stop + cell and part[1].start - cell <= at[1] < part[1].stop + cell


def test_what_speaks_against_a_label_is_negative_and_what_is_ignored_is_zero() -> None:
    part = (slice(0, 10), slice(0, 10))
    image = scene(40, 40, part)
    speaks_for, speaks_against = by_occlusion(bright(part), image, 1), by_occlusion(bright(part), image, 0)
    assert speaks_for[0, 0] > 0.5 and np.allclose(speaks_for, -speaks_against, atol=1e-4)
    assert np.all(speaks_for[6:, 6:] == 0)


def test_a_network_that_is_certain_gives_finite_heat() -> None:
    certain = by_occlusion(lambda images: np.tile([0.0, 1.0], (len(images), 1)), np.zeros((8, 8, 3), np.uint8), 1)
    assert np.all(certain == 0)


@given(st.integers(1, 40), st.integers(1, 40))
def test_images_of_every_shape_have_a_map_with_its_hottest_point_inside(height: int, width: int) -> None:
    heat = by_occlusion(bright((slice(None), slice(None))), np.full((height, width, 1), 99, np.uint8), 1)
    row, column = hottest(heat, (height, width))
    assert heat.ndim == 2 and 0 <= row < height and 0 <= column < width


def test_the_picture_shows_sure_answers_right_and_wrong_and_names_its_items() -> None:
    part = (slice(0, 8), slice(0, 8))
    images = np.stack([scene(16, 16, part)] * 8)
    labels, right = np.array([0, 0, 1, 1, 2, 2, 0, 0]), np.array([0, 0, 1, 1, 2, 2, 1, 2])
    sure = np.array([0.9, 0.8, 0.95, 0.6, 0.7, 0.5, 0.99, 0.4])
    probabilities = np.full((8, 3), 0.0)
    probabilities[np.arange(8), right] = sure
    probabilities += ((1 - sure) / 3)[:, None]

    figure, shown = heat_maps(
        labels,
        probabilities,
        *always(probabilities),
        ["cat", "$dog$", "<owl>"],
        images,
        [f"id{item}" for item in range(8)],
        Constant([0.5, 0.3, 0.2]),
    )
    assert shown == ["id2", "id0", "id4", "id6", "id7"]
    titles = [axes.get_title() for axes in figure.axes]
    assert "cat\n93.3 %: right" in titles and any("it is\ncat" in title for title in titles)


def test_without_mistakes_the_picture_has_right_answers_alone() -> None:
    images, labels = np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1])
    _, shown = heat_maps(
        labels,
        np.eye(2) * 0.8 + 0.1,
        *always(np.eye(2)),
        ["a", "b"],
        images,
        ["x", "y"],
        Constant([0.5, 0.5]),
    )
    assert shown == ["x", "y"]


def test_class_activation_is_warm_where_it_speaks_for_the_label_and_not_for_those_that_compete() -> None:
    activation = np.zeros((14, 14, 3), np.float32)
    activation[2, 3, 1], activation[10, 10, :] = 2, 5  # the second speaks for all labels alike
    heat = by_class_activation(activation, np.array([0.2, 0.5, 0.3], np.float32), 1)
    assert heat.dtype == np.float32 and hottest(heat, (224, 224)) == (40, 56)
    assert abs(heat[10, 10]) < 1e-5 < heat[2, 3]
    against = by_class_activation(activation, np.array([0.5, 0.5, 0.0], np.float32), 0)
    assert against[2, 3] < 0


def test_the_class_activation_of_a_certain_answer_is_finite() -> None:
    heat = by_class_activation(np.ones((4, 4, 2), np.float32), np.array([0.0, 1.0], np.float32), 1)
    assert np.isfinite(heat).all()

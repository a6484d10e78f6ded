from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.kinds.classify.learner import ImageLearner

pytestmark = pytest.mark.slow  # imports TensorFlow

SHAPES = [(8, 8, 1), (32, 32, 3), (224, 224, 3), (5, 40, 1)]


def random_images(shape: tuple[int, int, int], items: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (items, *shape), np.uint8)


@pytest.fixture
def cnn() -> Any:
    from evergreen.models import cnn

    return cnn


@pytest.mark.parametrize("size", [(20, 33), (7, 40), (48, 24), (1, 1)], ids=str)
def test_interpolation_is_that_of_opencv(size: tuple[int, int], cnn: Any) -> None:
    import cv2

    images = np.random.default_rng(0).integers(0, 256, (2, 24, 30, 3), np.uint8)
    found = np.array(cnn.Interpolate(*size)(images))
    expected = np.stack([cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for image in images])
    assert found.shape == (2, *size, 3) and np.abs(found - expected).max() < 0.01


@pytest.mark.parametrize("network", ["residual", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_raw_pixels_go_in_and_probabilities_come_out(cnn: Any, network: str, shape: tuple[int, int, int]) -> None:
    model = getattr(cnn, network)(shape, 7, filters=8, augment=cnn.Augmentation("both", 1, 2))
    assert model.input.dtype == "uint8" and model.input.name == "images"
    probabilities = np.array(model(random_images(shape)))
    assert probabilities.shape == (3, 7) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("network", ["residual", "plain"])
def test_an_exported_network_works_out_no_shapes_as_it_runs(cnn: Any, network: str, mirror: bool, tmp_path: Path) -> None:
    """The converter folds such work away only most of the time: the same weights would give one file or another."""
    import onnx

    from evergreen.training.export import export

    export(
        getattr(cnn, network)((8, 8, 1), 3, filters=4, augment=cnn.Augmentation("both", 1, 2), mirror=mirror),
        tmp_path,
        ImageLearner(),
    )
    assert "Shape" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


@pytest.mark.parametrize("network", ["residual", "plain"])
def test_a_mirroring_network_predicts_the_mean_of_both_ways_in_keras_and_as_onnx(
    cnn: Any, network: str, tmp_path: Path
) -> None:
    import onnxruntime

    from evergreen.training.export import export

    one_way, both = (getattr(cnn, network)((8, 9, 3), 5, filters=4, mirror=mirror) for mirror in (False, True))
    both.set_weights(one_way.get_weights())
    images = random_images((8, 9, 3), items=7)
    expected = (np.array(one_way(images)) + np.array(one_way(images[:, :, ::-1]))) / 2
    assert np.allclose(both(images), expected, atol=1e-6)
    export(both, tmp_path, ImageLearner())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert np.allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)
    assert both(images, training=True).shape == (7, 5)


def test_large_images_cost_the_residual_network_no_more_parameters_than_a_few_strides(cnn: Any) -> None:
    small, large = (cnn.residual((side, side, 3), 10, filters=16).count_params() for side in (32, 224))
    assert large < 1.2 * small


@pytest.mark.parametrize("network", ["residual", "plain"])
def test_a_reduced_image_is_seen_as_one_of_averaged_pixels(cnn: Any, network: str) -> None:
    import keras

    build = getattr(cnn, network)
    squares = np.random.default_rng(0).integers(0, 62, (3, 8, 10, 1, 1, 3), np.uint8) * 4
    noise = np.array([1, -1, -1, 1], int).reshape(1, 1, 1, 2, 2, 1)  # which averages to nothing
    large = (squares + 4 + noise).astype(np.uint8).transpose(0, 1, 3, 2, 4, 5).reshape(3, 16, 20, 3)
    small = large.reshape(3, 8, 2, 10, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    keras.utils.set_random_seed(0)
    whole = build((8, 10, 3), 4, filters=4, augment=cnn.Augmentation("both", 1, 2))
    reduced = build((16, 20, 3), 4, filters=4, reduction=2, augment=cnn.Augmentation("both", 1, 2))
    assert reduced(large, training=True).shape == (3, 4)
    reduced.set_weights(whole.get_weights())
    assert np.allclose(np.array(reduced(large)), np.array(whole(small)), atol=1e-5)


def test_a_saved_network_loads_in_safe_mode_and_predicts_the_same(cnn: Any, tmp_path: Path) -> None:
    model = cnn.residual((8, 8, 1), 4, filters=8, augment=cnn.Augmentation("horizontal", 2, 3))
    model.save(tmp_path / "model.keras")
    images = random_images((8, 8, 1))
    assert np.array_equal(model(images), cnn.load(tmp_path / "model.keras")(images))


def test_augmentation_leaves_images_alone_outside_of_training(cnn: Any) -> None:
    images = random_images((6, 7, 3))
    assert np.array_equal(cnn.Augment("both", 3, 2)(images, training=False), images)


def test_a_horizontal_flip_gives_each_image_or_its_mirror_image(cnn: Any) -> None:
    images = random_images((6, 7, 3), items=64)
    varied = np.array(cnn.Augment("horizontal")(images, training=True))
    mirrored = [bool((after == before[:, ::-1]).all()) for before, after in zip(images, varied, strict=True)]
    same = [bool((after == before).all()) for before, after in zip(images, varied, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 54


def test_flips_in_both_directions_give_all_four_images(cnn: Any) -> None:
    images = random_images((6, 7, 1), items=64)
    varied = np.array(cnn.Augment("both")(images, training=True))
    ways = [lambda x: x, lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x[::-1, ::-1]]
    found = [[bool((after == way(before)).all()) for way in ways] for before, after in zip(images, varied, strict=True)]
    assert np.sum(found, axis=1).tolist() == [1] * 64
    assert (np.sum(found, axis=0) > 4).all()


def test_layers_can_be_restarted_in_every_epoch_that_a_scenario_may_have(cnn: Any) -> None:
    layer = cnn.Augment("horizontal")
    states = []
    for epoch in (0, 4_294, 4_295, 9_999):  # from 4,295 on the product no longer fits into 32 bits
        layer.restart(7, epoch)
        states.append(tuple(np.asarray(layer.random.state.value).tolist()))
    assert len(set(states)) == 4


def test_a_rotation_turns_each_image_by_an_angle_of_its_own(cnn: Any) -> None:
    import keras

    given = keras.Input((21, 21, 1), dtype="uint8")
    turn = keras.Model(given, cnn.Augmentation(rotate=90)(given))
    images = np.zeros((32, 21, 21, 1), np.uint8)
    images[:, 10, 15:] = 255  # a line from near the centre to the right
    varied = np.array(turn(images, training=True))
    rows, columns = np.meshgrid(np.arange(21) - 10, np.arange(21) - 10, indexing="ij")
    angles = [np.degrees(np.arctan2((rows * one[..., 0]).sum(), (columns * one[..., 0]).sum())) for one in varied]
    assert max(np.abs(angles)) <= 93 and min(angles) < -30 and max(angles) > 30
    assert np.array_equal(turn(images), images)


def test_brightness_is_changed_within_the_limit_and_the_range_of_pixels(cnn: Any) -> None:
    import keras

    given = keras.Input((4, 4, 3), dtype="uint8")
    vary = keras.Model(given, cnn.Augmentation(brightness=0.2)(given))
    images = np.full((64, 4, 4, 3), 230, np.uint8)
    varied = np.array(vary(images, training=True))
    assert varied.min() >= 230 - 51 and varied.max() == 255 and varied.min() < 200
    assert np.array_equal(vary(images), images)


def test_half_of_the_images_are_blurred(cnn: Any) -> None:
    import keras

    given = keras.Input((9, 9, 1), dtype="uint8")
    vary = keras.Model(given, cnn.Augmentation(blur=2.0)(given))
    images = np.zeros((200, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    varied = np.array(vary(images, training=True))
    sharp = np.isclose(varied[:, 4, 4, 0], 255)
    assert 60 < sharp.sum() < 140
    assert np.array_equal(vary(images), images)


@pytest.mark.parametrize("network", ["residual", "plain"])
def test_a_network_with_every_variation_is_exported_without_them(cnn: Any, network: str, tmp_path: Path) -> None:
    import onnxruntime

    from evergreen.training.export import export

    every = cnn.Augmentation("both", 1, 2, 10.0, 0.1, 0.5)
    model = getattr(cnn, network)((12, 12, 3), 3, filters=4, augment=every)
    export(model, tmp_path, ImageLearner())
    images = random_images((12, 12, 3))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (served,) = session.run(["probabilities"], {"images": images})
    assert np.allclose(served, model(images), atol=1e-5)
    assert np.array_equal(model(images), cnn.load(tmp_path / "model.keras")(images))


@pytest.mark.parametrize("shift", [1, 3, 100])
def test_a_shift_moves_by_at_most_so_many_pixels_and_mirrors_the_border(cnn: Any, shift: int) -> None:
    images = random_images((6, 7, 1), items=64)
    varied = np.array(cnn.Augment("none", shift)(images, training=True))
    most_rows, most_columns = min(shift, 5), min(shift, 6)
    padded = np.pad(images, ((0, 0), (most_rows, most_rows), (most_columns, most_columns), (0, 0)), "reflect")
    moves = set()
    for number, after in enumerate(varied):
        fits = [
            (down, right)
            for down in range(2 * most_rows + 1)
            for right in range(2 * most_columns + 1)
            if (padded[number, down : down + 6, right : right + 7] == after).all()
        ]
        assert fits
        moves.add(fits[0])
    assert len(moves) > 5


@pytest.mark.parametrize("erase", [1, 3, 20])
def test_erasing_greys_one_square_at_most_and_leaves_the_rest(cnn: Any, erase: int) -> None:
    images = np.full((64, 6, 7, 3), 7, np.uint8)
    varied = np.array(cnn.Augment(erase=erase)(images, training=True))
    places = set()
    for after in varied:
        rows, columns = np.nonzero((after != 7).any(axis=2))
        assert 1 <= len(set(rows)) <= erase and 1 <= len(set(columns)) <= erase
        assert (after[min(rows) : max(rows) + 1, min(columns) : max(columns) + 1] == cnn.GREY).all()
        assert len(rows) == len(set(rows)) * len(set(columns))
        places.add((min(rows), min(columns), max(rows), max(columns)))
    assert len(places) > 5


def test_what_is_greyed_is_zero_where_the_network_has_scaled_it(cnn: Any) -> None:
    import keras

    model = cnn.residual((8, 8, 1), 3, filters=4)
    scaled = keras.Model(model.input, model.get_layer("scale").output)
    assert not np.array(scaled(np.full((1, 8, 8, 1), cnn.GREY, np.uint8))).any()


def test_augmentation_of_an_epoch_can_be_had_again_and_differs_between_steps_epochs_and_seeds(cnn: Any) -> None:
    images, layer = random_images((8, 8, 1), items=32), cnn.Augment("both", 2, 3)

    def steps(seed: int, epoch: int) -> list[bytes]:
        layer.restart(seed, epoch)
        return [np.array(layer(images, training=True)).tobytes() for _ in range(2)]

    assert steps(1, 0) == steps(1, 0)
    assert len({*steps(1, 0), *steps(1, 1), *steps(2, 0)}) == 6

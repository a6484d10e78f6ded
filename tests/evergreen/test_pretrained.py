from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.errors import EvergreenError
from evergreen.models import efficientnet_lite
from evergreen.models.efficientnet_lite import STAGES, classifier, weights

pytestmark = pytest.mark.slow  # imports TensorFlow

# Every fiftieth logit of the original implementation (efficientnet-lite-pytorch 0.1.0 with PyTorch 2.11) for `photographs`.
RECORDED = [
    [0.1832, -0.5148, 0.2606, 0.9184, -0.4751, -0.4553, -0.0636, -1.2315, 0.4524, -1.0233,
     -0.6778, -0.1639, -0.5085, -1.8003, -0.7130, -0.1137, 1.1657, 0.9566, -0.2019, 1.2736],
    [-1.6243, -0.1754, 3.0314, -0.8376, 0.6950, -1.4342, -1.4281, 0.2291, -0.2432, -1.5131,
     -0.6034, -0.4922, 0.4580, -0.7906, -1.2221, 0.8622, -1.2900, -0.2210, -0.3014, 2.6647],
]  # fmt: skip
DAISY = 985


def photographs() -> np.ndarray:
    """The middle of scikit-learn's two photographs, a palace and a flower, uint8 `(2, 224, 224, 3)`."""
    from sklearn.datasets import load_sample_image

    return np.stack([load_sample_image(name)[100:324, 200:424] for name in ("china.jpg", "flower.jpg")])


@pytest.fixture(scope="module")
def pretrained() -> Any:
    from evergreen.models import pretrained

    return pretrained


@pytest.fixture(scope="module")
def imagenet() -> Any:
    """The whole network, with its last layer for ImageNet's classes."""
    import keras

    images = keras.Input((224, 224, 3))
    last = keras.layers.Dense(1000)
    maps = efficientnet_lite.backbone(images)
    model = keras.Model(images, last(keras.layers.GlobalAveragePooling2D()(maps[-1])))
    efficientnet_lite.load_weights(model)
    last.set_weights([*classifier()])
    return model


def test_the_logits_are_those_of_the_original(imagenet: Any) -> None:
    logits = np.array(imagenet(photographs().astype("float32")))
    assert np.abs(logits[:, ::50] - RECORDED).max() < 1e-4
    assert DAISY in np.argsort(-logits[1])[:2]


def test_the_network_has_the_published_shape(imagenet: Any) -> None:
    assert imagenet.count_params() == 4_694_024 and sum(stage.repeats for stage in STAGES) == 16
    sides = [imagenet.get_layer(name).output.shape[1] for name in ("stem", "block_2_project", "block_15_project", "head")]
    assert sides == [112, 56, 7, 7]


def test_every_weight_of_the_backbone_comes_from_the_file(imagenet: Any) -> None:
    loaded = weights()
    of_layers = {layer.name: layer.get_weights() for layer in imagenet.layers[:-1] if layer.weights}
    assert of_layers.keys() == loaded.keys()
    assert all(np.array_equal(a, b) for name in loaded for a, b in zip(of_layers[name], loaded[name], strict=True))


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "efficientnet_of_nobody")
    with pytest.raises(EvergreenError, match="pre-trained weights are not installed.*make clean install"):
        weights()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shape", [(64, 64, 3), (40, 96, 1)], ids=str)
def test_a_classifier_takes_raw_pixels_and_is_the_same_once_saved(
    pretrained: Any, shape: tuple[int, int, int], mirror: bool, tmp_path: Path
) -> None:
    from evergreen.models.cnn import Augmentation, load

    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    model = pretrained.efficientnet_lite0(shape, 5, augment=Augmentation("horizontal", 2, 4), mirror=mirror)
    features = np.array(pretrained.feature_extractor(model)(images))
    kernel = np.random.default_rng(1).normal(size=(features.shape[1], 5), scale=0.1)
    pretrained.set_last_layer(model, features.mean(axis=0), features.var(axis=0), kernel, np.arange(5.0))
    found = np.array(model(images))
    assert found.shape == (3, 5) and found.dtype == np.float32 and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(np.array(load(tmp_path / "model.keras")(images)), found)


def test_grey_images_are_seen_as_colour_images_without_colour(pretrained: Any) -> None:
    grey = photographs()[:1, :96, :96, :1]
    of_one, of_three = (
        pretrained.feature_extractor(pretrained.efficientnet_lite0((96, 96, channels), 2)) for channels in (1, 3)
    )
    assert np.allclose(np.array(of_one(grey)), np.array(of_three(np.repeat(grey, 3, axis=3))), atol=1e-5)


@pytest.mark.parametrize(("reduction", "seen"), [(2, (96, 80)), (1.5, (128, 107)), (2.5, (77, 64))])
def test_images_are_made_smaller_inside_the_model(pretrained: Any, reduction: float, seen: tuple[int, int]) -> None:
    import cv2

    model = pretrained.efficientnet_lite0((192, 160, 3), 2, reduction=reduction)
    assert model.get_layer("interpolation" if reduction % 1 else "reduction").output.shape[1:3] == seen
    whole = photographs()[:, 16:208, 32:192]
    smaller = np.stack([cv2.resize(image, seen[::-1], interpolation=cv2.INTER_AREA) for image in whole])
    of_smaller = np.array(pretrained.feature_extractor(pretrained.efficientnet_lite0((*seen, 3), 2))(smaller))
    found = np.array(pretrained.feature_extractor(model)(whole))
    assert np.corrcoef(found.ravel(), of_smaller.ravel())[0, 1] > 0.99


def test_features_are_the_mean_over_several_resolutions_by_one_backbone(pretrained: Any, tmp_path: Path) -> None:
    from evergreen.models.cnn import load

    image = photographs()[:1]
    model = pretrained.efficientnet_lite0((224, 224, 3), 2, resolutions=(1.0, 0.5))
    single = pretrained.efficientnet_lite0((224, 224, 3), 2)
    assert model.count_params() == single.count_params()
    halved = pretrained.efficientnet_lite0((112, 112, 3), 2)
    smaller = image.reshape(1, 112, 2, 112, 2, 3).mean(axis=(2, 4)).round()  # nearly as interpolation gives it at half the side
    of_smaller = np.array(pretrained.feature_extractor(halved)(smaller))
    expected = (np.array(pretrained.feature_extractor(single)(image)) + of_smaller) / 2
    found = np.array(pretrained.feature_extractor(model)(image))
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()
    model.save(tmp_path / "model.keras")
    assert np.array_equal(np.array(load(tmp_path / "model.keras")(image)), np.array(model(image)))


def test_tiles_cover_an_image_at_equal_distances_and_overlap(pretrained: Any) -> None:
    assert pretrained.Tiling(224, 112, "max").positions(448) == [0, 112, 224]
    assert pretrained.Tiling(48, 0, "max").positions(100) == [0, 26, 52]  # two would leave four pixels out
    assert pretrained.Tiling(48, 16, "max").positions(48) == [0]


@pytest.mark.parametrize("join", ["max", "mean"])
def test_the_features_of_tiles_are_joined(pretrained: Any, join: str, tmp_path: Path) -> None:
    from evergreen.models.cnn import load

    images = photographs()[:, :96, :64]
    model = pretrained.efficientnet_lite0((96, 64, 3), 2, tiling=pretrained.Tiling(64, 32, join), mirror=True)
    both = (images, images[:, :, ::-1])
    alone = pretrained.feature_extractor(pretrained.efficientnet_lite0((64, 64, 3), 2))
    expected = np.mean(
        [getattr(np, join)([np.array(alone(one[:, :64])), np.array(alone(one[:, 32:]))], axis=0) for one in both], axis=0
    )
    assert np.allclose(np.array(pretrained.feature_extractor(model)(images)), expected, atol=1e-3)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(np.array(load(tmp_path / "model.keras")(images)), np.array(model(images)))


def test_training_changes_the_later_convolutions_and_leaves_the_normalizations(pretrained: Any) -> None:
    import keras

    model = pretrained.efficientnet_lite0((64, 64, 3), 2)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    pretrained.set_last_layer(model, *(np.ones(model.get_layer("last").kernel.shape[0]) for _ in range(2)),
                              np.random.default_rng(1).normal(size=model.get_layer("last").kernel.shape, scale=0.1), np.zeros(2))  # fmt: skip
    model.fit(images, np.eye(2)[[0, 1, 0, 1]], verbose=0)
    changed = {
        layer.name
        for layer in model.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert {"block_5_expand", "block_7_depthwise", "block_15_project", "last"} <= changed
    assert not {"stem", "block_0_depthwise", "block_4_project"} & changed
    assert not any(name.endswith("_normalization") for name in changed)


def test_the_small_network_is_the_beginning_of_the_large_one_and_all_of_it_is_trained(pretrained: Any) -> None:
    from evergreen.models.backbones import efficientnet_lite0_small

    images = photographs()[:, :96, :96]
    small = pretrained.classifier(efficientnet_lite0_small(), (96, 96, 3), 2)
    large = pretrained.efficientnet_lite0((96, 96, 3), 2)
    ours, theirs = (np.array(pretrained.feature_extractor(model)(images)) for model in (small, large))
    assert ours.shape == (2, 3 * (24 + 40 + 80 + 112))
    assert np.allclose(ours, theirs[:, : ours.shape[1]], atol=1e-4)
    assert small.count_params() < large.count_params() / 4
    trained = {layer.name for layer in small.layers if layer.trainable_weights}
    assert {"stem", "block_0_depthwise", "block_10_project", "last"} <= trained
    assert not any(name.endswith("_normalization") for name in trained)


def test_the_statistics_are_mean_maximum_and_deviation(pretrained: Any) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = np.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2)), maps.std(axis=(1, 2))], axis=1)
    assert np.allclose(np.array(pretrained.Statistics()(maps)), expected, atol=1e-4)

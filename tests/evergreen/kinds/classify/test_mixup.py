from __future__ import annotations

import numpy as np

from evergreen.kinds.classify.mixup import mixup


def batches() -> tuple[np.ndarray, np.ndarray]:
    """Two batches of eight images; an image's pixels are all ten times its label's index."""
    labels = np.tile(np.arange(8), (2, 1))
    pixels = np.broadcast_to((10 * labels)[..., None, None, None], (2, 8, 3, 3, 1)).astype(np.uint8)
    return pixels, np.eye(8, dtype=np.float32)[labels]


def test_an_image_and_its_label_are_mixed_in_the_same_shares() -> None:
    images, targets = batches()
    mixed, labels = mixup(images, targets, 0.5, np.random.default_rng(0))
    assert mixed.dtype == np.uint8 and labels.dtype == np.float32 and np.allclose(labels.sum(axis=2), 1)
    expected = (labels * 10 * np.arange(8)).sum(axis=2)
    assert np.abs(mixed[:, :, 0, 0, 0] - expected).max() <= 0.51  # rounded to whole values
    assert (labels > 0.01).sum(axis=2).max() == 2  # two images at most


def test_the_larger_share_is_of_the_image_in_its_own_place() -> None:
    images, targets = batches()
    _, labels = mixup(images, targets, 1.0, np.random.default_rng(1))
    assert (labels[targets == 1] >= 0.5 - 1e-6).all()


def test_the_images_given_are_not_changed() -> None:
    images, targets = batches()
    before = images.copy(), targets.copy()
    mixup(images, targets, 0.5, np.random.default_rng(0))
    assert np.array_equal(images, before[0]) and np.array_equal(targets, before[1])

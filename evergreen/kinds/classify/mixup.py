"""Mixup: training on mixtures of images (Zhang et al. 2018, "mixup: Beyond empirical risk minimization")."""

from __future__ import annotations

import numpy as np


def mixup(images: np.ndarray, targets: np.ndarray, alpha: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image of a batch with another one of the same batch, and their targets in the same shares.

    Args:
        images: uint8 `(batches, items, height, width, channels)`.
        targets: float32 `(batches, items, labels)`.
        alpha: the share of the first image is drawn from Beta(`alpha`, `alpha`): near 0 or 1 if it is small.

    Returns:
        Images and targets of the same shapes and dtypes.
    """
    batches, items = images.shape[:2]
    share = random.beta(alpha, alpha, (batches, items)).astype(np.float32)
    share = np.maximum(share, 1 - share)  # the larger one stays in its place, so that no mixture is drawn twice
    other = np.stack([random.permutation(items) for _ in range(batches)])
    mixed = np.empty_like(images)
    for batch in range(batches):  # one at a time: in floating point, a batch takes four times the memory
        of_first = share[batch, :, None, None, None]
        mixture = of_first * images[batch] + (1 - of_first) * images[batch, other[batch]]
        mixed[batch] = np.rint(mixture)
    of_first = share[..., None]
    return mixed, of_first * targets + (1 - of_first) * np.take_along_axis(targets, other[..., None], axis=1)

"""The optimizer that trains every convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # imports TensorFlow


@pytest.fixture
def muon() -> Any:
    from evergreen.models import muon

    return muon


@pytest.mark.parametrize("shape", [(6, 6), (40, 8), (8, 40)], ids=str)
def test_an_orthogonal_step_has_singular_values_that_are_nearly_alike(muon: Any, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 100
    before = np.linalg.svd(values, compute_uv=False)
    after = np.linalg.svd(np.array(muon.orthogonal(values)), compute_uv=False)
    assert after.shape == before.shape
    assert after.max() / after.min() < before.max() / before.min()
    assert after.max() < 1.4 and np.median(after) > 0.5


def test_a_kernel_keeps_its_norm_and_moves_by_its_rate(muon: Any) -> None:
    import keras

    start = np.random.default_rng(1).normal(size=(3, 3, 4, 8)).astype(np.float32)
    gradient = np.random.default_rng(2).normal(size=start.shape).astype(np.float32)
    kernel = keras.Variable(start)
    muon.Muon(0.2, kernel_rate=0.5).apply([gradient], [kernel])
    after = np.array(kernel)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(start), rel=1e-4)
    assert np.linalg.norm(after - start) / np.linalg.norm(start) == pytest.approx(0.2 * 0.5, rel=0.1)
    assert ((after - start) * gradient).sum() < 0


def test_what_is_no_kernel_is_learned_by_nesterov_sgd(muon: Any) -> None:
    import keras

    values, gradient = np.ones((5, 3), np.float32), np.full((5, 3), 0.5, np.float32)
    ours, theirs = keras.Variable(values), keras.Variable(values)
    settings = {"momentum": 0.9, "nesterov": True}
    for variable, optimizer in ((ours, muon.Muon(0.1, **settings)), (theirs, keras.optimizers.SGD(0.1, **settings))):
        for _ in range(3):
            optimizer.apply([gradient], [variable])
    assert np.array_equal(np.array(ours), np.array(theirs))


def test_its_settings_survive_being_saved(muon: Any) -> None:
    optimizer = muon.Muon(0.3, kernel_rate=0.7, momentum=0.8, nesterov=True)
    again = muon.Muon.from_config(optimizer.get_config())
    assert (again.kernel_rate, again.momentum, again.nesterov) == (0.7, 0.8, True)

"""The distance of items from what a network was trained on, in the exported network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evergreen.environment import import_tensorflow
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.models.spread import MOST_ITEMS, chosen_rows, fit_spread
from evergreen.training.export import export


def two_labels(random: np.random.Generator, items: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of two labels in 20 dimensions, long in the first direction and short in the last ten."""
    labels = np.arange(items) % 2
    values = random.standard_normal((items, 20)) * np.array([10] + [1] * 9 + [0.1] * 10)
    values[:, 1] += 20 * labels
    return values, labels


def test_it_is_the_mahalanobis_distance_from_the_nearest_label() -> None:
    random = np.random.default_rng(0)
    values, labels = two_labels(random)
    spread = fit_spread(values, labels)
    within = values - np.stack([values[labels == label].mean(axis=0) for label in range(2)])[labels]
    inverse = np.linalg.inv(within.T @ within / (len(values) - 2))
    away = values[:5, None] - spread.centers
    expected = np.sqrt(np.einsum("nci,ij,ncj->nc", away, inverse, away).min(axis=1) / 20)
    assert np.allclose(spread.distance(values[:5]), expected, rtol=0.02)


def test_what_is_off_in_a_direction_without_spread_is_far_away() -> None:
    values, labels = two_labels(np.random.default_rng(0))
    spread = fit_spread(values, labels)
    off, along = np.zeros((1, 20)), np.zeros((1, 20))
    off[0, 19], along[0, 0] = 3, 10
    assert spread.distance(off) > 3 * spread.distance(along)


def test_with_fewer_items_than_dimensions_new_items_of_the_same_kind_are_near() -> None:
    random = np.random.default_rng(0)
    factors = random.standard_normal((10, 500))
    values = random.standard_normal((130, 10)) @ factors + 0.3 * random.standard_normal((130, 500))
    spread = fit_spread(values[:80], np.arange(80) % 2)
    other = values[80:] + 2 * random.standard_normal((50, 500))
    assert spread.distance(other).min() > spread.distance(values[80:]).max()


def test_the_statistics_are_of_at_most_so_many_items() -> None:
    assert chosen_rows(3).tolist() == [0, 1, 2]
    assert len(chosen_rows(10 * MOST_ITEMS)) == MOST_ITEMS


@pytest.mark.slow
def test_the_exported_network_gives_the_same_distance_in_the_same_bytes(tmp_path: Path) -> None:
    import_tensorflow()
    import keras
    import onnxruntime

    from evergreen.models import cnn
    from evergreen.models.distance import Distance

    random, learner = np.random.default_rng(0), ImageLearner()
    images, labels = random.integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 3
    model = cnn.residual((8, 8, 1), 3, filters=8)
    embedding = learner.embedding(model)
    values = np.asarray(keras.Model(model.input, embedding)(images))
    spread = fit_spread(values, labels)
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        export(model, folder, learner, {"distance": Distance(spread)(embedding)})
    first, second = ((tmp_path / name / "model.onnx").read_bytes() for name in ("first", "second"))
    assert first == second
    session = onnxruntime.InferenceSession(first)
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding", "distance"]
    (found,) = session.run(["distance"], {"images": images})
    assert found.shape == (60,) and found.dtype == np.float32
    assert np.allclose(found, spread.distance(values), rtol=2e-3)
    assert "distance" not in {layer.name for layer in cnn.load(tmp_path / "first" / "model.keras").layers}

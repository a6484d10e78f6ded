"""The distance of items from what a network was trained on, in the exported network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evergreen.environment import import_tensorflow
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.models.spread import MOST_ITEMS, Spread, chosen_rows
from evergreen.training.export import export


def two_labels(random: np.random.Generator, items: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of two labels in 20 dimensions, long in the first direction and short in the last ten."""
    labels = np.arange(items) % 2
    values = random.standard_normal((items, 20)) * np.array([10] + [1] * 9 + [0.1] * 10)
    values[:, 1] += 20 * labels
    return values, labels


def test_it_is_the_mahalanobis_distance_from_the_nearest_label_less_that_from_all_items() -> None:
    values, labels = two_labels(np.random.default_rng(0))
    spread, expected = Spread.fit(values, labels), []
    for groups in (labels, np.zeros_like(labels)):
        centers = np.stack([values[groups == group].mean(axis=0) for group in np.unique(groups)])
        within = values - centers[groups]
        covariance = within.T @ within / len(values)
        covariance = 0.5 * covariance + 0.5 * np.eye(20) * np.trace(covariance) / 20
        away = values[:5, None] - centers
        expected.append(np.einsum("nci,ij,ncj->nc", away, np.linalg.inv(covariance), away).min(axis=1))
    assert np.allclose(spread.distance(values[:5]), (expected[0] - expected[1]) / 20, rtol=1e-4, atol=1e-6)


def test_what_lies_between_the_labels_is_further_away_than_what_differs_as_their_items_do() -> None:
    values, labels = two_labels(np.random.default_rng(0))
    spread = Spread.fit(values, labels)
    between, along = np.zeros((1, 20)), np.zeros((1, 20))
    between[0, 1], along[0, 0] = 10, 10
    assert spread.distance(between) > spread.distance(values).max() > spread.distance(along)


def test_with_fewer_items_than_dimensions_items_of_another_label_are_far_away() -> None:
    random = np.random.default_rng(0)
    centers = 2 * random.standard_normal((3, 500))
    labels = np.arange(180) % 3
    values = centers[labels] + random.standard_normal((180, 30)) @ random.standard_normal((30, 500)) / 3
    spread = Spread.fit(values[labels < 2][:80], labels[labels < 2][:80])
    new, same = values[labels == 2], values[labels < 2][80:]
    assert spread.distance(new).min() > spread.distance(same).max()


def test_items_that_are_all_the_same_have_a_distance_too() -> None:
    assert np.isfinite(Spread.fit(np.ones((4, 3)), np.array([0, 0, 1, 1])).distance(np.zeros((2, 3)))).all()


def test_one_item_of_each_label_is_enough_for_the_layer() -> None:
    import_tensorflow()
    from evergreen.models.distance import Distance

    values = np.array([[0, 0, 1], [1, 0, 0], [0, 3, 0]], np.float32)
    spread = Spread.fit(values, np.arange(3))
    assert spread.of_labels.directions.shape == (3, 1)
    given = np.array([[0, 0, 1], [9, 9, 9]], np.float32)
    assert np.isfinite(np.asarray(Distance(spread)(given))).all()
    assert spread.distance(given)[1] > spread.distance(given)[0]


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
    spread = Spread.fit(values, labels)
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        export(model, folder, learner, {"distance": Distance(spread)(embedding)})
    first, second = ((tmp_path / name / "model.onnx").read_bytes() for name in ("first", "second"))
    assert first == second
    session = onnxruntime.InferenceSession(first)
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding", "distance"]
    (found,) = session.run(["distance"], {"images": images})
    assert found.shape == (60,) and found.dtype == np.float32
    assert np.allclose(found, spread.distance(values), rtol=1e-3, atol=1e-5)
    assert "distance" not in {layer.name for layer in cnn.load(tmp_path / "first" / "model.keras").layers}

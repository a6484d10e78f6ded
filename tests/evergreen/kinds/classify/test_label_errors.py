"""Likely label errors: flipped labels come first, with the right suggestion and with similar items as evidence."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.kinds.classify.item_features import ItemFeatures, compared
from evergreen.kinds.classify.label_errors import label_errors, nearest, out_of_sample

ITEMS, LABELS = 300, ("cat", "dog", "fox")


def items(labels: np.ndarray, *, per_cluster: int = 1, spread: float = 0.5) -> ItemFeatures:
    """Items around a place for each of three true labels, which follow each other; `labels` are those that they have."""
    random, count = np.random.default_rng(5), len(labels)
    features = (np.eye(3, 12)[np.arange(count) % 3] * 4 + random.normal(0, spread, (count, 12))).astype(np.float32)
    clusters = np.arange(count) // per_cluster * per_cluster
    ids = [f"{number:064x}" for number in range(count)]
    return ItemFeatures(ids, labels, LABELS, features, clusters, clusters, 0.7, np.zeros((count, 3), np.float32))


def true_labels(count: int = ITEMS) -> np.ndarray:
    return np.arange(count) % 3


def test_flipped_labels_come_first_with_the_right_suggestion() -> None:
    labels, flipped = true_labels(), np.random.default_rng(1).choice(ITEMS, 15, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 3
    data = items(labels)
    found = label_errors(data, out_of_sample(data, seed=3), compared(data.features))
    assert {int(one.id, 16) for one in found[:15]} == set(flipped.tolist())
    for one in found[:15]:
        number = int(one.id, 16)
        assert (one.label, one.suggested) == (LABELS[labels[number]], LABELS[number % 3])
        assert 0 <= one.probability_of_label < 0.5 < one.probability_of_suggested <= 1
        assert {int(other, 16) % 3 for other in one.similar} == {number % 3} and one.id not in one.similar
    assert [one.probability_of_label for one in found] == sorted(one.probability_of_label for one in found)


@pytest.mark.parametrize(("per_cluster", "suggested"), [(90, "cat"), (1, "fox")], ids=["one cluster", "not linked"])
def test_a_label_is_not_believed_because_copies_of_the_item_have_it(per_cluster: int, suggested: str) -> None:
    labels = true_labels()
    labels[:90] = 2  # of 90 equal images of a cat
    data = items(labels, per_cluster=per_cluster)
    data.features[:90] = data.features[0]
    probabilities = out_of_sample(data, seed=3)
    assert probabilities is not None and LABELS[probabilities[0].argmax()] == suggested


@pytest.mark.parametrize(
    ("labels", "per_cluster"), [(np.zeros(30, int), 1), (true_labels(30), 30)], ids=["one label", "one cluster"]
)
def test_without_two_labels_and_clusters_nothing_is_said(labels: np.ndarray, per_cluster: int) -> None:
    data = items(labels, per_cluster=per_cluster)
    assert out_of_sample(data, seed=3) is None
    assert label_errors(data, None, compared(data.features)) == []


def test_the_nearest_items_never_include_the_item_itself() -> None:
    points = np.repeat(np.arange(3, dtype=np.float32), 4)[:, None]  # four equal ones at each of three places
    found = nearest(points, np.arange(12), 3)
    assert found.shape == (12, 3) and all(item not in others for item, others in enumerate(found.tolist()))
    assert (found // 4 == np.arange(12)[:, None] // 4).all()

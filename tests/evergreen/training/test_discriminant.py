"""Out-of-fold probabilities: those of scikit-learn's discriminant that is fitted to the other folds, at one temperature."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.training import discriminant
from evergreen.training.discriminant import SHRINKAGES, out_of_fold


def example(items: int, labels: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(4)
    known = random.integers(0, labels, items)
    features = random.normal(0, 1, (items, 6)).astype(np.float32) + 1.5 * np.eye(labels, 6, dtype=np.float32)[known]
    return features, known, np.array_split(random.permutation(items), 3)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_scores_are_those_of_scikit_learn_on_the_other_folds(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    monkeypatch.setattr(discriminant, "SHRINKAGES", (SHRINKAGES[1],))
    features, known, folds = example(240, labels)
    found = np.log(out_of_fold(features, known, labels, folds))
    found -= found.mean(axis=1, keepdims=True)
    values, expected = (features - features.mean(0)) / features.std(0), np.empty_like(found)
    for fold in folds:
        others = np.setdiff1d(np.arange(240), fold)
        # Theirs standardizes the covariance before it shrinks, and multiplies back; ours has standardized features.
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGES[1]).fit(values[others], known[others])
        expected[fold] = np.log(theirs.predict_proba(values[fold]))
    expected -= expected.mean(axis=1, keepdims=True)
    slope = float((found * expected).sum() / (expected * expected).sum())  # one over the temperature
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert 0.5 < slope < 2


def test_items_of_a_label_that_the_other_folds_lack_are_not_judged() -> None:
    features, known, folds = example(60, 2)
    known[folds[2]] = 2
    found = out_of_fold(features, known, 4, folds)
    judged = np.sort(np.concatenate(folds[:2]))
    assert np.isnan(found[folds[2]]).all()
    assert np.allclose(found[judged].sum(axis=1), 1) and (found[judged, 3] == 0).all()


@pytest.mark.parametrize(
    ("items", "features", "best"), [(150, 90, SHRINKAGES[-1]), (2000, 30, SHRINKAGES[0])], ids=["few", "many"]
)
def test_few_items_are_drawn_far_towards_equal_variances_and_many_little(
    items: int, features: int, best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    known, odd = random.integers(0, 2, items), np.arange(features) % 2
    values = (random.normal(0, 1, (items, features)) + 0.3 * known[:, None] * odd).astype(np.float32)
    if items == 2000:  # what tells the labels apart is the small difference between features that vary together
        values[:, 1::2] = values[:, ::2] + 0.1 * values[:, 1::2]
    folds = np.array_split(random.permutation(items), 3)
    chosen = out_of_fold(values, known, 2, folds)
    for shrinkage in (SHRINKAGES[0], SHRINKAGES[-1]):
        monkeypatch.setattr(discriminant, "SHRINKAGES", (shrinkage,))
        assert np.allclose(out_of_fold(values, known, 2, folds), chosen) == (shrinkage == best)


def test_a_wrong_label_far_from_its_own_is_judged_as_all_others() -> None:
    random = np.random.default_rng(4)
    known = np.arange(60) % 2
    features = (random.normal(0, 1e-3, (60, 30)) + known[:, None]).astype(np.float32)
    known[7] = 0
    found = out_of_fold(features, known, 2, np.array_split(random.permutation(60), 3))
    assert np.isfinite(found).all() and found[7, 1] > 0.99

"""Distillation: a small network learns what a larger one, its teacher, says of the training items, and their labels.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531, section 2), minimize a weighted
mean of the student's cross entropy with the teacher's probabilities and of that with the labels. Cross entropy is linear in its
target, so at a temperature of 1 this is the cross entropy with the mean of both, which `mixed` gives.

What a teacher says of items that it was fitted to is little else than their labels. So each item's answer comes from teachers
that were not fitted to it, nor to items of its cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.split import Split
from evergreen.preparation.arrays import write_array
from evergreen.preparation.folds import grouped_folds, labels_and_clusters
from evergreen.progress import task
from evergreen.scenario.settings import Scenario
from evergreen.training.fitting import TrainingData
from evergreen.training.last_layer import fit_last_layer

TEACHER_ANSWERS = "teacher_answers"  # the array of the training split that has them
LABELS_SHARE = 0.5  # of the labels in the targets; from a half on, no item's most probable label becomes another one
FOLDS, REPEATS = (
    5,
    2,
)  # an item's answer is the mean of so many teachers as there are repeats, each fitted to four folds of five


def taught(scenario: Scenario, splits: Path, data: TrainingData, folder: Path) -> TrainingData:
    """The splits, with the teacher's answers to the items of *train* if the scenario has a teacher.

    Args:
        splits: the folder `outputs/NAME/splits`.
        folder: where the answers are kept, so that a training that resumes does not ask again.
    """
    learner, file = kind_of(scenario).learner, folder / f"{TEACHER_ANSWERS}.npy"
    if not learner.has_teacher(scenario):
        return data
    if not file.exists():
        _, clusters = labels_and_clusters(splits)
        with task("Teacher", total=len(data.train), unit="items") as report:
            write_array(file, learner.teacher_answers(scenario, data.train, clusters, report))
    train = data.train
    arrays = {**train.arrays, TEACHER_ANSWERS: np.load(file, allow_pickle=False)}
    return replace(data, train=Split(train.name, arrays, train.facts))


def mixed(one_hot: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The targets, float32 `(items, labels)`: the weighted mean of labels and teacher's answers, `(items, labels)` each."""
    found: np.ndarray = (LABELS_SHARE * one_hot + (1 - LABELS_SHARE) * answers).astype(np.float32)
    return found


def cross_fitted(
    features: np.ndarray,
    labels: np.ndarray,
    clusters: np.ndarray,
    label_count: int,
    weights: Mapping[int, float] | None,
    *,
    seed: int,
) -> np.ndarray:
    """The answers of last layers on frozen features (`evergreen.training.last_layer`) to items that they were not fitted to.

    Args:
        features: float32 `(items, features)`.
        labels: int `(items,)`, indices below `label_count`.
        clusters: `(items,)`; items of one cluster are in one fold.
        weights: of the items of each label; None for equal weights.

    Returns:
        The probability of each label, float32 `(items, labels)`, as the mean over `REPEATS` divisions into folds. If there is
        one cluster only, by a layer that was fitted to all items.
    """
    found, folds = np.zeros((len(labels), label_count)), min(FOLDS, len(np.unique(clusters)))
    for repeat in range(REPEATS):
        every = np.arange(len(labels))
        parts = list(grouped_folds(labels, clusters, count=folds, seed=seed + repeat)) or [(every, every)]
        for others, fold in parts:
            layer = fit_last_layer(features[others], labels[others], label_count, weights)
            found[fold] += layer.probabilities(features[fold]) / REPEATS
    return found.astype(np.float32)

"""Chooses, on validation items, the rules by which a model answers (`evergreen.kinds.classify.answers`).

A fraction of the items is reached on val *with one more item counted as a miss*: `hits / (items + 1)`. If new items come from
where the validation items come from, a threshold for recall that is chosen so finds the requested fraction of them on average
over all validation splits (split conformal prediction, Vovk et al. 2005; Sadinle et al. 2019), and the same rule limits the
fraction that is called unlike. A recall of 90 % therefore needs at least nine items with the label. With fewer, nothing is
chosen, and it is said why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.kinds.classify.answers import ANSWERED, UNLIKE, UNSURE, Answering
from evergreen.kinds.classify.settings import Answers, Target

CLOSE = 1e-4  # probabilities and distances may differ by so much between the trained network and the served one


def rules(
    settings: Answers, labels: np.ndarray, probabilities: np.ndarray, distance: np.ndarray | None, names: Sequence[str]
) -> dict[str, Any]:
    """The section `answers` of a model's `settings.json`.

    Args:
        settings: of the scenario.
        labels: int `(items,)`, the true labels of the validation items, indices in `names`.
        probabilities: float `(items, labels)`, of the model for them.
        distance: float `(items,)`; None if no items are to be called unlike.
        names: of the labels.

    Returns:
        The chosen rules, each with what was requested; `why` says why one could not be chosen, as a clause. `val` has the
        numbers of validation items that are answered, right, unsure and unlike by these rules, and of the items, answers and
        hits of each label with a threshold.
    """
    section: dict[str, Any] = {}
    if settings.unknown_below is not None:
        section["unknown_below"] = settings.unknown_below
    if settings.unlike is not None and distance is not None:
        section["unlike"] = {"fraction": settings.unlike, **_largest_distance(settings.unlike, distance)}
    far = Answering.of({**section, "labels": names, "answers": section}).decide(probabilities, distance)[1] == UNLIKE
    section["thresholds"] = [
        {"label": names[index], **_threshold(target, labels == index, probabilities, index, far)}
        for index, target in ((names.index(name), target) for name, target in settings.thresholds.items())
    ]
    return section | {"val": counts(section, labels, probabilities, distance, names)}


def counts(
    section: dict[str, Any], labels: np.ndarray, probabilities: np.ndarray, distance: np.ndarray | None, names: Sequence[str]
) -> dict[str, Any]:
    """What the rules give on some items; see `rules`."""
    answering = Answering.of({"labels": names, "answers": section})
    return counted(section, labels, *answering.decide(probabilities, distance), names)


def counted(
    section: dict[str, Any], labels: np.ndarray, answer: np.ndarray, unknown: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The numbers of items, by what was answered; see `rules`.

    Args:
        answer, unknown: as `Answering.decide` returns them.
    """
    known, right = unknown == ANSWERED, (unknown == ANSWERED) & (answer == labels)
    of_labels = {one["label"]: list(names).index(one["label"]) for one in section["thresholds"]}
    return {
        "items": len(labels),
        "answered": int(known.sum()),
        "right": int(right.sum()),
        "unsure": int((unknown == UNSURE).sum()),
        "unlike": int((unknown == UNLIKE).sum()),
        "labels": {
            name: {
                "items": int((labels == index).sum()),
                "answers": int((known & (answer == index)).sum()),
                "hits": int((right & (labels == index)).sum()),
            }
            for name, index in of_labels.items()
        },
    }


def least_items(fraction: float) -> int:
    """The number of items from which on a fraction can be reached: all of them must be hits, and one more is counted as a
    miss."""
    return math.ceil(fraction / (1 - fraction) - 1e-9)


def _largest_distance(fraction: float, distance: np.ndarray) -> dict[str, Any]:
    beyond = math.floor(fraction * (len(distance) + 1) + 1e-9)  # with one more item
    if not beyond:
        least = least_items(1 - fraction)
        return {
            "distance": None,
            "why": f"val has {figures.count(len(distance), 'item')}, and calling at most {figures.percent(fraction)} of them unlike needs at least {least:,}",
        }
    farthest = np.sort(distance.astype(np.float64))[::-1]
    limit, nearest = float(farthest[beyond - 1]), float(farthest[beyond - 2]) if beyond > 1 else math.inf
    return {"distance": min(limit + CLOSE * max(1.0, 10 * abs(limit)), (limit + nearest) / 2)}


def _threshold(target: Target, has_label: np.ndarray, probabilities: np.ndarray, index: int, far: np.ndarray) -> dict[str, Any]:
    asked, requested = ("recall", target.recall) if target.recall is not None else ("precision", target.precision)
    assert requested is not None
    scores = np.where(far, -1.0, probabilities[:, index].astype(np.float64))
    choose = _for_recall if asked == "recall" else _for_precision
    if asked == "precision":
        scores = np.where(probabilities.argmax(axis=1) == index, scores, -1.0)
    lowest, why = choose(requested, has_label, scores)
    found: dict[str, Any] = {"target": asked, "requested": requested, "threshold": None}
    if lowest is None:
        return {**found, "why": why}
    below = float(scores[scores < lowest].max(initial=0.0))
    return {**found, "threshold": max((lowest + below) / 2, lowest - CLOSE)}


def _for_recall(recall: float, has_label: np.ndarray, scores: np.ndarray) -> tuple[float | None, str]:
    """The highest score from which on the recall is reached, or why there is none."""
    own = np.sort(scores[has_label])[::-1]
    needed = math.ceil(recall * (len(own) + 1) - 1e-9)  # with one more item
    asked = f"a recall of {figures.percent(recall)}"
    if needed > len(own):
        return (
            None,
            f"val has {figures.count(len(own), 'item')} with the label, and {asked} needs at least {least_items(recall):,}",
        )
    if own[needed - 1] < 0:
        many = int((own < 0).sum())
        return None, f"{many:,} of the {len(own):,} items of val with the label are called unlike, too many for {asked}"
    return float(own[needed - 1]), ""


def _for_precision(precision: float, has_label: np.ndarray, scores: np.ndarray) -> tuple[float | None, str]:
    """The lowest score from which on the precision is reached, or why there is none."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0]
    hits, answers = has_label[order].cumsum(), np.arange(1, len(order) + 1)
    last_of_equals = np.append(np.diff(scores[order]) < 0, True)[: len(order)]
    reached = np.flatnonzero((hits >= precision * (answers + 1) - 1e-9) & last_of_equals)  # with one more item
    if len(reached):
        return float(scores[order][reached[-1]]), ""
    asked, least = f"a precision of {figures.percent(precision)}", least_items(precision)
    if len(order) < least:
        return (
            None,
            f"the label is the most probable one of {figures.count(len(order), 'item')} of val, and {asked} needs at least {least:,}",
        )
    return None, f"from no probability on {asked} is reached on val, with one more item counted as wrong"

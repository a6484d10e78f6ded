"""When a model answers with a label, and when it says that it does not know.

The rules are part of the model's `settings.json`, in its section `answers`, and were chosen on val
(`evergreen.kinds.classify.thresholds`). A model without that section always answers with the most probable label. This module
is stored with the registered model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ANSWERED, UNSURE, UNLIKE = 0, 1, 2
REASONS = ("", "unsure", "unlike")  # by these numbers
DISTANCE = "distance"  # the network's output that says how far an item is from what it was trained on
ANSWER, UNKNOWN = "answer", "unknown"  # the arrays that `Answering.decide` adds to the network's outputs


@dataclass(frozen=True)
class Threshold:
    """The probability from which on a label is the answer.

    Attributes:
        label: its index.
        probability: the threshold.
        overrules: whether the label is the answer also where another label is more probable, as a threshold for recall needs.
    """

    label: int
    probability: float
    overrules: bool


@dataclass(frozen=True)
class Answering:
    """The rules of one model.

    Attributes:
        unknown_below: the lowest probability with which a label without a threshold is answered; 0 if there is none.
        largest_distance: of an item that is answered; infinite if there is none.
        thresholds: of some labels, each at most once.
    """

    unknown_below: float = 0.0
    largest_distance: float = float("inf")
    thresholds: tuple[Threshold, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Answering:
        """The rules in a model's `settings.json`."""
        section, labels = settings.get("answers", {}), list(settings["labels"])
        distance = section.get("unlike", {}).get("distance")
        return cls(
            section.get("unknown_below", 0.0),
            float("inf") if distance is None else distance,
            tuple(
                Threshold(labels.index(one["label"]), one["threshold"], one["target"] == "recall")
                for one in section.get("thresholds", ())
                if one["threshold"] is not None
            ),
        )

    def decide(self, probabilities: np.ndarray, distance: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Decide what to answer for each item.

        An item beyond the largest distance is `unlike` what the model was trained on. Otherwise a label that reaches its
        threshold is the answer; of several, the one that exceeds it by the largest factor. Where none does, the most probable
        label is, unless its probability is below its threshold or, if it has none, below `unknown_below`: that is `unsure`.

        Args:
            probabilities: float `(items, labels)`.
            distance: float `(items,)`; not used, and may be None, if there is no largest distance.

        Returns:
            The index of the label answered, int64 `(items,)`, or of the most probable one if it is not known; and whether it
            is known: int8 `(items,)`, `ANSWERED`, `UNSURE` or `UNLIKE`.
        """
        items = np.arange(len(probabilities))
        most_probable = probabilities.argmax(axis=1)
        needed = np.full(probabilities.shape[1], self.unknown_below)
        factors = np.zeros(probabilities.shape)
        for one in self.thresholds:
            needed[one.label] = one.probability
            factor = probabilities[:, one.label] / max(one.probability, 1e-12)
            factors[:, one.label] = np.where((factor >= 1) & ((most_probable == one.label) | one.overrules), factor, 0)
        reached = factors.max(axis=1) > 0
        unsure = ~reached & (probabilities[items, most_probable] < needed[most_probable])
        unlike = np.zeros(len(items), bool)
        if distance is not None and np.isfinite(self.largest_distance):
            unlike = ~(distance <= self.largest_distance)  # also a distance that is not a number
        unknown = np.where(unlike, UNLIKE, np.where(unsure, UNSURE, ANSWERED)).astype(np.int8)
        answer: np.ndarray = np.where((unknown == ANSWERED) & reached, factors.argmax(axis=1), most_probable)
        return answer.astype(np.int64), unknown


def answered(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a model answered, as `Answering.decide` returns it: as it stands in the outputs (`ImageCodec.decided`), or always
    the most probable label.

    Args:
        outputs: of a model by name, with `probabilities`, float `(items, labels)`.
    """
    if ANSWER in outputs:
        return outputs[ANSWER], outputs[UNKNOWN]
    return Answering().decide(outputs["probabilities"], None)

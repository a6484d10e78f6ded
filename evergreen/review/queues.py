"""The queues of `evergreen review`: which items a person is shown, and in which order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """A queue.

    Attributes:
        title: for people, short.
        about: one sentence.
        empty: what it means that there is nothing in it.
        labelled: whether its items have labels: then one can be kept, and another one is a correction.
    """

    title: str
    about: str
    empty: str
    labelled: bool


QUEUES: dict[str, Queue] = {
    "errors": Queue(
        "Likely label errors",
        "Items for which models that were not trained on them find another label more probable; the most likely errors first.",
        "No label looks wrong.",
        True,
    ),
    "unsure": Queue(
        "Least sure",
        "Items of which the champion is least sure, by the probability of the most probable label.",
        "There is no item for the champion to judge.",
        True,
    ),
    "mistakes": Queue(
        "Mistakes",
        "Validation and test items for which another label is the most probable one to the champion; the most probable ones first.",
        "The champion is right on all validation and test items.",
        True,
    ),
    "inbox": Queue(
        "New without a label",
        "Files in the inbox's folder unlabelled/; those of which the champion is least sure first.",
        "The inbox's folder unlabelled is empty.",
        False,
    ),
}

"""The queues of `evergreen review`: which items a person is shown, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QueueName = Literal["errors", "unsure", "mistakes", "inbox"]


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
        "Items whose label differs from what models say that did not learn from them; the likeliest errors first.",
        "No label looks wrong.",
        True,
    ),
    "unsure": Queue(
        "Least sure",
        "Items of which the champion is least sure; the least sure first.",
        "There is no item for the champion to judge.",
        True,
    ),
    "mistakes": Queue(
        "Mistakes",
        "Validation and test items that the champion gives another label; the surest mistakes first.",
        "The champion is right on all validation and test items.",
        True,
    ),
    "inbox": Queue(
        "New without a label",
        "Files in the inbox's folder unlabelled; those of which the champion is least sure first.",
        "The inbox's folder unlabelled is empty.",
        False,
    ),
}

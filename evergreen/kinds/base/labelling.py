"""The part of a kind for people who label: how an item looks, what a model says of it, and on what its answer rests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.errors import WrongUse
from evergreen.kinds.base.codec import Codec, Network
from evergreen.kinds.base.explorer import LabelError
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class Picture:
    """An encoded picture that every browser shows.

    Attributes:
        media_type: such as `image/png`.
        content: the encoded bytes.
    """

    media_type: str
    content: bytes


@dataclass(frozen=True)
class Answer:
    """A model's answer for an item.

    Attributes:
        label: the answer; the most probable label if the model does not know.
        unknown: why it does not know, in one word; empty if it answers.
    """

    label: str
    unknown: str


class Labelling(ABC, Generic[S]):
    """Shows items and explains answers. Its items have one label each, out of `Contract.known_labels`.

    Attributes:
        column: the data set's column with the encoded item.
    """

    column: ClassVar[str]

    @abstractmethod
    def as_collected(self, scenario: S, content: bytes) -> bytes:
        """An item that nothing has checked yet, with what the collection takes out of it for privacy, such as faces, taken out.
        It is decoded only for that.

        Raises:
            BadItem: the scenario does not take it: it is damaged, or decoding would take too much memory.
            EvergreenError: what has to be taken out cannot be looked for here.
        """

    @abstractmethod
    def picture(self, content: bytes, side: int) -> Picture:
        """The item as a picture, upright, with a longer side of at most `side` pixels.

        Raises:
            BadItem: it cannot be shown.
        """

    @abstractmethod
    def probabilities(self, codec: Codec, output: np.ndarray) -> dict[str, float]:
        """The probability of each label.

        Args:
            output: the network's first output for one item.
        """

    @abstractmethod
    def answer(self, codec: Codec, outputs: Mapping[str, np.ndarray]) -> Answer:
        """What the model answers.

        Args:
            outputs: of the network for one item, by name, `(1, …)` each.
        """

    @abstractmethod
    def heat_map(self, model: Network, content: bytes, label: str) -> Picture:
        """The parts of an item that speak for a label (red) and against it (blue), as a transparent PNG to put over the item's
        picture: it covers the whole picture, however large that is drawn.

        Raises:
            BadItem: the network cannot take the item.
        """

    @abstractmethod
    def overlaid(self, content: bytes, heat_map: Picture, side: int) -> Picture:
        """The item's picture with a heat map on it, as a PNG.

        Args:
            side: as in `picture`.
        """

    @abstractmethod
    def label_errors(self, scenario: S, workspace: Workspace) -> Sequence[LabelError]:
        """The items of the data set whose label is likely wrong, the most likely ones first.

        Raises:
            EvergreenError: the data set is empty, or an item of it cannot be read.
        """

    @abstractmethod
    def inbox_folder(self, scenario: S, label: str) -> str | None:
        """The inbox's folder for files with this label; None if no folder can stand for it."""


def suggested(probabilities: Mapping[str, float]) -> str:
    """The most probable label; of several, the first."""
    return max(probabilities, key=lambda label: probabilities[label])


def part_of(kind: Any) -> Labelling[Any]:
    """The part of a kind.

    Raises:
        WrongUse: the kind has none.
    """
    if kind.labelling is None:
        raise WrongUse(
            f"items of the kind {kind.name} cannot be shown or explained", expected="a scenario of the kind classify, or of another kind that supports labelling", fix="See docs/kinds.md."
        )  # fmt: skip
    found: Labelling[Any] = kind.labelling
    return found

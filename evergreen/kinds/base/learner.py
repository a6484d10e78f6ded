"""The networks of a kind, and how they learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.scenario.settings import Scenario

if TYPE_CHECKING:
    import keras

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class Range:
    """Of one setting of `train` that is tuned: whole numbers in steps of `step`, or real ones; `log`: low values as closely as high ones."""

    name: str
    low: float
    high: float
    step: int | None = None
    log: bool = False


class Learner(ABC, Generic[S]):
    """Of one kind.

    Attributes:
        metric: that people see for each epoch, on train and on val; its key is the name that the compiled network gives it.
        inputs: names of the arrays that the network takes, and of its inputs.
        outputs: names of what it gives.
        largest_difference: of an output, between an exported file and the Keras model.
    """

    metric: ClassVar[Metric]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    largest_difference: ClassVar[float] = 1e-4

    @abstractmethod
    def build(self, scenario: S, train: Split, *, steps: int) -> keras.Model:
        """A compiled network. Called with Keras' random seed set to the scenario's.

        Args:
            train: that it will learn from: only shapes and facts matter.
            steps: how many the whole training will take.

        Returns:
            A model of `inputs` (an array, or several by name) to the first of `outputs`; it learns from `targets`.
        """

    @abstractmethod
    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """What the network learns to give for some items, `(rows, …)`.

        Args:
            rows: int `(rows,)`, the items' rows in the arrays.
        """

    @abstractmethod
    def loss_of_guessing(self, train: Split) -> float:
        """The loss of a network that has learned nothing: many times it is divergence."""

    @abstractmethod
    def settings(self, train: Split) -> dict[str, Any]:
        """What the codec needs to know of the data that the network has learned from, for the model's `settings.json`."""

    @abstractmethod
    def different_networks(self, scenario: S, settings: Mapping[str, Any]) -> list[str]:
        """In what the scenario's network differs from that of a registered model, in words; weights fit where there is nothing.

        Args:
            settings: the registered model's `settings.json`.
        """

    @abstractmethod
    def random_split(self, scenario: S, items: int, random: np.random.Generator) -> Split:
        """Items of the right shape with random content, for a trial of the training's pace."""

    @abstractmethod
    def search_space(self, scenario: S, train: Split) -> list[Range]:
        """What is tuned, around the scenario's own settings."""

    @abstractmethod
    def preparation_work(self, scenario: S) -> str:
        """What decides how much work preparing an item is: the cost of a run is estimated by earlier ones with the same text."""

    @abstractmethod
    def prediction_work(self, scenario: S) -> str:
        """What decides how much work the network has with an item."""

    @abstractmethod
    def training_work(self, scenario: S) -> str:
        """What decides how much work learning from an item is."""

    def class_weight(self, scenario: S, train: Split) -> dict[int, float] | None:
        """Weights of the classes in the loss, as `keras.Model.fit` takes them; None: all alike."""
        return None

    def agree(self, trained: np.ndarray, served: np.ndarray) -> np.ndarray:
        """bool `(items,)`: whether the outputs of the Keras model and of an exported file mean the same."""
        return np.ones(len(trained), bool)

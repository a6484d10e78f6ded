"""The learner of a kind: its networks, and how they are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.scenario.settings import Scenario

if TYPE_CHECKING:
    import keras

S = TypeVar("S", bound=Scenario)


@dataclass(frozen=True)
class Range:
    """The range of a setting of `train` that is tuned: integers in steps of `step`, or real numbers if that is None. `log`:
    sampled on a logarithmic scale."""

    name: str
    low: float
    high: float
    step: int | None = None
    log: bool = False


@dataclass(frozen=True)
class Candidate:
    """A way to train, for a scenario that leaves that open.

    Attributes:
        name: what it is, in a few words.
        settings: of `train`, in place of the scenario's.
        left_out: why it is not tried, as a clause; empty if it is.
    """

    name: str
    settings: Mapping[str, Any]
    left_out: str = ""


class Learner(ABC, Generic[S]):
    """Builds and trains the networks of one kind.

    Attributes:
        metric: shown for each epoch, on train and val; its key is the metric's name in the compiled network.
        inputs: names of the arrays that the network takes, which are also the names of its inputs.
        outputs: names of the network's outputs.
        on_request: names of those of `further_outputs` that predictions do not need. In the exported network they are empty
            unless its optional input `evergreen.kinds.base.codec.REQUESTED` is true.
        largest_difference: that is allowed between an output of an exported file and that of the Keras model.
    """

    metric: ClassVar[Metric]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    on_request: ClassVar[tuple[str, ...]] = ()
    largest_difference: ClassVar[float] = 1e-4

    @abstractmethod
    def build(self, scenario: S, train: Split, *, steps: int) -> keras.Model:
        """Build and compile a network. Keras' random seed is set to the scenario's before the call.

        Args:
            train: the training split, of which only shapes and facts are used.
            steps: the number of steps of the whole training.

        Returns:
            A model that maps `inputs` (one array, or several by name) to the first of `outputs`, and is trained on `targets`.
        """

    def candidates(self, scenario: S, items: int) -> Sequence[Candidate]:
        """The ways to train that are compared if the scenario leaves that open. At least one of them must be tried. By default
        none: the scenario says how to train.

        Args:
            items: the number of items in the training split.
        """
        return ()

    def open_settings(self, scenario: S, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those settings of `train` that the scenario leaves open, with the values that a registered model was trained with. By
        default none.

        Args:
            settings: the registered model's `settings.json`.
        """
        return {}

    def precompute(
        self, scenario: S, train: Split, val: Split, report: Callable[[int], object]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Compute what several trainings on parts of the same items share, such as the features of a frozen network. By default
        nothing. `first_epoch` finds it among the arrays of the splits.

        Args:
            report: to be called with the number of items, of train and val, that are done.

        Returns:
            Arrays by name, `(items, …)` each, of train and of val.
        """
        return {}, {}

    def first_epoch(
        self, scenario: S, model: keras.Model, train: Split, val: Split, report: Callable[[int], object]
    ) -> dict[str, float] | None:
        """Train the first epoch in a way of the kind's own, such as fitting the last layer of a pre-trained network.

        Args:
            model: in training; its weights are changed.
            val: may be empty.
            report: to be called with the number of items, of train and val, that are done.

        Returns:
            `loss` and `metric.key`, and the same with the prefix `val_` if there is a validation split, of the model after the
            epoch; None if the first epoch is trained as all others are, and the model is unchanged. By default None.
        """
        return None

    def has_teacher(self, scenario: S) -> bool:
        """True if the network is to learn what another model says of the items (distillation). By default False."""
        return False

    def teacher_answers(self, scenario: S, train: Split, clusters: np.ndarray, report: Callable[[int], object]) -> np.ndarray:
        """What another model says of the items of *train*, for scenarios with a teacher. `targets` finds it in the split, under
        the name `evergreen.training.distillation.TEACHER_ANSWERS`.

        Args:
            clusters: int `(items,)`; items of one cluster belong together: who has seen one of them is no judge of the others.
            report: to be called with the number of items that are done.

        Returns:
            float32 `(items, …)`.
        """
        raise NotImplementedError

    def calibrate(self, scenario: S, model: keras.Model, val: Split) -> None:
        """Correct how sure of itself a trained model is, before it is exported. By default nothing is done.

        Args:
            model: in full precision; its weights are changed.
            val: at least one item, on which it was not trained.
        """

    def further_outputs(self, scenario: S, model: keras.Model, train: Split) -> dict[str, keras.KerasTensor]:
        """Outputs that the exported network has besides those of the model and the embedding, such as the distance of an item
        from those that the model was trained on. By default none.

        Args:
            model: in full precision, as it will be exported.
            train: the items that it was trained on.

        Returns:
            Tensors of the model's graph by name, `(items, …)` each.
        """
        return {}

    def answer_rules(
        self, scenario: S, model: keras.Model, further: Mapping[str, keras.KerasTensor], val: Split
    ) -> dict[str, Any]:
        """Choose when the model answers and when it says that it does not know. By default it always answers.

        Args:
            model, further: as in `further_outputs`.
            val: items on which it was not trained; may be empty.

        Returns:
            The sections of the model's `settings.json` in which its codec finds the rules; empty if it always answers.
        """
        return {}

    @abstractmethod
    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """The training targets of some items, `(rows, …)`.

        Args:
            rows: int `(rows,)`, the items' indices in the arrays.
        """

    @abstractmethod
    def loss_of_guessing(self, train: Split) -> float:
        """The loss of an untrained network; a loss many times as large means that the training has diverged."""

    @abstractmethod
    def settings(self, train: Split) -> dict[str, Any]:
        """What the codec needs to know about the training data, for the model's `settings.json`."""

    @abstractmethod
    def different_networks(self, scenario: S, settings: Mapping[str, Any]) -> list[str]:
        """List how the scenario's network differs from that of a registered model, in words; empty if the model's weights fit.

        Args:
            settings: the registered model's `settings.json`.
        """

    @abstractmethod
    def random_split(self, scenario: S, items: int, random: np.random.Generator) -> Split:
        """Make items of the right shape with random content, for measuring the speed of training."""

    @abstractmethod
    def search_space(self, scenario: S, train: Split) -> list[Range]:
        """The settings that are tuned, with ranges around the scenario's own values."""

    @abstractmethod
    def preparation_work(self, scenario: S) -> str:
        """A text that identifies the work of preparing an item: costs are estimated from earlier runs with the same text."""

    @abstractmethod
    def prediction_work(self, scenario: S) -> str:
        """The same for a prediction."""

    @abstractmethod
    def training_work(self, scenario: S) -> str:
        """The same for training."""

    def equivalent_epochs(self, scenario: S) -> float:
        """The work of a training in epochs of gradient steps, each of which counts as three predictions. By default
        `train.epochs`."""
        return float(scenario.train.epochs)

    def embedding(self, model: keras.Model) -> keras.KerasTensor:
        """The network's internal representation of an item, in which drift is detected. It is exported beside `outputs`.

        Returns:
            float32 `(items, dimensions)`; by default the input of the last dense layer.

        Raises:
            EvergreenError: there is no dense layer.
        """
        import keras

        dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
        if not dense:
            raise EvergreenError(
                "the network has no embedding", expected="a dense layer", received=[layer.name for layer in model.layers][-5:],
                fix="End it in a dense layer, or let the kind's learner say what its embedding is.",
            )  # fmt: skip
        return keras.layers.Identity(dtype="float32")(dense[-1].input)

    def class_weight(self, scenario: S, train: Split) -> dict[int, float] | None:
        """Class weights for the loss, as `keras.Model.fit` takes them; None for equal weights."""
        return None

    def item_weights(self, scenario: S, train: Split) -> np.ndarray | None:
        """How often each item is drawn in an epoch of gradient steps, relative to the others, `(items,)`. By default None: each
        item once."""
        return None

    def mix(
        self, scenario: S, inputs: list[np.ndarray], targets: np.ndarray, random: np.random.Generator
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Combine the items of each training batch with each other. By default they are left as they are.

        Args:
            inputs: an array for each of `inputs`, `(batches, items, …)`.
            targets: `(batches, items, …)`.
            random: the same whenever these batches are made again.

        Returns:
            Inputs and targets of the same shapes and dtypes.
        """
        return inputs, targets

    def agree(self, trained: np.ndarray, served: np.ndarray) -> np.ndarray:
        """bool `(items,)`: True for items on which the Keras model and the exported file give the same answer."""
        return np.ones(len(trained), bool)

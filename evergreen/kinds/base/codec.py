"""The codec of a kind: converts items to the network's inputs, and the network's outputs to predictions. It is stored with the
registered model, and therefore imports neither TensorFlow nor anything else that only training needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

EMBEDDING = "embedding"  # the output that an exported network has besides those of its codec (`Learner.embedding`)
REQUESTED = "requested"  # the optional input, a bool, without which outputs on request are empty (`Learner.on_request`)


class Codec(ABC):
    """Converts inputs and outputs of one model, configured by the model's `settings.json`.

    Attributes:
        inputs: the columns of the model's input table with their MLflow types, such as `{"image": "binary"}`.
        outputs: names of the network's outputs from which predictions are made, such as the class has them; a model's own may
            be more.
        requirements: distributions that the codec needs besides numpy; a registered model requires the versions installed at
            registration.
        settings: of the model.
    """

    inputs: ClassVar[Mapping[str, str]]
    outputs: tuple[str, ...]
    requirements: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """
        Args:
            settings: the content of the model's `settings.json`.
        """
        self.settings = settings

    def items(self, rows: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Convert the rows of a table to items, in the form that `encode` takes.

        Args:
            rows: values by column of `inputs`.
        """
        columns = {
            name: [bytes(value) for value in rows[name]] if kind == "binary" else list(rows[name])
            for name, kind in self.inputs.items()
        }
        if len(columns) == 1:
            return next(iter(columns.values()))
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    @abstractmethod
    def encode(self, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """The network's inputs by name, `(items, …)` each.

        Args:
            items: each is the value of the only column of `inputs`, or a mapping of column names to values if there are
                several.

        Raises:
            Exception: the network cannot take an item; the kind defines the type.
        """

    def decided(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Add to a network's outputs what the model's settings make of them, such as which items it refuses to answer. By
        default nothing.

        Args:
            outputs: of the network by name, `(items, …)` each.
        """
        return outputs

    @abstractmethod
    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Any]:
        """The prediction for each item, as an object of the kind's own type.

        Args:
            outputs: of the network by name, `(items, …)` each.
        """

    @property
    def categories(self) -> tuple[str, ...]:
        """The possible answers of a classifier; empty if the network predicts numbers."""
        return ()

    @abstractmethod
    def answers(self, output: np.ndarray) -> np.ndarray:
        """One answer per item, `(items,)`: the index of a category, or a number.

        Args:
            output: the network's first output, `(items, …)`.
        """

    @abstractmethod
    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        """The predictions as a table, by column, with any number of rows per item."""

    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The columns of `table` with their MLflow types."""


class Network(Protocol):
    """A network with its codec, such as `evergreen.serving.runtime.OnnxModel`; for arguments of parts of a kind.

    Attributes:
        codec: of the network.
    """

    codec: Codec

    def run(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The outputs by name, with what the codec makes of them (`Codec.decided`), `(items, …)` each.

        Args:
            arrays: the inputs by name, as `Codec.encode` returns them.
        """

    def further(self, output: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """An output that predictions do not need (`Learner.further_outputs`); None if the network does not have it."""

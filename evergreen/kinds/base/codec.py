"""How items become what a network takes, and how what it gives becomes what people read. A codec travels with the registered model: it imports
neither TensorFlow nor anything else that only training needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np


class Codec(ABC):
    """Of one model, whose `settings.json` says what it needs to know.

    Attributes:
        inputs: the columns of the table that people give to the model, each with its type as MLflow names it, such as `{"image": "binary"}`.
        outputs: names of the network's outputs that predictions are made of.
        settings: of the model.
    """

    inputs: ClassVar[Mapping[str, str]]
    outputs: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """
        Args:
            settings: of the model, as `settings.json` holds them.
        """
        self.settings = settings

    def items(self, rows: Mapping[str, Sequence[Any]]) -> list[Any]:
        """The items of a table, as `encode` takes them.

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
            items: each the value of the only column of `inputs`, or a mapping of the values of several.

        Raises:
            Exception: an item is nothing that the network can take; which error, the kind says.
        """

    @abstractmethod
    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[Any]:
        """What the network says of each item, as an object of the kind's own.

        Args:
            outputs: of the network by name, `(items, …)` each.
        """

    @property
    def categories(self) -> tuple[str, ...]:
        """The answers among which the network chooses; none where it gives numbers."""
        return ()

    @abstractmethod
    def answers(self, output: np.ndarray) -> np.ndarray:
        """One answer an item, `(items,)`: the index of a category, or a number.

        Args:
            output: the first one of the network, `(items, …)`.
        """

    @abstractmethod
    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        """The same as a table, by column: any number of rows for an item."""

    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The columns of `table`, each with its type as MLflow names it."""

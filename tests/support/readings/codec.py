"""The readings before one, as numbers separated by spaces, and the reading that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.errors import BadItem
from evergreen.kinds.base.codec import Codec


class ReadingsCodec(Codec):
    inputs = {"history": "string"}
    outputs = ("next",)

    def encode(self, items: Sequence[str]) -> dict[str, np.ndarray]:
        count = int(self.settings["history"])
        rows = np.empty((len(items), count), np.float32)
        for row, item in zip(rows, items, strict=True):
            try:
                row[:] = [float(number) for number in item.split()]
            except ValueError as error:
                raise BadItem("not-readings", f"the model takes {count} numbers: {error}") from None
        return {"history": rows}

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[float]:
        numbers: list[float] = self.answers(outputs["next"]).tolist()
        return numbers

    def answers(self, output: np.ndarray) -> np.ndarray:
        numbers: np.ndarray = output[:, 0].astype(np.float64)
        return numbers

    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        return {"next": self.predictions(outputs)}

    def columns(self) -> dict[str, str]:
        return {"next": "double"}

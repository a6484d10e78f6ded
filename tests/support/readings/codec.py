"""The numbers before one, and the number that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import Codec


class ReadingsCodec(Codec):
    inputs = {"history": "string"}  # numbers, separated by spaces
    outputs = ("next",)

    def encode(self, items: Sequence[str]) -> dict[str, np.ndarray]:
        count = int(self.settings["history"])
        rows = [[float(number) for number in item.split()] for item in items]
        return {"history": np.array(rows, np.float32).reshape(-1, count)}

    def predictions(self, outputs: Mapping[str, np.ndarray]) -> list[float]:
        return [float(value) for value in outputs["next"][:, 0]]

    def answers(self, output: np.ndarray) -> np.ndarray:
        numbers: np.ndarray = output[:, 0].astype(np.float64)
        return numbers

    def table(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
        return {"next": self.predictions(outputs)}

    def columns(self) -> dict[str, str]:
        return {"next": "double"}

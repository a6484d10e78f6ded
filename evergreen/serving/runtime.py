"""Inference: a network on ONNX Runtime, with the codec of its kind. This module is stored with registered models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import REQUESTED, Codec

# At most; what a network computes on the way takes many times its input's memory.
BATCH_ITEMS = 256
BATCH_BYTES = 8_000_000


class OnnxModel:
    """A network with its codec.

    Attributes:
        codec: converts items to the network's inputs, and its outputs to predictions.
    """

    def __init__(self, network: Path, codec: Codec) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(network, options, providers=_providers(onnxruntime))
        self.codec = codec

    def predict(self, items: Sequence[Any]) -> list[Any]:
        """The network's prediction for each item, such as an encoded image.

        Raises:
            Exception: the network cannot take one of the items (`Codec.encode`).
        """
        return self.codec.predictions(self.outputs(items))

    def outputs(self, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """The network's outputs by name with what the codec makes of them (`Codec.decided`), `(items, …)` each. Raises the same
        as `predict`."""
        chunks = [items[start : start + BATCH_ITEMS] for start in range(0, len(items), BATCH_ITEMS)]
        return _joined([self.run(self.codec.encode(chunk)) for chunk in chunks or [items]])

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same for inputs in the form that `Codec.encode` returns."""
        return dict(self.codec.decided(self._run(self.codec.outputs, arrays, {})))

    def further(self, output: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """An output of the network that predictions do not need, `(items, …)`; None if the network does not have it."""
        if output not in (one.name for one in self._session.get_outputs()):
            return None
        optional = [one.name for one in self._session.get_overridable_initializers()]
        return self._run([output], arrays, {name: np.array(True) for name in optional if name == REQUESTED})[output]

    def _run(
        self, outputs: Sequence[str], arrays: Mapping[str, np.ndarray], switches: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Some outputs by name. `arrays` have a row for each item; `switches` are inputs that hold for all items."""
        named = {one.name: arrays[one.name] for one in self._session.get_inputs()}
        at_once = items_per_batch(named)
        parts = []
        for start in range(0, max(1, len(next(iter(named.values())))), at_once):
            batch = {name: values[start : start + at_once] for name, values in named.items()}
            parts.append(dict(zip(outputs, self._session.run(list(outputs), {**batch, **switches}), strict=True)))
        return _joined(parts)


def items_per_batch(inputs: Mapping[str, np.ndarray]) -> int:
    """How many items a network is given at a time: at most `BATCH_ITEMS`, and `BATCH_BYTES` of inputs."""
    item_bytes = sum(values.dtype.itemsize * math.prod(values.shape[1:]) for values in inputs.values())
    return max(1, min(BATCH_ITEMS, BATCH_BYTES // max(1, item_bytes)))


def _joined(chunks: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return chunks[0] if len(chunks) == 1 else {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def open_onnx(folder: Path, codec: type[Codec]) -> OnnxModel:
    """Open the model in a folder with `model.onnx` and `settings.json`, as written by `train`.

    Args:
        codec: the codec of the model's kind.
    """
    return OnnxModel(folder / "model.onnx", codec(json.loads((folder / "settings.json").read_text(encoding="utf-8"))))


def _providers(runtime: Any) -> list[str]:
    """CUDA, if this ONNX Runtime has it, then the CPU."""
    available = runtime.get_available_providers()
    return [provider for provider in ("CUDAExecutionProvider", "CPUExecutionProvider") if provider in available]

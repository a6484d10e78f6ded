"""Inference: a network on ONNX Runtime, with the codec of its kind. This module is stored with registered models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.kinds.base.codec import Codec

BATCH_ITEMS = 256


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
        """The network's outputs by name, `(items, …)` each. Raises the same as `predict`."""
        chunks = [items[start : start + BATCH_ITEMS] for start in range(0, len(items), BATCH_ITEMS)]
        return self._joined([self._run(self.codec.encode(chunk)) for chunk in chunks or [items]])

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs by name, `(items, …)` each, for inputs in the form that `Codec.encode` returns."""
        named = {one.name: arrays[one.name] for one in self._session.get_inputs()}
        items = len(next(iter(named.values())))
        starts = range(0, max(items, 1), BATCH_ITEMS)
        return self._joined(
            [self._run({name: values[start : start + BATCH_ITEMS] for name, values in named.items()}) for start in starts]
        )

    def _run(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = self._session.run(list(self.codec.outputs), dict(arrays))
        return found

    def _joined(self, chunks: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
        joined = chunks[0] if len(chunks) == 1 else [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
        return dict(zip(self.codec.outputs, joined, strict=True))


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

"""The model for drift detection, which gives embeddings besides its first output. It needs only ONNX Runtime: no TensorFlow, no
pickle.

An item's embedding is the network's last representation of it before the prediction (`Learner.embedding`); `model.onnx` has it
as an additional output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.codec import EMBEDDING, Codec
from evergreen.scenario.kinds import load_kind
from evergreen.serving.runtime import items_per_batch

MAX_DIMENSIONS = 256  # of an embedding: larger ones are projected, so that 4,000 items take 4 MB at most


class EmbeddingModel:
    """A network that gives embeddings of items besides its first output.

    Attributes:
        fingerprint: sha256 (hex) of `model.onnx`: only outputs of the same network are compared with each other.
        codec: makes the network's inputs.
    """

    def __init__(self, network: bytes, codec: Codec) -> None:
        """
        Args:
            network: the content of `model.onnx`.

        Raises:
            EvergreenError: it is not an ONNX model, or has no embedding.
        """
        import onnxruntime

        self.fingerprint, self.codec = hashlib.sha256(network).hexdigest(), codec
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # drift detection runs beside other work, and small images gain little from more
        self._session = onnxruntime.InferenceSession(with_embedding(network), options, providers=["CPUExecutionProvider"])
        self._projection: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path) -> EmbeddingModel:
        """Open the model in a folder with `model.onnx` and `settings.json`, as written by `train`.

        Raises:
            EvergreenError: a file is missing, `model.onnx` is not an ONNX model, or it has no embedding.
        """
        try:
            settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            network = (folder / "model.onnx").read_bytes()
        except FileNotFoundError as error:
            raise EvergreenError(f"there is no {Path(error.filename).name} in the model's folder", fix="Train first.") from None
        return cls(network, load_kind(settings["kind"]).codec(settings))

    def embed(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on items.

        Args:
            arrays: the network's inputs by name, `(items, …)` each; other arrays are ignored.

        Returns:
            Embeddings, float32 `(items, dimensions)`, and the network's first output, `(items, …)`.
        """
        inputs = {one.name: arrays[one.name] for one in self._session.get_inputs()}
        items = len(next(iter(inputs.values())))
        embeddings, outputs = [], []
        at_once = items_per_batch(inputs)
        for start in range(0, max(1, items), at_once):
            batch = {name: np.ascontiguousarray(values[start : start + at_once]) for name, values in inputs.items()}
            output, embedding = self._session.run([self.codec.outputs[0], EMBEDDING], batch)
            # A network with `train.mirror` that was exported without its embedding has a row for each view: first those of all
            # items in one view, then in the other.
            views = embedding.reshape(-1, len(output), embedding.shape[1]) if len(output) else embedding[None, :0]
            embeddings.append(self._at_most_max_dimensions(views.mean(axis=0, dtype=np.float32)))
            outputs.append(output)
        return np.concatenate(embeddings), np.concatenate(outputs)

    def _at_most_max_dimensions(self, embedding: np.ndarray) -> np.ndarray:
        """The embedding, randomly projected if it has more than `MAX_DIMENSIONS`. A random projection approximately preserves
        distances (Johnson and Lindenstrauss 1984) and, unlike principal components, is not fitted to any items, so that the
        reference's and new items are treated alike."""
        dimensions = embedding.shape[1]
        if dimensions <= MAX_DIMENSIONS:
            return embedding
        if self._projection is None:
            directions = np.random.default_rng(dimensions).standard_normal((dimensions, MAX_DIMENSIONS))
            self._projection = (directions / MAX_DIMENSIONS**0.5).astype(np.float32)
        projected: np.ndarray = embedding @ self._projection
        return projected


def with_embedding(network: bytes) -> bytes:
    """Add the embedding to a network's outputs unless it is one. Networks exported by earlier versions lack it, but end in a
    dense layer, whose input is the embedding.

    Args:
        network: the content of `model.onnx`.

    Raises:
        EvergreenError: it is not an ONNX model, or has neither the output nor a dense layer of one row per item.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(network)
    except Exception as error:  # noqa: BLE001 (protobuf's errors have no public common base)
        raise EvergreenError(f"model.onnx is no ONNX model ({error})", fix="Train again.") from None
    graph = model.graph
    if EMBEDDING in (output.name for output in graph.output):
        return network
    stored = {tensor.name for tensor in graph.initializer}
    dense = [
        node
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in stored and node.input[0] not in stored
    ]  # in order of execution
    if not dense:
        raise EvergreenError(
            "the network has no embedding", expected=f"an output {EMBEDDING!r}, or a dense layer (MatMul or Gemm with stored weights)",
            received=[node.op_type for node in graph.node][-5:], fix="Train again.",
        )  # fmt: skip
    graph.node.append(onnx.helper.make_node("Identity", [dense[-1].input[0]], [EMBEDDING]))
    graph.output.append(onnx.helper.make_tensor_value_info(EMBEDDING, onnx.TensorProto.FLOAT, ["rows", "dimensions"]))
    added: bytes = model.SerializeToString()
    return added

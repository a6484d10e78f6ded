"""The model as drift looks at items: besides its probabilities, their embedding. No TensorFlow and no pickle: ONNX Runtime alone.

An item's embedding is what the network's last dense layer is given: all that the network has made of the item before it settles
on a label. `model.onnx` ends in that layer; the graph is opened with the layer's input as one more output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.errors import EvergreenError
from evergreen.kinds.base.codec import Codec
from evergreen.scenario.kinds import load_kind

if TYPE_CHECKING:
    import onnx

BATCH_ITEMS = 256
MAX_DIMENSIONS = 256  # of an embedding: larger ones are projected, so that 4,000 items take 4 MB at most


class EmbeddingModel:
    """A network that gives its embedding of items besides its first output.

    Attributes:
        fingerprint: sha256 (hex) of `model.onnx`: what one network saw is compared with what the same one sees.
        codec: makes the network's inputs.
    """

    def __init__(self, network: bytes, codec: Codec) -> None:
        """
        Args:
            network: the content of `model.onnx`.

        Raises:
            EvergreenError: it is no ONNX model, or has no dense layer at its end.
        """
        import onnx
        import onnxruntime

        self.fingerprint, self.codec = hashlib.sha256(network).hexdigest(), codec
        try:
            graph_and_more = onnx.load_model_from_string(network)
        except Exception as error:  # noqa: BLE001 (protobuf's errors have no public common base)
            raise EvergreenError(f"model.onnx is no ONNX model ({error})", fix="Train again.") from None
        self._embedding = last_dense_input(graph_and_more.graph)
        graph_and_more.graph.output.append(onnx.helper.make_empty_tensor_value_info(self._embedding))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # drift is looked for beside other work, and small images gain little from more
        self._session = onnxruntime.InferenceSession(
            graph_and_more.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        if len(self._session.get_outputs()[-1].shape) != 2:
            raise no_embedding(graph_and_more.graph)
        self._projection: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path) -> EmbeddingModel:
        """The model of a folder with `model.onnx` and `settings.json`, as `train` writes it.

        Raises:
            EvergreenError: a file is missing, or as above.
        """
        try:
            settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            network = (folder / "model.onnx").read_bytes()
        except FileNotFoundError as error:
            raise EvergreenError(f"there is no {Path(error.filename).name} in the model's folder", fix="Train first.") from None
        return cls(network, load_kind(settings["kind"]).codec(settings))

    def embed(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the network makes of items.

        Args:
            arrays: its inputs by name, `(items, …)` each; others are ignored.

        Returns:
            Embeddings, float32 `(items, dimensions)`, and the network's first output, `(items, …)`.
        """
        inputs = {one.name: arrays[one.name] for one in self._session.get_inputs()}
        items = len(next(iter(inputs.values())))
        embeddings, outputs = [], []
        for start in range(0, max(1, items), BATCH_ITEMS):
            batch = {name: np.ascontiguousarray(values[start : start + BATCH_ITEMS]) for name, values in inputs.items()}
            output, embedding = self._session.run([self.codec.outputs[0], self._embedding], batch)
            embeddings.append(self._at_most_max_dimensions(embedding.astype(np.float32, copy=False)))
            outputs.append(output)
        return np.concatenate(embeddings), np.concatenate(outputs)

    def _at_most_max_dimensions(self, embedding: np.ndarray) -> np.ndarray:
        """Projected at random, which keeps distances nearly as they are (Johnson and Lindenstrauss 1984), and which, unlike
        principal components, is fitted to no items: those of the reference and new ones are treated alike."""
        dimensions = embedding.shape[1]
        if dimensions <= MAX_DIMENSIONS:
            return embedding
        if self._projection is None:
            directions = np.random.default_rng(dimensions).standard_normal((dimensions, MAX_DIMENSIONS))
            self._projection = (directions / MAX_DIMENSIONS**0.5).astype(np.float32)
        projected: np.ndarray = embedding @ self._projection
        return projected


def last_dense_input(graph: onnx.GraphProto) -> str:
    """The name of what the graph's last dense layer is given. A dense layer is a product with stored weights.

    Raises:
        EvergreenError: there is none.
    """
    stored = {tensor.name for tensor in graph.initializer}
    for node in reversed(graph.node):  # they stand in the order in which they run
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in stored and node.input[0] not in stored:
            return str(node.input[0])
    raise no_embedding(graph)


def no_embedding(graph: onnx.GraphProto) -> EvergreenError:
    """The error for a network whose last layer is no dense one."""
    return EvergreenError(
        "the network has no embedding",
        expected="a graph that ends in a dense layer (MatMul or Gemm with stored weights) of one row an item",
        received=[node.op_type for node in graph.node][-5:],
        fix="Train one of the networks of evergreen/models, or end yours in a dense layer.",
    )

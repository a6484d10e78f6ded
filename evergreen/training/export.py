"""The files in which a trained network is kept and served: `model.keras` and `model.onnx`, the same bytes for the same weights.

Both writers put what differs from run to run into their files (times, memory addresses, generated names); it is taken out, so that DVC and
the registry see that nothing has changed.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.errors import EvergreenError

if TYPE_CHECKING:
    import keras

MAX_DIFFERENCE = 1e-4  # of a probability, between the exported file and the Keras model
COMPARED_AT_ONCE = 256  # items


def export(model: keras.Model, folder: Path) -> None:
    """Write `model.keras` and `model.onnx` into `folder`.

    Args:
        model: of images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, labels)`.
    """
    _export_keras(model, folder / "model.keras")
    _export_onnx(model, folder / "model.onnx")


def compare(folder: Path, images: np.ndarray) -> float:
    """Compare `model.onnx`, as serving runs it, with `model.keras`, item by item.

    Args:
        folder: a model's, with its `settings.json`.
        images: the test split's, uint8 `(items, height, width, channels)`.

    Returns:
        The largest difference of a probability.

    Raises:
        EvergreenError: it is `MAX_DIFFERENCE` or more, or the likeliest label differs for an item.
    """
    from evergreen.environment import import_tensorflow

    import_tensorflow()
    from evergreen.models.cnn import load
    from evergreen.serving.scoring import Model

    served, trained = Model.open(folder), load(folder / "model.keras")
    largest, disagreements = 0.0, 0
    for start in range(0, len(images), COMPARED_AT_ONCE):
        batch = np.ascontiguousarray(images[start : start + COMPARED_AT_ONCE])
        expected = np.asarray(trained(batch, training=False))
        actual = served.probabilities(batch)
        largest = max(largest, float(np.abs(expected - actual).max()))
        disagreements += int((expected.argmax(axis=1) != actual.argmax(axis=1)).sum())
    if disagreements or not largest < MAX_DIFFERENCE:
        raise EvergreenError(
            f"the model that would run differs from the trained one on {disagreements:,} of {len(images):,} test items",
            expected=f"none, and probabilities within {figures.plain(MAX_DIFFERENCE)}", received=largest,
            fix="Report it with the scenario: the conversion to ONNX is at fault. The champion is as it was.",
        )  # fmt: skip
    return largest


def _export_keras(model: keras.Model, path: Path) -> None:
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(content["metadata.json"])
    content["metadata.json"] = json.dumps(metadata | {"date_saved": ""}).encode()
    numbers: dict[bytes, bytes] = {}  # by the memory address that Keras writes
    content["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: numbers.setdefault(found[0], str(len(numbers)).encode()),
        content["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without the time of writing


def _export_onnx(model: keras.Model, path: Path) -> None:
    import onnx

    model(np.zeros((1, *model.input_shape[1:]), np.uint8))  # only a model that was called can be exported
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of numpy's, about tf2onnx
        model.export(path, format="onnx", verbose=False)
    network = onnx.load(path)
    _rename_by_index(network.graph)
    onnx.checker.check_model(network)
    path.write_bytes(network.SerializeToString(deterministic=True))


def _rename_by_index(graph: Any) -> None:
    """Call the input `images`, the output `probabilities`, the batch `n`, and the rest by their indices: the converter's own names
    differ from run to run."""
    names = {"": "", graph.input[0].name: "images", graph.output[0].name: "probabilities"}
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        for number, name in enumerate(node.input):
            names.setdefault(name, f"{node.name}_input_{number}")
        for number, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}_output_{number}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    for constant in graph.initializer:
        constant.name = names[constant.name]
    graph.initializer.sort(key=lambda constant: constant.name)
    graph.name, graph.doc_string = "network", ""
    del graph.value_info[:]

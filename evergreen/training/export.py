"""The files in which a trained network is stored and served: `model.keras` and `model.onnx`, the same bytes for the same
weights.

Both formats' writers include what differs from run to run (times, memory addresses, generated names, the order of nodes). It is
removed, so that DVC and the registry can see that nothing has changed.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.errors import EvergreenError
from evergreen.kinds.base.codec import EMBEDDING, REQUESTED
from evergreen.kinds.base.learner import Learner
from evergreen.kinds.base.split import Split
from evergreen.preparation.arrays import items_at_once, one_or_named

if TYPE_CHECKING:
    import keras

COMPARED_AT_ONCE = 256  # items
NO_FURTHER: Mapping[str, Any] = MappingProxyType({})


def export(
    model: keras.Model, folder: Path, learner: Learner[Any], further: Mapping[str, keras.KerasTensor] = NO_FURTHER
) -> None:
    """Write `model.keras` and `model.onnx` into `folder`.

    Args:
        learner: of the model's kind; names the inputs and outputs.
        further: outputs of `model.onnx` by name (`Learner.further_outputs`). `model.keras` does not have them: a warm start
            takes its weights.
    """
    _export_keras(model, folder / "model.keras")
    export_onnx(model, folder / "model.onnx", learner, further)


def compare(folder: Path, split: Split, learner: Learner[Any]) -> float:
    """Compare `model.onnx`, as serving runs it, with `model.keras`, item by item.

    Args:
        folder: of the model, with its `settings.json`.
        split: the items that both are run on.
        learner: of the model's kind.

    Returns:
        The largest difference in an output.

    Raises:
        EvergreenError: it is `learner.largest_difference` or more, or an item's outputs disagree (`learner.agree`).
    """
    from evergreen.environment import import_tensorflow

    import_tensorflow()
    from evergreen.models.cnn import load
    from evergreen.serving.scoring import Model

    served, trained, limit = Model.open(folder), load(folder / "model.keras"), learner.largest_difference
    largest, disagreements = 0.0, 0
    at_once = items_at_once(split, learner, COMPARED_AT_ONCE)
    for start in range(0, len(split), at_once):
        batch = [np.ascontiguousarray(split[name][start : start + at_once]) for name in learner.inputs]
        expected = np.asarray(trained(one_or_named(learner.inputs, batch), training=False))
        actual = served.run(dict(zip(learner.inputs, batch, strict=True)))[learner.outputs[0]]
        largest = max(largest, float(np.abs(expected - actual).max()))
        disagreements += int((~learner.agree(expected, actual)).sum())
    if disagreements or not largest < limit:
        raise EvergreenError(
            f"the model that would run differs from the trained one on {disagreements:,} of {len(split):,} test items",
            expected=f"none, and {learner.outputs[0]} within {figures.plain(limit)}", received=largest,
            fix="Report it with the scenario: the conversion to ONNX is at fault. The champion is as it was.",
        )  # fmt: skip
    return largest


def _export_keras(model: keras.Model, path: Path) -> None:
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(content["metadata.json"])
    content["metadata.json"] = json.dumps(metadata | {"date_saved": ""}).encode()
    numbers: dict[bytes, bytes] = {}  # by the memory addresses that Keras writes
    content["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: numbers.setdefault(found[0], str(len(numbers)).encode()),
        content["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without the modification time


def export_onnx(
    model: keras.Model, path: Path, learner: Learner[Any], further: Mapping[str, keras.KerasTensor] = NO_FURTHER
) -> None:
    """Write the network with its embedding and further outputs as an ONNX file. What only outputs on request
    (`Learner.on_request`) need is computed if the optional input `REQUESTED` is true."""
    import keras
    import onnx

    exported = keras.Model(model.inputs, [*model.outputs, learner.embedding(model), *further.values()])
    # Only a model that has been called can be exported.
    exported([np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs])
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # NumPy's, caused by tf2onnx
        exported.export(path, format="onnx", verbose=False)
    network = onnx.load(path)
    _sort(network.graph)
    _rename_by_index(network.graph, learner.inputs, (*learner.outputs, EMBEDDING, *further))
    for output in sorted(set(further) & set(learner.on_request)):
        _compute_on_request(network.graph, output)
    onnx.checker.check_model(network)
    path.write_bytes(network.SerializeToString(deterministic=True))


def _sort(graph: Any) -> None:
    """Put the nodes in an order that the graph alone determines: of each output in turn, after those that it is computed from.
    The converter's order of parallel branches differs from run to run."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, Any] = {}  # by the name of their first output
    pending = [makers[value.name] for value in reversed(graph.output)]
    while pending:
        makers_of_inputs = [makers[name] for name in pending[-1].input if name in makers]
        if missing := [maker for maker in makers_of_inputs if maker.output[0] not in ordered]:
            pending.extend(reversed(missing))
        else:
            node = pending.pop()
            ordered[node.output[0]] = node
    _set_nodes(graph, list(ordered.values()))


def _compute_on_request(graph: Any, output: str) -> None:
    """Move the nodes that only this output needs into a branch. ONNX Runtime computes all that a graph's outputs need, also for
    outputs that are not asked for."""
    from onnx import TensorProto, helper, numpy_helper

    needed = {value.name for value in graph.output if value.name != output}
    for node in reversed(graph.node):  # in order: each after those that make its inputs
        if needed & set(node.output):
            needed |= set(node.input)
    moved = [node for node in graph.node if not needed & set(node.output)]
    value = next(value for value in graph.output if value.name == output)
    inner, nothing = f"{output}_requested", f"{output}_nothing"
    moved[-1].output[:] = [inner if name == output else name for name in moved[-1].output]
    rank, kind = len(value.type.tensor_type.shape.dim), value.type.tensor_type.elem_type
    empty = numpy_helper.from_array(np.empty((0,) * rank, helper.tensor_dtype_to_np_dtype(kind)))
    constant = helper.make_node("Constant", [], [nothing], f"{output}_constant", value=empty)
    then = helper.make_graph(moved, "requested", [], [helper.make_tensor_value_info(inner, kind, None)])
    otherwise = helper.make_graph([constant], "nothing", [], [helper.make_tensor_value_info(nothing, kind, None)])
    kept = [node for node in graph.node if needed & set(node.output)]
    branch = helper.make_node("If", [REQUESTED], [output], f"If_{output}", then_branch=then, else_branch=otherwise)
    _set_nodes(graph, [*kept, branch])
    if REQUESTED not in (known.name for known in graph.input):
        graph.input.append(helper.make_tensor_value_info(REQUESTED, TensorProto.BOOL, []))
        graph.initializer.append(numpy_helper.from_array(np.array(False), REQUESTED))


def _set_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _rename_by_index(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs these names, the batch dimension the name `n`, and the rest a number: the converter's own names
    differ from run to run."""
    names = {"": ""} | {
        value.name: name
        for values, known in ((graph.input, inputs), (graph.output, outputs))
        for value, name in zip(values, known, strict=True)
    }
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        for number, name in enumerate(node.input):
            names.setdefault(name, f"{node.name}_input_{number}")
        for number, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}_output_{number}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    for constant in graph.initializer:
        constant.name = names[constant.name]
    graph.initializer.sort(key=lambda constant: constant.name)
    graph.name, graph.doc_string = "network", ""
    del graph.value_info[:]

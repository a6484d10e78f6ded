"""The ratio of two models' energies per prediction, with the interval in which the true ratio lies.

| how | when | interval |
|---|---|---|
| `same` | both networks have one architecture: they differ only in the values of their weights | 1 to 1 |
| `measured` | energy counters cover all devices that predict | 95 %, Student's t over the logarithms of the blocks' ratios |
| `counted` | otherwise | from the smaller to the larger of the ratios of operations and of bytes |

**Measured**: in blocks, in the order first, second, second, first (ABBA). What drifts steadily through a block (clock speed,
heat, other programs) affects both models alike, and each block gives one ratio. The noise of energy is multiplicative, so the
logarithms are averaged.

**Counted**: the multiplications and additions of the network for one image, and the bytes that it moves, which are its weights
and each intermediate result, written once. A processor is limited by one or the other, so the true ratio lies between the two.
Decoding, which both models share, is not counted. An estimate from processor seconds is not used instead, since it is noisy on
a busy machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evergreen import figures
from evergreen.energy.meter import Meter, available_methods

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCKS = 8
TURN_SECONDS = 0.25  # of predictions with one model; a block has four turns
CONFIDENCE = 0.95


@dataclass(frozen=True)
class EnergyRatio:
    """The energy of the second model's prediction divided by that of the first's.

    Attributes:
        ratio: the best estimate.
        low, high: the interval's ends.
        how: the method, as defined in the module's docstring.
    """

    ratio: float
    low: float
    high: float
    how: Literal["same", "measured", "counted"] = "measured"

    def __str__(self) -> str:
        """A phrase to follow "at …" or "it takes …"."""
        if self.how == "same":
            return "the same energy (one architecture)"
        known = figures.ratio(self.ratio, self.low, self.high) if self.high > self.low else figures.ratio(self.ratio)
        by = " by counted work (no energy counter can be read)" if self.how == "counted" else ""
        return f"{known} times the energy{by}"


def energy_ratio(networks: Sequence[Path], predict: Sequence[Callable[[], int]]) -> EnergyRatio | None:
    """Determine the ratio by the best method that this machine supports.

    Args:
        networks: the ONNX files of the first and the second model.
        predict: for each model, a function that predicts some images and returns their number.

    Returns:
        None if the ratio can't be determined.
    """
    if architecture(networks[0]) == architecture(networks[1]):
        return EnergyRatio(1.0, 1.0, 1.0, "same")
    methods = available_methods()
    if methods and "estimate" not in methods:
        return measured(predict)
    return counted(networks)


def measured(
    predict: Sequence[Callable[[], int]], blocks: int = BLOCKS, turn_seconds: float = TURN_SECONDS
) -> EnergyRatio | None:
    """The ratio by measuring both models in turn, by the machine's available methods; None if energy can't be measured.

    Args:
        predict: as in `energy_ratio`.
        blocks: each with four turns; 2 or more.
    """
    for one in predict:
        one()  # the first prediction allocates memory
    logarithms = []
    for _ in range(blocks):
        joules = [_joules_each(predict[index], turn_seconds) for index in (0, 1, 1, 0)]
        if not all(joules):
            return None
        first, second = joules[0] + joules[3], joules[1] + joules[2]  # type: ignore[operator]
        logarithms.append(math.log(second / first))
    return of_blocks(logarithms)


def of_blocks(logarithms: Sequence[float]) -> EnergyRatio:
    """The ratio from the logarithms of the blocks' ratios, two or more."""
    from scipy.stats import t

    mean, error = float(np.mean(logarithms)), float(np.std(logarithms, ddof=1)) / math.sqrt(len(logarithms))
    away = float(t.ppf((1 + CONFIDENCE) / 2, len(logarithms) - 1)) * error
    return EnergyRatio(math.exp(mean), math.exp(mean - away), math.exp(mean + away))


def _joules_each(predict: Callable[[], int], seconds: float) -> float | None:
    """The energy of one prediction; None if unknown."""
    predicted = 0
    with Meter() as meter:
        until = time.monotonic() + seconds
        while predicted == 0 or time.monotonic() < until:
            predicted += predict()
    spent = meter.spent().energy_joules
    return spent / predicted if spent else None


def counted(networks: Sequence[Path]) -> EnergyRatio | None:
    """The ratio of the work of two ONNX files; None if it can't be counted."""
    works = [work_of(path) for path in networks]
    if any(one is None or not all(one) for one in works):
        return None
    first, second = works
    assert first is not None and second is not None
    ratios = sorted((second[0] / first[0], second[1] / first[1]))
    return EnergyRatio(math.sqrt(ratios[0] * ratios[1]), ratios[0], ratios[1], "counted")


def architecture(path: Path) -> str:
    """A digest of an ONNX network without the values of its weights: equal if two networks predict by the same operations."""
    import hashlib

    network = _open(path)
    # A constant of a single number, or a shape, is part of the operations; any larger one has been learned.
    for tensor in _tensors(network):
        if math.prod(tensor.dims) > 1 and tensor.data_type in _REAL:
            for field in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(field)
    network.ClearField("metadata_props")
    return hashlib.sha256(network.SerializeToString(deterministic=True)).hexdigest()


def work_of(path: Path) -> tuple[int, int] | None:
    """The operations and bytes of one prediction of an ONNX network; None if the shapes of its tensors aren't known."""
    from onnx import shape_inference

    network = _open(path)
    for value in (*network.graph.input, *network.graph.output):
        for first in value.type.tensor_type.shape.dim[:1]:  # none in the input that asks for outputs on request
            if first.dim_param or not first.dim_value:
                first.dim_value = 1
    network = shape_inference.infer_shapes(network, data_prop=True)
    graph = network.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    item_bytes = {tensor.name: _bytes_of(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        item_bytes[value.name] = _bytes_of(tensor.elem_type)
    operations = 0
    moved = sum(math.prod(tensor.dims) * item_bytes[tensor.name] for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type in ("Constant", "If"):  # outputs on request are in branches, which predictions do not need
            continue
        for name in node.output:
            shape = shapes.get(name)
            if shape is None or not all(shape):
                return None
            moved += math.prod(shape) * item_bytes[name]
            operations += math.prod(shape) * _operations_each(node, shapes)
    return operations, moved


def _operations_each(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Operations per number of a node's output: the multiplications and additions of sums of products, the numbers pooled or
    reduced, and 1 for anything else."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 2 * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * shapes[node.input[0]][-2 if turned else -1]
    if node.op_type in ("MaxPool", "AveragePool"):
        return next((math.prod(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"), 1)
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"):
        source = shapes.get(node.input[0], ())
        kept = math.prod(shapes.get(node.output[0], ())) or 1
        return max(1, math.prod(source) // kept)
    return 1


_REAL = (1, 10, 11, 16)  # onnx.TensorProto: FLOAT, FLOAT16, DOUBLE, BFLOAT16


def _open(path: Path) -> ModelProto:
    import onnx

    return onnx.load(path)


def _tensors(network: ModelProto) -> list[Any]:
    """Every tensor in the file: initializers and attributes of nodes."""
    carried = [attribute.t for node in network.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*network.graph.initializer, *carried]


def _bytes_of(element_type: int) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize) if element_type else 0

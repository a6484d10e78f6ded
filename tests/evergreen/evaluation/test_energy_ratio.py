"""The ratio of two models' energies: what is counted by hand, and intervals that hold the truth."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.evaluation.energy_ratio import EnergyRatio, architecture, counted, energy_ratio, measured, of_blocks, work_of


def network(path: Path, seed: int = 0, hidden: int = 8, kernel: int = 3, stride: int = 1) -> Path:
    """Images `(n, 3, 10, 10)` through a convolution, a pooling and a dense layer to 4 numbers, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], auto_pad="SAME_UPPER", strides=[stride, stride]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "dense", "bias"], ["probabilities"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 3, 10, 10]), ("probabilities", ["n", 4]))
    ]
    learned = [weights("kernel", hidden, 3, kernel, kernel), weights("dense", hidden, 4), weights("bias", 4)]
    graph = helper.make_graph(nodes, "network", values[:1], values[1:], learned)
    save(helper.make_model(graph), path)
    return path


def test_the_work_of_a_network_is_what_is_worked_out_by_hand(tmp_path: Path) -> None:
    """Conv: 800 numbers of 3·3·3 products and sums each; Relu 800; pooling 8 of 100 each; Flatten 8; Gemm 4 of 8 products and
    sums."""
    operations = 800 * 54 + 800 + 8 * 100 + 8 + 4 * 16
    numbers = (8 * 27 + 32 + 4) + 800 + 800 + 8 + 8 + 4  # weights, and what each node gives
    assert work_of(network(tmp_path / "one.onnx")) == (operations, 4 * numbers)


def test_what_is_computed_on_request_only_is_no_work_of_a_prediction(tmp_path: Path) -> None:
    import onnx

    from evergreen.training.export import _compute_on_request

    path = network(tmp_path / "one.onnx")
    alone = work_of(path)
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["active"], ["map"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, ["n", 8, 10, 10]))
    _compute_on_request(model.graph, "map")
    onnx.save(model, path)
    assert alone and work_of(path) == (alone[0], alone[1] + 1)  # the byte that asks for the map


def test_one_architecture_is_a_ratio_of_one_whatever_the_weights(tmp_path: Path) -> None:
    one, other = network(tmp_path / "one.onnx", seed=1), network(tmp_path / "other.onnx", seed=2)
    assert one.read_bytes() != other.read_bytes() and architecture(one) == architecture(other)
    assert energy_ratio([one, other], []) == EnergyRatio(1.0, 1.0, 1.0, "same")  # and nothing was measured
    assert str(EnergyRatio(1.0, 1.0, 1.0, "same")) == "the same energy (one architecture)"


@pytest.mark.parametrize("other", [{"hidden": 9}, {"kernel": 5}, {"stride": 2}])
def test_another_width_kernel_or_stride_is_another_architecture(tmp_path: Path, other: dict[str, int]) -> None:
    assert architecture(network(tmp_path / "one.onnx")) != architecture(network(tmp_path / "other.onnx", **other))


def test_without_a_counter_the_counted_work_decides_between_operations_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [network(tmp_path / "one.onnx"), network(tmp_path / "other.onnx", hidden=32)]
    monkeypatch.setattr("evergreen.evaluation.energy_ratio.available_methods", lambda: ("estimate",))
    found = energy_ratio(networks, [])
    assert found is not None and found == counted(networks) and found.how == "counted"
    (first, second) = (work_of(path) for path in networks)
    assert first and second
    ratios = sorted((second[0] / first[0], second[1] / first[1]))
    assert [found.low, found.high] == ratios and found.ratio == pytest.approx(math.sqrt(ratios[0] * ratios[1]))
    assert str(found).endswith("times the energy by counted work (no energy counter can be read)")


def test_a_network_whose_shapes_are_not_known_has_no_counted_work(tmp_path: Path) -> None:
    import onnx

    path = network(tmp_path / "one.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "any height"
    onnx.save(model, path)
    assert work_of(path) is None and counted([path, path]) is None


def test_the_interval_over_blocks_is_students() -> None:
    """Ratios 1, 2 and 4: the logarithms' mean is log 2, their standard error log 2 / √3, and t(0.975, 2 degrees of freedom) is
    4.303."""
    found = of_blocks([math.log(1), math.log(2), math.log(4)])
    assert found.ratio == pytest.approx(2)
    assert found.high / found.ratio == pytest.approx(math.exp(4.303 * math.log(2) / math.sqrt(3)), rel=1e-3)
    assert found.ratio / found.low == pytest.approx(found.high / found.ratio)


def test_of_a_thousand_pairs_of_one_energy_the_interval_holds_one_as_often_as_it_says() -> None:
    """Eight blocks of noise that multiplies energy by up to some 40 %, which is what a busy machine showed."""
    random = np.random.default_rng(5)
    intervals = [of_blocks(random.normal(0, 0.2, 8)) for _ in range(1000)]
    assert 0.93 < np.mean([one.low <= 1 <= one.high for one in intervals]) < 0.97
    assert np.mean([one.high <= 0.7 for one in intervals]) < 0.01  # what `cheaper` asks for by default


def test_what_is_measured_in_turn_finds_three_times_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(seconds: float) -> int:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        return 1

    found = measured([lambda: busy(0.001), lambda: busy(0.003)], blocks=4, turn_seconds=0.02)
    if found is None:
        pytest.skip("energy can't be known here")
    assert found.how == "measured" and found.low <= found.ratio <= found.high and 1.5 < found.ratio < 6

"""The energy of a prediction beside a ResNet-18 at 224 pixels: the network of `agriculture` at the scenario's size and at 224
pixels, the first stages of it that `train.distil` teaches, and the small network that `train.model: auto` compares with it.
Weights do not matter for it, so they are random.

ONNX Runtime, one thread, batches of one, each network in turn for five rounds: medians of all predictions, and the energy of a
thousand of them by the median round.

Run: python -m bench.prediction_energy
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import ROOT, Row, median, report
from bench.trained import image_scenario
from evergreen import figures
from evergreen.energy.meter import Meter
from evergreen.environment import import_tensorflow
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.learner import SMALL_SIDE, ImageLearner
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.training.export import export_onnx

ROUNDS, PER_ROUND = 5, 200
AIM = 0.1  # of the rival's energy


def resnet18(shape: tuple[int, int, int], labels: int) -> Any:
    """He et al. 2016, "Deep residual learning for image recognition", table 1."""
    import keras
    from keras import layers

    def convolution(x: Any, filters: int, kernel: int, strides: int) -> Any:
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(convolution(x, 64, 7, 2)))
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            strides = 2 if stage and not block else 1
            shortcut = convolution(x, filters, 1, strides) if strides == 2 else x
            x = convolution(layers.ReLU()(convolution(x, filters, 3, strides)), filters, 3, 1)
            x = layers.ReLU()(layers.Add()([x, shortcut]))
    found = layers.Dense(labels, name="last")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Softmax(dtype="float32", name="probabilities")(found))


def _network(scenario: ImageScenario, side: int) -> Any:
    """A scenario's network for colour images with this side."""
    names = list(scenario.validation.labels)
    images = np.zeros((1, side, side, 3), np.uint8)
    return ImageLearner().build(
        scenario, Split("train", {"images": images, "labels": np.zeros(1, int)}, {"labels": names}), steps=1
    )


def session(model: Any, path: Path) -> Any:
    import onnxruntime

    export_onnx(model, path, ImageLearner())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()
    scenario = image_scenario(ROOT / "scenarios", "agriculture")
    names, own, full = list(scenario.validation.labels), scenario.preprocess.height, 224
    small = scenario.with_train({"model": "residual", "filters": 32, "reduction": full // SMALL_SIDE})
    first = {
        reduction: scenario.with_train({"model": "efficientnet_lite0_small", "reduction": reduction}) for reduction in (2, 3)
    }
    ours, rival = f"agriculture, {own} pixels", f"ResNet-18, {full} pixels"
    with tempfile.TemporaryDirectory() as folder:
        built = {
            ours: (own, _network(scenario, own)),
            f"the same, {full} pixels": (full, _network(scenario, full)),
            **{
                f"efficientnet_lite0_small, {full} pixels reduced by {reduction}": (full, _network(one, full))
                for reduction, one in first.items()
            },
            f"small network, {full} pixels": (full, _network(small, full)),
            rival: (full, resnet18((full, full, 3), len(names))),
        }
        networks = {
            name: (side, session(model, Path(folder) / f"{number}.onnx"))
            for number, (name, (side, model)) in enumerate(built.items())
        }
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        energy_wh: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(ROUNDS):
            for name, (side, network) in networks.items():
                images = np.random.default_rng(0).integers(0, 256, (PER_ROUND, side, side, 3), np.uint8)
                with Meter() as meter:
                    for image in images:
                        started = time.perf_counter()
                        network.run(["probabilities"], {"images": image[None]})
                        seconds[name].append(time.perf_counter() - started)
                energy_wh[name].append(1000 / PER_ROUND * (meter.spent().energy_wh or 0.0))

    def measured(name: str) -> str:
        low, high = np.quantile(seconds[name], [0.25, 0.75])
        return f"{1000 * median(seconds[name]):.1f} ms ({1000 * low:.1f} to {1000 * high:.1f}), {figures.energy(median(energy_wh[name]))} for 1,000"

    found = []
    for name in networks:
        if name != rival:
            ratio = median(energy_wh[name]) / median(energy_wh[rival])
            found.append(Row(f"a prediction: {name}", measured(name), f"{rival}: {measured(rival)}", f"{ratio:.3f} times the energy", f"{AIM} times", ratio <= AIM))  # fmt: skip
    return found


if __name__ == "__main__":
    report(rows, __doc__ or "")

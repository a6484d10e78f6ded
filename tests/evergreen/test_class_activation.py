from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.environment import import_tensorflow


@pytest.mark.parametrize(
    ("shape", "settings", "positions"),
    [
        ((64, 64, 3), {}, (16, 16)),
        ((50, 71, 1), {}, (13, 18)),
        ((48, 48, 3), {"mirror": True}, (12, 12)),
        ((96, 96, 3), {"reduction": 1.5}, (16, 16)),
        ((96, 96, 3), {"resolutions": (0.7,)}, (17, 17)),
    ],
    ids=["square", "odd", "mirror", "reduced", "resolution"],
)
def test_the_contributions_of_all_positions_and_the_bias_are_the_logits(
    shape: tuple[int, int, int], settings: dict[str, Any], positions: tuple[int, int]
) -> None:
    import_tensorflow()
    import keras

    from evergreen.models.class_activation import class_activation
    from evergreen.models.pretrained import LAST, efficientnet_lite0, feature_extractor, set_last_layer

    random = np.random.default_rng(3)
    model = efficientnet_lite0(shape, 3, **settings)
    images = random.integers(0, 256, (2, *shape), np.uint8)
    features = np.asarray(feature_extractor(model)(images))
    kernel, bias = random.normal(0, 0.05, (features.shape[1], 3)), np.array([0.5, -1.0, 0.25])
    set_last_layer(model, features.mean(axis=0), features.var(axis=0) + 0.1, kernel, bias)
    activation = class_activation(model)
    assert activation is not None
    found, logits = keras.Model(model.input, [activation, model.get_layer(LAST).output])(images)
    found, logits = np.asarray(found), np.asarray(logits)
    assert found.shape == (2, *positions, 3)
    logits = logits.reshape(-1, 2, 3).mean(axis=0)  # of both ways
    np.testing.assert_allclose(found.sum(axis=(1, 2)) + bias, logits, rtol=1e-3, atol=2e-3)


def test_a_network_that_pools_otherwise_has_no_class_activation() -> None:
    import_tensorflow()
    from evergreen.models.class_activation import class_activation
    from evergreen.models.cnn import residual
    from evergreen.models.pretrained import Tiling, efficientnet_lite0

    assert class_activation(residual((16, 16, 3), 2, filters=4)) is None
    assert class_activation(efficientnet_lite0((96, 96, 3), 2, resolutions=(1, 0.7))) is None
    for tiling in (Tiling(48, 16, "max"), Tiling(96, 0, "mean")):  # several tiles, and one
        assert class_activation(efficientnet_lite0((96, 96, 3), 2, tiling=tiling)) is None


def test_the_exported_network_gives_it_on_request_alone_and_without_warnings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import_tensorflow()
    import json

    import keras
    import onnx

    from evergreen.kinds.classify.codec import ImageCodec
    from evergreen.kinds.classify.heat_maps import CLASS_ACTIVATION, heat_map
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.models.class_activation import class_activation
    from evergreen.models.pretrained import LAST, efficientnet_lite0
    from evergreen.serving.runtime import open_onnx
    from evergreen.training.export import export

    model = efficientnet_lite0((48, 48, 3), 2)
    last = model.get_layer(LAST)
    last.set_weights([np.random.default_rng(0).normal(0, 0.001, weights.shape) for weights in last.get_weights()])
    activation = class_activation(model)
    assert activation is not None
    export(model, tmp_path, ImageLearner(), {CLASS_ACTIVATION: activation})
    again = tmp_path / "again"
    again.mkdir()
    export(model, again, ImageLearner(), {CLASS_ACTIVATION: activation})
    assert (again / "model.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()  # its parallel branches are in order
    (tmp_path / "settings.json").write_text(json.dumps({"labels": ["a", "b"], "shape": [48, 48, 3]}))
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), np.uint8)
    plain = tmp_path / "plain"
    plain.mkdir()
    export(model, plain, ImageLearner())
    nodes, of_plain = (
        Counter(node.op_type for node in onnx.load(folder / "model.onnx").graph.node) for folder in (tmp_path, plain)
    )
    # Predictions compute nothing for it, but that the statistics of each of the six stages are put together.
    assert nodes - of_plain == {"If": 1, "Concat": 6}
    capfd.readouterr()
    served = open_onnx(tmp_path, ImageCodec)
    assert set(served.run({"images": images})) == {"probabilities"}
    found = served.further(CLASS_ACTIVATION, {"images": images})
    expected = np.asarray(keras.Model(model.input, activation)(images))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert served.further("saliency", {"images": images}) is None
    assert heat_map(served, images[0], 1).shape == (12, 12)
    assert "onnxruntime" not in capfd.readouterr().err  # it warns of operators that it will no longer have

"""The embedding: what Keras gives the last dense layer, by an output of the ONNX file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evergreen.errors import EvergreenError
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.preparation.arrays import open_split
from evergreen.serving.embedding import MAX_DIMENSIONS, EmbeddingModel
from evergreen.serving.runtime import BATCH_ITEMS
from evergreen.serving.scoring import Model
from tests.tiny import NAME, Tiny

pytestmark = pytest.mark.slow  # imports TensorFlow

LABELS = ("one", "two", "three")


def codec(shape: tuple[int, int, int]) -> ImageCodec:
    return ImageCodec({"labels": LABELS, "shape": shape})


def random_images(shape: tuple[int, int, int], items: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (items, *shape), np.uint8)


@pytest.mark.parametrize("network", ["residual", "plain"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)], ids=str)
def test_the_embedding_is_what_the_last_dense_layer_is_given(network: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    import keras

    from evergreen.models import cnn
    from evergreen.training.export import export

    model = getattr(cnn, network)(shape, len(LABELS), filters=8, augment=cnn.Augment("both", 1, 2))
    export(model, tmp_path, ImageLearner())
    images = random_images(shape, 5)
    embeddings, predicted = EmbeddingModel((tmp_path / "model.onnx").read_bytes(), codec(shape)).embed({"images": images})
    expected = np.array(keras.Model(model.input, model.get_layer("last").input)(images), np.float32)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(predicted.argmax(axis=1), np.array(model(images)).argmax(axis=1))


@pytest.mark.parametrize("mirror", [False, True])
def test_a_network_that_was_exported_without_its_embedding_gives_the_same(mirror: bool, tmp_path: Path) -> None:
    import onnx
    from onnx.utils import Extractor

    from evergreen.models import cnn
    from evergreen.training.export import export

    export(cnn.residual((8, 8, 1), len(LABELS), filters=8, mirror=mirror), tmp_path, ImageLearner())
    network = onnx.load(tmp_path / "model.onnx")
    assert [output.name for output in network.graph.output] == ["probabilities", "embedding"]
    earlier = Extractor(network).extract_model(["images"], ["probabilities"])
    for node in earlier.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("embedding", "features") for name in names]
    images = random_images((8, 8, 1), 300)
    one, other = (
        EmbeddingModel(content, codec((8, 8, 1))) for content in (network.SerializeToString(), earlier.SerializeToString())
    )
    for values, expected in zip(other.embed({"images": images}), one.embed({"images": images}), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_labels_are_predicted_as_by_the_model_in_use(tiny: Tiny) -> None:
    folder, pixels = tiny.workspace.model(NAME), open_split(tiny.workspace.splits(NAME), "test")["images"]
    _, probabilities = EmbeddingModel.open(folder).embed({"images": pixels})
    np.testing.assert_array_equal(
        probabilities.argmax(axis=1), Model.open(folder).run({"images": pixels})["probabilities"].argmax(axis=1)
    )


@pytest.mark.parametrize("items", [0, 1, BATCH_ITEMS, BATCH_ITEMS + 1])
def test_any_number_of_items_is_taken(tiny: Tiny, items: int) -> None:
    model = EmbeddingModel.open(tiny.workspace.model(NAME))
    images = random_images((8, 8, 1), items)
    embeddings, predicted = model.embed({"images": images})
    assert embeddings.shape == (items, 32) and embeddings.dtype == np.float32 and predicted.shape == (items, 10)
    if items:
        np.testing.assert_allclose(model.embed({"images": images[-1:]})[0], embeddings[-1:], rtol=1e-4, atol=1e-5)


def test_of_an_image_and_its_mirror_image_there_is_one_embedding_the_mean_of_both(tmp_path: Path) -> None:
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.models import cnn
    from evergreen.training.export import export

    export(cnn.residual((8, 8, 1), len(LABELS), filters=8, mirror=True), tmp_path, ImageLearner())
    model, images = EmbeddingModel((tmp_path / "model.onnx").read_bytes(), codec((8, 8, 1))), random_images((8, 8, 1), 300)
    embeddings, predicted = model.embed({"images": images})
    assert len(embeddings) == len(predicted) == 300
    mirrored, _ = model.embed({"images": images[:, :, ::-1]})
    np.testing.assert_allclose(embeddings, mirrored, rtol=1e-3, atol=1e-4)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3
    np.testing.assert_allclose(model.embed({"images": images[7:8]})[0], embeddings[7:8], rtol=1e-3, atol=1e-4)


def test_a_large_embedding_is_projected_the_same_way_each_time(tmp_path: Path) -> None:
    from evergreen.models import cnn
    from evergreen.training.export import export

    export(cnn.residual((8, 8, 1), len(LABELS), filters=80), tmp_path, ImageLearner())  # 4 × 80 dimensions
    network, images = (tmp_path / "model.onnx").read_bytes(), random_images((8, 8, 1), 3)
    one, other = (EmbeddingModel(network, codec((8, 8, 1))).embed({"images": images})[0] for _ in range(2))
    assert one.shape == (3, MAX_DIMENSIONS)
    np.testing.assert_array_equal(one, other)


def test_a_network_without_a_dense_layer_is_refused_in_a_line(tmp_path: Path) -> None:
    import keras

    from evergreen.training.export import export

    numbers = keras.Input((3,), name="images")
    with pytest.raises(
        EvergreenError, match=r"no embedding; expected a dense layer; got \['images', 'softmax.*let the kind's learner say"
    ):
        export(keras.Model(numbers, keras.layers.Softmax()(numbers)), tmp_path, ImageLearner())
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_without_an_embedding_is_refused_in_a_line() -> None:
    from onnx import TensorProto, helper

    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Softmax", ["images"], ["probabilities"])], "none", [pixels], [probabilities])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)]).SerializeToString()
    with pytest.raises(
        EvergreenError, match=r"no embedding; expected an output 'embedding', or a dense layer .* got \['Softmax'\]"
    ):
        EmbeddingModel(network, codec((1, 1, 3)))


def test_what_is_no_model_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError, match="no ONNX model"):
        EmbeddingModel(b"not a model", codec((8, 8, 1)))
    with pytest.raises(EvergreenError, match=r"there is no settings.json in the model's folder. Train first"):
        EmbeddingModel.open(tmp_path)


def test_looking_for_drift_loads_no_tensorflow(tiny: Tiny) -> None:
    code = f"""if True:
        import sys
        from pathlib import Path
        from evergreen.kinds.base.kind import kind_of
        from evergreen.monitoring.drift import compare, observe, reference
        from evergreen.scenario.loading import load_scenario
        from evergreen.serving.embedding import EmbeddingModel
        from evergreen.workspace import Workspace
        workspace = Workspace(Path({str(tiny.root)!r}))
        scenario = load_scenario(workspace.scenarios, {NAME!r})
        model, contract = EmbeddingModel.open(workspace.model({NAME!r})), kind_of(scenario).contract
        compare(reference(scenario, workspace, model), observe(model, contract, [sys.stdin.buffer.read()] * 20), alpha=0.05)
        print([name for name in ("tensorflow", "keras", "torch", "mlflow", "prefect") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], input=tiny.images[0], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "[]"

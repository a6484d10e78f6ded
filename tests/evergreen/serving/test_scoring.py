"""Predictions with a model that was really trained and registered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import EvergreenError, WrongUse
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.media.images import BadImage
from evergreen.preparation.arrays import open_split
from evergreen.serving.runtime import BATCH_ITEMS
from evergreen.serving.scoring import Model, load
from tests.tiny import NAME, Tiny


@pytest.fixture
def model(tiny: Tiny) -> Model:
    return Model.open(tiny.workspace.model(NAME))


def test_a_prediction_names_the_likeliest_label_and_all_probabilities(model: Model, tiny: Tiny) -> None:
    (prediction,) = model.predict(tiny.images[:1])
    assert model.codec.labels == tuple("0123456789") and model.codec.shape == (8, 8, 1)
    assert tuple(prediction.probabilities) == model.codec.labels
    assert prediction.probability == max(prediction.probabilities.values()) == prediction.probabilities[prediction.label]
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_encoded_images_and_prepared_pixels_give_the_same(model: Model, tiny: Tiny) -> None:
    pixels = open_split(tiny.workspace.splits(NAME), "test")["images"]
    np.testing.assert_array_equal(model.outputs(tiny.images)["probabilities"], model.run({"images": pixels})["probabilities"])


@pytest.mark.parametrize("items", [0, 1, BATCH_ITEMS, BATCH_ITEMS + 1])
def test_any_number_of_images_is_taken_and_its_order_kept(model: Model, tiny: Tiny, items: int) -> None:
    images = (tiny.images * 10)[:items]
    together = model.outputs(images)["probabilities"]
    assert together.shape == (items, 10) and len(model.predict(images)) == items
    alone = [model.outputs([image])["probabilities"][0] for image in images[:3]]
    np.testing.assert_allclose(together[:3], np.array(alone).reshape(-1, 10), atol=1e-6)
    assert model.run({"images": np.zeros((items, 8, 8, 1), np.uint8)})["probabilities"].shape == (items, 10)


def test_what_is_no_image_is_refused_in_a_line(model: Model) -> None:
    with pytest.raises(BadImage):
        model.predict([b"not an image"])


def test_an_image_of_more_pixels_than_allowed_is_refused(model: Model, tiny: Tiny) -> None:
    assert len(ImageCodec(model.codec.settings, max_pixels=64).encode(tiny.images[:1])["images"]) == 1
    with pytest.raises(BadImage):
        ImageCodec(model.codec.settings, max_pixels=63).encode(tiny.images[:1])


def test_a_registered_model_is_loaded_by_alias_or_number(registered: Tiny) -> None:
    expected = Model.open(registered.workspace.model(NAME)).predict(registered.images)
    for requested in ("challenger", "1"):
        assert load(registered.workspace, NAME, requested).predict(registered.images) == expected
    with pytest.raises(WrongUse, match="no version champion; expected one of 1, or an alias: challenger"):
        load(registered.workspace, NAME)


def test_a_registered_model_whose_files_are_gone_is_an_error_that_says_so(registered: Tiny) -> None:
    (registered.workspace.mlruns / "artifacts").rename(registered.workspace.mlruns / "elsewhere")
    with pytest.raises(EvergreenError, match="the files of evergreen-quickstart version 1 can't be read"):
        load(registered.workspace, NAME, "1")


def test_mlflow_loads_it_and_it_predicts_the_same(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    from evergreen.registry.models import connect

    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code
    connect(registered.workspace)
    served = mlflow.pyfunc.load_model("models:/evergreen-quickstart@challenger")
    table = served.predict(pd.DataFrame({"image": registered.images}))
    expected = load(registered.workspace, NAME, "challenger").predict(registered.images)
    assert table["label"].tolist() == [prediction.label for prediction in expected]
    assert table["probability"].tolist() == [prediction.probability for prediction in expected]
    for label in "0123456789":
        assert table[f"p_{label}"].tolist() == [prediction.probabilities[label] for prediction in expected]
    assert served.metadata.get_input_schema().input_names() == ["image"]
    assert served.metadata.get_output_schema().input_names() == list(table.columns)


def test_mlflow_serves_what_a_model_does_not_know(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    registered.change_settings(answers={"unknown_below": 0.9, "thresholds": [], "val": {}})
    registered.register()
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code
    served = mlflow.pyfunc.load_model("models:/evergreen-quickstart@challenger")
    table = served.predict(pd.DataFrame({"image": registered.images}))
    unsure = table["probability"] < 0.9
    assert 0 < unsure.sum() < len(table)
    assert (table["unknown"] == np.where(unsure, "unsure", "")).all()
    assert table["label"].isna().tolist() == unsure.tolist()
    assert served.metadata.get_output_schema().input_names() == list(table.columns)


def test_the_stored_model_holds_no_pickle(registered: Tiny) -> None:
    files = [path for path in registered.workspace.mlruns.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert any(path.name == "MLmodel" for path in files) and any(path.name == "model.onnx" for path in files)
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".joblib"} and not path.read_bytes().startswith(b"\x80"), path
    (reported,) = [path.read_text() for path in files if path.name == "MLmodel"]
    assert "model_code_path" in reported and "python_model:" not in reported  # MLflow's words for code, and for a pickle


def test_the_stored_model_brings_all_the_code_that_it_needs(registered: Tiny, tmp_path: Path) -> None:
    import subprocess

    (package,) = registered.workspace.mlruns.rglob("code/evergreen_served_*")
    code_run = f"""if True:
        import json, sys
        sys.path.insert(0, {str(package.parent)!r})
        from pathlib import Path
        from {package.name}.evergreen.kinds.classify.codec import ImageCodec
        from {package.name}.evergreen.serving.runtime import open_onnx
        model = open_onnx(Path({str(package.parents[1] / "artifacts")!r}), ImageCodec)
        print(model.predict([sys.stdin.buffer.read()])[0].label)
        print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
    """
    done = subprocess.run([sys.executable, "-c", code_run], input=registered.images[0], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    label, loaded = done.stdout.decode().splitlines()
    assert label == load(registered.workspace, NAME, "1").predict(registered.images[:1])[0].label
    assert package.name in json.loads(loaded)
    assert not {"evergreen", "tasks", "flows", "tensorflow", "mlflow", "pydantic"} & set(json.loads(loaded))


@pytest.mark.parametrize("module", ["evergreen.scoring", "evergreen.serving.scoring"])
def test_a_script_that_a_model_was_registered_with_before_there_were_codecs_still_answers(
    registered: Tiny, module: str, tmp_path: Path
) -> None:
    """Such a model keeps the script of then, which imports the installed project."""
    import mlflow

    network = registered.workspace.model(NAME) / "model.onnx"
    (tmp_path / "pyfunc.py").write_text(FORMER_SCRIPT.replace("MODULE", module))
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "pyfunc.py"),
        artifacts={"network": str(network), "settings": str(network.parent / "settings.json")},
    )
    table = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(pd.DataFrame({"image": registered.images[:20]}))
    expected = Model.open(network.parent).predict(registered.images[:20])
    assert table["label"].tolist() == [prediction.label for prediction in expected]
    assert list(table.columns) == ["label", "probability", *(f"p_{label}" for label in "0123456789")]
    assert table["p_3"].tolist() == [prediction.probabilities["3"] for prediction in expected]


FORMER_SCRIPT = '''
from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from MODULE import Model


class ImageClassifier(PythonModel):
    """Encoded images to labels and probabilities, on ONNX Runtime."""

    def load_context(self, context: Any) -> None:
        self.model = Model.open(Path(context.artifacts["network"]).parent)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        rows = self.model.predict([bytes(image) for image in model_input["image"]])
        return pd.DataFrame(
            [
                {"label": row.label, "probability": row.probability, **{f"p_{k}": v for k, v in row.probabilities.items()}}
                for row in rows
            ],
            columns=["label", "probability", *(f"p_{label}" for label in self.model.labels)],
        )


mlflow.models.set_model(ImageClassifier())
'''

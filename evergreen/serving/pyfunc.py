"""The registered model as MLflow serves it: code instead of a pickle, stored beside the network and run on loading.

In:  a table with the codec's input columns, such as `image`: the encoded bytes of one image per row.
Out: the codec's table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from evergreen.kinds.base.codec import Codec
from evergreen.serving.runtime import open_onnx


class ServedModel(PythonModel):
    """A network with its codec, on ONNX Runtime."""

    def __init__(self, codec: type[Codec]) -> None:
        self.codec = codec

    def load_context(self, context: Any) -> None:
        self.model = open_onnx(Path(context.artifacts["network"]).parent, self.codec)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        codec = self.model.codec
        rows = {column: model_input[column].tolist() for column in codec.inputs}
        return pd.DataFrame(codec.table(self.model.outputs(codec.items(rows))), columns=list(codec.columns()))


def serve(codec: type[Codec]) -> None:
    """Set the model that MLflow loads."""
    mlflow.models.set_model(ServedModel(codec))

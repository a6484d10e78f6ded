"""The registered model as MLflow serves it: this file itself is what MLflow keeps (code, not a pickle) and runs on loading.

In:  a table with the column `image`: the encoded bytes of one image a row (JPEG, PNG, …).
Out: a table with `label`, `probability` and one column `p_LABEL` each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from evergreen.serving.scoring import Model


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

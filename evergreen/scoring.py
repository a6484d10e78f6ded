"""The former name of what models that were registered before the kinds had parts import: they keep the code of their `pyfunc`, and find this module in the
installed project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evergreen.kinds.classify.codec import ImageCodec, Prediction
from evergreen.serving import runtime


class Model:
    """A classifier of images.

    Attributes:
        labels: in the order of the output.
    """

    def __init__(self, model: runtime.Model, labels: tuple[str, ...]) -> None:
        self._model, self.labels = model, labels

    @classmethod
    def open(cls, folder: Path) -> Model:
        """The model of a folder with `model.onnx` and `settings.json`."""
        model = runtime.Model.open(folder, ImageCodec)
        assert isinstance(model.codec, ImageCodec)
        return cls(model, model.codec.labels)

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Label and probabilities of each encoded image."""
        return self._model.predict(images)

"""The model in use: encoded images in, labels and probabilities out, on ONNX Runtime.

model = load(Workspace.find(), "quickstart")
model.predict([Path("digit.png").read_bytes()])[0].label
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.media.images import PixelRange, prepare
from evergreen.workspace import Workspace, replace_folder

log = logging.getLogger("evergreen")

BATCH_ITEMS = 256


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one image.

    Attributes:
        label: the likeliest.
        probability: of it.
        probabilities: of all labels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class Model:
    """A network in the form in which it runs.

    Attributes:
        labels: in the order of the output.
        shape: height, width and channels that the network takes.
        pixel_range: with which it learned from images of more than 8 bits a value; None where there were none.
    """

    def __init__(
        self, network: Path, labels: Sequence[str], shape: tuple[int, int, int], pixel_range: PixelRange | None = None
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(network, options, providers=_providers(onnxruntime))
        self.labels, self.shape, self.pixel_range = tuple(labels), shape, pixel_range

    @classmethod
    def open(cls, folder: Path) -> Model:
        """The model of a folder with `model.onnx` and `settings.json`, as `train` writes it."""
        settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        height, width, channels = settings["shape"]
        return cls(folder / "model.onnx", settings["labels"], (height, width, channels), range_of(settings))

    def predict(self, images: Sequence[bytes], max_pixels: int = sys.maxsize) -> list[Prediction]:
        """Label and probabilities of each encoded image.

        Raises:
            BadImage: one of them is no usable image, or has more pixels than allowed.
        """
        table = self.encoded_probabilities(images, max_pixels)
        best = table.argmax(axis=1).tolist()
        return [
            Prediction(self.labels[place], row[place], dict(zip(self.labels, row, strict=True)))
            for place, row in zip(best, table.tolist(), strict=True)
        ]

    def encoded_probabilities(self, images: Sequence[bytes], max_pixels: int = sys.maxsize) -> np.ndarray:
        """Encoded images to probabilities, float32 `(images, labels)`. Raises as `predict`."""
        height, width, channels = self.shape
        tables = [np.empty((0, len(self.labels)), np.float32)]
        for start in range(0, len(images), BATCH_ITEMS):
            chunk = images[start : start + BATCH_ITEMS]
            pixels = np.empty((len(chunk), *self.shape), np.uint8)
            for place, image in enumerate(chunk):
                pixels[place] = prepare(image, height, width, channels, max_pixels, self.pixel_range)  # type: ignore[arg-type]
            tables.append(self._run(pixels))
        return tables[1] if len(tables) == 2 else np.concatenate(tables)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Prepared pixels to probabilities.

        Args:
            pixels: uint8 `(items, height, width, channels)`.

        Returns:
            float32 `(items, labels)`.
        """
        chunks = [self._run(pixels[start : start + BATCH_ITEMS]) for start in range(0, len(pixels), BATCH_ITEMS)]
        return np.concatenate(chunks) if chunks else np.empty((0, len(self.labels)), np.float32)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._session.run(None, {"images": pixels})[0]
        return found


def range_of(settings: dict[str, Any]) -> PixelRange | None:
    """The range that a model's `settings.json` carries; None in those of images of 8 bits, and of before there were ranges."""
    stored = settings.get("range")
    return PixelRange(stored["low"], stored["high"]) if stored else None


def load(workspace: Workspace, name: str, alias: str = "champion") -> Model:
    """A scenario's registered model.

    The champion is kept on this machine whenever it is loaded: while MLflow is away, the last one that was in use answers.

    Args:
        alias: `champion`, `challenger` or `previous`, or a version's number.

    Raises:
        WrongUse: there is none.
        Unreachable: MLflow does not answer, and no champion was kept.
    """
    from evergreen.errors import Unreachable
    from evergreen.registry.models import download

    kept = workspace.private / "champion" / name
    try:
        folder = download(workspace, name, alias) / "artifacts"
    except Unreachable as error:
        if alias != "champion" or not (kept / "model.onnx").exists():
            raise
        log.warning("%s Meanwhile the champion answers that was in use last.", error)
        return Model.open(kept)
    if alias == "champion":
        _keep(folder, kept)
    return Model.open(folder)


def _keep(folder: Path, kept: Path) -> None:
    """Copy what a model runs on, unless it is there already. A disk without room is no reason not to answer."""
    files = [(name, (folder / name).read_bytes()) for name in ("model.onnx", "settings.json")]
    with contextlib.suppress(OSError):
        if not all((kept / name).exists() and (kept / name).read_bytes() == content for name, content in files):
            with replace_folder(kept) as writing:
                for name, content in files:
                    (writing / name).write_bytes(content)


def _providers(runtime: Any) -> list[str]:
    """CUDA where this ONNX Runtime has it, else the processor."""
    available = runtime.get_available_providers()
    return [provider for provider in ("CUDAExecutionProvider", "CPUExecutionProvider") if provider in available]

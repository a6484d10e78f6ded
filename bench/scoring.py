"""One encoded image through the champion as `evergreen.serving.scoring` loads it, beside OpenCV's decoding and resizing and
ONNX Runtime alone; and what MLflow's pyfunc adds. The model is the quickstart's, the images are its test items."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Row, environment, fresh_checkout, median, report

REPEATS, CALLS = 7, 300


def trained(folder: Path) -> Path:
    """A checkout in which the quickstart has run."""
    checkout = fresh_checkout(folder)
    command = [sys.executable, "-m", "flows.cli", "run"]
    subprocess.run(command, cwd=checkout, env=environment(checkout), check=True, capture_output=True)
    return checkout


def milliseconds(work: Callable[[bytes], object], images: list[bytes]) -> float:
    """Of one call, the median."""
    times = []
    for number in range(CALLS):
        started = time.perf_counter()
        work(images[number % len(images)])
        times.append(1000 * (time.perf_counter() - started))
    return median(times)


def rows() -> list[Row]:
    import cv2
    import numpy as np
    import onnxruntime
    import pandas as pd

    from evergreen.data.dataset import batches, iter_images
    from evergreen.kinds.classify.codec import ImageCodec
    from evergreen.registry.models import connect, download
    from evergreen.serving.scoring import load
    from evergreen.workspace import Workspace
    from tasks.evaluate import test_ids

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(trained(Path(folder)))
        mlflow = connect(workspace)
        images = [image for _, image in iter_images(batches(workspace, "quickstart"), test_ids(workspace, "quickstart"))]
        model = load(workspace, "quickstart")
        pyfunc = mlflow.pyfunc.load_model("models:/evergreen-quickstart@champion")
        session = onnxruntime.InferenceSession(download(workspace, "quickstart", "champion") / "artifacts" / "model.onnx")
        assert isinstance(model.codec, ImageCodec)
        height, width, _ = model.codec.shape

        def bare(image: bytes) -> object:
            pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert pixels is not None
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            return session.run(None, {"images": pixels[None, :, :, None]})[0]

        ways: dict[str, Callable[[bytes], object]] = {
            "bare": bare,
            "ours": lambda image: model.predict([image]),
            "pyfunc": lambda image: pyfunc.predict(pd.DataFrame({"image": [image]})),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS):  # by turns, so that a slow moment of the machine meets all of them
            for name, work in ways.items():
                times[name].append(milliseconds(work, images))
    own, rival, wrapped = (median(times[name]) for name in ("ours", "bare", "pyfunc"))
    return [
        Row(
            "one encoded image through the champion",
            f"{own:.3f} ms (MLflow's pyfunc {wrapped:.2f} ms)",
            f"OpenCV and ONNX Runtime alone {rival:.3f} ms",
            f"{own / rival:.2f} times its time",
            "1.3 times at most",
            own <= 1.3 * rival,
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

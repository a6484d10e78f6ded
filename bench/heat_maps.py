"""Whether heat maps point at what they should: the magnetic tiles' masks say where each defect is.

For every test tile whose defect was found rightly: whether the hottest point lies in the mask, dilated by 5 % of the
side. Beside it occlusion of the same network, a guess of the centre, the strongest edge, and the chance of a random point. And
a sanity check (Adebayo et al. 2018): the rank correlation of each map with that of the same network with shuffled weights; a
map that shows the image and not the model keeps it. Its absolute value is counted: the inverse of such a map shows no more.

Run: python -m bench.heat_maps [--json]
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report import Row, report, samples
from bench.trained import prepared, trained
from evergreen.data.dataset import batches, iter_parts
from evergreen.kinds.classify.heat_maps import CLASS_ACTIVATION, by_class_activation, by_occlusion, heat_map, hottest
from evergreen.preparation.arrays import open_split
from evergreen.serving.scoring import Model
from evergreen.workspace import Workspace
from tasks.evaluate import test_ids

NAME, NO_DEFECT = "inspection", "Free"
DILATED = 0.05  # of the side


def masks(sources: list[str], shape: tuple[int, int]) -> list[np.ndarray]:
    """The dilated mask of each tile, bool of this height and width."""
    from PIL import Image
    from scipy.ndimage import binary_dilation

    numbers = {Path(source).with_suffix(".png").name: number for number, source in enumerate(sources)}
    found: dict[int, np.ndarray] = {}
    reach = round(DILATED * max(shape))
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = rows**2 + columns**2 <= reach**2
    with tarfile.open(samples() / "magnetic-tile.tar.gz") as archive:
        for member in archive:
            number = numbers.get(Path(member.name).name)
            file = archive.extractfile(member) if number is not None else None
            if number is not None and file is not None:
                mask = Image.open(io.BytesIO(file.read())).convert("L").resize(shape[::-1], Image.Resampling.NEAREST)
                found[number] = binary_dilation(np.asarray(mask) > 127, disc)
    return [found[number] for number in range(len(sources))]


def strongest_edge(image: np.ndarray) -> tuple[int, int]:
    from scipy.ndimage import gaussian_filter, sobel

    grey = gaussian_filter(image.mean(axis=2), 2)
    row, column = np.unravel_index(int(np.hypot(sobel(grey, 0), sobel(grey, 1)).argmax()), grey.shape)
    return int(row), int(column)


def sources_of(workspace: Workspace, ids: list[str]) -> list[str]:
    known: dict[str, str] = {}
    for part in iter_parts(batches(workspace, NAME), ["id", "source"]):
        known.update(zip(part["id"].to_pylist(), part["source"].to_pylist(), strict=True))
    return [known[id] for id in ids]


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepared(NAME, Path(folder))
        trained(NAME, workspace)
        return _measured(workspace)


def _measured(workspace: Workspace) -> list[Row]:
    import keras
    from scipy.stats import spearmanr

    from evergreen.models.class_activation import class_activation
    from evergreen.models.cnn import load

    model, test = Model.open(workspace.model(NAME)), open_split(workspace.splits(NAME), "test")
    names, labels = test.facts["labels"], test["labels"].astype(int)
    predicted = model.run({"images": test["images"]})["probabilities"].argmax(axis=1)
    chosen = np.flatnonzero((predicted == labels) & (labels != names.index(NO_DEFECT)))
    ids = test_ids(workspace, NAME)
    where = masks(sources_of(workspace, [ids[item] for item in chosen]), test["images"].shape[1:3])
    random = load(workspace.model(NAME) / "model.keras")
    generator = np.random.default_rng(0)
    for weight in random.weights:
        weight.assign(generator.permutation(np.asarray(weight.value).ravel()).reshape(weight.shape))
    activation = class_activation(random)
    assert activation is not None and model.further(CLASS_ACTIVATION, {"images": test["images"][:1]}) is not None
    other_maps = keras.Model(random.input, [activation, *random.outputs])
    ways = ("heat map", "occlusion", "centre", "strongest edge", "random point")
    hit: dict[str, list[tuple[str, float]]] = {way: [] for way in ways}
    correlations: dict[str, list[float]] = {"heat map": [], "occlusion": []}
    seconds: dict[str, list[float]] = {"heat map": [], "occlusion": []}
    for item, mask in zip(chosen, where, strict=True):
        image, label = test["images"][item], int(labels[item])
        started = time.perf_counter()
        heat = heat_map(model, image, label)
        seconds["heat map"].append(time.perf_counter() - started)
        theirs, probabilities = (np.asarray(one)[0] for one in other_maps.predict(image[None], verbose=0))
        other = by_class_activation(theirs, probabilities, label)
        correlations["heat map"].append(abs(float(spearmanr(heat.ravel(), other.ravel()).statistic)))
        started = time.perf_counter()
        covered = by_occlusion(lambda images: model.run({"images": images})["probabilities"], image, label)
        seconds["occlusion"].append(time.perf_counter() - started)
        other = by_occlusion(lambda images: np.asarray(random.predict(images, batch_size=32, verbose=0)), image, label)
        correlations["occlusion"].append(abs(float(spearmanr(covered.ravel(), other.ravel()).statistic)))
        points = {
            "heat map": hottest(heat, mask.shape), "occlusion": hottest(covered, mask.shape),
            "centre": (mask.shape[0] // 2, mask.shape[1] // 2), "strongest edge": strongest_edge(image),
        }  # fmt: skip
        for way, point in points.items():
            hit[way].append((names[label], float(mask[point])))
        hit["random point"].append((names[label], float(mask.mean())))
    shares = {way: 100 * float(np.mean([value for _, value in values])) for way, values in hit.items()}
    by_label = ", ".join(
        f"{label} {100 * np.mean(inside):.0f} % of {len(inside)}"
        for label in names
        if (inside := [value for name, value in hit["heat map"] if name == label])
    )
    unlike = {  # a map without any contrast counts as alike
        way: 100 * float(np.mean(np.array(values) < 0.3)) for way, values in correlations.items()
    }
    middle = {way: float(np.median(values)) for way, values in seconds.items()}
    return [
        Row(
            "heat maps: hottest point in the defect",
            f"{shares['heat map']:.0f} % of {len(chosen)} found defects ({by_label})",
            f"occlusion {shares['occlusion']:.0f} %, centre {shares['centre']:.0f} %, strongest edge {shares['strongest edge']:.0f} %, "
            f"random point {shares['random point']:.0f} %",
            f"{shares['heat map']:.0f} %; rank correlation with shuffled weights below 0.3 for {unlike['heat map']:.0f} % "
            f"(occlusion {unlike['occlusion']:.0f} %); {1000 * middle['heat map']:.0f} ms a map (occlusion {1000 * middle['occlusion']:.0f} ms)",
            "80 %; 90 %",
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

"""The items of a data set as features: what label errors, outliers and similar items are found by.

The features are those that a frozen EfficientNet-Lite0 gives (`evergreen.models.pretrained`), so they need no training. They
are computed from the pixels that the scenario's network would see, and kept by item in `.evergreen/features/NAME/`, so that
only those of new items are computed again; `evergreen forget` removes them.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evergreen.environment import import_tensorflow
from evergreen.kinds.base.contract import DataSet
from evergreen.kinds.base.split import ArrayFile
from evergreen.kinds.classify.contract import ImageContract, read_range
from evergreen.kinds.classify.decoding import pixels_of
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.arrays import indices_of
from evergreen.preparation.data_set import read_data_set
from evergreen.preparation.decoding import decode_all
from evergreen.preparation.splits import DescriptorFile, Space, components, group_links, look_alikes
from evergreen.progress import task
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    import keras

LEAST_SIDE, MOST_SIDE = 96, 224  # pixels of the images that features are computed from
MOST_MEGAPIXELS = 1_000  # of all images together: larger sets are computed from smaller images
AT_ONCE = 64  # images
STORED_AT_ONCE = 4096  # images
SCRATCH = "scratch"
DIMENSIONS = 64  # of the principal components in which items are compared


@dataclass(frozen=True)
class ItemFeatures:
    """The items in use, in the order of arrival.

    Attributes:
        ids: of the items.
        labels: int `(items,)`: indices in `names`.
        names: of the scenario's labels.
        features: float32 `(items, features)`.
        looks: int `(items,)`: the same number for items that look alike.
        clusters: int `(items,)`: the same number for items that belong together: those of one group, and those that look alike
            unless the scenario says `preprocess.look_alikes: false`.
        threshold: the cosine from which descriptors counted as alike.
        mean_colours: float32 `(items, channels)`, 0 to 255.
    """

    ids: Sequence[str]
    labels: np.ndarray
    names: Sequence[str]
    features: np.ndarray
    looks: np.ndarray
    clusters: np.ndarray
    threshold: float
    mean_colours: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def item_features(scenario: ImageScenario, workspace: Workspace) -> ItemFeatures:
    """Compute the features of a scenario's items, as far as they are not stored.

    Raises:
        EvergreenError: the data set has no items, or an image of it cannot be decoded.
    """
    # What is written beside the features holds items too, so that it must be where `forget` removes it: one process at a time.
    with workspace.lock(f"features-{scenario.name}"):
        data = read_data_set(scenario, workspace, ImageContract())
        scratch = workspace.features(scenario.name) / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            return _item_features(scenario, data, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _item_features(scenario: ImageScenario, data: DataSet, scratch: Path) -> ItemFeatures:
    settings = scenario.preprocess
    shape = (settings.height, settings.width, settings.channels)
    with task("Reading the images"):
        pixel_range, decode = read_range(scenario, data.batches), partial(pixels_of, mode=settings.resize)
        decode_all(decode, data.folders, shape, scratch / "pixels", scratch / "descriptors", pixel_range=pixel_range)
    images = ArrayFile(scratch / "pixels", np.dtype(np.uint8), (len(data), *shape))
    ids = np.array(data.rows["id"].to_pylist())
    side = side_of(shape, len(data))
    key = hashlib.sha256(f"{side} {shape} {settings.resize} {pixel_range}".encode()).hexdigest()[:12]
    found = _stored_or_computed(scratch.parent / key, ids, images, side)
    colours = np.concatenate([block.mean(axis=(1, 2), dtype=np.float32) for block in images.blocks()])
    with task("Looking for near-duplicates"):
        looks, clusters, threshold = _alike(data, DescriptorFile(scratch / "descriptors"), settings.look_alikes)
    labels = indices_of(data.rows["label"], scenario.validation.labels).astype(np.int64)
    used = ~data.withdrawn & (labels >= 0)
    return ItemFeatures(
        ids[used].tolist(), labels[used], scenario.validation.labels, found[used], looks[used], clusters[used], threshold,
        colours[used],
    )  # fmt: skip


def side_of(shape: Sequence[int], items: int) -> int:
    """The side of the square images that features are computed from: that of the network's images, within limits."""
    side = min(MOST_SIDE, max(LEAST_SIDE, *shape[:2]))
    affordable = int((MOST_MEGAPIXELS * 1e6 / max(1, items)) ** 0.5) // 32 * 32
    return max(LEAST_SIDE, min(side, affordable))


def compared(features: np.ndarray) -> np.ndarray:
    """The principal components of standardized features, float32 `(items, at most DIMENSIONS)`: the space in which the distance
    between items is measured."""
    from sklearn.decomposition import PCA

    from evergreen.training.last_layer import standardized

    values = standardized(features, features.mean(axis=0), features.var(axis=0))
    dimensions = min(DIMENSIONS, *values.shape)
    points: np.ndarray = PCA(dimensions, svd_solver="randomized", random_state=0).fit_transform(values)
    return points.astype(np.float32)


def _alike(data: DataSet, descriptors: DescriptorFile, linking: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """`looks`, `clusters` and `threshold` of all items.

    Args:
        linking: whether look-alikes are in one cluster.
    """
    points = Space.fit(descriptors, len(data)).project(descriptors, len(data))
    links, threshold = look_alikes(points, 0)
    alone, groups = np.arange(len(data)), data.rows["group"]
    of_groups = group_links(indices_of(groups, groups.unique().drop_null().to_pylist()), 0)
    looks, _ = components(links, alone, len(data))
    clusters, _ = components(np.concatenate([links, of_groups] if linking else [of_groups]), alone, len(data))
    return looks, clusters, threshold


def _stored_or_computed(kept: Path, ids: np.ndarray, images: ArrayFile, side: int) -> np.ndarray:
    """The features of all items, float32 `(items, features)`. What is computed is stored every few thousand items, so that a
    killed run does not begin anew.

    Args:
        kept: the folder in which they are stored, named by what they depend on besides the items.
    """
    for other in kept.parent.iterdir():
        if other.is_dir() and other.name not in (kept.name, SCRATCH):  # of other settings
            shutil.rmtree(other)
    known = _read(kept)
    missing = np.array([id not in known for id in ids.tolist()])
    if missing.any():
        known |= _compute(ids, images, missing, side, kept)
    return np.stack([known[id] for id in ids.tolist()]).astype(np.float32)


def _read(folder: Path) -> dict[str, np.ndarray]:
    """The stored features by id, float16 `(features,)` each."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file, allow_pickle=False) as stored:
            found |= zip(stored["ids"].tolist(), stored["features"], strict=True)
    return found


def _store(folder: Path, ids: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
    content = io.BytesIO()
    np.savez(content, ids=ids, features=features)
    replace_file(folder / f"{len(list(folder.glob('*.npz'))):05d}.npz", content.getvalue())
    return dict(zip(ids.tolist(), features, strict=True))


def _compute(ids: np.ndarray, images: ArrayFile, chosen: np.ndarray, side: int, folder: Path) -> dict[str, np.ndarray]:
    """Compute and store the features of the chosen items; returns them by id, float16 `(features,)` each."""
    with task("Starting TensorFlow"):
        import_tensorflow()
    from evergreen.models.pretrained import efficientnet_lite0, feature_extractor

    extract = feature_extractor(efficientnet_lite0((side, side, 3), 2))
    found: dict[str, np.ndarray] = {}
    parts: list[np.ndarray] = []
    start, chosen_ids, waiting = 0, ids[chosen], 0
    with task("Features of the images", total=len(chosen_ids), unit="images") as report:
        for block in images.blocks():
            rows = block[chosen[start : start + len(block)]]
            start += len(block)
            for first in range(0, len(rows), AT_ONCE):
                parts.append(_features(extract, _enlarged(rows[first : first + AT_ONCE], side)))
                waiting += len(parts[-1])
                report(len(found) + waiting)
                if waiting >= STORED_AT_ONCE:
                    found |= _store(folder, chosen_ids[len(found) : len(found) + waiting], np.concatenate(parts))
                    parts, waiting = [], 0
    if parts:
        found |= _store(folder, chosen_ids[len(found) :], np.concatenate(parts))
    return found


def _features(extract: keras.Model, images: np.ndarray) -> np.ndarray:
    """float16 `(images, features)`. All batches have one size, so that TensorFlow prepares for one alone."""
    missing = AT_ONCE - len(images)
    padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
    found: np.ndarray = np.asarray(extract.predict_on_batch(padded))[: len(images)].astype(np.float16)
    return found


def _enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 `(images, side, side, 3)`."""
    import cv2

    found = np.empty((len(images), side, side, 3), np.uint8)
    for index, image in enumerate(images):
        shrinks = image.shape[0] >= side and image.shape[1] >= side
        resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        found[index] = resized if resized.ndim == 3 else resized[:, :, None]
    return found

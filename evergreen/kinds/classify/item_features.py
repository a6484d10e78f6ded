"""The items of a data set as features: what label errors, outliers and similar items are found by.

The features are those that a frozen EfficientNet-Lite0 gives (`evergreen.models.pretrained`), so they need no training. They
are computed from the pixels that the scenario's network would see, and kept by item in `.evergreen/features/NAME/`, so that
only those of new items are computed again; `evergreen forget` removes them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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

LEAST_SIDE, MOST_SIDE = 96, 224  # pixels of the images that features are computed from
MOST_MEGAPIXELS = 1_000  # of all images together: larger sets are computed from smaller images
AT_ONCE = 64  # images
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
        clusters: int `(items,)`: the same number for items that look alike or are of one group.
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
    data = read_data_set(scenario, workspace, ImageContract())
    folder, settings = features_folder(workspace, scenario.name), scenario.preprocess
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        shape = (settings.height, settings.width, settings.channels)
        with task("Reading the images"):
            pixel_range = read_range(scenario, data.batches)
            decode_all(pixels_of, data.folders, shape, scratch / "pixels", scratch / "descriptors", pixel_range=pixel_range)
        images = ArrayFile(scratch / "pixels", np.dtype(np.uint8), (len(data), *shape))
        ids = np.array(data.rows["id"].to_pylist())
        found = _stored_or_computed(folder, ids, images)
        colours = np.concatenate([block.mean(axis=(1, 2), dtype=np.float32) for block in images.blocks()])
        with task("Looking for near-duplicates"):
            looks, clusters, threshold = _alike(data, DescriptorFile(scratch / "descriptors"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    labels = indices_of(data.rows["label"], scenario.validation.labels).astype(np.int64)
    used = ~data.withdrawn & (labels >= 0)
    return ItemFeatures(
        ids[used].tolist(), labels[used], scenario.validation.labels, found[used], looks[used], clusters[used], threshold,
        colours[used],
    )  # fmt: skip


def features_folder(workspace: Workspace, name: str) -> Path:
    """Where the features of a scenario's items are stored."""
    return workspace.private / "features" / name


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


def _alike(data: DataSet, descriptors: DescriptorFile) -> tuple[np.ndarray, np.ndarray, float]:
    """`looks`, `clusters` and `threshold` of all items."""
    points = Space.fit(descriptors, len(data)).project(descriptors, len(data))
    links, threshold = look_alikes(points, 0)
    alone, groups = np.arange(len(data)), data.rows["group"]
    of_groups = group_links(indices_of(groups, groups.unique().drop_null().to_pylist()), 0)
    looks, _ = components(links, alone, len(data))
    clusters, _ = components(np.concatenate([links, of_groups]), alone, len(data))
    return looks, clusters, threshold


def _stored_or_computed(folder: Path, ids: np.ndarray, images: ArrayFile) -> np.ndarray:
    """The features of all items, float32 `(items, features)`."""
    side = side_of(images.shape[1:], len(ids))
    key = hashlib.sha256(f"{side} {images.shape[1:]}".encode()).hexdigest()[:12]
    known_ids, known = _read(folder, key)
    order = np.argsort(known_ids)
    at = order[np.minimum(np.searchsorted(known_ids, ids, sorter=order), max(0, len(order) - 1))] if len(order) else None
    missing = np.ones(len(ids), bool) if at is None else known_ids[at] != ids
    if not missing.any():
        assert at is not None
        return known[at].astype(np.float32)
    new = _compute(images, missing, side)
    found = np.empty((len(ids), new.shape[1]), np.float16)
    found[missing] = new
    if at is not None:
        found[~missing] = known[at[~missing]]
    _write(folder, key, ids, found)
    return found.astype(np.float32)


def _read(folder: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(folder / f"{key}.npz", allow_pickle=False) as stored:
            return stored["ids"], stored["features"]
    except (OSError, ValueError, KeyError):
        return np.empty(0, "U64"), np.empty((0, 0), np.float16)


def _write(folder: Path, key: str, ids: np.ndarray, features: np.ndarray) -> None:
    import io

    content = io.BytesIO()
    np.savez(content, ids=ids, features=features)
    for other in folder.glob("*.npz"):
        if other.stem != key:  # of other settings
            other.unlink()
    replace_file(folder / f"{key}.npz", content.getvalue())


def _compute(images: ArrayFile, chosen: np.ndarray, side: int) -> np.ndarray:
    """The features of the chosen items, float16 `(chosen, features)`."""
    with task("Starting TensorFlow"):
        from evergreen.environment import import_tensorflow

        import_tensorflow()
    from evergreen.models.pretrained import efficientnet_lite0, feature_extractor

    extract = feature_extractor(efficientnet_lite0((side, side, 3), 2))
    parts, start, done = [], 0, 0
    with task("Features of the images", total=int(chosen.sum()), unit="images") as report:
        for block in images.blocks():
            rows = block[chosen[start : start + len(block)]]
            start += len(block)
            for first in range(0, len(rows), AT_ONCE):
                batch = _enlarged(rows[first : first + AT_ONCE], side)
                missing = AT_ONCE - len(batch)  # batches of one size, so that TensorFlow prepares for one alone
                padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch
                parts.append(np.asarray(extract.predict_on_batch(padded))[: len(batch)].astype(np.float16))
                done += len(batch)
                report(done)
    return np.concatenate(parts)


def _enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 `(images, side, side, 3)`."""
    import cv2

    found = np.empty((len(images), side, side, 3), np.uint8)
    for index, image in enumerate(images):
        shrinks = image.shape[0] >= side and image.shape[1] >= side
        resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        found[index] = resized if resized.ndim == 3 else resized[:, :, None]
    return found

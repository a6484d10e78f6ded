"""Three ways of bringing images to the network's input size, on the magnetic tiles, whose shapes differ most: the last layer on
frozen features, as `train.model: auto` tries it, of images that are stretched, padded or cropped.

StratifiedGroupKFold(5) by the clusters of the product's own split: macro F1 over the predictions of all folds for each seed,
and what the others gain over the stretched images of the same folds.

Run: python -m bench.resizing [--side 224] [--seeds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np

from bench.features import DEPTHS, features, pooled_f1
from bench.report import environment, fresh_checkout, samples
from bench.trained import bring_in
from evergreen.data.dataset import Records, batches, table
from evergreen.kinds.classify.decoding import pixels_of
from evergreen.media.resizing import Resize
from evergreen.training.last_layer import STRENGTH
from evergreen.workspace import Workspace


def tiles() -> tuple[list[bytes], list[str], np.ndarray, np.ndarray]:
    """The encoded tiles with their ids, and labels and clusters as int `(items,)`."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as scratch:
        checkout = fresh_checkout(Path(scratch) / "checkout")
        bring_in("inspection", checkout, environment(checkout) | {"EVERGREEN_SAMPLES": str(samples())})
        workspace = Workspace(checkout)
        items = table(batches(workspace, "inspection"), ["id", "image", "label"], Records()).to_pydict()
        split = pq.read_table(workspace.splits("inspection") / "items.parquet", columns=["id", "cluster"]).to_pydict()
    cluster_of = dict(zip(split["id"], split["cluster"], strict=True))
    labels: np.ndarray = np.unique(items["label"], return_inverse=True)[1]
    return items["image"], items["id"], labels, np.array([cluster_of[id] for id in items["id"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    images, ids, labels, clusters = tiles()
    found: dict[str, list[float]] = {}
    for mode in get_args(Resize):
        every = features(pixels_of(images, (arguments.side, arguments.side, 3), ids, mode=mode))
        values = np.concatenate([every[depth] for depth in DEPTHS["stages 1 to 6"]], axis=1)
        found[mode] = [pooled_f1(values, labels, clusters, STRENGTH, seed) for seed in range(arguments.seeds)]
        gained = np.subtract(found[mode], found["stretch"])
        print(
            f"{mode}: macro F1 {', '.join(f'{score:.1%}' for score in found[mode])}; mean {np.mean(found[mode]):.1%}, "
            f"{np.mean(gained):+.1%} against stretch ({min(gained):+.1%} to {max(gained):+.1%})", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()

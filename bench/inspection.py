"""What the guard against look-alikes is worth: the magnetic tiles' network tested on tiles that it never saw, beside the very
same training on a split at random, in which most test photographs show a tile that stands in train as well (each was taken
about six times).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from bench.report import Row, report
from bench.trained import prepared, trained
from evergreen.kinds.base.split import SPLITS
from evergreen.preparation.arrays import open_split
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace

NAME = "inspection"


def shuffle(workspace: Workspace) -> None:
    """Assign the items anew, at random, to splits of the sizes that they have."""
    seed = load_scenario(workspace.scenarios, NAME).seed
    folder = workspace.splits(NAME)
    splits = [open_split(folder, split) for split in SPLITS]
    images, labels = (np.concatenate([split[part] for split in splits]) for part in ("images", "labels"))
    order = np.random.default_rng(seed).permutation(len(labels))
    for name, chosen in zip(SPLITS, np.split(order, np.cumsum([len(split) for split in splits])[:-1]), strict=True):
        (folder / f"{name}-images.npy").unlink()  # it is mapped
        np.save(folder / f"{name}-images.npy", images[chosen])
        np.save(folder / f"{name}-labels.npy", labels[chosen])


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepared(NAME, Path(folder))
        test = open_split(workspace.splits(NAME), "test")["labels"]
        most = np.bincount(test).max() / len(test)
        spent, guarded = trained(NAME, workspace)
        shuffle(workspace)
        _, random = trained(NAME, workspace)
    ours, rival = (f"accuracy {found['accuracy']:.1%}, macro F1 {found['f1_macro']:.1%}" for found in (guarded, random))
    return [
        Row(
            "tiles: quality on tiles never seen",
            f"{ours} ({spent:.0f} s; always the commonest label: {most:.1%})",
            f"tested at random: {rival}",
            f"a random split would claim {100 * (random['accuracy'] - guarded['accuracy']):.0f} points too many",
            "-",
        )
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

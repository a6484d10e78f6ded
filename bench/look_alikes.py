"""What the guard against look-alikes finds in real data: photographs of one defect (magnetic tiles), test items with a twin in
train (CIFAR-10), and how long it takes for 60,000 items."""

from __future__ import annotations

import csv
import os
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Row, fresh_checkout, report, samples, seconds
from bench.trained import image_scenario
from evergreen.data.dataset import batches, table
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

DEFECTS = ("Crack", "Blowhole", "Fray")
OVERLAP = 0.6
GROUPS = "groups.csv"

Pairs = dict[str, list[tuple[str, str]]]


def _masks(archive: Path) -> dict[str, dict[str, np.ndarray]]:
    """For each label the masks at 128×128, bool, by the photograph's file name."""
    import cv2
    import numpy as np

    masks: dict[str, dict[str, np.ndarray]] = {label: {} for label in DEFECTS}
    with tarfile.open(archive) as files:
        for member in files:
            path = Path(member.name)
            label = path.parts[-3].removeprefix("MT_") if len(path.parts) >= 3 else ""
            if path.suffix == ".png" and label in masks and (file := files.extractfile(member)):
                mask = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_GRAYSCALE)
                assert mask is not None
                masks[label][f"{path.stem}.jpg"] = cv2.resize(mask, (128, 128), interpolation=cv2.INTER_LINEAR) > 127
    return masks


def overlapping_masks(archive: Path) -> Pairs:
    """Photographs of one class whose masks overlap by more than 0.6 of their union, by class."""
    import itertools

    return {
        label: [
            (one, other)
            for one, other in itertools.combinations(sorted(masks), 2)
            if (masks[one] & masks[other]).sum() > OVERLAP * (masks[one] | masks[other]).sum()
        ]
        for label, masks in _masks(archive).items()
    }


def inspection_groups(archive: Path, path: Path) -> None:
    """Write the CSV of name and group that says which photographs show one defect: those whose masks overlap."""
    group: dict[str, str] = {}
    for label, pairs in overlapping_masks(archive).items():
        for one, other in pairs:
            first, second = (group.setdefault(name, f"{label}/{name}") for name in (one, other))
            group.update({name: first for name, found in group.items() if found == second})
    with tarfile.open(archive) as files:
        names = [Path(member.name).name for member in files if member.name.endswith(".jpg")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "group"))
        writer.writerows((name, group.get(name, "")) for name in names)


def share_a_side(workspace: Workspace, pairs: Pairs, column: str = "split") -> dict[str, int]:
    """How many pairs have both photographs in one split (or one cluster), by class."""
    import pyarrow.parquet as pq

    found = pq.read_table(workspace.splits("inspection") / "items.parquet", columns=["id", column]).to_pydict()
    by_id = dict(zip(found["id"], found[column], strict=True))
    rows = table(batches(workspace, "inspection"), ["id", "source"]).to_pydict()
    by_name = {Path(source).name: by_id[id] for id, source in zip(rows["id"], rows["source"], strict=True)}
    return {label: sum(by_name[one] == by_name[other] for one, other in found) for label, found in pairs.items()}


def twins(workspace: Workspace) -> tuple[int, int]:
    """CIFAR-10's test items that share a cluster with a train item, and the train items left out for it."""
    import pyarrow.parquet as pq

    rows = pq.read_table(workspace.splits("cifar10") / "items.parquet").to_pydict()
    left_out = Counter(cluster for cluster, why in zip(rows["cluster"], rows["left_out"], strict=True) if why)
    tests = sum(cluster in left_out for cluster, split in zip(rows["cluster"], rows["split"], strict=True) if split == "test")
    return tests, sum(left_out.values())


def guard_seconds(workspace: Workspace) -> tuple[float, float]:
    """Seconds that describing and comparing the data set's images take, on all cores, with the images decoded already."""
    import numpy as np

    from evergreen.preparation.splits import Space, descriptors_of, look_alikes

    folder = workspace.splits("cifar10")
    images = np.concatenate([np.load(folder / f"{split}-images.npy") for split in ("train", "val", "test")])
    started = time.perf_counter()
    descriptors = np.concatenate([descriptors_of(images[start : start + 512]) for start in range(0, len(images), 512)])
    described = time.perf_counter()
    look_alikes(Space.fit(descriptors, len(descriptors)).project(descriptors, len(descriptors)), 0)
    return described - started, time.perf_counter() - described


def rows() -> list[Row]:
    import tempfile

    from evergreen.scenario.settings import Group
    from tasks.collect import collect
    from tasks.preprocess import preprocess

    os.environ["EVERGREEN_SAMPLES"] = str(samples())
    archive = samples() / "magnetic-tile.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace(fresh_checkout(Path(scratch)))
        scenarios = {name: image_scenario(workspace.scenarios, name) for name in ("inspection", "cifar10")}
        for name, scenario in scenarios.items():
            collect(scenario, workspace)
            workspace.data(name).mkdir(parents=True, exist_ok=True)
            for batch in workspace.staging(name).iterdir():
                batch.rename(workspace.data(name) / batch.name)

        pairs = overlapping_masks(archive)
        count = sum(map(len, pairs.values()))
        tiles = preprocess(scenarios["inspection"], workspace)
        linked, alone = (sum(share_a_side(workspace, pairs, column).values()) for column in ("cluster", "split"))
        inspection_groups(archive, workspace.root / GROUPS)
        settings = scenarios["inspection"].preprocess.model_copy(update={"group": Group.model_validate({"csv": GROUPS})})
        preprocess(scenarios["inspection"].model_copy(update={"preprocess": settings}), workspace)
        named = sum(share_a_side(workspace, pairs).values())

        took = seconds(lambda: preprocess(scenarios["cifar10"], workspace))
        tests, left_out = twins(workspace)
        described, compared = guard_seconds(workspace)
    guard = described + compared
    sizes = ", ".join(f"{label} {len(found)}" for label, found in pairs.items())
    return [
        Row(
            f"tiles: pairs of one defect on one side ({sizes}), from the images alone",
            f"{alone} of {count}; {linked} because they look alike, the largest cluster {tiles.largest_cluster} of {tiles.items:,}",
            "",
            f"{alone / count:.1%}",
            "at least 90 %",
            alone >= 0.9 * count,
        ),
        Row(
            "the same, with each item's group named", f"{named} of {count}", "", f"{named / count:.1%}", "100 %", named == count
        ),
        Row(
            "CIFAR-10: test items with a twin in train",
            f"{tests}; {left_out} train items left out",
            "330 (ciFAIR, by hand)",
            f"{tests / 10_000:.1%}",
            "3.3 %",
        ),
        Row(
            "look-alike guard, 60,000 items",
            f"{guard:.1f} s (descriptors {described:.1f} s on one core, comparing {compared:.1f} s); preprocess {took:.1f} s",
            "",
            f"{guard:.1f} s",
            "under 60 s",
            guard < 60,
        ),
    ]


if __name__ == "__main__":
    report(rows, __doc__)

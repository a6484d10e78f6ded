"""preprocess: assign each item to a split, and convert the items to the network's input arrays.

Reads   `data/NAME`.
Writes  `outputs/NAME/splits/`: the arrays of each split, `items.parquet`, `summary.json`, and facts about all items as further
        JSON files, such as `labels.json`; on one machine, the same data set and settings give the same bytes.
Stops   when an item cannot be used, a group rule doesn't fit, or no items are left to train or test on.

The kind's contract (`evergreen.kinds.base.contract`) defines the content of the arrays and how items are split.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.data.dataset import ALLOCATED
from evergreen.errors import EvergreenError
from evergreen.kinds.base.contract import Contract, Prepared
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.split import NONE, REASONS, SPLITS, WITHDRAWN, Assignment
from evergreen.preparation.arrays import write_splits
from evergreen.preparation.data_set import read_data_set
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_folder
from tasks.page import Page, Rows
from tasks.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("evergreen")

LARGE_CLUSTER, FEW_ITEMS = 0.5, 50  # of more items than these, a cluster of over half of them is warned of


@dataclass(frozen=True)
class Preparation:
    """What happened to the data set's items: items = the sum of splits + the sum of left_out.

    Attributes:
        name: the scenario's name.
        items: number of items in the data set.
        splits: number of items by split.
        labels: number of items by label, for each split.
        left_out: number of items in no split, by reason (`evergreen.kinds.base.split.REASONS`).
        clusters: number of sets of items that must stay together, including sets of a single item.
        linked: number of items that share their cluster with others.
        largest_cluster: number of items in the largest one.
        similar: for each batch, the cosine similarity from which items counted as look-alikes; None if none were searched for.
    """

    name: str
    items: int
    splits: dict[str, int]
    labels: dict[str, dict[str, int]]
    left_out: dict[str, int]
    clusters: int
    linked: int
    largest_cluster: int
    similar: tuple[float | None, ...]

    def __str__(self) -> str:
        parts = [f"{count:,} {split}" for split, count in self.splits.items()]
        if self.left_out:
            parts.append(f"{sum(self.left_out.values()):,} left out")
        return f"{self.items:,} items: {', '.join(parts)}; {self.linked:,} of them linked by group or looks."


def preprocess(scenario: Scenario, workspace: Workspace) -> Preparation:
    """Split the data set and write its arrays.

    Raises:
        WrongUse: the group rule doesn't fit the items.
        DataRefused: the items have next to no content for the network (`Contract.prepare`).
        EvergreenError: the data set is empty or damaged, contains something unknown to the scenario, or leaves no items to
            train or test on.
    """
    contract = kind_of(scenario).contract
    data = read_data_set(scenario, workspace, contract)
    with replace_folder(workspace.splits(scenario.name)) as folder:
        scratch = folder / ".scratch"
        scratch.mkdir()
        prepared = contract.prepare(scenario, data, scratch)
        assignment = contract.assign(scenario, data, prepared)
        allocated = assignment.split.copy()
        assignment.split[data.withdrawn], assignment.left_out[data.withdrawn] = NONE, WITHDRAWN
        preparation = _summary(scenario, contract, prepared, assignment)
        numbers = write_splits(folder, prepared.arrays, assignment.split)
        _write_items(folder / "items.parquet", data.rows, assignment, allocated, numbers)
        for name, value in (*prepared.facts.items(), ("summary", asdict(preparation))):
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(scratch)
    return preparation


def preparation_file(workspace: Workspace, name: str) -> Path:
    """The file next to the arrays in which `preprocess` stores its result."""
    return workspace.splits(name) / "summary.json"


def read_preparation(workspace: Workspace, name: str) -> Preparation:
    """Load the `Preparation` of the current splits."""
    from pydantic import TypeAdapter

    found: Preparation = TypeAdapter(Preparation).validate_json(preparation_file(workspace, name).read_bytes())
    return found


def _summary(scenario: Scenario, contract: Contract[Any], prepared: Prepared, assignment: Assignment) -> Preparation:
    sizes = np.bincount(assignment.cluster)
    chosen = {split: assignment.split == number for number, split in enumerate(SPLITS)}
    out = Counter(REASONS[reason] for reason in assignment.left_out[assignment.left_out != NONE].tolist())
    for split in ("train", "test"):
        if not chosen[split].any():
            items, clusters = len(assignment.split), np.count_nonzero(sizes)
            raise EvergreenError(
                f"no item is left for the {split} split",
                expected="items in train and test",
                received=f"{items:,} items in {clusters:,} clusters of {', '.join(sorted(out)) or 'one split'}",
                fix=contract.fix_of_empty_split,
            )
    if sizes.max() > LARGE_CLUSTER * len(assignment.split) and len(assignment.split) >= FEW_ITEMS:
        log.warning(
            "%s of %s items must share a split, as they are linked by group or looks; val and test have the few others. %s",
            f"{sizes.max():,}",
            f"{len(assignment.split):,}",
            contract.fix_of_empty_split,
        )
    return Preparation(
        name=scenario.name,
        items=len(assignment.split),
        splits={split: int(inside.sum()) for split, inside in chosen.items()},
        labels={split: contract.counts(prepared, inside) for split, inside in chosen.items()},
        left_out=dict(sorted(out.items())),
        clusters=int(np.count_nonzero(sizes)),
        linked=int(sizes[sizes > 1].sum()),
        largest_cluster=int(sizes.max()),
        similar=tuple(assignment.similar),
    )


def _write_items(path: Path, rows: pa.Table, assignment: Assignment, allocated: np.ndarray, numbers: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = assignment.split == NONE
    columns: dict[str, Any] = {
        "id": rows["id"],
        "label": rows["label"],
        "group": rows["group"],
        "cluster": pa.array(assignment.cluster, pa.int32()),
        "split": pa.array(np.array([*SPLITS, ""], object)[assignment.split], pa.string(), mask=out),
        "left_out": pa.array(np.array([*REASONS, ""], object)[assignment.left_out], pa.string(), mask=~out),
        "row": pa.array(numbers, pa.int64(), mask=out),
        ALLOCATED: pa.array(np.array([*SPLITS, ""], object)[allocated], pa.string(), mask=allocated == NONE),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def page(scenario: Scenario, workspace: Workspace, preparation: Preparation) -> Page:
    """The number of items by label and split, and of those left out."""
    labels = list(next(iter(preparation.labels.values()), {}))
    splits: Rows = [
        {"label": label, **{split: by_label[label] for split, by_label in preparation.labels.items()}} for label in labels
    ]
    whole: Rows = [{"split": split, "items": items} for split, items in preparation.splits.items()]
    out: Rows = [{"left out because": reason, "items": count} for reason, count in preparation.left_out.items()]
    allocated = {"Items by label and split": splits} if labels else {"Items by split": whole}
    return Page(tables={**allocated, "Left out": out})


def work(scenario: Scenario, preparation: Preparation) -> tuple[float, str]:
    """The number of items, and what determines the work per item."""
    return float(preparation.items), kind_of(scenario).learner.preparation_work(scenario)


stage = Stage(preprocess, Preparation, in_dvc=True, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)

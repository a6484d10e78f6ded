"""preprocess: which split each item belongs to, and its pixels as the network takes them.

Reads   `data/NAME`.
Writes  `outputs/NAME/splits/`: arrays of pixels and labels for each split, `items.parquet`, `labels.json`, `summary.json`, and
        `range.json` where images have more than 8 bits; the same bytes whenever data set and settings are the same (on one machine).
Stops   when a group rule doesn't fit, there is nothing to learn from or to test on, or images of more than 8 bits have next to no contrast.

Every image is decoded once, on all cores, into a file in the order of arrival; from the looks of all of them the splits are
made, and the file is then dealt into the splits' arrays, block by block.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.data.dataset import DEALT, Records, batches, iter_deep, parts, record_range, recorded_range, records, table
from evergreen.errors import EvergreenError
from evergreen.kinds.base import kind_of
from evergreen.media.depth import MIN_LEVELS, SAMPLED_IMAGES, no_contrast, reached_levels, sampled_range
from evergreen.media.images import PixelRange
from evergreen.planning.estimate import pixels_kind
from evergreen.preparation.decoding import decode_all
from evergreen.preparation.splits import (
    BETWEEN,
    NONE,
    REASONS,
    SPLITS,
    WITHDRAWN,
    Assignment,
    Items,
    LooksFile,
    assign,
    groups_of,
)
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_folder
from tasks.page import Page, Rows
from tasks.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger("evergreen")

BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Preparation:
    """What became of the data set's items: items = the sum over splits + the sum of left_out.

    Attributes:
        name: the scenario's.
        items: of the data set.
        splits: items by split.
        labels: items by label, for each split.
        left_out: items by the reason why they are in no split (`evergreen.preparation.splits.REASONS`).
        clusters: sets of items that must stay together, those of a single item among them.
        linked: items that share their cluster with others.
        largest_cluster: items in the largest one.
        similar: for each batch, the cosine from which items counted as look-alikes; None where none were looked for.
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
        DataRefused: images of more than 8 bits have next to no contrast with the range that they are read with.
        EvergreenError: the data set is empty or damaged, has a label that the scenario doesn't know, or leaves nothing to learn
            from or to test on.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    settings, everything = scenario.preprocess, batches(workspace, scenario.name)
    folders, known = [folder for folder in everything if parts([folder])], records(everything)  # the others hold records
    columns = ["id", "label", "group", "split", *(["source"] if settings.group else [])]
    rows = table(folders, columns, Records(known.labels))
    withdrawn = pc.is_in(rows["id"], pa.array(known.withdrawn, pa.string())).to_numpy()
    if withdrawn.all():
        raise EvergreenError(
            f"the data set of {scenario.name} is empty", fix=f"Collect it with: evergreen run {scenario.name}"
        )  # fmt: skip
    if settings.group:
        named = groups_of(settings.group, workspace.root, rows["source"].to_pylist(), rows["group"].to_pylist())
        rows = rows.drop_columns("source").set_column(rows.column_names.index("group"), "group", pa.array(named, pa.string()))
    labels = _places(rows["label"], scenario.validation.labels, ~withdrawn)
    # Splits were dealt by the labels of then, and an item never changes its split: not by being corrected or withdrawn either.
    collected = _places_or_none(table(folders, ["label"], Records())["label"], scenario.validation.labels).astype(np.int32)
    shape = (settings.height, settings.width, settings.channels)
    with replace_folder(workspace.splits(scenario.name)) as folder, contextlib.ExitStack() as scratch:
        pixels, looks = folder / ".pixels", folder / ".looks"
        for path in (pixels, looks):
            scratch.callback(path.unlink, missing_ok=True)
        read_with = range_of(scenario, everything)
        descriptors = looks if settings.look_alikes else None
        decode_all(kind_of(scenario).arrays, folders, shape, pixels, descriptors, pixel_range=read_with)
        _refuse_without_contrast(scenario, folders, pixels, shape, read_with)
        items = Items(
            keys=_keys(rows["id"]),
            labels=np.maximum(np.where(collected == NONE, labels, collected), 0),  # a withdrawn item's may be no label any more
            groups=_numbered(rows["group"]),
            given=_places_or_none(rows["split"], SPLITS).astype(np.int8),
            looks=LooksFile(looks) if settings.look_alikes else None,
            ends=[int(end) for end in np.cumsum([table([batch], ["label"], Records()).num_rows for batch in folders])],
        )
        assignment = assign(
            items, val_share=settings.val_share, test_share=settings.test_share, seed=scenario.seed,
            dealt=_dealt(everything, rows["id"]),
        )  # fmt: skip
        dealt = assignment.split.copy()
        assignment.split[withdrawn], assignment.left_out[withdrawn] = NONE, WITHDRAWN
        preparation = _told(scenario, assignment, labels)
        places = _deal_arrays(folder, pixels, shape, assignment.split, labels, len(scenario.validation.labels))
        _write_items(folder / "items.parquet", rows, assignment, dealt, places)
        for name, value in (("labels", scenario.validation.labels), ("summary", asdict(preparation))):
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if read_with:
            record_range(folder, read_with)
    return preparation


def range_of(scenario: Scenario, folders: Sequence[Path]) -> PixelRange | None:
    """With which deep images are read: the scenario's, else the one that the data set was collected with."""
    asked = scenario.preprocess.range
    return PixelRange(asked.low, asked.high) if asked else recorded_range(folders)


def _refuse_without_contrast(
    scenario: Scenario, folders: Sequence[Path], pixels: Path, shape: tuple[int, int, int], read_with: PixelRange | None
) -> None:
    """
    Raises:
        DataRefused: there are images of more than 8 bits, and all items together reach next to none of the 256 levels.
    """
    import numpy as np

    images = np.memmap(pixels, np.uint8, "r").reshape(-1, *shape)
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:SAMPLED_IMAGES])
    reached = reached_levels(images[chosen])
    if reached >= MIN_LEVELS or (suits := sampled_range(iter_deep(folders))) is None:
        return
    raise no_contrast(scenario, read_with, reached, suits)


def _places(labels: pa.ChunkedArray, known: Sequence[str], used: np.ndarray) -> np.ndarray:
    """int32 `(items,)`: where each label stands in `known`; an unknown one is an error where its item is `used`."""
    import numpy as np
    import pyarrow as pa

    unknown = sorted(set(labels.filter(pa.array(used)).unique().to_pylist()) - set(known))
    if unknown:
        raise EvergreenError(
            "the data set has a label that the scenario doesn't know", expected=f"one of {', '.join(known)}",
            received=unknown[0], fix="Add it to validate.labels.",
        )  # fmt: skip
    return _places_or_none(labels, known).astype(np.int32)


def _places_or_none(values: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """int `(items,)`: where each value stands in `known`; -1 where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: np.ndarray = pc.fill_null(pc.index_in(values, pa.array(known, pa.string())), NONE).to_numpy()
    return found


def _numbered(groups: pa.ChunkedArray) -> np.ndarray:
    """int `(items,)`: a number for each group; -1 where there is none."""
    return _places_or_none(groups, groups.unique().drop_null().to_pylist())


def _keys(ids: pa.ChunkedArray) -> np.ndarray:
    """uint64 `(items,)`: the first 8 bytes of each id."""
    import numpy as np
    import pyarrow.compute as pc

    digits = "".join("".join(pc.utf8_slice_codeunits(chunk, 0, 16).to_pylist()) for chunk in ids.chunks)
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _told(scenario: Scenario, assignment: Assignment, labels: np.ndarray) -> Preparation:
    import numpy as np

    names = scenario.validation.labels
    sizes = np.bincount(assignment.cluster)
    counts = {split: np.bincount(labels[assignment.split == s], minlength=len(names)) for s, split in enumerate(SPLITS)}
    out = Counter(REASONS[reason] for reason in assignment.left_out[assignment.left_out != NONE].tolist())
    for split in ("train", "test"):
        if not counts[split].sum():
            raise EvergreenError(
                f"no item is left for the {split} split",
                expected="items in train and test",
                received=f"{len(labels):,} items in {np.count_nonzero(sizes):,} clusters of {', '.join(sorted(out)) or 'one split'}",
                fix="Collect more that differ, or set preprocess.look_alikes: false if looking alike means nothing here.",
            )
    return Preparation(
        name=scenario.name,
        items=len(labels),
        splits={split: int(by_label.sum()) for split, by_label in counts.items()},
        labels={split: dict(zip(names, by_label.tolist(), strict=True)) for split, by_label in counts.items()},
        left_out=dict(sorted(out.items())),
        clusters=int(np.count_nonzero(sizes)),
        linked=int(sizes[sizes > 1].sum()),
        largest_cluster=int(sizes.max()),
        similar=tuple(assignment.similar),
    )


def _deal_arrays(
    folder: Path, pixels: Path, shape: tuple[int, int, int], split: np.ndarray, labels: np.ndarray, label_count: int
) -> np.ndarray:
    """Write `SPLIT-images.npy` and `SPLIT-labels.npy` in the order of arrival.

    Plain files, not mapped ones: a mapped file's pages count as this process' memory.

    Returns:
        int64 `(items,)`: each item's row in its split's arrays.
    """
    import numpy as np

    item_bytes = int(np.prod(shape))
    at_once = max(1, BLOCK_BYTES // item_bytes)
    places = np.zeros(len(split), np.int64)
    with contextlib.ExitStack() as files:
        source = files.enter_context(open(pixels, "rb"))
        targets = []
        for s, name in enumerate(SPLITS):
            chosen = split == s
            places[chosen] = np.arange(chosen.sum())
            np.save(folder / f"{name}-labels.npy", labels[chosen].astype(np.uint8 if label_count <= 256 else np.uint16))
            targets.append(files.enter_context(open(folder / f"{name}-images.npy", "wb")))
            header = {"descr": "|u1", "fortran_order": False, "shape": (int(chosen.sum()), *shape)}
            np.lib.format.write_array_header_1_0(targets[-1], header)
        for start in range(0, len(split), at_once):
            block = np.frombuffer(source.read(at_once * item_bytes), np.uint8).reshape(-1, item_bytes)
            for s, target in enumerate(targets):
                target.write(block[split[start : start + at_once] == s].data)
    return places


def _dealt(folders: Sequence[Path], ids: pa.ChunkedArray) -> Assignment | None:
    """What was dealt to the items that were there when others were last forgotten, so that these keep their splits."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    known = [place for place, folder in enumerate(folders) if (folder / DEALT).exists()]
    if not known:
        return None
    rows = pq.read_table(folders[known[-1]] / DEALT)
    count = table(folders[: known[-1] + 1], ["id"], Records()).num_rows
    if rows["id"].combine_chunks() != ids.slice(0, count).combine_chunks():
        log.warning("The items are others than when some were last forgotten: their splits are dealt anew.")
        return None
    split = _places_or_none(rows["dealt"], SPLITS).astype(np.int8)
    reasons = _places_or_none(pc.fill_null(rows["left_out"], ""), REASONS)
    left_out = np.where(split != NONE, NONE, np.where((reasons == WITHDRAWN) | (reasons == NONE), BETWEEN, reasons)).astype(
        np.int8
    )
    return Assignment(split, rows["cluster"].to_numpy(), left_out, [])


def _write_items(path: Path, rows: pa.Table, assignment: Assignment, dealt: np.ndarray, places: np.ndarray) -> None:
    import numpy as np
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
        "row": pa.array(places, pa.int64(), mask=out),
        "dealt": pa.array(np.array([*SPLITS, ""], object)[dealt], pa.string(), mask=dealt == NONE),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def page(scenario: Scenario, workspace: Workspace, preparation: Preparation) -> Page:
    """Items by label and split, and what was left out."""
    splits: Rows = [
        {"label": label, **{split: by_label[label] for split, by_label in preparation.labels.items()}}
        for label in scenario.validation.labels
    ]
    out: Rows = [{"left out because": reason, "items": count} for reason, count in preparation.left_out.items()]
    return Page(tables={"Items by label and split": splits, "Left out": out})


def work(scenario: Scenario, preparation: Preparation) -> tuple[float, str]:
    """How much work it was, and of which kind. See `tasks.stage.Stage`."""
    return float(preparation.items), pixels_kind(scenario)


stage = Stage(preprocess, Preparation, in_dvc=True, page=page, work=work)

if __name__ == "__main__":
    from tasks.stage import main

    main(stage)

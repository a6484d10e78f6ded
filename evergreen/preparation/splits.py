"""Assigns each item to a split, by group and by similarity, permanently.

The splits are a function of the data set alone, computed batch by batch in the order of arrival. A later batch never moves an
item of an earlier one, so a test set stays comparable for years. A cluster consists of the items that groups and look-alikes
link together; they share a split.

Look-alikes are found from the pixels alone. The descriptor of an image has 320 numbers: the orientation of edges in each cell
of an 8×8 grid, relative to the edges around, so that neither exposure nor colour matters. The descriptors are centred and
whitened over the data set, so that what all its images share (a background, the shape of a digit) has little weight, and what
distinguishes objects has much. In this space unrelated images are nearly orthogonal in any data set, and one threshold on the
cosine suits them all.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.errors import WrongUse
from evergreen.kinds.base.split import BETWEEN, GROUP_IN, NONE, SPLITS, TEST, TRAIN, VAL, Assignment
from evergreen.scenario.settings import Group

if TYPE_CHECKING:
    import numpy as np

SIDE = 32  # pixels of the images from which descriptors are computed
CELLS = 8  # per side
DESCRIPTOR_LENGTH = 5 * CELLS * CELLS
LOOKS_SCALE = 42  # int8 steps per unit: descriptors are within ±3
DIMENSIONS = 128  # of the whitened space
SHRINKAGE = 0.1  # fraction of the directions' mean variance that is added to each variance
FITTED_ITEMS = 65_536  # the space is fitted to at most this many
SIMILAR = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)  # cosines: the lowest one with sensible clusters is the threshold
LARGEST_SHARE = 0.1  # largest fraction of a batch in one sensible cluster; with more, images look alike by nature
LARGEST_ITEMS = 20  # this many may always be in one cluster
BLOCK_ITEMS = 2048
KEPT_LINKS = 2_000_000
LINK = [("one", "i4"), ("other", "i4"), ("cosine", "f4")]


@dataclass(frozen=True)
class DescriptorFile:
    """A file of descriptors, which can be sliced like the array int8 `(items, DESCRIPTOR_LENGTH)` but reads only the requested
    rows."""

    path: Path

    def __len__(self) -> int:
        return self.path.stat().st_size // DESCRIPTOR_LENGTH

    def __getitem__(self, rows: slice) -> np.ndarray:
        import numpy as np

        start, stop, _ = rows.indices(len(self))
        return np.fromfile(self.path, np.int8, (stop - start) * DESCRIPTOR_LENGTH, offset=start * DESCRIPTOR_LENGTH).reshape(
            -1, DESCRIPTOR_LENGTH
        )


@dataclass(frozen=True)
class Items:
    """The data on which the splits depend, in the order of arrival.

    Attributes:
        keys: uint64 `(items,)`: the first 8 bytes of each id.
        labels: int `(items,)`, from 0.
        groups: int `(items,)`; -1 for no group.
        given: int8 `(items,)`: the index in `SPLITS` of the split that the source gives; -1 if it gives none.
        descriptors: int8 `(items, DESCRIPTOR_LENGTH)` from `descriptors_of`, or a file of them; None if look-alikes don't
            matter.
        ends: the number of items after each batch.
    """

    keys: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    given: np.ndarray
    descriptors: np.ndarray | DescriptorFile | None
    ends: Sequence[int]


def assign(items: Items, *, val_share: float, test_share: float, seed: int, former: Assignment | None = None) -> Assignment:
    """Assign a split to each item, or the reason why it has none.

    New items join the split of the older cluster to which they are linked; items that would link two splits are left out. A new
    cluster keeps the split that the source gives it (if it gives several, test before val before train), and items that
    disagree are left out. A split that the source never gives is taken from its train items. All others are allocated close to
    the requested fractions of each label, the largest clusters first, and otherwise in an order that depends only on ids and
    `seed`.

    Args:
        former: the earlier assignment of the first items (those of whole batches), from before other items were removed for
            good. Its cluster numbers can be arbitrary, but are the same for all items of a cluster.
    """
    import numpy as np

    count = len(items.keys)
    split, left_out = np.full(count, NONE, np.int8), np.full(count, NONE, np.int8)
    cluster = np.arange(count, dtype=np.int32)
    side = np.full(count, NONE, np.int8)  # the split of the cluster whose first item has this index
    have = np.zeros((len(SPLITS), int(items.labels.max(initial=0)) + 1))
    similar: list[float | None] = []
    space, fitted_items, start = None, 0, 0
    if former is not None:
        start = len(former.split)
        split[:start], left_out[:start] = former.split, former.left_out
        _, first, members = np.unique(former.cluster, return_index=True, return_inverse=True)
        cluster[:start] = first[members]
        np.maximum.at(side, cluster[:start], split[:start])
        _count(have, split[:start], items.labels[:start])
        similar = [None for end in items.ends if end <= start]
    for end in items.ends[len(similar) :]:
        if items.descriptors is not None and end > start:
            if space is None or end >= 2 * fitted_items:
                space, fitted_items = Space.fit(items.descriptors, end), end
            points = space.project(items.descriptors, end)
            links, threshold = look_alikes(points, start)
        else:
            points, links, threshold = None, np.empty((0, 2), np.int64), None
        similar.append(threshold)
        of_looks, _ = components(links, cluster, end)
        component, roots = components(np.concatenate([links, group_links(items.groups[:end], start)]), cluster, end)

        # The split of each component: that of the older clusters in it, or the one that the source gives its items.
        lowest, highest = np.full(len(roots), len(SPLITS), np.int8), np.full(len(roots), NONE, np.int8)
        older = np.unique(cluster[:start])
        np.minimum.at(lowest, component[older], side[older])
        np.maximum.at(highest, component[older], side[older])
        goes = np.where(lowest == highest, highest, NONE).astype(np.int8)
        given = items.given[start:end]
        given_to_component = np.full(len(roots), NONE, np.int8)
        np.maximum.at(given_to_component, component[start:], given)
        is_new = highest == NONE
        keeps = is_new & (given_to_component > TRAIN)
        goes[keeps] = given_to_component[keeps]

        # The other components are allocated.
        dealt_of_train = {s for s in (VAL, TEST) if not (items.given[:end] == s).any()} | {TRAIN}
        mine = component[start:]
        cluster[start:end] = roots[mine]
        fractions = {VAL: val_share, TEST: test_share}
        kept = goes[mine] != NONE
        agrees = kept & (
            (given == NONE) | (given == goes[mine]) | ((given == TRAIN) & np.isin(goes[mine], list(dealt_of_train)))
        )
        split[start:end][agrees] = goes[mine][agrees]
        _count(have, split[start:end], items.labels[start:end])
        for allowed, pool in (
            (dealt_of_train, is_new & (given_to_component == TRAIN)),
            ({TRAIN, VAL, TEST}, is_new & (given_to_component == NONE)),
        ):
            members = start + np.flatnonzero(pool[mine])
            order, target = _mixed(items.keys, seed), {s: fractions.get(s, 1.0) for s in allowed}
            allocate(members, cluster, items.labels, points, order, have, target, split)
        goes[is_new & ~keeps] = split[roots[is_new & ~keeps]]
        side[roots[is_new]] = goes[is_new]

        # The reasons why the others are left out.
        out = np.flatnonzero(split[start:end] == NONE)
        sides = np.where(np.arange(end) < start, side[cluster[:end]], items.given[:end])
        look = np.zeros((len(SPLITS) + 1, int(of_looks.max(initial=0)) + 1), bool)
        look[sides, of_looks] = True
        for item in out.tolist():
            to = int(goes[mine[item]])
            if to == NONE:
                left_out[start + item] = BETWEEN
            else:
                left_out[start + item] = to if look[to, of_looks[start + item]] else GROUP_IN + to
        start = end
    return Assignment(split, cluster, left_out, similar)


def allocate(
    members: np.ndarray, cluster: np.ndarray, labels: np.ndarray, points: np.ndarray | None, order: np.ndarray,
    have: np.ndarray, fractions: dict[int, float], split: np.ndarray,
) -> None:  # fmt: skip
    """Allocate whole clusters to splits, close to the requested fractions of each label, so that each split has items of each
    label if possible.

    The largest clusters come first; among those of equal size, the ones most similar to the rest of their label. Thus, if a
    label has a handful of clusters, those least like train are held out (the idea of DataSAIL, Joeres et al., Nature
    Communications 2025: draw the boundary where the data differ most); if it has many, every split gets some of each kind.
    Single items come last, in an order that depends only on ids and the seed.

    Args:
        members: int `(n,)`: the items to allocate.
        cluster, labels, order: of all items; `order` (uint64) breaks ties.
        points: of all items, from `Space.project`; None if descriptors don't matter.
        have: float `(splits, labels)`: the number of items in the splits so far; updated in place.
        fractions: the requested fraction of each split to which items may be allocated; train gets the rest.
        split: of all items; updated in place.
    """
    import numpy as np

    if not len(members):
        return
    target = np.zeros_like(have)
    total = np.bincount(labels[members], minlength=have.shape[1]) + have[list(fractions)].sum(0)
    for s in fractions:
        target[s] = total * (fractions[s] if s != TRAIN else 1 - sum(fractions[other] for other in fractions if other != TRAIN))
    preferred = [s for s in (TRAIN, TEST, VAL) if s in fractions]

    roots, first, of_root, sizes = np.unique(cluster[members], return_index=True, return_inverse=True, return_counts=True)
    by_root = np.argsort(of_root, kind="stable")
    ends = np.cumsum(sizes)
    unplaced = np.bincount(labels[members[first]], minlength=have.shape[1])  # clusters left, by their first item's label
    many = np.flatnonzero(sizes > 1)
    inside = {c: members[by_root[ends[c] - sizes[c] : ends[c]]] for c in many.tolist()}
    alike = _like_their_label(inside.values(), members, labels, points)
    for c in many[np.lexsort((order[members[first[many]]], -alike, -sizes[many]))].tolist():
        within = inside[c]
        counts = np.bincount(labels[within], minlength=have.shape[1])
        label = labels[within[0]]
        empty = [s for s in preferred if have[s, label] == 0]
        candidates = empty if unplaced[label] <= len(empty) else preferred
        goes = max(candidates, key=lambda s: float(counts @ (target[s] - have[s])))
        split[within] = goes
        have[goes] += counts
        unplaced[label] -= 1

    single = members[first[sizes == 1]]
    single = single[np.argsort(order[single], kind="stable")]
    for label in np.unique(labels[single]).tolist():
        left = single[labels[single] == label]
        for s in [s for s in preferred if s != TRAIN] + [TRAIN]:
            need = len(left) if s == TRAIN else max(int(round(target[s, label] - have[s, label])), int(have[s, label] == 0))
            spare = len(left) - int(s != TRAIN and have[TRAIN, label] == 0)  # train gets an item of a label before val and test
            here, left = np.split(left, [max(0, min(need, spare))])
            split[here] = s
            have[s, label] += len(here)


def _like_their_label(
    clusters: Iterable[np.ndarray], members: np.ndarray, labels: np.ndarray, points: np.ndarray | None
) -> np.ndarray:
    """For each cluster the mean cosine between its items and the other members with its first item's label, float
    `(clusters,)`; 0 if there are none, or no points. Rounded to two decimals, so that the order is the same on any
    processor."""
    import numpy as np

    if points is None:
        return np.zeros(len(list(clusters)))
    total = np.zeros((int(labels.max()) + 1, points.shape[1]))
    for start in range(0, len(members), BLOCK_ITEMS):
        block = members[start : start + BLOCK_ITEMS]
        np.add.at(total, labels[block], points[block])
    items = np.bincount(labels[members], minlength=len(total))
    found = []
    for within in clusters:
        label, own = labels[within[0]], points[within].astype(np.float64)
        same = labels[within] == label
        others = items[label] - same.sum()
        found.append(own.mean(0) @ (total[label] - own[same].sum(0)) / max(others, 1))
    return np.round(np.array(found), 2)


def groups_of(rule: Group, root: Path, names: Sequence[str], column: Sequence[str | None]) -> list[str | None]:
    """The group of each item by a rule; the group given by the source if a pattern does not match.

    Args:
        root: the checkout, to which the CSV's path is relative.
        names: the items' paths in their source.
        column: the groups that the source gives.

    Raises:
        WrongUse: the pattern matches no item, or the CSV is missing, lacks columns, contradicts itself or leaves out items.
    """
    if rule.pattern is not None:
        pattern = re.compile(rule.pattern)
        found = [pattern.search(name) for name in names]
        if names and not any(found):
            raise WrongUse(
                "preprocess.group.pattern is found in no item's path", expected=f"paths like {names[0]!r}",
                received=rule.pattern, fix="Correct the pattern in the scenario.",
            )  # fmt: skip
        return [match[1] if match else given for match, given in zip(found, column, strict=True)]
    assert rule.csv is not None
    table = _group_table(root / rule.csv)
    groups = [table.get(name, table.get(name.rpartition("/")[2])) for name in names]
    missing = [name for name, group in zip(names, groups, strict=True) if group is None]
    if missing:
        raise WrongUse(
            f"{rule.csv} names no group for {len(missing):,} of {len(names):,} items", expected="a row for each item",
            received=missing[0], fix="Add the rows; the name is the item's path in its source, or its file name.",
        )  # fmt: skip
    return [group or None for group in groups]


def _group_table(path: Path) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"name", "group"} <= set(columns):
                raise WrongUse(
                    f"{path.name} lacks a column", expected="the columns name and group", received=", ".join(columns),
                    fix="Add a first line: name,group",
                )  # fmt: skip
            table: dict[str, str] = {}
            for row in reader:
                name, group = row["name"] or "", row["group"] or ""
                if table.setdefault(name, group) != group:
                    raise WrongUse(
                        f"{path.name}, line {reader.line_num}: the item is in two groups", expected=table[name],
                        received=group, fix="Keep one of the rows.",
                    )  # fmt: skip
            return table
    except FileNotFoundError:
        raise WrongUse(
            f"there is no file {path}", expected="a CSV with the columns name and group", fix="Correct preprocess.group.csv."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongUse(f"{path} cannot be read: {error}", fix="Save it as CSV, in UTF-8.") from None


def descriptors_of(images: np.ndarray) -> np.ndarray:
    """Compute descriptors of images that do not depend on exposure and colour.

    They are computed from the grey image at 32×32 pixels, for each of 8×8 cells: the mean length of the gradient, the mean
    gradient (2 numbers) and the mean structure (2 numbers: the gradient at twice its angle, for orientation without sign),
    divided by the mean gradient length in the surrounding 3×3 cells; then signed square roots, as in RootSIFT (Arandjelović and
    Zisserman 2012).

    Args:
        images: uint8 `(n, height, width, channels)`.

    Returns:
        int8 `(n, DESCRIPTOR_LENGTH)`; all zeros for images without edges.
    """
    import cv2
    import numpy as np

    grey = np.empty((len(images), SIDE, SIDE), np.float32)
    shrinks = min(images.shape[1:3]) >= SIDE
    for index, image in enumerate(images):
        flat = image[:, :, 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if flat.shape != (SIDE, SIDE):
            flat = cv2.resize(flat, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        grey[index] = flat
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), "edge")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    length = np.sqrt(across * across + down * down)
    over = 1 / np.maximum(length, 1e-6)
    cells = np.stack(
        [
            _in_cells(values)
            for values in (length, across, down, (across * across - down * down) * over, 2 * across * down * over)
        ],
        axis=-1,
    )
    edged = np.pad(cells[..., 0], ((0, 0), (1, 1), (1, 1)), "reflect")
    around = np.mean([edged[:, y : y + CELLS, x : x + CELLS] for y in range(3) for x in range(3)], axis=0)
    cells /= around[..., None] + 2  # grey levels: gradients below that are noise
    descriptors = np.sign(cells) * np.sqrt(np.abs(cells))
    scaled: np.ndarray = np.rint(LOOKS_SCALE * descriptors).astype(np.int8)
    return scaled.reshape(len(images), DESCRIPTOR_LENGTH)


def _in_cells(values: np.ndarray) -> np.ndarray:
    """Average over the cells: float32 `(n, SIDE, SIDE)` to `(n, CELLS, CELLS)`."""
    size = SIDE // CELLS
    means: np.ndarray = values.reshape(len(values), CELLS, size, CELLS, size).mean((2, 4))
    return means


@dataclass(frozen=True)
class Space:
    """The space in which the descriptors of a data set are compared: centred, projected on their principal components and
    whitened, so that the cosine is Mahalanobis'."""

    centre: np.ndarray
    directions: np.ndarray

    @classmethod
    def fit(cls, descriptors: np.ndarray | DescriptorFile, end: int) -> Space:
        """
        Args:
            descriptors: int8 `(n, DESCRIPTOR_LENGTH)`, n at least 1.
            end: the number of descriptors, from the first, to which the space is fitted.
        """
        import numpy as np

        chosen = np.linspace(0, end - 1, min(end, FITTED_ITEMS)).astype(int)
        total, squares = np.zeros(DESCRIPTOR_LENGTH), np.zeros((DESCRIPTOR_LENGTH, DESCRIPTOR_LENGTH))
        for start, block in _blocks(descriptors, end):
            block = block[chosen[(chosen >= start) & (chosen < start + len(block))] - start]
            total += block.sum(0, dtype=np.float64)
            squares += block.T @ block
        centre = total / len(chosen)
        spread, directions = np.linalg.eigh(squares / len(chosen) - np.outer(centre, centre))
        # With few items, further directions would be amplified noise.
        dimensions = min(DIMENSIONS, max(len(chosen) // 16, min(32, len(chosen) // 4), 1))
        spread, directions = np.maximum(spread[::-1][:dimensions], 0), directions[:, ::-1][:, :dimensions]
        spread = spread + SHRINKAGE * spread.mean() + 1e-6
        return cls(centre.astype(np.float32), (directions / np.sqrt(spread)).astype(np.float32))

    def project(self, descriptors: np.ndarray | DescriptorFile, end: int) -> np.ndarray:
        """Project the first `end` of int8 `(n, DESCRIPTOR_LENGTH)` to float16 `(end, dimensions)`, vectors of length 1, or 0
        for images without edges."""
        import numpy as np

        placed = np.empty((end, self.directions.shape[1]), np.float16)
        for start, block in _blocks(descriptors, end):
            points = (block - self.centre) @ self.directions
            points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
            points[~block.any(axis=1)] = 0
            placed[start : start + len(block)] = points
        return placed


def look_alikes(points: np.ndarray, start: int) -> tuple[np.ndarray, float]:
    """Link the items from index `start` on with all items that look like them.

    Only the strongest links that connect the clusters are kept (a maximum spanning forest, which has the same clusters at every
    threshold), so memory use grows with the number of items, not of pairs.

    Args:
        points: float16 `(n, dimensions)` from `Space.project`.

    Returns:
        int `(links, 2)`: indices of items; and the cosine that was used as the threshold.
    """
    import numpy as np

    count = len(points)
    largest = max(LARGEST_ITEMS, LARGEST_SHARE * (count - start))
    rung, links, waiting = 0, np.empty(0, LINK), [np.empty(0, LINK)]
    for upper in range(start, count, BLOCK_ITEMS):
        columns = points[upper : upper + BLOCK_ITEMS].astype(np.float32).T
        for lower in range(0, upper + columns.shape[1], BLOCK_ITEMS):
            cosine = points[lower : lower + BLOCK_ITEMS].astype(np.float32) @ columns
            indices = np.flatnonzero(cosine.ravel() >= SIMILAR[rung])
            found = np.empty(len(indices), LINK)
            found["one"], found["other"] = np.divmod(indices, columns.shape[1])
            found["one"] += lower
            found["other"] += upper
            found["cosine"] = cosine.ravel()[indices]
            waiting.append(found[found["one"] < found["other"]])
        last = upper + BLOCK_ITEMS >= count
        if last or sum(map(len, waiting)) > KEPT_LINKS:
            links, waiting = _forest(np.concatenate([links, *waiting]), count), []
            while rung < len(SIMILAR) - 1 and _largest_cluster(links, count, start) > largest:
                rung += 1
                links = links[links["cosine"] >= SIMILAR[rung]]
    return np.column_stack([links["one"], links["other"]]).astype(np.int64), SIMILAR[rung]


def _forest(links: np.ndarray, count: int) -> np.ndarray:
    """A maximum spanning forest of these links."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    # SciPy treats 0 as "no link", so weights are positive.
    weights = coo_array((2 - links["cosine"].astype(np.float64), (links["one"], links["other"])), shape=(count, count))
    tree = minimum_spanning_tree(weights.tocsr()).tocoo()
    forest = np.empty(tree.nnz, links.dtype)
    forest["one"], forest["other"], forest["cosine"] = tree.row, tree.col, 2 - tree.data
    return forest


def _largest_cluster(links: np.ndarray, count: int, start: int) -> int:
    """The largest number of new items in one cluster."""
    import numpy as np

    pairs = np.column_stack([links["one"], links["other"]])
    component, _ = components(pairs, np.arange(count), count)
    return int(np.bincount(component[start:]).max())


def components(links: np.ndarray, cluster: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of the first `end` items, by `links` (int `(n, 2)`) and by older clusters.

    Returns:
        The component of each item, int `(end,)`, and the index of each component's first item.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one = np.concatenate([links[:, 0], np.arange(end)])
    other = np.concatenate([links[:, 1], cluster[:end]])
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(end, end))
    _, component = connected_components(graph, directed=False)
    _, roots = np.unique(component, return_index=True)
    return component, roots


def group_links(groups: np.ndarray, start: int) -> np.ndarray:
    """Link each item from index `start` on with the first item of its group, as int `(n, 2)`."""
    import numpy as np

    _, first, of_group = np.unique(groups, return_index=True, return_inverse=True)
    indices = start + np.flatnonzero(groups[start:] != NONE)
    return np.column_stack([first[of_group[indices]], indices])


def _count(have: np.ndarray, split: np.ndarray, labels: np.ndarray) -> None:
    import numpy as np

    chosen = split != NONE
    np.add.at(have, (split[chosen], labels[chosen]), 1)


def _mixed(keys: np.ndarray, seed: int) -> np.ndarray:
    """Hash the keys, for a different order with each seed (the finalizer of SplitMix64: Steele, Lea and Flood 2014)."""
    import numpy as np

    mixed = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _blocks(descriptors: np.ndarray | DescriptorFile, end: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first `end` descriptors in blocks, as float32 in their original unit, each with the index of its first row."""
    import numpy as np

    for start in range(0, end, BLOCK_ITEMS):
        yield start, descriptors[start : min(start + BLOCK_ITEMS, end)].astype(np.float32) / LOOKS_SCALE

"""The explorer of labelled images: sizes, near-duplicates, outliers, likely label errors, a map, and trivial baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.data.dataset import batches, table
from evergreen.evaluation.proportions import interval
from evergreen.kinds.base.explorer import Exploration, Explorer, MapPoint, Outlier, SimilarItems, TrivialBaseline
from evergreen.kinds.classify.item_features import ItemFeatures, compared, item_features
from evergreen.kinds.classify.label_errors import estimated_errors, label_errors, out_of_sample
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.preparation.folds import grouped_folds
from evergreen.progress import task
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

OUTLIERS, NEIGHBOURS = 24, 5
COMPARED_ITEMS = 10_000  # the distances of all items are to so many, drawn at random
MAP_ITEMS = 1_500
BASELINE_ITEMS, FOLDS, TREES = 6_000, 5, 60
SOLVED, LARGELY = 0.95, 0.8  # balanced accuracy of a baseline
SIZES_SHOWN = 8


class ImageExplorer(Explorer[ImageScenario]):
    """Explores data sets of labelled images."""

    def explore(self, scenario: ImageScenario, workspace: Workspace) -> Exploration:
        """Explore by the features of a frozen network (`evergreen.kinds.classify.item_features`), which need no training."""
        items = item_features(scenario, workspace)
        points = compared(items.features)
        probabilities = out_of_sample(items, seed=scenario.seed)
        rows = _rows_of(items, scenario, workspace)
        baselines = _baselines(items, _size(rows), probabilities, scenario.seed)
        with task("Looking for outliers"):
            outliers = _outliers(items, points, scenario.seed)
        return Exploration(
            tables=_sizes(rows),
            duplicates=_duplicates(items),
            duplicates_are=(
                "Images whose edges have the same directions and places, whatever their exposure and colour "
                f"(cosine of the descriptors at least {items.threshold:g}), or that such images link. "
                + (
                    "They are kept in one split."
                    if scenario.preprocess.look_alikes
                    else "Because preprocess.look_alikes is false, they may be in different splits."
                )
            ),
            outliers=outliers,
            label_errors=label_errors(items, probabilities, points),
            estimated_errors=estimated_errors(items, probabilities),
            points=_map(items, points, scenario.seed),
            baselines=baselines,
            conclusion=_conclusion(baselines),
            notes=_notes(items),
        )


def _rows_of(items: ItemFeatures, scenario: ImageScenario, workspace: Workspace) -> pa.Table:
    """The columns of the items that are not encoded, in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = table(batches(workspace, scenario.name))
    return rows.filter(pc.is_in(rows["id"], pa.array(items.ids, pa.string())))


def _size(rows: pa.Table) -> np.ndarray:
    """Width and height, float32 `(items, 2)`."""
    return np.column_stack([rows[name].to_numpy() for name in ("width", "height")]).astype(np.float32)


def _sizes(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Tables of widths and heights, and of the formats."""
    sides = [
        {
            "": name,
            "smallest": f"{values.min():,} px", "median": f"{np.median(values):,.0f} px", "largest": f"{values.max():,} px",
        }
        for name, values in ((name, rows[name].to_numpy()) for name in ("width", "height"))
    ]  # fmt: skip
    sizes = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    names = [f"{width:,} × {height:,}" for width, height in sizes]
    channels = {1: "grey", 3: "colour", 4: "colour with transparency"}
    formats = [
        f"{kind}, {channels.get(count, f'{count} channels')}"
        for kind, count in zip(rows["format"].to_pylist(), rows["channels"].to_pylist(), strict=True)
    ]
    return {
        "Width and height": sides,
        "The commonest sizes": _counted("size", names),
        "Formats": _counted("format", formats),
    }


def _counted(heading: str, values: Sequence[str]) -> list[dict[str, Any]]:
    from collections import Counter

    counted = Counter(values).most_common()
    found = [{heading: value, "images": count} for value, count in counted[:SIZES_SHOWN]]
    if rest := counted[SIZES_SHOWN:]:
        found.append({heading: f"{len(rest):,} others", "images": sum(count for _, count in rest)})
    return found


def _duplicates(items: ItemFeatures) -> list[SimilarItems]:
    order = np.argsort(items.looks, kind="stable")
    _, starts, counts = np.unique(items.looks[order], return_index=True, return_counts=True)
    found = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count > 1:
            members = order[start : start + count].tolist()
            ids, labels = [items.ids[one] for one in members], [items.names[items.labels[one]] for one in members]
            found.append(SimilarItems(tuple(ids), tuple(labels)))
    return sorted(found, key=lambda group: (not group.conflict, -len(group.ids)))


def _outliers(items: ItemFeatures, points: np.ndarray, seed: int) -> list[Outlier]:
    """The items with the largest mean distance to their nearest neighbours, which are not near-duplicates of each other."""
    from sklearn.neighbors import NearestNeighbors

    if len(items) <= 2 * NEIGHBOURS:
        return []
    drawn = _drawn(len(items), COMPARED_ITEMS, seed)
    model = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(points[drawn])
    distances = np.sort(model.kneighbors(points)[0], axis=1)[:, -NEIGHBOURS:].mean(axis=1)  # without the item itself
    order = np.argsort(-distances, kind="stable")
    _, first = np.unique(items.looks[order], return_index=True)  # of near-duplicates, the farthest one
    farthest = order[np.sort(first)][:OUTLIERS]
    middle = max(float(np.median(distances)), 1e-9)
    return [Outlier(items.ids[one], float(distances[one]) / middle) for one in farthest.tolist()]


def _map(items: ItemFeatures, points: np.ndarray, seed: int) -> list[MapPoint]:
    """A map in two dimensions in which similar items are near each other, by t-SNE (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE

    drawn = _drawn(len(items), MAP_ITEMS, seed)
    if len(drawn) < 4:
        return []
    with task("Drawing the map"):
        model = TSNE(perplexity=min(30, (len(drawn) - 1) / 3), init="pca", max_iter=500, random_state=0)
        placed = model.fit_transform(points[drawn])
    low, high = placed.min(axis=0), placed.max(axis=0)
    placed = (placed - low) / np.maximum(high - low, 1e-9)
    return [MapPoint(items.ids[one], float(x), float(y)) for one, (x, y) in zip(drawn.tolist(), placed, strict=True)]


def _drawn(items: int, most: int, seed: int) -> np.ndarray:
    """The indices of at most so many items, drawn at random, in order."""
    chosen: np.ndarray = np.sort(np.random.default_rng(seed).permutation(items)[:most])
    return chosen


def _baselines(items: ItemFeatures, sizes: np.ndarray, probabilities: np.ndarray | None, seed: int) -> list[TrivialBaseline]:
    """What size and mean colour reach, and what the features do."""
    if probabilities is None:
        return []
    from sklearn.ensemble import RandomForestClassifier

    drawn = _drawn(len(items), BASELINE_ITEMS, seed)
    labels, clusters = items.labels[drawn], items.clusters[drawn]
    folds = list(grouped_folds(labels, clusters, count=min(FOLDS, len(np.unique(clusters))), seed=seed))
    judged = ~np.isnan(probabilities).any(axis=1)
    commonest = np.full(len(items), np.bincount(items.labels).argmax())
    found = [_judged_baseline("always the commonest label", items.labels, commonest)]
    colours = items.mean_colours
    given = {
        "width and height alone": sizes,
        "the mean colour alone" if colours.shape[1] == 3 else "the mean brightness alone": colours,
        "size and mean colour" if colours.shape[1] == 3 else "size and mean brightness": np.hstack([sizes, colours]),
    }
    with task("Trivial baselines", total=len(given) * len(folds), unit="folds") as report:
        for number, (name, values) in enumerate(given.items()):
            predicted, inputs = np.zeros_like(labels), values[drawn]
            for fold, (rest, held_out) in enumerate(folds):
                forest = RandomForestClassifier(TREES, min_samples_leaf=3, random_state=0)
                predicted[held_out] = forest.fit(inputs[rest], labels[rest]).predict(inputs[held_out])
                report(number * len(folds) + fold + 1)
            found.append(_judged_baseline(name, labels, predicted))
    best = probabilities[judged].argmax(axis=1)
    return [*found, _judged_baseline("features of a pre-trained network", items.labels[judged], best)]


def _judged_baseline(name: str, labels: np.ndarray, predicted: np.ndarray) -> TrivialBaseline:
    right = labels == predicted
    low, high = interval(int(right.sum()), len(right))
    of_labels = [float(right[labels == label].mean()) for label in np.unique(labels)]
    return TrivialBaseline(name, float(right.mean()), low, high, float(np.mean(of_labels)), len(right))


def _conclusion(baselines: Sequence[TrivialBaseline]) -> str:
    if not baselines:
        return ""
    *_, trivial, features = baselines
    easiest = max(baselines[1:-1], key=lambda baseline: baseline.balanced_accuracy)
    reached = f"{easiest.name} tell the labels apart in {figures.percent(easiest.balanced_accuracy)} of the cases (mean over the labels)"
    if "alone" in easiest.name and "mean" in easiest.name:
        reached = reached.replace(" tell ", " tells ")
    reached = reached[0].upper() + reached[1:]
    if easiest.balanced_accuracy >= SOLVED:
        return (
            f"{reached}: this set is solved without looking at what the images show. A high accuracy on it says little. Check "
            "whether the labels were photographed in different ways, and whether new images will differ in the same way."
        )
    if easiest.balanced_accuracy >= LARGELY:
        return (
            f"{reached}, where features of a pre-trained network reach {figures.percent(features.balanced_accuracy)}. Much of "
            "what a model reaches here may rest on that: check whether it is what you want it to learn."
        )
    return (
        f"{reached}, features of a pre-trained network in {figures.percent(features.balanced_accuracy)}: trivial properties do not solve "
        "this set."
    )


def _notes(items: ItemFeatures) -> list[str]:
    found = []
    if len(items) > MAP_ITEMS:
        found.append(f"The map shows {MAP_ITEMS:,} of {len(items):,} images, drawn at random.")
    if len(items) > BASELINE_ITEMS:
        found.append(f"The trivial baselines were measured on {BASELINE_ITEMS:,} images, drawn at random.")
    if len(items) > COMPARED_ITEMS:
        found.append(f"Outliers were found by the distances to {COMPARED_ITEMS:,} images, drawn at random.")
    return found

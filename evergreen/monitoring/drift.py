"""Drift detection: whether new items differ by more than chance from those that the champion was trained for.

    model = EmbeddingModel.open(workspace.model("cifar10"))
    known = reference(scenario, workspace, model)
    print(compare(known, observe(model, contract, images, folders), alpha=0.05))

**The features**: the properties that the kind's contract names (of an image its brightness, contrast, sharpness, width and
height), the champion's embedding of the item, and its prediction. None of them requires the true labels.

**The reference** consists of held-out items (val and test), not of training items: the network has seen those, and its
embeddings of them differ from those of new items even without drift. Against 4,000 train items, a network that was right on
91 % of them and on 81 % of unseen ones had 6.6 % false alarms in 1,000 draws of CIFAR-10 at a level of 5 %; against held-out
items the same network had 3.6 %. Held-out items come from the same distribution as the train items, and are as new to the
weights as items that arrive. (Early stopping uses val once an epoch, which is too little to matter.)

**The tests**: the two-sample Kolmogorov-Smirnov test for a property and for predicted numbers; Pearson's chi-squared test for
predicted labels; for the embeddings Hotelling's T² (1931), the distance of the two means after whitening. The last two get
their p-values by randomly relabelling items as new or old (Phipson and Smyth 2010): they are valid for any distribution, for
few items, and for more dimensions than items. All tests assume independent items. Frames of one clip aren't independent, and
cause more false alarms.

**All features together**: Holm's procedure (1979) keeps the probability of any false alarm at `alpha`, however the features
depend on each other. Permuting the largest statistic of all features would exploit the dependence and gain a little; but with
seven features the most significant one needs p ≤ `alpha` / 7, which a clear drift reaches by far, and each keeps a p-value of
its own that people can read. (Rabanser et al. 2019, "Failing Loudly", find single tests with such a correction hard to beat.)
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.errors import EvergreenError, WrongUse
from evergreen.evaluation.multiple_testing import holm
from evergreen.kinds.base.contract import Contract
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    import pyarrow as pa

    from evergreen.serving.embedding import EmbeddingModel

FORMER_PROPERTIES = ("brightness", "contrast", "sharpness", "width", "height")  # of references stored without names
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
REFERENCE_ITEMS = 4_000  # at most; beside 500 new items, any number more would help only as much as a tenth more new ones
MIN_RELABELLINGS = 1_999
RELABELLED_INDICES = 2**20  # at a time: 8 MB of indices, and less for a batch of sums


@dataclass(frozen=True)
class Observations:
    """The features of some items: their properties, and one model's embeddings and predictions.

    Attributes:
        model: fingerprint of the model, see `EmbeddingModel`.
        labels: the model's, in the order of its output; empty if it predicts numbers.
        names: of the properties.
        properties: float32 `(items, properties)`; the units are the data set's (docs/internals.md).
        embeddings: float32 `(items, dimensions)`.
        predicted: int64 `(items,)`, indices into `labels`, or float `(items,)`, numbers.
    """

    model: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    properties: np.ndarray
    embeddings: np.ndarray
    predicted: np.ndarray

    @property
    def features(self) -> tuple[str, ...]:
        """The names of everything that is compared, in order."""
        return (*self.names, "embedding", "predicted label" if self.labels else "prediction")

    def __len__(self) -> int:
        return len(self.predicted)

    def take(self, rows: np.ndarray) -> Observations:
        """The items at these rows, in this order."""
        return replace(self, properties=self.properties[rows], embeddings=self.embeddings[rows], predicted=self.predicted[rows])

    def save(self, path: Path) -> None:
        """Write an .npz file atomically (1 MB for 4,000 items and 64 dimensions)."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            model=np.array(self.model),
            labels=np.array(self.labels),
            names=np.array(self.names),
            properties=self.properties,
            embeddings=self.embeddings,
            predicted=self.predicted,
        )
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Observations:
        """Read what `save` wrote; pickles are refused.

        Raises:
            EvergreenError: the file is missing or damaged.
        """
        import zipfile
        import zlib

        try:
            with np.load(path, allow_pickle=False) as file:
                labels = tuple(str(label) for label in file["labels"])
                names = tuple(str(name) for name in file["names"]) if "names" in file else FORMER_PROPERTIES
                return cls(str(file["model"]), labels, names, file["properties"], file["embeddings"], file["predicted"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise EvergreenError(
                f"the reference {path.name} cannot be read ({error})", fix="Make it anew from the model's held-out items."
            ) from None


@dataclass(frozen=True)
class Feature:
    """The result of one feature's comparison.

    Attributes:
        name: one of `Observations.features`.
        drifted: whether `p_value_together` is at most the level.
        distance: between new items and reference. For a property and for the predicted label a fraction of the items, 0 to 1:
            the largest gap between the two cumulative distributions, and the fraction that would need another label. For the
            embedding the standard deviations between the two means, beyond those expected by chance.
        p_value: the probability of a distance at least as large without drift, above 0 and at most 1.
        p_value_together: the p-value adjusted for all features (Holm).
        reason: in words, with figures.
        reference_quantiles, new_quantiles: of a property or predicted numbers, at `QUANTILES`; else None.
    """

    name: str
    drifted: bool
    distance: float
    p_value: float
    p_value_together: float
    reason: str
    reference_quantiles: tuple[float, ...] | None
    new_quantiles: tuple[float, ...] | None


@dataclass(frozen=True)
class Drift:
    """A comparison of new items with a reference.

    Attributes:
        drifted: whether any feature has drifted.
        alpha: the probability of a false alarm without drift.
        items, reference_items: the numbers of items compared.
        reason: a sentence for people.
        features: in the order of `Observations.features`.
    """

    drifted: bool
    alpha: float
    items: int
    reference_items: int
    reason: str
    features: tuple[Feature, ...]

    def __str__(self) -> str:
        return "\n".join([self.reason, *(f"  {feature.reason}" for feature in self.features)])


@dataclass(frozen=True)
class _Found:
    """One feature's comparison, not yet adjusted for the other features. Attributes as in `Feature`."""

    name: str
    distance: float
    p_value: float
    sentence: str
    reference_quantiles: tuple[float, ...] | None = None
    new_quantiles: tuple[float, ...] | None = None


def reference(
    scenario: Scenario, workspace: Workspace, model: EmbeddingModel, *, most_items: int = REFERENCE_ITEMS, seed: int = 0
) -> Observations:
    """The scenario's held-out items, as observed by the model that was trained on the train split.

    Properties are read from the data set, the network's inputs from the prepared arrays: nothing is decoded.

    Args:
        model: of `outputs/NAME/model`, trained on the current splits.
        most_items: if there are more, a random sample of this size is taken.
        seed: of the sample.

    Raises:
        EvergreenError: the splits are missing, damaged or without held-out items, or the data set lacks some of their items.
    """
    name, names = scenario.name, kind_of(scenario).contract.properties
    held = held_out(workspace, name)
    if not len(held):
        raise EvergreenError(f"{name} has no held-out items to compare with", fix="Collect more items, and train again.")
    held = held.take(np.sort(np.random.default_rng(seed).permutation(len(held))[:most_items]))
    properties = _collected_properties(workspace, name, held["id"].to_pylist(), names)
    embeddings, outputs = model.embed(_arrays(workspace, name, held))
    return Observations(model.fingerprint, model.codec.categories, names, properties, embeddings, model.codec.answers(outputs))


def observe(model: EmbeddingModel, contract: Contract[Any], items: Iterable[Any], folders: Sequence[Path] = ()) -> Observations:
    """Observe items with the model. They are read in batches, so they need not be in memory together.

    Args:
        items: as the model's codec takes them.
        folders: batch folders of the data set that the items belong to, so that properties are measured in the same way; empty
            for items of no data set.

    Raises:
        BadItem: one of them cannot be used.
    """
    from evergreen.serving.runtime import BATCH_ITEMS

    properties = [np.empty((0, len(contract.properties)), np.float32)]
    seen = [model.embed(model.codec.encode([]))]
    ahead = iter(items)
    while chunk := list(islice(ahead, BATCH_ITEMS)):
        properties.append(contract.measure(chunk, model.codec, folders))
        seen.append(model.embed(model.codec.encode(chunk)))
    embeddings, outputs = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    answers, categories = model.codec.answers(outputs), model.codec.categories
    return Observations(model.fingerprint, categories, contract.properties, np.concatenate(properties), embeddings, answers)


def compare(known: Observations, new: Observations, *, alpha: float, seed: int = 0) -> Drift:
    """Compare new items with the reference. The order of the items doesn't matter.

    Args:
        known: the reference.
        alpha: the probability of finding drift in any feature if there is none, for one comparison: daily comparisons give a
            false alarm every 1 / `alpha` days.
        seed: of the random relabellings.

    Raises:
        WrongUse: `alpha` is not between 0 and 1.
        EvergreenError: the two are of different models or labels, an observation is not a finite number, or there are too few
            items to find even the largest difference.
    """
    _check(known, new, alpha)
    # Enough for a smallest p-value far below the one needed.
    relabellings = max(MIN_RELABELLINGS, math.ceil(10 * len(known.features) / alpha))
    new = new.take(np.lexsort(np.column_stack([new.properties, new.embeddings]).T))
    found = [
        *(
            _compare_property(name, known.properties[:, column], new.properties[:, column])
            for column, name in enumerate(known.names)
        ),
        _compare_embeddings(known.embeddings, new.embeddings, relabellings, seed),
        _compare_labels(known, new, relabellings, seed)
        if known.labels
        else _compare_property("prediction", known.predicted, new.predicted),
    ]
    together = holm([one.p_value for one in found])
    features = tuple(_judge(one, p_value, alpha) for one, p_value in zip(found, together, strict=True))
    moved = [feature.name for feature in features if feature.drifted]
    compared = f"{len(new):,} new items against {len(known):,} held-out ones, at a level of {figures.plain(alpha)} over all features together"
    if moved:
        reason = f"drift: {_listed(moved)} moved by more than chance ({compared})"
    else:
        surest = min(features, key=lambda feature: feature.p_value_together)
        reason = f"no drift: nothing moved by more than chance ({compared}; the surest is {surest.name}, {figures.probability(surest.p_value_together)})"
    return Drift(bool(moved), alpha, len(new), len(known), reason, features)


def held_out(workspace: Workspace, name: str) -> pa.Table:
    """The items of val and test: `id`, `split` and `row`, the item's row in its split's arrays.

    Raises:
        EvergreenError: the scenario has no splits yet, or they are damaged.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        items = pq.read_table(workspace.splits(name) / "items.parquet", columns=["id", "split", "row"])
    except (OSError, ValueError) as error:
        raise EvergreenError(f"the splits of {name} cannot be read ({error})", fix="Run the scenario first.") from None
    unseen = pc.or_kleene(pc.equal(items["split"], "test"), pc.equal(items["split"], "val"))
    return items.filter(unseen).sort_by([("split", "ascending"), ("row", "ascending")])


def _arrays(workspace: Workspace, name: str, items: pa.Table) -> dict[str, np.ndarray]:
    """Arrays by name, `(items, …)` each, of items in the order of `held_out`."""
    import pyarrow.compute as pc

    parts = []
    for split in pc.unique(items["split"]).to_pylist():
        rows = items.filter(pc.equal(items["split"], split))["row"].to_numpy()
        parts.append({array: values[rows] for array, values in open_split(workspace.splits(name), split).arrays.items()})
    return {array: np.concatenate([part[array] for part in parts]) for array in parts[0]}


def _collected_properties(workspace: Workspace, name: str, ids: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The properties of the data set's items as collected, float32 `(items, properties)`, in the order of `ids`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from evergreen.data.dataset import batches, iter_parts

    requested = pa.array(ids, pa.string())
    properties = np.full((len(ids), len(names)), np.nan, np.float32)
    for batch in iter_parts(batches(workspace, name), ["id", *names]) if names else ():
        rows_of = pc.index_in(batch["id"], requested)
        rows = batch.filter(rows_of.is_valid())
        properties[rows_of.drop_null().to_numpy()] = np.column_stack([rows[column].to_numpy() for column in names])
    if missing := int(np.isnan(properties).any(axis=1).sum()):
        raise EvergreenError(
            f"the data set {name} lacks {missing:,} of the items that it was split into",
            fix=f"Bring it back with: dvc checkout data/{name}",
        )
    return properties


def _check(known: Observations, new: Observations, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise WrongUse("the level is no chance of a false alarm", expected="above 0 and below 1, such as 0.05", received=alpha)
    if known.labels != new.labels:
        raise EvergreenError(
            "the reference has other labels than the model that looked at the new items",
            expected=", ".join(known.labels),
            received=", ".join(new.labels),
            fix="Make the reference anew from this model's held-out items.",
        )
    if known.model != new.model:
        raise EvergreenError(
            "the reference is of another model than the one that looked at the new items",
            expected=f"the model {known.model[:12]}",
            received=new.model[:12],
            fix="Make the reference anew from this model's held-out items.",
        )
    for whose, observations in (("of the reference", known), ("new", new)):
        table = np.column_stack([observations.properties, observations.embeddings])
        if broken := int((~np.isfinite(table)).any(axis=1).sum()):
            raise EvergreenError(
                f"{broken:,} of {len(table):,} items {whose} have a property or embedding that is no finite number",
                fix="Look whether the model still gives numbers; if not, put the previous champion back.",
            )
    possible = least_p_value(len(known), len(new))
    if possible > alpha / len(known.features):
        raise EvergreenError(
            f"{len(new):,} new items against a reference of {len(known):,} can't show drift",
            expected=f"enough for a p-value of {figures.short(alpha / len(known.features), 2)}, which finds drift at a level of {figures.plain(alpha)}",
            received=f"{figures.short(possible, 2)} at the least",
            fix="Wait for more items.",
        )


def least_p_value(known_items: int, new_items: int) -> float:
    """The smallest p-value of any two-sided test of so many items: if all new ones lie on one side of all known ones, which are
    2 of the ways to choose the new among all. 1 if either is empty."""
    from scipy.special import comb

    return min(1.0, 2 / float(comb(known_items + new_items, new_items)))


def _compare_property(name: str, known: np.ndarray, new: np.ndarray) -> _Found:
    """Compare by the two-sample Kolmogorov-Smirnov test: exact up to 10,000 items, and conservative with ties."""
    from scipy.stats import ks_2samp

    test = ks_2samp(known, new)
    location = float(test.statistic_location)
    known_quantiles, new_quantiles = (tuple(np.quantile(values, QUANTILES).tolist()) for values in (known, new))
    sentence = (
        f"{name}: median {_figure(new_quantiles[2])}, {_figure(known_quantiles[2])} in the reference; at most {_figure(location)} are "
        f"{(new <= location).mean():.0%} of the new items and {(known <= location).mean():.0%} of the reference"
    )
    return _Found(name, float(test.statistic), _positive(test.pvalue), sentence, known_quantiles, new_quantiles)


def _compare_embeddings(known: np.ndarray, new: np.ndarray, relabellings: int, seed: int) -> _Found:
    """Compare by a permutation test of the distance of the means. See the module's docstring."""
    from scipy.stats import permutation_test

    scaled = _one_spread(np.concatenate([new, known]))

    def squared_distance(first: np.ndarray, others: np.ndarray, axis: int) -> np.ndarray:
        """The squared distance of the means, for relabellings (1 new, 0 known) of the first `len(new)` items and of the others.
        The mean of all items is 0, so the sum over the new ones determines the known ones' mean too."""
        is_new = np.concatenate([first, others], axis=-1)  # (relabellings, items)
        sums = is_new @ scaled  # (relabellings, dimensions)
        squared: np.ndarray = np.square(sums * (1 / len(new) + 1 / len(known))).sum(axis=-1)
        return squared

    test = permutation_test(
        (np.ones(len(new), np.float32), np.zeros(len(known), np.float32)),
        squared_distance,
        vectorized=True,
        alternative="greater",
        n_resamples=relabellings,
        batch=max(1, RELABELLED_INDICES // len(scaled)),
        rng=np.random.default_rng(seed),
    )
    beyond_chance = max(0.0, float(test.statistic) - float(np.mean(test.null_distribution))) ** 0.5
    sentence = f"embedding: the means lie {beyond_chance:.2f} standard deviations apart, beyond what chance gives"
    return _Found("embedding", beyond_chance, _positive(test.pvalue), sentence)


def _one_spread(embeddings: np.ndarray) -> np.ndarray:
    """Whiten embeddings: centred, with uncorrelated directions of unit variance.

    This reveals small shifts that the variance between labels would hide: a blur of 0.4 pixels that the plain energy distance
    found in 7 of 30 draws of 500 CIFAR images was found in 29. The covariance is Ledoit and Wolf's (2004), which is invertible
    even for more dimensions than items. It is that of new and known items together: the same for every relabelling, as the
    permutation test requires.
    """
    from sklearn.covariance import ledoit_wolf

    spread = embeddings.std(axis=0, dtype=np.float64)
    centred = (embeddings - embeddings.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1)
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > 1e-9 * max(variances[-1], 1e-300)  # directions without variance give no information
    scaled: np.ndarray = (centred @ (directions[:, kept] / np.sqrt(variances[kept]))).astype(np.float32)
    return scaled


def _compare_labels(known: Observations, new: Observations, relabellings: int, seed: int) -> _Found:
    """Compare by Pearson's chi-squared test of the table of predicted labels, with a p-value from random tables with the same
    sums."""
    from scipy.stats import MonteCarloMethod, chi2_contingency

    from evergreen.evaluation.proportions import interval

    counts = np.array([np.bincount(seen.predicted, minlength=len(known.labels)) for seen in (known, new)])
    known_fractions, new_fractions = counts / counts.sum(axis=1, keepdims=True)
    gaps = new_fractions - known_fractions
    most = int(np.abs(gaps).argmax())
    occurring = counts[:, counts.sum(axis=0) > 0]
    p_value = 1.0  # a single label gives no information
    if occurring.shape[1] > 1:
        method = MonteCarloMethod(n_resamples=relabellings, rng=np.random.default_rng(seed))
        p_value = chi2_contingency(occurring, correction=False, method=method).pvalue
    low, high = interval(int(counts[1, most]), len(new))
    sentence = (
        f'predicted label: "{known.labels[most]}" for {new_fractions[most]:.1%} of the new items ({low:.1%} to {high:.1%} with 95 % '
        f"confidence), {known_fractions[most]:.1%} in the reference"
    )
    return _Found("predicted label", float(np.abs(gaps).sum() / 2), _positive(p_value), sentence)


def _judge(found: _Found, p_value_together: float, alpha: float) -> Feature:
    drifted = p_value_together <= alpha
    reason = f"{found.sentence} ({figures.probability(found.p_value)}, with all features in view {figures.probability(p_value_together)}: {'drift' if drifted else 'none'})"
    return Feature(
        found.name,
        drifted,
        found.distance,
        found.p_value,
        p_value_together,
        reason,
        found.reference_quantiles,
        found.new_quantiles,
    )


def _positive(p_value: float) -> float:
    """Clip a p-value to above 0: an exact one may be too small for a 64-bit float."""
    return min(1.0, max(float(p_value), sys.float_info.min))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else figures.short(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def draw(drift: Drift, path: Path) -> None:
    """Write a picture of a comparison (PNG): for each property the range of the new items and of the reference (the middle
    half, the middle 90 % and the median), and the results for embedding and predicted labels."""
    from matplotlib.figure import Figure

    ranges = [one for one in drift.features if one.reference_quantiles and one.new_quantiles]
    others = [one for one in drift.features if one not in ranges]
    figure = Figure(figsize=(8, 1.1 * len(ranges) + 0.9 + 0.3 * len(others)), layout="constrained")
    for one, axes in zip(ranges, figure.subplots(len(ranges), squeeze=False)[:, 0], strict=True):
        for height, quantiles, colour in ((1, one.reference_quantiles, "tab:gray"), (0, one.new_quantiles, "tab:blue")):
            assert quantiles is not None
            least, low, median, high, most = quantiles
            axes.plot([least, most], [height, height], color=colour, linewidth=1.5, solid_capstyle="butt")
            axes.plot([low, high], [height, height], color=colour, linewidth=7, alpha=0.6, solid_capstyle="butt")
            axes.plot([median], [height], marker="|", color="black", markersize=11)
        axes.set_yticks([1, 0], ["reference", "new items"])
        axes.set_ylim(-0.6, 1.6)
        axes.set_title(_heading(one), fontsize=10, loc="left", color="tab:red" if one.drifted else "black", parse_math=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.3)
    moved = "; ".join(_heading(one) for one in others)
    found = "drift" if drift.drifted else "no drift"
    title = f"{found}: {drift.items:,} new items against {drift.reference_items:,} held-out ones\n{moved}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    replace_file(path, content.getvalue())


def _heading(one: Feature) -> str:
    return f"{one.name}: {'drift' if one.drifted else 'no drift'}, {figures.probability(one.p_value_together)}"

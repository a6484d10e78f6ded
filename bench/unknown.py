"""Knowing what it does not know: how well what is unlike the training items is recognised, whether probabilities can be
believed, and what a threshold that was chosen on other items is worth.

On the small sets of images, with the last layer on frozen features, in StratifiedGroupKFold(5) by groups as in `bench.images`.
Thresholds and temperatures are chosen on another fold than the tested one, which the layer is not fitted to, as a scenario does
it with its validation split.

- unlike: each label in turn is left out of the training, and its items are to be distinguished from the others' by the
  distance in the embedding; the rival is one minus the highest probability. AUROC, pooled over the folds, for
  each left-out label.
- far: the same for items of the other data sets, with no label left out.
- calibration: the expected calibration error in ten bins of equal mass, pooled out of folds, with temperature scaling where it
  surely helps, as `train.calibrate` does it, with it always, and (rival) without; beside it the 95 % quantile of the same
  error if the labels are drawn with the probabilities, as a perfectly calibrated model would show it; and the log loss.
- fire: recall at a threshold that was chosen for a recall of 90 % on other clips, false alarms per 1,000 normal frames, and per
  1,000 frames of smoke; the rival answers with the most probable label.
- defect: a mark or none on a magnetic tile, AUROC of one minus the probability of "Free".
- cifar10: the expected calibration error on the source's test split, of a checkout in which the scenario was trained with
  `calibrate: false`, without and with the temperature that is best on val.

Run: python -m bench.unknown [fire-cctv apple-leaf blood-cells magnetic-tile] [--seeds 3] [--features FOLDER] [--cifar CHECKOUT]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.features import GROUPS, features, read
from bench.images import TILES, tiles
from evergreen.environment import import_tensorflow
from evergreen.evaluation.proportions import interval
from evergreen.kinds.classify.answers import ANSWERED, Answering
from evergreen.kinds.classify.learner import class_weights
from evergreen.kinds.classify.settings import Answers
from evergreen.kinds.classify.thresholds import rules
from evergreen.models.spread import Spread
from evergreen.training.calibration import helpful_temperature, temperature
from evergreen.training.last_layer import LastLayer, fit_last_layer, standardized

DEPTHS = (1, 2, 3, 4, 5, 6)
BINS, RESAMPLES = 10, 2_000
FIRE, NORMAL, SMOKE = range(3)  # of fire-cctv, by name
FREE = 4  # of the tiles
RECALL = 0.9
FAR_ITEMS = 100  # of each other data set


@dataclass(frozen=True)
class Items:
    """The frozen features, float32 `(items, features)`, with labels and groups, int `(items,)`; and the layers that were fitted
    to some of them, by their rows."""

    name: str
    values: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    layers: dict[bytes, LastLayer] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, side: int, folder: Path | None) -> Items:
        """Computed, or as they stand in the folder, where they are kept."""
        file = None if folder is None else folder / f"{name}.npz"
        if file is not None and file.exists():
            with np.load(file, allow_pickle=False) as stored:
                return cls(name, stored["frozen"], stored["labels"], stored["groups"])
        images, labels, groups = tiles(side) if name == TILES else read(name, side)
        every = features(images)
        values = np.concatenate([every[depth] for depth in DEPTHS], axis=1)
        if file is not None:
            np.savez(file, frozen=values, labels=labels, groups=groups)
        return cls(name, values, labels, groups)

    @property
    def count(self) -> int:
        """The number of labels."""
        return int(self.labels.max()) + 1

    def folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The rows of train, val and test. Each fold is tested once. Val is the fold before it, with seed 1 the second before
        it, and so on: on few groups another seed gives the same folds."""
        from sklearn.model_selection import StratifiedGroupKFold

        split = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(self.labels, self.labels, self.groups)
        parts = [test for _, test in split]
        for number, test in enumerate(parts):
            val = parts[number - 1 - seed % 4]
            rest = [part for part in parts if part is not test and part is not val]
            yield np.sort(np.concatenate(rest)), val, test

    def layer(self, rows: np.ndarray) -> LastLayer:
        labels, key = self.labels[rows], rows.tobytes()
        if key not in self.layers:
            self.layers[key] = fit_last_layer(self.values[rows], labels, self.count, class_weights(labels, self.count))
        return self.layers[key]


def far(items: Items, others: Sequence[Items]) -> dict[str, float]:
    """The AUROC in % with which items of the other data sets are distinguished from those of a test fold, by distance and by
    probability."""
    from sklearn.metrics import roc_auc_score

    train, _, test = next(items.folds(0))
    layer = items.layer(train)
    values = np.concatenate([items.values[test], *(one.values[:: max(1, len(one.labels) // FAR_ITEMS)] for one in others)])
    new = np.arange(len(values)) >= len(test)
    train_values, standard = (standardized(one, layer.mean, layer.variance) for one in (items.values[train], values))
    scores = {
        "distance": Spread.fit(train_values, items.labels[train]).distance(standard),
        "probability": 1 - layer.probabilities(values).max(axis=1),
    }
    return {name: 100 * float(roc_auc_score(new, found)) for name, found in scores.items()}


def unlike(items: Items, seed: int) -> dict[str, float]:
    """The mean over the left-out labels of the AUROC in %, by distance and by probability, and the lowest of them."""
    from sklearn.metrics import roc_auc_score

    found: dict[str, list[float]] = {"distance": [], "probability": []}
    for left_out in range(items.count):
        scores: dict[str, list[np.ndarray]] = {"distance": [], "probability": []}
        new = []
        for train, _, test in items.folds(seed):
            rows = train[items.labels[train] != left_out]
            layer = items.layer(rows)
            train_values, values = (standardized(items.values[of], layer.mean, layer.variance) for of in (rows, test))
            scores["distance"].append(Spread.fit(train_values, items.labels[rows]).distance(values))
            scores["probability"].append(1 - layer.probabilities(items.values[test]).max(axis=1))
            new.append(items.labels[test] == left_out)
        for name, parts in scores.items():
            found[name].append(100 * float(roc_auc_score(np.concatenate(new), np.concatenate(parts))))
    return {
        f"{name}_{what}": value
        for name, values in found.items()
        for what, value in (("mean", float(np.mean(values))), ("lowest", min(values)))
    }


def binned_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error in bins of equal mass."""
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, BINS)
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in bins) / len(order))


def of_perfect(probabilities: np.ndarray, seed: int) -> float:
    """The 95 % quantile of the error if each label were drawn with its probability."""
    random, confidence = np.random.default_rng(seed), probabilities.max(axis=1)
    return float(
        np.quantile([binned_error(confidence, random.random(len(confidence)) < confidence) for _ in range(RESAMPLES)], 0.95)
    )


def calibration(items: Items, seed: int) -> dict[str, float]:
    """The errors in %, with and without temperature scaling, and those of perfectly calibrated models."""
    from scipy.special import softmax

    shape = (len(items.labels), items.count)
    made = {"calibrated": np.zeros(shape), "always": np.zeros(shape), "plain": np.zeros(shape)}
    scaled = 0
    for train, val, test in items.folds(seed):
        layer = items.layer(train)
        logits = {
            name: standardized(items.values[rows], layer.mean, layer.variance) @ layer.kernel + layer.bias
            for name, rows in (("val", val), ("test", test))
        }
        divisors = {
            "calibrated": helpful_temperature(logits["val"][None], items.labels[val]),
            "always": temperature(logits["val"][None], items.labels[val]),
            "plain": 1.0,
        }
        scaled += divisors["calibrated"] != 1
        for name, divisor in divisors.items():
            made[name][test] = softmax(logits["test"] / divisor, axis=1)
    return {"folds_scaled": scaled} | {
        f"{name}_{what}": 100 * value
        for name, table in made.items()
        for what, value in (
            ("error", binned_error(table.max(axis=1), table.argmax(axis=1) == items.labels)),
            ("perfect", of_perfect(table, seed)),
            ("log_loss", float(-np.log(table[np.arange(len(table)), items.labels]).mean()) / 100),
        )
    }


def fire(items: Items, seed: int) -> dict[str, object]:
    """Hits and items, of fires found, and of normal frames and frames of smoke that were called fire, with intervals; with the
    threshold and (rival) by the most probable label."""
    names = ["fire", "normal", "smoke"]
    said = {"threshold": np.zeros(len(items.labels), bool), "most_probable": np.zeros(len(items.labels), bool)}
    answered, unsupported = np.zeros(len(items.labels), bool), 0
    for train, val, test in items.folds(seed):
        layer = items.layer(train)
        on_val, on_test = layer.probabilities(items.values[val]), layer.probabilities(items.values[test])
        settings = Answers.model_validate({"thresholds": {"fire": {"recall": RECALL}}})
        section = rules(settings, items.labels[val], on_val, None, names)
        unsupported += section["thresholds"][0]["threshold"] is None
        answer, unknown = Answering.of({"labels": names, "answers": section}).decide(on_test, None)
        said["threshold"][test], answered[test] = (answer == FIRE) & (unknown == ANSWERED), unknown == ANSWERED
        said["most_probable"][test] = on_test.argmax(axis=1) == FIRE
    found: dict[str, object] = {"coverage": 100 * float(answered.mean()), "folds_without_threshold": unsupported}
    for way, alarms in said.items():
        for what, label in (("recall", FIRE), ("normal", NORMAL), ("smoke", SMOKE)):
            hits, of = int(alarms[items.labels == label].sum()), int((items.labels == label).sum())
            scale = 100 if what == "recall" else 1000
            found[f"{way}_{what}"] = [round(scale * one, 1) for one in (hits / of, *interval(hits, of))]
    return found


def defect(items: Items, seed: int) -> dict[str, float]:
    """AUROC in %, over all folds and as the mean over the folds, with its standard deviation."""
    from sklearn.metrics import roc_auc_score

    marked, score, each = items.labels != FREE, np.zeros(len(items.labels)), []
    for train, val, test in items.folds(seed):
        score[test] = 1 - items.layer(np.concatenate([train, val])).probabilities(items.values[test])[:, FREE]
        each.append(100 * float(roc_auc_score(marked[test], score[test])))
    return {
        "auroc_pooled": 100 * float(roc_auc_score(marked, score)),
        "auroc_mean": float(np.mean(each)),
        "auroc_deviation": float(np.std(each, ddof=1)),
    }


def cifar10(checkout: Path) -> dict[str, float]:
    """The calibration error on test in %, in 15 bins of equal width as evaluations show it."""
    from bench.trained import image_scenario
    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.kinds.classify.metrics import quality
    from evergreen.models.cnn import load
    from evergreen.preparation.arrays import open_split
    from evergreen.workspace import Workspace

    workspace, learner = Workspace(checkout), ImageLearner()
    val, test = (open_split(workspace.splits("cifar10"), name) for name in ("val", "test"))
    scenario = image_scenario(workspace.scenarios, "cifar10")
    model = load(workspace.model("cifar10") / "model.keras")
    found: dict[str, float] = {"epochs": scenario.train.epochs, "filters": scenario.train.filters}
    for name in ("plain", "calibrated"):
        if name == "calibrated":
            learner.calibrate(scenario.with_train({"calibrate": True}), model, val)
        measured = quality(test["labels"].astype(int), model.predict(np.asarray(test["images"]), batch_size=256, verbose=0))
        found |= {f"{name}_error": 100 * measured["calibration_error"], f"{name}_accuracy": 100 * measured["accuracy"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="of fire-cctv, apple-leaf, blood-cells and magnetic-tile; all without a name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=("unlike", "far", "calibration", "fire", "defect"), help="what is measured; all"
    )
    parser.add_argument("--side", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--features", type=Path, help="a folder in which features are kept from one run to the next")
    parser.add_argument("--cifar", type=Path, help="a checkout in which cifar10 was trained with calibrate: false")
    arguments = parser.parse_args()
    measures: dict[str, Callable[[Items, int], dict[str, float] | dict[str, object]]] = {
        "unlike": unlike, "calibration": calibration, "fire": fire, "defect": defect
    }  # fmt: skip
    only, requested = {"fire": "fire-cctv", "defect": TILES}, arguments.only or [*measures, "far"]
    names = arguments.data or ([] if arguments.cifar else [*sorted(GROUPS), TILES])
    every = [Items.of(name, arguments.side, arguments.features) for name in names]
    for items in every:
        about = {"data": items.name, "items": len(items.labels)}
        for what, seed in itertools.product([one for one in measures if one in requested], range(arguments.seeds)):
            if only.get(what, items.name) == items.name:
                print(json.dumps(about | {"seed": seed, "what": what} | measures[what](items, seed)), flush=True)
        if "far" in requested and len(every) > 1:
            print(json.dumps(about | {"what": "far"} | far(items, [one for one in every if one is not items])), flush=True)
    if arguments.cifar:
        import_tensorflow()
        print(json.dumps({"data": "cifar10", "what": "calibration"} | cifar10(arguments.cifar)), flush=True)


if __name__ == "__main__":
    main()

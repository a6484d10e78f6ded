"""The learner of image classifiers."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.learner import Candidate, Learner, Range
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.answers import DISTANCE
from evergreen.kinds.classify.comparison import ACCURACY
from evergreen.kinds.classify.heat_maps import CLASS_ACTIVATION
from evergreen.kinds.classify.settings import (
    AUTO,
    PRETRAINED,
    PRETRAINED_BELOW_ITEMS,
    PRETRAINED_FROM_SIDE,
    PRETRAINED_SIDE,
    TEACHER,
    ImageScenario,
    ImageTrain,
    larger_sides,
)
from evergreen.preparation.arrays import items_at_once

if TYPE_CHECKING:
    import keras

log = logging.getLogger("evergreen")

# Settings of `train` that only pre-trained networks have, and their values without an effect.
VIEWS: dict[str, Any] = {"resolutions": [1.0], "tiles": None}
# The settings of `train` that determine the number and meaning of the weights.
OF_THE_NETWORK = ("model", "filters", "reduction", "mirror", *VIEWS)
FEATURES_AT_ONCE, LOGITS_AT_ONCE, OUTPUTS_AT_ONCE = 32, 256, 256  # items
LATER_AUGMENTATION = ("rotate", "brightness", "blur", "mixup")  # named in `training_work` only if they are in use
LAST, PROBABILITIES = "last", "probabilities"  # layers of every network
# What `auto` tries: trainings of at most so many megapixels in all their epochs, which take a few minutes on two cores.
FINE_TUNING_EPOCHS = 4
MOST_TO_FINE_TUNE, MOST_TO_SMALL = 100, 600
MOST_IN_TILES = 600  # megapixels of all tiles of one set, whose features take five minutes
SMALL_SIDE = 56  # pixels to which a small network's images are averaged down, or a little more


class ImageLearner(Learner[ImageScenario]):
    """Small convolutional networks (`evergreen.models.cnn`), trained with Muon."""

    metric = ACCURACY
    inputs = ("images",)
    outputs = ("probabilities",)
    on_request = (CLASS_ACTIVATION,)

    def build(self, scenario: ImageScenario, train: Split, *, steps: int) -> keras.Model:
        """Build and compile a network that gives each image one label.

        The optimizer is Muon (see `evergreen.models.muon`), or AdamW for a pre-trained network. The learning rate warms up to
        `learning_rate` (or `fine_tuning_rate`) in the first twentieth of the steps, then decays to 0 with a cosine schedule.
        Weight decay excludes biases and normalizations.

        Returns:
            A model that maps images uint8 `(batch, height, width, channels)` to probabilities float32 `(batch, labels)`; it is
            trained on one-hot labels float32 `(batch, labels)`.
        """
        settings = scenario.train
        height, width, channels = train["images"].shape[1:]
        model = _network(settings, (height, width, channels), len(train.facts["labels"]))
        optimizer = _optimizer(settings, steps)
        optimizer.exclude_from_weight_decay([variable for variable in model.trainable_variables if len(variable.shape) < 2])
        model.compile(optimizer, _loss(settings), metrics=["accuracy"])
        return model

    def first_epoch(
        self, scenario: ImageScenario, model: keras.Model, train: Split, val: Split, report: Callable[[int], object]
    ) -> dict[str, float] | None:
        """For a pre-trained network, fit its last layer to the frozen features, as `evergreen.training.last_layer` does."""
        if scenario.train.model not in PRETRAINED:
            return None
        from evergreen.models.pretrained import set_last_layer
        from evergreen.training.last_layer import fit_last_layer

        splits, precomputed = [split for split in (train, val) if len(split)], _features_of(scenario)
        if precomputed in train.arrays:
            features = [split[precomputed] for split in splits]
        else:
            features = self._features(scenario, model, splits, report)
        weights = self.class_weight(scenario, train)
        layer = fit_last_layer(features[0], train["labels"], len(train.facts["labels"]), weights)
        set_last_layer(model, layer.mean, layer.variance, layer.kernel, layer.bias)
        found: dict[str, float] = {}
        for prefix, split, values in zip(("", "val_"), splits, features, strict=False):
            probabilities = layer.probabilities(values).astype(np.float32)
            targets = self.targets(split, np.arange(len(split)))
            found[f"{prefix}loss"] = float(np.mean(model.loss(targets, probabilities)))
            found[f"{prefix}{self.metric.key}"] = float((probabilities.argmax(axis=1) == split["labels"]).mean())
        return found

    def candidates(self, scenario: ImageScenario, items: int) -> Sequence[Candidate]:
        """For `auto`: the last layer on frozen features at one or several sizes of the images, fine-tuning, and a small network
        from scratch. Which of them are tried depends on the size and the number of the images alone."""
        settings, pixels = scenario.train, scenario.preprocess
        if settings.model != AUTO:
            return ()
        side = min(pixels.height, pixels.width)
        no_photographs = ""
        if side < PRETRAINED_FROM_SIDE:
            no_photographs = f"it needs images of at least {PRETRAINED_FROM_SIDE} pixels"
        elif items >= PRETRAINED_BELOW_ITEMS:
            no_photographs = f"from {PRETRAINED_BELOW_ITEMS:,} items on, a small network learns what it needs from them"
        reduction = 1 if no_photographs else max(1, side // SMALL_SIDE)
        larger = () if no_photographs else larger_sides(side, items)
        usual = _reduction(side, PRETRAINED_SIDE) if larger else 1
        seen = items * pixels.height * pixels.width / 1e6  # megapixels per epoch
        tuning = min(settings.epochs, FINE_TUNING_EPOCHS)
        too_long = _too_much(seen * tuning / usual**2, MOST_TO_FINE_TUNE)
        no_tuning = "train.epochs: 1 trains the last layer alone" if tuning < 2 else too_long
        cut = 0 if settings.tiles is None else settings.tiles.count(pixels.height, pixels.width) * settings.tiles.side**2
        no_tiles = no_photographs or _too_much(items * cut / 1e6, MOST_IN_TILES)
        no_small = "" if no_photographs else _too_much(seen * settings.epochs / reduction**2, MOST_TO_SMALL)
        known = {"model": "efficientnet_lite0", "reduction": usual, **_without(("tiles",), settings)}
        in_tiles = {"model": "efficientnet_lite0", "reduction": 1, "epochs": 1}
        own = {"model": "residual", "reduction": reduction, "epochs": settings.epochs, **_without(VIEWS, settings)}
        return (
            Candidate("last layer on frozen features", known | {"epochs": 1}, no_photographs),
            *(
                Candidate(f"frozen features at {one} pixels", known | {"reduction": _reduction(side, one), "epochs": 1})
                for one in larger
            ),
            *([] if settings.tiles is None else [Candidate("frozen features in tiles", in_tiles, no_tiles)]),
            Candidate("small network from scratch", own, no_small),
            Candidate("fine-tuning", known | {"epochs": tuning}, no_photographs or no_tuning),
        )

    def open_settings(self, scenario: ImageScenario, settings: Mapping[str, Any]) -> dict[str, Any]:
        """For `auto`: the network and its epochs."""
        if scenario.train.model != AUTO:
            return {}
        theirs = {"reduction": 1} | settings["train"]
        others = tuple(VIEWS) if theirs["model"] not in PRETRAINED else () if theirs.get("tiles") else ("tiles",)
        views = _without(others, scenario.train)
        return {key: theirs[key] for key in ("model", "reduction", "epochs")} | views

    def precompute(
        self, scenario: ImageScenario, train: Split, val: Split, report: Callable[[int], object]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """For a pre-trained network: the features of the images, float32 `(items, features)`."""
        if scenario.train.model not in PRETRAINED:
            return {}, {}
        of_train, of_val = self._features(scenario, self.build(scenario, train, steps=1), [train, val], report)
        return {_features_of(scenario): of_train}, {_features_of(scenario): of_val}

    def _features(
        self, scenario: ImageScenario, model: keras.Model, splits: Sequence[Split], report: Callable[[int], object]
    ) -> list[np.ndarray]:
        """The features of each split's images, float32 `(items, features)`; `report` gets the number of images done. They are
        computed in full precision, as the exported network computes them."""
        from evergreen.models.pretrained import feature_extractor
        from evergreen.training.precision import FULL, dtype_policy

        with dtype_policy(FULL):
            network = _network(scenario.train, model.input_shape[1:], model.output_shape[1])
        network.set_weights(model.get_weights())
        extract, found, done = feature_extractor(network), [], 0
        tiles = 1 if scenario.train.tiles is None else scenario.train.tiles.count(*model.input_shape[1:3])
        for split in splits:
            parts, at_once = [], items_at_once(split, self, max(1, FEATURES_AT_ONCE // tiles))
            for start in range(0, len(split), at_once):
                images = np.asarray(split["images"][start : start + at_once])
                parts.append(np.asarray(extract.predict_on_batch(images)))
                done += len(images)
                report(done)
            found.append(np.concatenate(parts))
        return found

    def has_teacher(self, scenario: ImageScenario) -> bool:
        """True with `train.distil`."""
        return scenario.train.distil

    def teacher_answers(
        self, scenario: ImageScenario, train: Split, clusters: np.ndarray, report: Callable[[int], object]
    ) -> np.ndarray:
        """The probability of each label by the last layer on frozen features of the larger network, by one that was not fitted
        to the item, float32 `(items, labels)`."""
        from evergreen.training.distillation import cross_fitted

        whole = {"model": TEACHER, "reduction": 1, "distil": False, **_without(VIEWS, scenario.train)}
        teacher = scenario.with_train(whole)
        (features,) = self._features(teacher, self.build(teacher, train, steps=1), [train], report)
        count = len(train.facts["labels"])
        return cross_fitted(features, train["labels"], clusters, count, self.class_weight(scenario, train), seed=scenario.seed)

    def calibrate(self, scenario: ImageScenario, model: keras.Model, val: Split) -> None:
        """Divide the weights of the last layer by the best temperature, if `train.calibrate` says so and one helps."""
        if not scenario.train.calibrate:
            return
        from evergreen.training.calibration import helpful_temperature

        found = helpful_temperature(self._logits(model, val), val["labels"].astype(int))
        if found == 1:
            log.info("train.calibrate: the probabilities stay as they are; on val no temperature makes them surely better.")
            return
        last = model.get_layer(LAST)
        last.set_weights([weights / found for weights in last.get_weights()])

    def _logits(self, model: keras.Model, val: Split) -> np.ndarray:
        """float32 `(ways, items, labels)`: two ways if the network looks at mirror images too."""
        import keras

        network = keras.Model(model.input, model.get_layer(PROBABILITIES).input)
        parts, at_once = [], items_at_once(val, self, LOGITS_AT_ONCE)
        for start in range(0, len(val), at_once):
            images = np.asarray(val["images"][start : start + at_once])
            found = np.asarray(network(images, training=False))
            parts.append(found.reshape(-1, len(images), found.shape[1]))
        return np.concatenate(parts, axis=1)

    def further_outputs(self, scenario: ImageScenario, model: keras.Model, train: Split) -> dict[str, keras.KerasTensor]:
        """The distance from what the model was trained on, float32 `(items,)`, if `train.answers.unlike` is set
        (`evergreen.models.spread`), and the class activation of networks on a pre-trained backbone, float32 `(items, rows,
        columns, labels)` (`evergreen.models.class_activation`)."""
        activation = self._class_activation(model)
        if scenario.train.answers.unlike is None:
            return activation
        import keras

        from evergreen.models.distance import Distance
        from evergreen.models.spread import Spread, chosen_rows

        embedding = self._embedding(model, "mean_before_distance")
        rows = chosen_rows(len(train))
        (found,) = self._outputs(keras.Model(model.input, [embedding]), train, rows)
        spread = Spread.fit(found, np.asarray(train["labels"][rows]).astype(int))
        return {DISTANCE: Distance(spread)(embedding), **activation}

    def _class_activation(self, model: keras.Model) -> dict[str, keras.KerasTensor]:
        from evergreen.models.class_activation import class_activation

        found = class_activation(model)
        return {} if found is None else {CLASS_ACTIVATION: found}

    def answer_rules(
        self, scenario: ImageScenario, model: keras.Model, further: Mapping[str, keras.KerasTensor], val: Split
    ) -> dict[str, Any]:
        """The section `answers` (`evergreen.kinds.classify.thresholds.rules`), if the scenario has rules. What cannot be chosen
        with so few validation items is logged."""
        settings = scenario.train.answers
        if settings.always:
            return {}
        import keras

        from evergreen.kinds.classify.thresholds import rules

        of_distance = [further[name] for name in (DISTANCE,) if name in further]
        network = keras.Model(model.input, [*model.outputs, *of_distance])
        found = self._outputs(network, val, np.arange(len(val)))
        distance = found[1] if of_distance else None
        section = rules(settings, val["labels"].astype(int), found[0], distance, list(val.facts["labels"]))
        for what, rule in (*((one["label"], one) for one in section["thresholds"]), ("unlike", section.get("unlike", {}))):
            if "why" in rule:
                log.warning("train.answers: no threshold is set for %s: %s.", what, rule["why"])
        return {"answers": section}

    def _outputs(self, network: keras.Model, split: Split, rows: np.ndarray) -> list[np.ndarray]:
        """Each output of a network, `(rows, …)`, for some of the items of a split."""
        at_once = items_at_once(split, self, OUTPUTS_AT_ONCE)
        parts: list[list[np.ndarray]] = []
        for start in range(0, len(rows), at_once):
            found = network.predict_on_batch(np.asarray(split["images"][rows[start : start + at_once]]))
            parts.append([np.asarray(one) for one in (found if isinstance(found, list | tuple) else [found])])
        if not parts:
            return [np.empty((0, *output.shape[1:]), np.float32) for output in network.outputs]
        return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]

    def targets(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """One-hot labels, float32 `(rows, labels)`; mixed with the teacher's answers if there are any."""
        from evergreen.training.distillation import TEACHER_ANSWERS, mixed

        one_hot: np.ndarray = np.eye(len(split.facts["labels"]), dtype=np.float32)[split["labels"][rows]]
        return mixed(one_hot, split[TEACHER_ANSWERS][rows]) if TEACHER_ANSWERS in split.arrays else one_hot

    def loss_of_guessing(self, train: Split) -> float:
        """The loss of predicting all labels with equal probability: log(labels)."""
        return math.log(max(2, len(train.facts["labels"])))

    def settings(self, train: Split) -> dict[str, Any]:
        """The labels, the images' shape, and how images were read and resized where that is not the usual way."""
        return {
            "labels": list(train.facts["labels"]),
            "shape": list(train["images"].shape[1:]),
            **{name: train.facts[name] for name in ("range", "resize") if train.facts.get(name)},
        }

    def different_networks(self, scenario: ImageScenario, settings: Mapping[str, Any]) -> list[str]:
        """Differences in architecture, image size or labels."""
        pixels = scenario.preprocess
        usual = {"reduction": 1} | VIEWS  # which models from before there were others have
        theirs = usual | settings["train"]
        ours = usual | scenario.with_train(self.open_settings(scenario, settings)).train.model_dump(mode="json")
        compared = {
            **{key: (theirs.get(key), ours[key]) for key in OF_THE_NETWORK},
            "image size": (list(settings["shape"]), [pixels.height, pixels.width, pixels.channels]),
            "labels": (list(settings["labels"]), list(scenario.validation.labels)),
        }
        return [key for key, (old, new) in compared.items() if old != new]

    def random_split(self, scenario: ImageScenario, items: int, random: np.random.Generator) -> Split:
        """Random pixels and labels."""
        pixels, labels = scenario.preprocess, scenario.validation.labels
        images = random.integers(0, 256, (items, pixels.height, pixels.width, pixels.channels), np.uint8)
        return Split("train", {"images": images, "labels": random.integers(0, len(labels), items)}, {"labels": labels})

    def search_space(self, scenario: ImageScenario, train: Split) -> list[Range]:
        """Learning rate, regularization, augmentation, epochs, and the width of a network that is not pre-trained."""
        settings, side = scenario.train, min(train["images"].shape[1:3])
        filters = max(4, settings.filters // 4 * 4)
        if settings.model in PRETRAINED:
            rate, own_rate, largest_rate = "fine_tuning_rate", settings.fine_tuning_rate, 0.1
            width = []
        else:
            rate, own_rate, largest_rate = "learning_rate", settings.learning_rate, 10.0
            width = [Range("filters", max(4, filters // 8 * 4), filters * 2, step=4)]  # determines the cost of a prediction
        return [
            Range(rate, own_rate / 4, min(largest_rate, own_rate * 4), log=True),
            Range(
                "weight_decay", max(1e-6, settings.weight_decay / 10), min(1.0, max(1e-3, settings.weight_decay * 10)), log=True
            ),
            Range("label_smoothing", 0.0, 0.2),
            *width,
            Range("epochs", max(1, settings.epochs // 2), settings.epochs * 2, step=1),  # determines the cost of training
            Range("shift", 0, max(1, side // 8, settings.shift), step=1),
            Range("erase", 0, max(1, side // 4, settings.erase), step=1),
        ]

    def preparation_work(self, scenario: ImageScenario) -> str:
        """The size of the images."""
        pixels = scenario.preprocess
        return f"{pixels.height}×{pixels.width}×{pixels.channels}"

    def prediction_work(self, scenario: ImageScenario) -> str:
        """The network, the image size and the number of labels."""
        train, labels = scenario.train, len(scenario.validation.labels)
        ways = ", both ways" if train.mirror else ""
        width = "" if train.model in PRETRAINED else f" of {train.filters} filters"  # auto may choose such a network
        reduced = "" if train.reduction == 1 else f", reduced by {train.reduction},"
        return f"{train.model}{width}{reduced} on {self.preparation_work(scenario)}, {labels} labels{ways}{_views_text(train)}"

    def training_work(self, scenario: ImageScenario) -> str:
        """The work of a prediction, with precision, batch size, augmentation and whether there is a teacher."""
        train = scenario.train
        return (
            f"{self.prediction_work(scenario)}, {train.precision} precision, batches of {train.batch_size}, flip {train.flip}, "
            f"shift {train.shift}, erase {train.erase}"
            + "".join(f", {name} {value}" for name in LATER_AUGMENTATION if (value := getattr(train, name)))
            + (", distil" if train.distil else "")
        )

    def equivalent_epochs(self, scenario: ImageScenario) -> float:
        """The first epoch of a pre-trained network only predicts."""
        epochs = float(scenario.train.epochs)
        return epochs - 2 / 3 if scenario.train.model in PRETRAINED else epochs

    def embedding(self, model: keras.Model) -> keras.KerasTensor:
        """As in `Learner.embedding`; with `train.mirror`, the mean over the image and its mirror image."""
        return self._embedding(model, "mean_embedding")

    def _embedding(self, model: keras.Model, name: str) -> keras.KerasTensor:
        """The embedding, with this name for the layer that takes the mean: a network may have each name once."""
        from evergreen.models import cnn

        found = super().embedding(model)
        mirrors = any(isinstance(layer, cnn.BothWays) for layer in model.layers)
        return cnn.MeanOfBoth(dtype="float32", name=name)(found) if mirrors else found

    def class_weight(self, scenario: ImageScenario, train: Split) -> dict[int, float] | None:
        """The weight of each label's items, as `train.class_weights` says."""
        power = {"none": None, "square_root": 0.5, "balanced": 1.0}[scenario.train.class_weights]
        return None if power is None else class_weights(train["labels"], len(train.facts["labels"]), power)

    def item_weights(self, scenario: ImageScenario, train: Split) -> np.ndarray | None:
        """Draw every label equally often, if `train.sampling` is balanced."""
        if scenario.train.sampling == "natural":
            return None
        weights = class_weights(train["labels"], len(train.facts["labels"]))
        of_items: np.ndarray = np.array([weights[label] for label in range(len(weights))])[train["labels"]]
        return of_items

    def mix(
        self, scenario: ImageScenario, inputs: list[np.ndarray], targets: np.ndarray, random: np.random.Generator
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Mix pairs of images and their labels, if `train.mixup` is more than 0."""
        if not scenario.train.mixup:
            return inputs, targets
        from evergreen.kinds.classify.mixup import mixup

        images, mixed = mixup(inputs[0], targets, scenario.train.mixup, random)
        return [images], mixed

    def agree(self, trained: np.ndarray, served: np.ndarray) -> np.ndarray:
        """True for items with the same most probable label."""
        same: np.ndarray = trained.argmax(axis=1) == served.argmax(axis=1)
        return same


def _network(settings: ImageTrain, shape: tuple[int, int, int], label_count: int) -> keras.Model:
    from evergreen.models import backbones, cnn, pretrained

    reduction = settings.reduction
    augment = cnn.Augmentation(
        flip=settings.flip,
        shift=math.ceil(settings.shift / reduction),
        erase=math.ceil(settings.erase / reduction),
        rotate=settings.rotate,
        brightness=settings.brightness,
        blur=settings.blur / reduction,
    )
    tiles = settings.tiles
    tiling = None if tiles is None else pretrained.Tiling(tiles.side, tiles.overlap, tiles.join)
    if settings.model in PRETRAINED:
        backbone = {
            "efficientnet_lite0": backbones.efficientnet_lite0,
            "efficientnet_lite0_small": backbones.efficientnet_lite0_small,
        }[settings.model]
        return pretrained.classifier(
            backbone(),
            shape,
            label_count,
            reduction=reduction,
            augment=augment,
            mirror=settings.mirror,
            resolutions=settings.resolutions,
            tiling=tiling,
        )
    network = {"residual": cnn.residual, "plain": cnn.plain}[settings.model]
    return network(
        shape,
        label_count,
        filters=settings.filters,
        reduction=reduction,
        augment=augment,
        mirror=settings.mirror,
    )


def _without(names: Iterable[str], settings: ImageTrain) -> dict[str, Any]:
    """What takes away these settings of `train`, where a scenario has them."""
    fields = ImageTrain.model_fields
    return {name: fields[name].default for name in names if getattr(settings, name) != fields[name].default}


def _views_text(settings: ImageTrain) -> str:
    """What a pre-trained network sees of an image besides the whole at its own size, as a clause; empty if nothing."""
    several = ", ".join(f"{one:g}" for one in settings.resolutions)
    tiles = settings.tiles
    in_tiles = "" if tiles is None else f", in tiles of {tiles.side} that overlap by {tiles.overlap}, joined by {tiles.join}"
    return ("" if several == "1" else f", at {several} of its size") + in_tiles


def _reduction(side: int, target: int) -> float:
    """The factor that makes a side about `target` pixels long."""
    found = round(side / target, 2)
    return int(found) if found == int(found) else found


def _features_of(scenario: ImageScenario) -> str:
    """The name of the array of a frozen network's features, another one for each network."""
    settings = VIEWS | scenario.train.model_dump(mode="json")
    network = {name: settings.get(name) for name in OF_THE_NETWORK}
    return f"features-{hashlib.sha256(json.dumps(network).encode()).hexdigest()[:12]}"


def _too_much(megapixels: float, most: float) -> str:
    """Why a training is not tried, as a clause; empty if it is."""
    if megapixels <= most:
        return ""
    return f"it would see {megapixels:,.0f} megapixels in its epochs, more than the {most:,.0f} that take minutes without a GPU"


def _loss(settings: ImageTrain) -> keras.Loss:
    import keras

    if settings.loss == "focal":  # Lin et al. 2017, with their factor (1 - p)² and no factor for the label
        return keras.losses.CategoricalFocalCrossentropy(1.0, 2.0, label_smoothing=settings.label_smoothing)
    return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)


def _optimizer(settings: ImageTrain, steps: int) -> keras.Optimizer:
    import keras

    from evergreen.models.muon import Muon

    pretrained = settings.model in PRETRAINED
    steps -= steps // settings.epochs if pretrained else 0  # the first epoch takes no steps: see `ImageLearner.first_epoch`
    rate, climb = settings.fine_tuning_rate if pretrained else settings.learning_rate, max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(rate / 10, max(1, steps - climb), warmup_target=rate, warmup_steps=climb)
    averages: dict[str, Any] = {"use_ema": True, "ema_momentum": settings.average_weights} if settings.average_weights else {}
    return (keras.optimizers.AdamW if pretrained else Muon)(schedule, weight_decay=settings.weight_decay or None, **averages)


def class_weights(labels: np.ndarray, label_count: int, power: float = 1.0) -> dict[int, float]:
    """The weight of each label's items: its count to the power of -`power`. With 1, all labels have the same total weight. The
    mean weight of an item is 1.

    Args:
        labels: integers `(items,)`, indices below `label_count`.
        power: from 0 to 1.
    """
    counts = np.maximum(np.bincount(labels, minlength=label_count), 1)
    weights = counts**-power
    return dict(enumerate((weights * len(labels) / weights[labels].sum()).tolist()))

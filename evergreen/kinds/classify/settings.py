"""The settings of scenarios of the kind `classify`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from evergreen.data.annotations.formats import Annotations
from evergreen.data.sources.video import Frames
from evergreen.media.resizing import Resize
from evergreen.names import tidy
from evergreen.scenario.settings import Collect, Group, Preprocess, Promote, Scenario, Section, Share, Train, Validate

AUTO = "auto"  # the model that training chooses by comparing
PRETRAINED = ("efficientnet_lite0", "efficientnet_lite0_small")  # on ImageNet
TEACHER = "efficientnet_lite0"  # whose answers `distil` teaches
PRETRAINED_FROM_SIDE = 48  # pixels: five halvings leave at least two positions, so that there is something to pool
PRETRAINED_BELOW_ITEMS = 5_000  # with more, a network learns from them what it needs
PRETRAINED_SIDE = 224  # pixels of the photographs that it was trained on
LARGER_SIDES = (320, 448, 512)  # which `auto` compares with that where images are larger, the largest being their own
LARGER_BY = 1.2  # what is hardly larger is not compared
MOST_TILES = 100  # of an image
MOST_LARGER = 300  # megapixels of all images of one size: their features take two to three minutes on two cores
Proportion = Annotated[float, Field(gt=0, lt=1)]
Resolution = Annotated[float, Field(ge=0.5, le=2)]
Column = Literal["group", "split", "source", "format", "width", "height", "channels", "collected_at"]  # of an item


class ImageCollect(Collect):
    """Where the labelled images come from. Exactly one of `builtin`, `path`, `remote` and `file` is given."""

    newer: ClassVar[tuple[str, ...]] = (*Collect.newer, "keep_metadata", "blur_faces", "annotations", "frames")

    builtin: Literal["digits"] | None = Field(None, description="a data set that an installed library carries")
    pattern: str = Field(
        r"(?:.*/)?(?P<label>[^/]+)/[^/]+",
        description="regular expression that an item's whole path inside the source must match; the group `label` is its "
        "label, `split` (train, val or test) its given split, `group` its group. What doesn't match isn't an item.",
    )
    annotations: Annotations | None = Field(
        None,
        description="where labels, groups, splits and boxes are, if not in the names of folders: a manifest or annotations in one of the formats of "
        "docs/guide.md; pattern is not used then",
    )
    frames: Frames | None = Field(
        None,
        description="take frames out of video files, which are named like their file in its folder; the file is the group, and the time in seconds a "
        "column. null: videos are not read",
    )
    rename: dict[str, str] = Field(default_factory=dict, description="label in the source: label in the data set")
    max_pixels: Annotated[int, Field(gt=0)] = Field(50_000_000, description="larger images are refused before decoding")
    keep_metadata: bool = Field(
        False,
        description="store images with position (GPS), camera and serial number, times, names, comments and previews; false: they are removed "
        "before an image is stored, and its pixels stay the same",
    )
    blur_faces: bool = Field(
        False,
        description="find faces and make them unrecognizable before an image is stored. Some are missed: python -m bench.faces measures how many",
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if "label" not in groups:
            raise ValueError("must have a group named label: (?P<label>…)")
        return value

    @field_validator("rename")
    @classmethod
    def _tidy(cls, value: dict[str, str]) -> dict[str, str]:
        return {tidy(old): tidy(new) for old, new in value.items()}

    @model_validator(mode="after")
    def _images_are_in_files(self) -> ImageCollect:
        if self.sql is not None:
            raise ValueError(
                "sql gives tables, and images are in files: name their folder by path or remote, and labels by annotations"
            )
        return self


class ImageValidate(Validate):
    """The requirements on images and labels."""

    labels: Annotated[list[str], Field(min_length=2)] = Field(description="the label set, in the order of the model's output")
    min_items_per_label: Annotated[int, Field(ge=1)] = 10
    min_side: Annotated[int, Field(ge=1)] = Field(1, description="pixels of an image's shorter side, at least")
    max_side: Annotated[int, Field(ge=1)] = Field(20_000, description="pixels of an image's longer side, at most")
    max_brightness_shift: Share = Field(0.2, description="median brightness (0 to 1) against the last accepted version")
    max_sharpness_ratio: Annotated[float, Field(gt=1)] = Field(4.0, description="median sharpness, either way, against it")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        labels = [tidy(label) for label in value]
        if len(set(labels)) != len(labels):
            raise ValueError("names a label twice")
        if not all(labels):
            raise ValueError("names a label of no letter")
        return labels


class Range(Section):
    """The values that are read as black and white in images with more than 8 bits per value, in the file's own units."""

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]

    @model_validator(mode="after")
    def _has_an_extent(self) -> Range:
        if self.high <= self.low:
            raise ValueError("high must be above low")
        return self


class ImagePreprocess(Preprocess):
    """The network's input size, and which images must share a split."""

    newer: ClassVar[tuple[str, ...]] = ("resize",)

    height: Annotated[int, Field(ge=4, le=4096)]
    width: Annotated[int, Field(ge=4, le=4096)]
    channels: Literal[1, 3]
    resize: Resize = Field(
        "stretch",
        description="how images get that size: stretch changes their aspect ratio; fit keeps it and pads them with the mean colour of their border; "
        "crop keeps it and takes the middle",
    )
    range: Range | None = Field(
        None,
        description="of images with more than 8 bits a value: the values that are black (low) and white (high); null: as chosen from the data by "
        "the first collection",
    )
    group: Group | None = None
    look_alikes: bool = Field(True, description="keep items that look alike on one side, and out of train where test has one")


class Target(Section):
    """What the answers with one label shall reach on val. Exactly one of the two is given."""

    recall: Proportion | None = Field(None, description="fraction of the label's items that are found, at least")
    precision: Proportion | None = Field(None, description="fraction of the answers with the label that are right, at least")

    @model_validator(mode="after")
    def _one_target(self) -> Target:
        if (self.recall is None) == (self.precision is None):
            raise ValueError("exactly one of recall and precision must be given")
        return self


class Answers(Section):
    """When the model answers with a label, and when it says that it does not know."""

    unknown_below: Proportion | None = Field(
        None,
        description="a label with a lower probability is not answered (unsure), unless it has a threshold of its own; null: none is too low",
    )
    unlike: Annotated[float, Field(gt=0, le=0.5)] | None = Field(
        None,
        description="largest fraction of the validation items, and of items like them, that may be marked as `unlike`: too far from all training "
        "items to be answered; null: none is",
    )
    thresholds: dict[str, Target] = Field(
        default_factory=dict,
        description="label: what its answers shall reach; the threshold of its probability is chosen on val",
    )

    @field_validator("thresholds")
    @classmethod
    def _tidy(cls, value: dict[str, Target]) -> dict[str, Target]:
        return {tidy(label): target for label, target in value.items()}

    @property
    def always(self) -> bool:
        """True if the model always answers, with the most probable label."""
        return self == Answers.model_validate({})


class Tiles(Section):
    """How a pre-trained network sees large images: in tiles that overlap, at the images' own resolution."""

    side: Annotated[int, Field(ge=PRETRAINED_FROM_SIDE, le=1024)] = Field(description="of a tile, in pixels")
    overlap: Annotated[int, Field(ge=0)] = Field(
        description="of neighbours, in pixels, at least: as much as a mark is large, so that each is whole in some tile"
    )
    join: Literal["max", "mean"] = Field(
        "max",
        description="of the tiles' features: max takes each from the tile that has most of it, which suits small marks; mean their mean",
    )

    @model_validator(mode="after")
    def _tiles_advance(self) -> Tiles:
        if self.overlap > self.side * 3 // 4:
            raise ValueError(f"overlap must be at most three quarters of side ({self.side * 3 // 4}), got {self.overlap}")
        return self

    def count(self, height: int, width: int) -> int:
        """The number of tiles of an image."""
        return math.prod(max(1, math.ceil((length - self.overlap) / (self.side - self.overlap))) for length in (height, width))


class ImageTrain(Train):
    """The network and its training."""

    _order: ClassVar[tuple[str, ...]] = (
        "model", "filters", "reduction", "precision", "epochs", "batch_size", "learning_rate", "fine_tuning_rate", "weight_decay",
        "label_smoothing", "loss", "class_weights", "sampling", "flip", "shift", "erase", "rotate", "brightness", "blur", "mixup",
        "mirror", "resolutions", "tiles", "distil", "average_weights", "calibrate", "answers", "patience", "max_seconds", "max_wh",
    )  # fmt: skip
    newer: ClassVar[tuple[str, ...]] = (
        "reduction", "calibrate", "loss", "sampling", "rotate", "brightness", "blur", "mixup", "answers", "resolutions", "tiles",
        "distil", "average_weights",
    )  # fmt: skip

    model: Literal["auto", "residual", "plain", "efficientnet_lite0", "efficientnet_lite0_small"] = Field(
        "residual",
        description="auto compares the others on val, and keeps what takes the least energy among those that are as good as the best; residual and plain are small "
        "networks, trained from scratch; efficientnet_lite0 is pre-trained on ImageNet, which helps with few images: its first epoch fits the last layer "
        "to frozen features, later ones fine-tune its later stages; efficientnet_lite0_small is the first five of its seven stages, all of which are "
        "fine-tuned, at a fine_tuning_rate of 0.001: with reduction: 3 it takes a tenth of the energy for a prediction",
    )
    filters: Annotated[int, Field(ge=4, le=1024)] = Field(
        32, description="channels of the first stage of residual and plain; later ones have more"
    )
    reduction: Annotated[int | float, Field(ge=1, le=64)] = Field(
        1,
        description="factor by which the network first makes images smaller, such as 2 or 1.4 (whole squares of pixels are averaged): a fraction of the "
        "work, where details do not matter",
    )
    fine_tuning_rate: Annotated[float, Field(gt=0, le=0.1)] = Field(
        5e-5,
        description="the learning rate of pre-trained networks after their first epoch; learning_rate is that of residual and plain",
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="focal: items that are right already count less, so that hard and rare ones count more"
    )
    class_weights: Literal["none", "square_root", "balanced"] = Field(
        "none",
        description="the weight of an item in the loss. balanced: all labels have the same total weight; square_root: between that and none",
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        description="balanced: every label is drawn equally often in an epoch, rare ones repeatedly, common ones in part",
    )
    flip: Literal["none", "horizontal", "both"] = "none"
    shift: Annotated[int, Field(ge=0, le=512)] = Field(0, description="pixels, either way, at random")
    erase: Annotated[int, Field(ge=0, le=512)] = Field(0, description="side in pixels of a square that is greyed out at random")
    rotate: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="degrees, either way, at random")
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="fraction of the range of values by which images are made brighter or darker at random"
    )
    blur: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="pixels: the largest standard deviation of the blur that half of the images get"
    )
    mixup: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="mix pairs of images, and their labels alike: the parameter of the beta distribution of their shares; 0: don't. It needs "
        "more epochs",
    )
    mirror: bool = Field(False, description="predict from each image and its mirror image: more often right, at twice the work")
    resolutions: Annotated[tuple[Resolution, ...], Field(min_length=1, max_length=5)] = Field(
        (1.0,),
        description="of a pre-trained network: it sees each image at several sizes, which are these fractions of its sides, and takes the mean of their "
        "features. [1, 0.7] costs half as much again, in training and for a prediction; each takes the square of its fraction",
    )
    tiles: Tiles | None = Field(
        None,
        description="a pre-trained network sees images in tiles, for marks that are small on a large picture, and joins their features: so many times the "
        "work, in training and for a prediction, as there are tiles; null: it sees the whole image. auto compares tiles with the whole image",
    )

    distil: bool = Field(
        False,
        description="teach the network what a larger one says (distillation): the last layer on frozen features of efficientnet_lite0, of whose "
        "answers and the labels the targets are a mixture. Before the first epoch it costs the larger network's predictions for all of train; a "
        "prediction costs what it did",
    )

    average_weights: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="validate and keep the moving average of the weights over the steps: the part of it that each step leaves, such as 0.99 for about the "
        "last 100 steps; 0: the weights as they are. It costs their memory once more and hardly any time; a prediction costs what it did",
    )

    calibrate: bool = Field(
        False,
        description="correct on val how sure of itself the network is (temperature scaling), so that its probabilities can be believed",
    )

    answers: Answers = Field(
        default_factory=lambda: Answers.model_validate({}),
        description="when the model says that it does not know, and from which probability on it answers with a label; by default it always "
        "answers with the most probable one",
    )

    @field_validator("reduction")
    @classmethod
    def _plain_number(cls, value: float) -> float:
        return int(value) if value == int(value) else value

    @field_validator("resolutions")
    @classmethod
    def _different(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a resolution twice")
        return value

    @model_validator(mode="after")
    def _small_networks_see_images_as_they_are(self) -> ImageTrain:
        if self.model not in (AUTO, *PRETRAINED) and (self.resolutions != (1.0,) or self.tiles is not None):
            name = "resolutions" if self.tiles is None else "tiles"
            raise ValueError(
                f"{name} needs a pre-trained network, and model is {self.model}: choose auto or efficientnet_lite0"
            )
        return self

    @model_validator(mode="after")
    def _someone_can_be_taught(self) -> ImageTrain:
        if not self.distil:
            return self
        students = "choose efficientnet_lite0_small, residual or plain"
        if self.model == AUTO:
            raise ValueError(f"distil needs to know which network is taught, and model is auto: {students}")
        if self.model == TEACHER:
            raise ValueError(f"distil teaches a smaller network, and model is {TEACHER}, the one that teaches: {students}")
        if self.model in PRETRAINED and self.epochs < 2:
            raise ValueError("distil needs epochs: 2 or more, as the first one fits the last layer to the labels alone, got 1")
        if self.loss == "focal":
            raise ValueError("distil needs loss: cross_entropy; focal loss is for targets that are certain, got focal")
        return self

    @model_validator(mode="after")
    def _mirror_images_are_learned_from(self) -> ImageTrain:
        if self.mirror and self.flip == "none":
            raise ValueError("mirror needs flip: horizontal or both, or the network has never seen a mirror image")
        return self

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize in a fixed order, without what has no effect: models' `settings.json` holds these settings, and the same
        training always gives the same bytes."""
        values = super()._serialized(handler)
        if self.model not in (AUTO, *PRETRAINED):
            values.pop("fine_tuning_rate", None)
        return {name: values[name] for name in self._order if name in values}


class ImagePromote(Promote):
    """The conditions for promoting a new model to champion."""

    item_columns: ClassVar[frozenset[str]] = frozenset({"label", *get_args(Column)})

    metric: Literal["accuracy", "f1_macro"] = Field(
        "accuracy", description="by which a challenger must be better; f1_macro counts every label alike, however rare"
    )
    floor: Share | None = Field(
        None,
        description="of the metric: a first model below it is not promoted; a later one must beat the champion. A first model must be better "
        "than always naming the commonest label in any case",
    )
    gain_per_doubling: Share = Field(
        0.001, description="accuracy that a challenger must gain for each doubling of the energy of a prediction"
    )
    margin: Annotated[float, Field(gt=0, le=0.1)] = Field(
        0.005, description="of the metric; who surely loses less than this counts as equally good"
    )
    slices: tuple[Column, ...] = Field(
        (), description="columns of the items: for no value of one may the challenger be worse by more than chance"
    )


class ImageScenario(Scenario):
    """A scenario that gives each image one label."""

    deciding: ClassVar[dict[str, Any]] = Scenario.deciding | {"validation": {"labels"}}

    kind: Literal["classify"]
    collect: ImageCollect
    validation: ImageValidate = Field(alias="validate")
    preprocess: ImagePreprocess
    train: ImageTrain
    promote: ImagePromote = Field(default_factory=lambda: ImagePromote.model_validate({}))

    @model_validator(mode="after")
    def _thresholds_are_of_labels(self) -> ImageScenario:
        if unknown := sorted(self.train.answers.thresholds.keys() - set(self.validation.labels)):
            raise ValueError(
                f"train.answers.thresholds: {unknown[0]} is no label; expected one of {', '.join(self.validation.labels)}"
            )
        return self

    @model_validator(mode="after")
    def _something_is_left_of_the_image(self) -> ImageScenario:
        side, reduction = min(self.preprocess.height, self.preprocess.width), self.train.reduction
        if reduction > 1 and side // reduction < 4:
            raise ValueError(
                f"train.reduction: {reduction} leaves {side // reduction:g} of {side} pixels, and networks need 4: lower it"
            )
        return self

    @model_validator(mode="after")
    def _images_are_as_large_as_tiles(self) -> ImageScenario:
        tiles, reduction = self.train.tiles, 1 if self.train.model == AUTO else self.train.reduction
        height, width = (round(side / reduction) for side in (self.preprocess.height, self.preprocess.width))
        if tiles is not None and min(height, width) < tiles.side:
            raise ValueError(
                f"train.tiles: a side of {tiles.side} pixels needs images at least as large, got {height}×{width}: raise preprocess.height and width, "
                "or lower side"
            )
        if tiles is not None and (count := tiles.count(height, width)) > MOST_TILES:
            raise ValueError(
                f"train.tiles: an image would be cut into {count} tiles, more than {MOST_TILES}: raise side, or lower overlap"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_networks_take_no_tiny_images(self) -> ImageScenario:
        side = min(self.preprocess.height, self.preprocess.width)
        tile = self.train.tiles.side if self.train.tiles else side
        seen = int(min(side / self.train.reduction, tile) * min(self.train.resolutions))
        if self.train.model in PRETRAINED and seen < PRETRAINED_FROM_SIDE:
            fix = (
                "raise preprocess.height and width, or choose residual"
                if seen == side
                else "lower train.reduction, or raise the lowest of train.resolutions"
            )
            raise ValueError(
                f"train.model: {self.train.model} needs images of at least {PRETRAINED_FROM_SIDE} pixels, got {seen}: {fix}"
            )
        if self.train.distil and side < PRETRAINED_FROM_SIDE:
            raise ValueError(
                f"train.distil: the network that teaches needs images of at least {PRETRAINED_FROM_SIDE} pixels, got {side}: raise preprocess.height and "
                "width, or leave distil out"
            )
        return self


def larger_sides(side: int, items: int) -> tuple[int, ...]:
    """The sides at which a pre-trained network's features are worth comparing with those at `PRETRAINED_SIDE`.

    Args:
        side: of the images, in pixels; the last of the sides, if there are any.
        items: the number of images; with many, no larger side is computed in a few minutes.
    """
    found: list[int] = []
    for one in (*(each for each in LARGER_SIDES if each * LARGER_BY <= side), side):
        if one >= LARGER_BY * PRETRAINED_SIDE and items * one**2 / 1e6 <= MOST_LARGER:
            found.append(one)
    return tuple(found)

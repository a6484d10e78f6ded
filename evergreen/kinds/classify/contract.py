"""Labelled images as items."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evergreen.data.collecting.base import Inspector, Recogniser
from evergreen.data.dataset import Records, iter_images, table
from evergreen.data.inbox import Inbox
from evergreen.data.sources.base import Source
from evergreen.errors import BadItem, EvergreenError
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract, DataSet, Prepared
from evergreen.kinds.base.split import NONE, SPLITS, ArrayFile, Assignment
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.inspection import ImageInspection
from evergreen.kinds.classify.items import iter_deep, recorded_range
from evergreen.kinds.classify.recognition import InboxFiles, SourceFiles
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.depth import MIN_LEVELS, SAMPLED_IMAGES, no_contrast, reached_levels, sampled_range
from evergreen.media.images import PixelRange, inspect
from evergreen.names import near
from evergreen.preparation.arrays import indices_of
from evergreen.preparation.splits import Items, LooksFile, assign, groups_of

if TYPE_CHECKING:
    import pyarrow as pa


class _Details(NamedTuple):
    """What splits are assigned by, besides the data set: labels int32 `(items,)`, and the file of descriptors, None where similarity doesn't matter."""

    labels: np.ndarray
    descriptors: LooksFile | None


class ImageContract(Contract[ImageScenario]):
    """One label an image; ids are the SHA-256 of the encoded bytes."""

    noun = "image"
    description = "A classifier of images."
    fix_of_empty_split = "Collect more that differ, or set preprocess.look_alikes: false if looking alike means nothing here."
    properties = ("brightness", "contrast", "sharpness", "width", "height")

    def recogniser(self, scenario: ImageScenario, source: Source) -> SourceFiles:
        """By `collect.pattern`."""
        return SourceFiles(scenario, source)

    def inbox_recogniser(self, scenario: ImageScenario, inbox: Inbox) -> InboxFiles:
        """By folders, one a label."""
        return InboxFiles(scenario, inbox)

    def inspector(self, scenario: ImageScenario, folders: Sequence[Path], source: Source, recogniser: Recogniser) -> Inspector:
        """In processes of their own, which a decoder may crash."""
        return ImageInspection(scenario, folders, source, recogniser.may_hold_items)

    def count(self, scenario: ImageScenario, source: Source, name: str) -> int:
        """One where the name matches `collect.pattern` with a label."""
        match = re.compile(scenario.collect.pattern, re.DOTALL).fullmatch(name)
        return int(bool(match and match.groupdict().get("label")))

    def known_labels(self, scenario: ImageScenario) -> Sequence[str]:
        """As `validate.labels` lists them."""
        return scenario.validation.labels

    def corrected(self, scenario: ImageScenario, text: str) -> str:
        """One of `validate.labels`, renamed as the scenario says."""
        label, known = scenario.collect.rename.get(text, text), scenario.validation.labels
        if label in known:
            return label
        meant = near(label, known)
        also = f"; did you mean {meant!r}?" if meant else ""
        raise BadItem("correction-unknown-label", f"{label!r} is not in validate.labels{also}")

    def expectations(self, scenario: ImageScenario, accepted: Mapping[str, float]) -> list[Any]:
        """As `evergreen.kinds.classify.expectations`."""
        from evergreen.kinds.classify.expectations import expectations

        return expectations(scenario.validation, accepted)

    def columns(self, scenario: ImageScenario) -> tuple[str, ...]:
        """The path, where groups are found by it."""
        return ("source",) if scenario.preprocess.group else ()

    def prepare(self, scenario: ImageScenario, data: DataSet, scratch: Path) -> Prepared:
        """Pixels of the size that the network takes (`images`, uint8 `(items, height, width, channels)`), and indices of the labels (`labels`).

        Raises:
            DataRefused: images of more than 8 bits have next to no contrast with the range that they are read with.
            EvergreenError: an image cannot be decoded, or has a label that the scenario doesn't know.
        """
        from evergreen.kinds.classify.decoding import pixels_of
        from evergreen.preparation.decoding import decode_all

        settings, names = scenario.preprocess, scenario.validation.labels
        labels = _known(data.rows["label"], names, ~data.withdrawn)
        shape = (settings.height, settings.width, settings.channels)
        pixels, descriptors = scratch / "pixels", scratch / "descriptors" if settings.look_alikes else None
        read_with = _range(scenario, data.batches)
        decode_all(pixels_of, data.folders, shape, pixels, descriptors, pixel_range=read_with)
        images = ArrayFile(pixels, np.dtype(np.uint8), (len(data), *shape))
        _refuse_without_contrast(scenario, data.folders, images, read_with)
        stored = labels.astype(np.uint8 if len(names) <= 256 else np.uint16)
        facts: dict[str, Any] = {"labels": list(names), **({"range": read_with._asdict()} if read_with else {})}
        return Prepared(
            {"images": images, "labels": stored}, facts, _Details(labels, LooksFile(descriptors) if descriptors else None)
        )

    def assign(self, scenario: ImageScenario, data: DataSet, prepared: Prepared) -> Assignment:
        """By groups and look-alikes, near the wanted fractions of each label (`evergreen.preparation.splits`)."""
        settings, details = scenario.preprocess, prepared.details
        groups = data.rows["group"]
        if settings.group:
            import pyarrow as pa

            named = groups_of(settings.group, data.root, data.rows["source"].to_pylist(), groups.to_pylist())
            groups = pa.chunked_array([pa.array(named, pa.string())])
        # Splits were assigned by the labels of then, and an item never changes its split: not by being corrected or withdrawn either.
        collected = indices_of(table(data.folders, ["label"], Records())["label"], scenario.validation.labels).astype(np.int32)
        items = Items(
            keys=_keys(data.rows["id"]),
            labels=np.maximum(
                np.where(collected == NONE, details.labels, collected), 0
            ),  # a withdrawn item's may be no label any more
            groups=indices_of(groups, groups.unique().drop_null().to_pylist()),
            given=indices_of(data.rows["split"], SPLITS).astype(np.int8),
            looks=details.descriptors,
            ends=[int(end) for end in np.cumsum([table([batch], ["label"], Records()).num_rows for batch in data.folders])],
        )
        return assign(
            items, val_share=settings.val_share, test_share=settings.test_share, seed=scenario.seed, dealt=data.former
        )

    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        """Of every label of the scenario."""
        names = prepared.facts["labels"]
        return dict(zip(names, np.bincount(prepared.details.labels[chosen], minlength=len(names)).tolist(), strict=True))

    def items(self, scenario: ImageScenario, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Encoded images."""
        return iter_images(folders, ids)

    def labels(self, scenario: ImageScenario, labels: Sequence[Any], facts: Mapping[str, Any]) -> np.ndarray:
        """int64 `(items,)`: their indices in the scenario's labels; -2 where these lack one."""
        names = list(facts["labels"])
        return np.array([names.index(label) if label in names else -2 for label in labels], np.int64)

    def measure(self, items: Sequence[bytes], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        """As collecting measures them; deep images with the range of the data set, or else of the model."""
        assert isinstance(codec, ImageCodec)
        pixel_range = recorded_range(folders) if folders else codec.pixel_range
        rows = []
        for image in items:
            found = inspect(image, codec.max_pixels, pixel_range)
            header = found.header
            rows.append((found.brightness, found.contrast, found.sharpness, header.width, header.height))
        return np.array(rows, np.float32).reshape(-1, len(self.properties))

    def thumbnail(self, content: bytes) -> str | None:
        """The image in small."""
        from evergreen.kinds.classify.thumbnails import thumbnail

        return thumbnail(content)


def _range(scenario: ImageScenario, folders: Sequence[Path]) -> PixelRange | None:
    """With which deep images are read: the scenario's, else the one that the data set was collected with."""
    asked = scenario.preprocess.range
    return PixelRange(asked.low, asked.high) if asked else recorded_range(folders)


def _refuse_without_contrast(
    scenario: ImageScenario, folders: Sequence[Path], images: ArrayFile, read_with: PixelRange | None
) -> None:
    """
    Raises:
        DataRefused: there are images of more than 8 bits, and all items together reach next to none of the 256 levels.
    """
    pixels = np.memmap(images.path, images.dtype, "r").reshape(images.shape)
    chosen = np.sort(np.random.default_rng(0).permutation(len(pixels))[:SAMPLED_IMAGES])
    reached = reached_levels(pixels[chosen])
    if reached >= MIN_LEVELS or (suits := sampled_range(iter_deep(folders))) is None:
        return
    raise no_contrast(scenario, read_with, reached, suits)


def _known(labels: pa.ChunkedArray, known: Sequence[str], used: np.ndarray) -> np.ndarray:
    """int32 `(items,)`: the index of each label in `known`; an unknown one is an error where its item is `used`."""
    import pyarrow as pa

    unknown = sorted(set(labels.filter(pa.array(used)).unique().to_pylist()) - set(known))
    if unknown:
        raise EvergreenError(
            "the data set has a label that the scenario doesn't know", expected=f"one of {', '.join(known)}",
            received=unknown[0], fix="Add it to validate.labels.",
        )  # fmt: skip
    return indices_of(labels, known).astype(np.int32)


def _keys(ids: pa.ChunkedArray) -> np.ndarray:
    """uint64 `(items,)`: the first 8 bytes of each id."""
    import pyarrow.compute as pc

    digits = "".join("".join(pc.utf8_slice_codeunits(chunk, 0, 16).to_pylist()) for chunk in ids.chunks)
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)

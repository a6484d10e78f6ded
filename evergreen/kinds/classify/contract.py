"""The data contract of labelled images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evergreen.data.dataset import Records, iter_images, table
from evergreen.data.sources.video import VideoSource
from evergreen.errors import BadItem, EvergreenError
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract, DataSet, Prepared
from evergreen.kinds.base.proposal import Ask, Sections
from evergreen.kinds.base.split import NONE, SPLITS, ArrayFile, Assignment
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.inspection import ImageInspection
from evergreen.kinds.classify.items import iter_deep, recorded_range
from evergreen.kinds.classify.recognition import AnnotatedFiles, InboxFiles, SourceFiles
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.depth import MIN_LEVELS, SAMPLED_IMAGES, no_contrast, reached_levels, sampled_range
from evergreen.media.images import PixelRange, inspect
from evergreen.names import near
from evergreen.preparation.arrays import indices_of
from evergreen.preparation.splits import DescriptorFile, Items, assign, groups_of

if TYPE_CHECKING:
    import pyarrow as pa

    from evergreen.data.collecting.base import Inspector, Recogniser
    from evergreen.data.inbox import Inbox
    from evergreen.data.sources.base import Source


class _Details(NamedTuple):
    """The inputs of split assignment besides the data set: labels int32 `(items,)`, and the file of descriptors, None if
    similarity doesn't matter."""

    labels: np.ndarray
    descriptors: DescriptorFile | None


class ImageContract(Contract[ImageScenario]):
    """Images with one label each; ids are the SHA-256 of the files in the source."""

    noun = "image"
    description = "A classifier of images."
    left_out_because = "they look like test items, or link the splits"
    inbox_file = "image"
    fix_of_empty_split = "Collect more that differ, or set preprocess.look_alikes: false if looking alike means nothing here."
    settings = ("validate.labels",)
    properties = ("brightness", "contrast", "sharpness", "width", "height")

    def propose(self, source: Path, *, labels_at: int | None, follow_links: bool, ask: Ask | None) -> Sections:
        """Propose a scenario from the images and their folders (`evergreen.kinds.classify.proposal`)."""
        from evergreen.kinds.classify.proposal import propose

        return propose(source, labels_at=labels_at, follow_links=follow_links, ask=ask)

    def source(self, scenario: ImageScenario, files: Source) -> Source:
        """The files, with frames in place of videos (`collect.frames`), and with what `collect.annotations` state of them."""
        settings = scenario.collect
        if settings.frames is not None:
            files = VideoSource(files, settings.frames, settings.max_pixels)
        return settings.annotations.source(files, settings.max_pixels) if settings.annotations else files

    def recogniser(self, scenario: ImageScenario, source: Source) -> SourceFiles:
        """Recognises items by `collect.annotations`, or else by `collect.pattern`."""
        return (AnnotatedFiles if scenario.collect.annotations else SourceFiles)(scenario, source)

    def inbox_recogniser(self, scenario: ImageScenario, inbox: Inbox) -> InboxFiles:
        """Recognises items by their folders, one per label."""
        return InboxFiles(scenario, inbox)

    def inspector(self, scenario: ImageScenario, folders: Sequence[Path], source: Source, recogniser: Recogniser) -> Inspector:
        """Inspects images in child processes, so that a crashing decoder does no harm."""
        return ImageInspection(scenario, folders, source, recogniser.may_hold_items)

    def count(self, scenario: ImageScenario, source: Source, name: str) -> int:
        """1 if the name matches `collect.pattern` and has a label, else 0; with annotations, the source names items alone."""
        if scenario.collect.annotations is not None:
            return 1
        match = re.compile(scenario.collect.pattern, re.DOTALL).fullmatch(name)
        return int(bool(match and match.groupdict().get("label")))

    def known_labels(self, scenario: ImageScenario) -> Sequence[str]:
        """The labels in `validate.labels`."""
        return scenario.validation.labels

    def corrected(self, scenario: ImageScenario, text: str) -> str:
        """A label from `validate.labels`, after applying `collect.rename`."""
        label, known = scenario.collect.rename.get(text, text), scenario.validation.labels
        if label in known:
            return label
        meant = near(label, known)
        also = f"; did you mean {meant!r}?" if meant else ""
        raise BadItem("correction-unknown-label", f"{label!r} is not in validate.labels{also}")

    def expectations(self, scenario: ImageScenario, accepted: Mapping[str, float]) -> list[Any]:
        """See `evergreen.kinds.classify.expectations`."""
        from evergreen.kinds.classify.expectations import expectations

        return expectations(scenario.validation, accepted)

    def columns(self, scenario: ImageScenario) -> tuple[str, ...]:
        """The path, if `preprocess.group` derives groups from it."""
        return ("source",) if scenario.preprocess.group else ()

    def groups(self, scenario: ImageScenario, root: Path, rows: pa.Table) -> pa.ChunkedArray:
        """The groups from `preprocess.group`, if the scenario has such a rule; else those given by the source."""
        if not scenario.preprocess.group:
            return rows["group"]
        import pyarrow as pa

        names, given = rows["source"].to_pylist(), rows["group"].to_pylist()
        return pa.chunked_array([pa.array(groups_of(scenario.preprocess.group, root, names, given), pa.string())])

    def prepare(self, scenario: ImageScenario, data: DataSet, scratch: Path) -> Prepared:
        """Decode the images to the network's input size (`images`, uint8 `(items, height, width, channels)`) and convert the
        labels to indices (`labels`).

        Raises:
            DataRefused: images with more than 8 bits per value have almost no contrast in the range with which they are read.
            EvergreenError: an image cannot be decoded, or has a label that is not in the scenario.
        """
        from evergreen.kinds.classify.decoding import pixels_of
        from evergreen.preparation.decoding import decode_all

        settings, names = scenario.preprocess, scenario.validation.labels
        labels = _known(data.rows["label"], names, ~data.withdrawn)
        shape = (settings.height, settings.width, settings.channels)
        pixels, descriptors = scratch / "pixels", scratch / "descriptors" if settings.look_alikes else None
        read_with = read_range(scenario, data.batches)
        decode = partial(pixels_of, mode=settings.resize)
        decode_all(decode, data.folders, shape, pixels, descriptors, pixel_range=read_with)
        images = ArrayFile(pixels, np.dtype(np.uint8), (len(data), *shape))
        _refuse_without_contrast(scenario, data.folders, images, read_with)
        stored = labels.astype(np.uint8 if len(names) <= 256 else np.uint16)
        facts: dict[str, Any] = {"labels": list(names), **({"range": read_with._asdict()} if read_with else {})}
        facts |= {"resize": settings.resize} if settings.resize != "stretch" else {}
        return Prepared(
            {"images": images, "labels": stored}, facts, _Details(labels, DescriptorFile(descriptors) if descriptors else None)
        )

    def assign(self, scenario: ImageScenario, data: DataSet, prepared: Prepared) -> Assignment:
        """Assign splits by groups and look-alikes, close to the requested fractions of each label
        (`evergreen.preparation.splits`)."""
        settings, details, groups = scenario.preprocess, prepared.details, data.rows["group"]
        # Splits were assigned with the labels as collected, and an item never changes its split, even if it is corrected or
        # withdrawn.
        collected = indices_of(table(data.folders, ["label"], Records())["label"], scenario.validation.labels).astype(np.int32)
        items = Items(
            keys=_keys(data.rows["id"]),
            labels=np.maximum(
                np.where(collected == NONE, details.labels, collected), 0
            ),  # a withdrawn item's label may no longer exist
            groups=indices_of(groups, groups.unique().drop_null().to_pylist()),
            given=indices_of(data.rows["split"], SPLITS).astype(np.int8),
            descriptors=details.descriptors,
            ends=[int(end) for end in np.cumsum([table([batch], ["label"], Records()).num_rows for batch in data.folders])],
        )
        return assign(
            items, val_share=settings.val_share, test_share=settings.test_share, seed=scenario.seed, former=data.former
        )

    def counts(self, prepared: Prepared, chosen: np.ndarray) -> dict[str, int]:
        """The number of chosen items of every label of the scenario."""
        names = prepared.facts["labels"]
        return dict(zip(names, np.bincount(prepared.details.labels[chosen], minlength=len(names)).tolist(), strict=True))

    def items(self, scenario: ImageScenario, folders: Sequence[Path], ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The encoded images."""
        return iter_images(folders, ids)

    def labels(self, scenario: ImageScenario, labels: Sequence[Any], facts: Mapping[str, Any]) -> np.ndarray:
        """int64 `(items,)`: the indices of the labels in the scenario's list; -2 for labels that are not in it."""
        names = list(facts["labels"])
        return np.array([names.index(label) if label in names else -2 for label in labels], np.int64)

    def measure(self, items: Sequence[bytes], codec: Codec, folders: Sequence[Path]) -> np.ndarray:
        """Measure the properties as in collecting. Deep images are read with the range of the data set, or without `folders`
        with that of the model."""
        assert isinstance(codec, ImageCodec)
        pixel_range = recorded_range(folders) if folders else codec.pixel_range
        rows = []
        for image in items:
            found = inspect(image, codec.max_pixels, pixel_range)
            header = found.header
            rows.append((found.brightness, found.contrast, found.sharpness, header.width, header.height))
        return np.array(rows, np.float32).reshape(-1, len(self.properties))

    def thumbnail(self, content: bytes) -> str | None:
        """A small version of the image."""
        from evergreen.kinds.classify.thumbnails import thumbnail

        return thumbnail(content)


def read_range(scenario: ImageScenario, folders: Sequence[Path]) -> PixelRange | None:
    """The range with which deep images are read: the scenario's, or else the one with which the data set was collected."""
    asked = scenario.preprocess.range
    return PixelRange(asked.low, asked.high) if asked else recorded_range(folders)


def _refuse_without_contrast(
    scenario: ImageScenario, folders: Sequence[Path], images: ArrayFile, read_with: PixelRange | None
) -> None:
    """
    Raises:
        DataRefused: there are images with more than 8 bits per value, and all items together reach few of the 256 levels.
    """
    pixels = np.memmap(images.path, images.dtype, "r").reshape(images.shape)
    chosen = np.sort(np.random.default_rng(0).permutation(len(pixels))[:SAMPLED_IMAGES])
    reached = reached_levels(pixels[chosen])
    if reached >= MIN_LEVELS or (suits := sampled_range(iter_deep(folders))) is None:
        return
    raise no_contrast(scenario, read_with, reached, suits)


def _known(labels: pa.ChunkedArray, known: Sequence[str], used: np.ndarray) -> np.ndarray:
    """int32 `(items,)`: the index of each label in `known`. Unknown labels of items that are `used` raise an error."""
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

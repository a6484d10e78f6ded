"""Proposes a scenario for a folder or archive of labelled images, for `evergreen new`."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from evergreen import figures
from evergreen.data.annotations.base import Format
from evergreen.data.annotations.formats import find_annotations
from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.skipped import READ, Skipped, reason_to_skip_unlabelled
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.opening import open_source
from evergreen.data.sources.video import Frames, VideoSource
from evergreen.errors import WrongUse
from evergreen.kinds.base.proposal import Ask, Sections, SourceDoesNotFit
from evergreen.kinds.classify.folder_layout import Layout, understand
from evergreen.kinds.classify.settings import (
    LARGER_SIDES,
    PRETRAINED_BELOW_ITEMS,
    PRETRAINED_FROM_SIDE,
    PRETRAINED_SIDE,
    ImageCollect,
    larger_sides,
)
from evergreen.media.depth import Sample, extremes
from evergreen.media.images import BadImage, Header, PixelRange, decode, read_header
from evergreen.media.video import is_video
from evergreen.names import alike, tidy

SIDES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 224, *LARGER_SIDES)  # input sizes to choose from if the images' sizes vary
LONGEST_SIDE = 128  # time and energy grow with the square of the side; users raise it if details are fine
# Where the widths of images, as multiples of their heights, differ by more than this, stretching would change what things look
# like. The outermost tenth at each end does not count.
ASPECTS_DIFFER = 1.5
UNBALANCED = 3.0  # ratio of the largest class to the smallest
NOT_HIDDEN = r"(?!(?:.*/)?\.)"  # neither the file nor any folder has a name that begins with a dot
MAX_PIXELS: int = ImageCollect.model_fields["max_pixels"].default
GREY_TOLERANCE = 8  # difference between the colours, of 255: JPEG files of grey scenes are not exactly grey


@dataclass
class _Seen:
    """The contents of a source: the usable images, the number of unusable files with the same extensions, the skipped entries,
    a sample of deep images' values, the encoding that was assumed for names, the files of many images, the videos, and the
    number of annotations that collecting will refuse, by reason."""

    images: list[_Looked] = field(default_factory=list)
    unusable: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    values: Sample = field(default_factory=Sample)
    encoding: str | None = None
    packed_in: set[str] = field(default_factory=set)
    clips: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Looked:
    name: str
    header: Header
    grey: bool | None  # None if the pixels were not inspected
    label: str = ""  # as annotations state it

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(self.name.split("/")[:-1])

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def extension(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def propose(images: Path, *, labels_at: int | None, follow_links: bool, ask: Ask | None) -> Sections:
    """Inspect every image's header and the pixels of some images, and propose a scenario's sections.

    Args:
        images: a folder, or a .tar, .tar.gz or .zip, with a folder for each class.
        labels_at: the level of the class folders, counted from 1 below the source; None to detect it.
        follow_links: whether to follow links that lead out of the folder.
        ask: called for the level of the class folders if several are possible; None to take the likeliest one.

    Raises:
        SourceDoesNotFit: there are no images.
        WrongUse: the images are missing, or not in at least two class folders.
        DataRefused: the archive is damaged or malicious.
    """
    files = open_source(images, follow_links=follow_links)
    annotations = find_annotations(files) if labels_at is None else None
    if annotations is not None:
        return _of_annotations(images, annotations.source(files, MAX_PIXELS), annotations)
    seen = _look(files)
    frames = Frames.model_validate({}) if not seen.images and any(is_video(name) for name, _ in files.names()) else None
    if frames is not None:
        seen = _look(VideoSource(files, frames, MAX_PIXELS))
    if not seen.images:
        skipped = " ".join(seen.skipped.sentences()[:3])
        raise SourceDoesNotFit(
            f"there are no images in {images}", expected="a folder for each class, with images in it",
            fix=f"{skipped} Check the path; JPEG, PNG, BMP, GIF, WebP, TIFF and AVIF are understood.",
        )  # fmt: skip
    reasons: list[str] = []
    layout = _layout(images, _without_masks(seen, reasons), labels_at, ask)
    endings = _endings(image.extension for image in seen.images)
    pattern = rf"{NOT_HIDDEN}{layout.pattern}(?:.*/)?[^/]+{endings}"
    labelled = [(tidy(match["label"]), image) for image in seen.images if (match := _match(pattern, image.name))]
    counts = dict(sorted(Counter(label for label, _ in labelled).items()))
    if len(counts) < 2:
        raise WrongUse(
            f"the images of {images} are all in one class", expected="two class folders or more", received=list(counts),
            fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    chosen = [image for _, image in labelled]
    _say_what_is_there(seen, chosen, layout, counts, reasons)
    collect: dict[str, Any] = {"pattern": pattern, **({"encoding": seen.encoding} if seen.encoding else {})}
    if frames is not None:
        collect["frames"] = {"at": frames.at, "every_seconds": frames.every_seconds}
    of_slices = {"slice_pattern": layout.slice_pattern} if layout.slice_pattern else {}
    endings_of = Counter("" if seen.packed_in else image.extension for image in chosen).most_common()
    kinds = ", ".join(f"{count:,} {ending}".rstrip() for ending, count in endings_of)
    return _sections(seen, chosen, counts, collect, of_slices, reasons, layout.tree(f"{kinds or 'no'} images"))


def _of_annotations(images: Path, source: Source, annotations: Format) -> Sections:
    """A proposal for images whose labels are in annotations."""
    seen = _look(source, is_annotated=True)
    counts = dict(sorted(Counter(image.label for image in seen.images).items()))
    if len(counts) < 2:
        raise WrongUse(
            f"the annotations of {images} give the images fewer than two labels", expected="two labels or more", received=list(counts),
            fix="Label more of them; for labels by class folders, give the level of the folders with --labels-at.",
        )  # fmt: skip
    listing = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    what = "images" if annotations.image_rule is None or annotations.image_rule.boxes != "crop" else "crops of boxes"
    reasons = [
        f"{len(counts)} classes and {len(seen.images):,} {what}, from {annotations.describe()}: {listing}.",
        *_about_labels(counts),
    ]
    reasons += annotations.reasons()
    for reason, count in seen.refused.items():
        reasons.append(f"{count:,} annotations cannot be used ({reason}); collecting puts them into quarantine and says which.")
    if seen.unusable:
        reasons.append(
            f"{seen.unusable:,} annotated files are no images that can be used; collecting puts them into quarantine."
        )
    reasons += seen.skipped.sentences()
    collect: dict[str, Any] = {"annotations": annotations.model_dump(exclude_defaults=True, mode="json")}
    if seen.encoding:
        collect["encoding"] = seen.encoding
    return _sections(seen, seen.images, counts, collect, {}, reasons, [])


def _sections(
    seen: _Seen, chosen: list[_Looked], counts: dict[str, int], collect: dict[str, Any], of_slices: dict[str, Any], reasons: list[str],
    tree: list[str],
) -> Sections:  # fmt: skip
    """The sections for these images, with the reasons for each."""
    validate = {"labels": list(counts), "min_items_per_label": _fewest(counts, reasons)}
    pretrained = _pretrained(chosen)
    longest = _longest_compared(chosen) if pretrained else LONGEST_SIDE
    preprocess = _input(chosen, longest, reasons) | _range(chosen, seen.values, reasons)
    train = _training(counts, preprocess, pretrained, reasons)
    others = {
        "validate": validate,
        "preprocess": preprocess,
        "train": train,
        "promote": of_slices | _promotion(train, reasons),
    }
    return Sections(collect, {name: section for name, section in others.items() if section}, reasons, counts, tree)


def _say_what_is_there(seen: _Seen, chosen: list[_Looked], layout: Layout, counts: dict[str, int], reasons: list[str]) -> None:
    """Add sentences to the reasons that say which images there are, and which ones are not used."""
    listing = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    origin = "the files of labels" if seen.packed_in else "the folders' names"
    reasons.insert(0, f"{len(counts)} classes and {len(chosen):,} images, from {origin}: {listing}.")
    reasons += layout.reasons + _about_labels(counts)
    if seen.encoding:
        reasons.append(
            f"The names are not in UTF-8; {seen.encoding} was assumed, by what letters that gives: if labels look wrong, change "
            "collect.encoding."
        )
    if seen.packed_in:
        reasons.append(
            f"The images are in {', '.join(sorted(seen.packed_in))}, with labels that are numbers: to give them names, write collect: "
            'rename: {"0": NAME, …}, and the names into validate.labels.'
        )
    if seen.clips:
        reasons.append(
            f"The images are frames of {len(seen.clips):,} videos, one for each second: change collect.frames for others, or for one at each change "
            "of scene (at: scene_changes). All frames of a video are in one split."
        )
    if left := len(seen.images) - len(chosen) - sum(layout.left_out.values()):
        reasons.append(f"{left:,} images lie outside the class folders and are skipped.")
    if seen.unusable:
        reasons.append(
            f"{seen.unusable:,} files named as images are none that can be used; collecting puts them into quarantine."
        )
    reasons += seen.skipped.sentences()
    largest = max(image.header.width * image.header.height for image in chosen)
    if largest > MAX_PIXELS:
        reasons.append(
            f"Some images have up to {largest:,} pixels: those of more than {MAX_PIXELS:,} go to quarantine, undecoded."
        )


def _promotion(train: dict[str, Any], reasons: list[str]) -> dict[str, Any]:
    promote = {}
    if train.get("class_weights") == "balanced":
        promote["metric"] = "f1_macro"
        reasons.append(
            "Models are compared by macro F1, which counts every class alike: by accuracy the largest class alone decides."
        )
    return promote


def _look(source: Source, *, is_annotated: bool = False) -> _Seen:
    """Read every entry of a source once, and sort it into images and other files. Of a source with annotations only those are
    images of which they state a label."""
    seen = _Seen()
    others: list[SourceEntry] = []
    of_folder: Counter[str] = Counter()
    for entry in source.stream():
        seen.encoding = seen.encoding or entry.encoding
        folder = entry.name.rpartition("/")[0]
        if entry.stated is not None and entry.problem:
            seen.refused[entry.problem] += 1
            continue
        if is_annotated and (entry.stated is None or not entry.stated.label):
            seen.skipped.skip(entry, reason_to_skip_unlabelled(entry))
            continue
        if entry.data is None or entry.problem or is_hidden(entry.name) or is_leftover(entry.name):
            seen.skipped.skip(entry)
            continue
        try:
            header = read_header(entry.data)
            if header.frames > 1:
                raise BadImage("animated", "")
            number = of_folder[folder]
            small = header.width * header.height <= MAX_PIXELS
            limits = extremes(entry.data) if header.deep and small and seen.values.has_room_for(entry.data) else None
            if limits:
                seen.values.add(entry.data, limits)
            look_closer = number < 16 or number % 64 == 0
            grey = _is_grey(entry.data, limits) if small and look_closer and (limits or not header.deep) else None
        except BadImage:
            others.append(replace(entry, data=None))
            continue
        of_folder[folder] += 1
        seen.skipped.take(entry.name)
        if entry.packed_in:
            (seen.clips if is_video(entry.packed_in) else seen.packed_in).add(entry.packed_in)
        label = tidy(entry.stated.label or "") if entry.stated else ""
        seen.images.append(_Looked(entry.name, header, grey, label))
    extensions = {image.extension for image in seen.images}
    for entry in others:
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in extensions:
            seen.unusable += 1
        else:
            seen.skipped.skip(entry, f"{ending} files that hold no image" if ending in READ else None)
    return seen


def _match(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, name, re.DOTALL)


def _layout(images: Path, looked: list[_Looked], labels_at: int | None, ask: Ask | None) -> Layout:
    paths = Counter(image.folders for image in looked)
    if len(paths) == 1 and (only := next(iter(paths))):
        raise WrongUse(
            f"the images of {images} are all in one folder", expected="a folder for each class, two or more",
            received="/".join(only), fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    return understand(paths, labels_at, ask)


def _about_labels(counts: dict[str, int]) -> list[str]:
    """Sentences about labels that are probably meant to be the same."""
    near: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        near[alike(label)].append(label)
    found = []
    for labels in near.values():
        if len(labels) > 1:
            most = max(labels, key=lambda label: counts[label])
            others = ", ".join(f"{json.dumps(label, ensure_ascii=False)}: {most}" for label in labels if label != most)
            found.append(
                f"The labels {' and '.join(json.dumps(label, ensure_ascii=False) for label in labels)} differ in case, spacing or width "
                f"only, and are kept apart. If they are one, add to collect: rename: {{{others}}} and take the others out of validate.labels."
            )
    return found


def _is_grey(data: bytes, limits: tuple[float, float] | None) -> bool:
    """True if almost all pixels have equal red, green and blue. `limits` are the `extremes` of a deep image."""
    import numpy as np

    shown = PixelRange(limits[0], max(limits[1], limits[0] + 1)) if limits else None
    pixels = decode(data, 3, pixel_range=shown).astype(np.int16)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return bool((spread <= GREY_TOLERANCE).mean() > 0.99)


def _without_masks(seen: _Seen, reasons: list[str]) -> list[_Looked]:
    """Leave out other image files beside photographs of the same name: they are masks, not training images."""
    looked = seen.images
    extensions_of: defaultdict[str, set[str]] = defaultdict(set)
    for image in looked:
        extensions_of[image.stem].add(image.extension)
    photographs = {".jpg", ".jpeg"}
    paired = [extensions for extensions in extensions_of.values() if extensions & photographs and extensions - photographs]
    if len(paired) < 0.9 * len(extensions_of):
        return looked
    seen.images = [image for image in looked if image.extension in photographs]
    left = sorted({image.extension for image in looked} - photographs)
    reasons.append(
        f"{len(looked) - len(seen.images):,} {' and '.join(left)} files stand beside photographs of the same name: taken for masks, and "
        "skipped."
    )
    return seen.images


def _endings(extensions: Iterable[str]) -> str:
    different = sorted(set(extensions))
    if "" in different:
        return ""
    return rf"\.(?i:{'|'.join(re.escape(extension[1:]) for extension in different)})"


def _fewest(counts: dict[str, int], reasons: list[str]) -> int:
    smallest = min(counts, key=lambda label: counts[label])
    if counts[smallest] < 10:
        reasons.append(f"{smallest} has {counts[smallest]} images only: results for it will say little until there are more.")
    return max(1, min(10, counts[smallest] // 2))


def _pretrained(chosen: list[_Looked]) -> bool:
    """True if a pre-trained network suits: the images are few, and not tiny."""
    middle = median(min(image.header.width, image.header.height) for image in chosen)
    return len(chosen) < PRETRAINED_BELOW_ITEMS and middle >= PRETRAINED_FROM_SIDE


def _longest_compared(chosen: list[_Looked]) -> int:
    """The longest side in pixels that `train.model: auto` compares with that of a pre-trained network's own photographs."""
    middle = median(min(image.header.width, image.header.height) for image in chosen)
    return max(larger_sides(min(round(middle), LARGER_SIDES[-1]), len(chosen)), default=PRETRAINED_SIDE)


def _input(chosen: list[_Looked], longest_side: int, reasons: list[str]) -> dict[str, Any]:
    """Height, width and channels of the model's input, of at most `longest_side` pixels, and how images get that size."""
    sizes = Counter((image.header.width, image.header.height) for image in chosen)
    (width, height), same = sizes.most_common(1)[0]
    if same >= 0.9 * len(chosen):
        own = f"{width}×{height}"
        shrink = min(1.0, longest_side / max(width, height))
        input_width, input_height = (max(4, round(side * shrink)) for side in (width, height))
        why = f"the images are {own}" if same == len(chosen) else f"{same / len(chosen):.0%} of the images are {own}"
    else:
        middle = median(min(image.header.width, image.header.height) for image in chosen)
        input_width = input_height = max(side for side in SIDES if side <= min(max(middle, SIDES[0]), longest_side))
        shrink = input_width / middle
        shorter = [min(image.header.width, image.header.height) for image in chosen]
        why = f"sizes vary, with shorter sides from {min(shorter)} to {max(shorter)} pixels, in the middle {middle:g}"
    if shrink < 1:
        why += "; a larger input costs its square in time: raise preprocess.height and width where details are fine"
    reasons.append(f"Input {input_width}×{input_height}: {why}.")
    aspects = _aspects(chosen)
    differ = aspects[1] > ASPECTS_DIFFER * aspects[0]
    if differ:
        reasons.append(
            f"Images keep their shape and are padded (preprocess.resize: fit): their widths are {aspects[0]:.2g} to {aspects[1]:.2g} times their heights, "
            "and stretching would make the same thing narrow in one and broad in another. crop takes the middle instead, stretch the whole image."
        )
    looks = [image.grey for image in chosen if image.grey is not None]
    grey = sum(looks) >= 0.99 * len(looks) if looks else all(image.header.channels == 1 for image in chosen)
    reasons.append(f"{'Grey' if grey else 'Colour'}: {sum(looks):,} of the {len(looks):,} images looked at are grey.")
    shape = {"height": input_height, "width": input_width, "channels": 1 if grey else 3}
    return {**shape, "resize": "fit"} if differ else shape


def _aspects(chosen: list[_Looked]) -> tuple[float, float]:
    """The width as a multiple of the height that a tenth of the images are below, and the one that a tenth are above."""
    aspects = sorted(image.header.width / image.header.height for image in chosen)
    tenth = len(aspects) // 10
    return aspects[tenth], aspects[-1 - tenth]


def _range(chosen: list[_Looked], values: Sample, reasons: list[str]) -> dict[str, Any]:
    """`preprocess.range`, if there are images with more than 8 bits per value; else empty."""
    found = values.range()
    deep = sum(image.header.deep for image in chosen)
    if found is None or not deep:
        return {}
    rest = len(chosen) - deep
    reasons.append(
        f"{deep:,} images have more than 8 bits a value: of them values from {found.low:.10g} (black) to {found.high:.10g} (white) are read, as suits a "
        f"sample of {len(values):,}" + (f"; the other {rest:,} have 8 bits and stay as they are." if rest else ".")
    )
    low, high = (int(value) if value.is_integer() else value for value in found)
    return {"range": {"low": low, "high": high}}


def _training(counts: dict[str, int], size: dict[str, Any], pretrained: bool, reasons: list[str]) -> dict[str, Any]:
    items, side = sum(counts.values()), min(size["height"], size["width"])
    ratio = max(counts.values()) / min(counts.values())
    settings: dict[str, Any] = {"model": "auto" if pretrained else "residual"}
    settings["epochs"] = 80 if items < 2_000 else 30 if items < 5_000 else 20
    settings["batch_size"] = 32 if items < 5_000 else 256
    settings["learning_rate"] = 0.1 if items < 5_000 else 0.4
    if pretrained:
        reasons.append(
            f"How to train is chosen by comparing on validation images, since {items:,} images are few to learn from: the last layer of a pre-trained "
            "network (EfficientNet-Lite0, ImageNet), fine-tuning it, or a small network from scratch. Among those that are as good as the best, the one "
            "that takes the least energy is kept."
        )
        if larger := larger_sides(side, items):
            reasons.append(
                f"The frozen features are compared at {', '.join(map(str, (PRETRAINED_SIDE, *larger[:-1])))} and {larger[-1]} pixels: details may need "
                f"the larger ones, at the square of the work. The arrays take {figures.size(items * size['height'] * size['width'] * size['channels'])}; "
                "with preprocess.height and width at half as much, a quarter, and only smaller sizes are compared."
            )
    reasons.append(
        f"{settings['epochs']} epochs{' of the small network' if pretrained else ''} in batches of {settings['batch_size']}, at a learning rate that suits "
        f"those: usual for {items:,} images."
    )
    if ratio >= UNBALANCED:
        settings["class_weights"] = "balanced"
        reasons.append(f"Class weights are balanced: the largest class has {ratio:.1f} times the images of the smallest.")
    else:
        reasons.append(f"No class weights: the largest class has only {ratio:.1f} times the images of the smallest.")
    settings["calibrate"] = True
    settings["flip"] = "horizontal" if size["channels"] == 3 else "none"
    settings["shift"] = max(1, side // 16)
    reasons.append(
        f"Training shifts images by up to {figures.count(settings['shift'], 'pixel')}"
        + (" and mirrors them: change train.flip to none where left and right differ, as in writing." if size["channels"] == 3
           else ", and does not mirror them: set train.flip where left and right mean the same.")
    )  # fmt: skip
    return settings

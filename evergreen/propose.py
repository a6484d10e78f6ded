"""`evergreen new`: looks at a folder or archive of labelled images and proposes a scenario for it, with reasons."""

from __future__ import annotations

import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from evergreen.errors import WrongUse
from evergreen.images import BadImage, Header, decode, read_header
from evergreen.names import readable_name, tidy
from evergreen.scenario import Collect, Scenario
from evergreen.sources import SPLITS, stream
from evergreen.workspace import Workspace

SIDES = (8, 16, 24, 32, 48, 64, 96, 128)  # to choose from where the images' own sizes vary
LONGEST_SIDE = SIDES[-1]  # a larger input costs its square in time and energy; people raise it where details are fine
UNBALANCED = 3.0  # times the smallest class
GREY_TOLERANCE = 8  # steps of 255 between the colours: JPEG files of grey things are not quite grey


@dataclass(frozen=True)
class Proposal:
    """A scenario that fits some images.

    Attributes:
        name: the scenario's.
        yaml: the text of its file.
        reasons: sentences that say what was chosen and why.
        counts: images of each label.
    """

    name: str
    yaml: str
    reasons: list[str]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Looked:
    name: str
    header: Header
    grey: bool | None  # of those whose pixels were looked at

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(self.name.split("/")[:-1])

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def extension(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def propose(name: str, images: Path, workspace: Workspace) -> Proposal:
    """Look at every image's header, and at the pixels of some, and propose a scenario.

    Args:
        images: a folder, or a .tar, .tar.gz or .zip, with a folder for each class.

    Raises:
        WrongUse: the name is taken or no name; or the images are missing, none, or not in two class folders or more.
        DataRefused: the archive is damaged or a trap.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise WrongUse(
            "that is no name for a scenario", expected="small letters, digits and hyphens, at most 63", received=name,
            fix="Give a plain name, for example: evergreen new leaves --images PATH",
        )  # fmt: skip
    if (workspace.scenarios / f"{name}.yaml").exists():
        raise WrongUse(
            f"there is a scenario {name} already", fix=f"Choose another name, or change scenarios/{name}.yaml by hand."
        )
    reasons: list[str] = []
    looked, unusable, encoding = _look(images)
    if not looked:
        raise WrongUse(
            f"there are no images in {images}", expected="a folder for each class, with images in it",
            fix="Check the path; JPEG, PNG, BMP, GIF, WebP and TIFF are understood.",
        )  # fmt: skip
    looked = _without_masks(looked, reasons)
    pattern = _pattern(looked, images, reasons)
    labelled = [(tidy(match["label"]), image) for image in looked if (match := re.fullmatch(pattern, image.name, re.DOTALL))]
    counts = dict(sorted(Counter(label for label, _ in labelled).items()))
    if len(counts) < 2:
        raise WrongUse(
            f"the images of {images} are all in one class", expected="two class folders or more", received=list(counts),
            fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    listing = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    reasons.insert(0, f"{len(counts)} classes and {len(labelled):,} images, from the folders' names: {listing}.")
    if encoding:
        reasons.append(
            f"The names are not in UTF-8; {encoding} was assumed, by what letters that gives: if labels look wrong, change collect.encoding."
        )
    if left := len(looked) - len(labelled):
        reasons.append(f"{left:,} images lie outside the class folders and are passed over.")
    if unusable:
        reasons.append(f"{unusable:,} files named as images are none that can be used; collecting puts them into quarantine.")
    chosen = [image for _, image in labelled]
    largest, usual = (
        max(image.header.width * image.header.height for image in chosen),
        Collect.model_fields["max_pixels"].default,
    )
    if largest > usual:
        reasons.append(f"Some images have up to {largest:,} pixels: those of more than {usual:,} go to quarantine, undecoded.")
    document: dict[str, Any] = {
        "name": name,
        "description": f"Proposed by evergreen new from {readable_name(images.name)}",
        "kind": "classify",
        "country": "DEU",
        "seed": 7,
        "collect": {"path": _path(images, workspace), "pattern": pattern, **({"encoding": encoding} if encoding else {})},
        "validate": {"labels": list(counts), "min_items_per_label": _fewest(counts, reasons)},
        "preprocess": _input(chosen, reasons),
    }  # fmt: skip
    document["train"] = _training(counts, document["preprocess"], reasons)
    Scenario.model_validate(document)
    return Proposal(name, _yaml(document, reasons), reasons, counts)


def _look(images: Path) -> tuple[list[_Looked], int, str | None]:
    """The usable images of a source, how many more are named like images, and the encoding that was assumed for names."""
    looked: list[_Looked] = []
    others: list[str] = []
    of_folder: Counter[str] = Counter()
    encoding = None
    for found in stream(images):
        encoding = encoding or found.encoding
        parts = found.name.split("/")
        if found.data is None or found.problem or "__MACOSX" in parts or any(part.startswith(".") for part in parts):
            continue  # what desktops leave behind
        try:
            header = read_header(found.data)
            if header.frames > 1:
                raise BadImage("animated", "")
            number = of_folder["/".join(parts[:-1])]
            small = header.width * header.height <= Collect.model_fields["max_pixels"].default
            grey = _is_grey(found.data) if small and (number < 16 or number % 64 == 0) else None
        except BadImage:
            others.append(found.name)
            continue
        of_folder["/".join(parts[:-1])] += 1
        looked.append(_Looked(found.name, header, grey))
    extensions = {image.extension for image in looked}
    return looked, sum(os.path.splitext(name)[1].lower() in extensions for name in others), encoding


def _is_grey(data: bytes) -> bool:
    """Whether (nearly) every pixel has the same red, green and blue."""
    import numpy as np

    pixels = decode(data, 3).astype(np.int16)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return bool((spread <= GREY_TOLERANCE).mean() > 0.99)


def _without_masks(looked: list[_Looked], reasons: list[str]) -> list[_Looked]:
    """Leave out drawings that stand beside photographs of the same name: masks, not images to learn from."""
    extensions_of: defaultdict[str, set[str]] = defaultdict(set)
    for image in looked:
        extensions_of[image.stem].add(image.extension)
    photographs = {".jpg", ".jpeg"}
    paired = [extensions for extensions in extensions_of.values() if extensions & photographs and extensions - photographs]
    if len(paired) < 0.9 * len(extensions_of):
        return looked
    kept = [image for image in looked if image.extension in photographs]
    left = sorted({image.extension for image in looked} - photographs)
    reasons.append(
        f"{len(looked) - len(kept):,} {' and '.join(left)} files stand beside photographs of the same name: taken for masks, and "
        "passed over."
    )
    return kept


def _pattern(looked: list[_Looked], images: Path, reasons: list[str]) -> str:
    """Which of the folders above an image is its label, and which its split: a regular expression for `collect.pattern`."""
    paths = Counter(image.folders for image in looked)
    common = os.path.commonprefix(sorted(paths))
    columns = [{path[at] for path in paths if len(path) > at} for at in range(len(common), max(map(len, paths)))]
    is_split = [all(value.lower() in SPLITS for value in values) for values in columns]
    label_at = next((at for at, values in enumerate(columns) if not is_split[at]), None)
    if label_at is None and common and not columns:
        raise WrongUse(
            f"the images of {images} are all in one folder", expected="a folder for each class, two or more",
            received="/".join(common), fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    if label_at is None:
        raise WrongUse(
            f"there are no class folders in {images}", expected="a folder for each class, two or more",
            received=looked[0].name, fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    pattern = "".join(f"{re.escape(folder)}/" for folder in common)
    split_at = next((at for at, splits in enumerate(is_split) if splits and at <= label_at + 1), None)
    for at in range(max(label_at, split_at if split_at is not None else 0) + 1):
        if at == label_at:
            pattern += "(?P<label>[^/]+)/"
        else:
            pattern += f"(?P<split>{'|'.join(re.escape(value) for value in sorted(columns[at]))})/"
    if split_at is not None:
        values = sorted(columns[split_at])
        reasons.append(f"The folders {', '.join(values)} are kept as the splits that they give.")
    else:
        reasons.append("The source gives no splits: 20 % of the items become the test split and 10 % the validation split.")
    hidden = r"(?!(?:.*/)?\.)"  # no file and no folder whose name begins with a dot
    return rf"{hidden}{pattern}(?:.*/)?[^/]+{_endings(image.extension for image in looked)}"


def _endings(extensions: Iterable[str]) -> str:
    different = sorted(set(extensions))
    if "" in different:
        return ""
    return rf"\.(?i:{'|'.join(re.escape(extension[1:]) for extension in different)})"


def _path(images: Path, workspace: Workspace) -> str:
    path = Path(os.path.abspath(images))
    if readable_name(str(path)) != str(path):
        raise WrongUse(f"the path {readable_name(str(path))} is not UTF-8", fix="Rename it; a scenario is a text file.")
    return str(path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path)


def _fewest(counts: dict[str, int], reasons: list[str]) -> int:
    smallest = min(counts, key=lambda label: counts[label])
    if counts[smallest] < 10:
        reasons.append(f"{smallest} has {counts[smallest]} images only: results for it will say little until there are more.")
    return max(1, min(10, counts[smallest] // 2))


def _input(chosen: list[_Looked], reasons: list[str]) -> dict[str, int]:
    """Height, width and channels of the model's input."""
    sizes = Counter((image.header.width, image.header.height) for image in chosen)
    (width, height), same = sizes.most_common(1)[0]
    if same >= 0.9 * len(chosen):
        own = f"{width}×{height}"
        shrink = min(1.0, LONGEST_SIDE / max(width, height))
        input_width, input_height = (max(4, round(side * shrink)) for side in (width, height))
        why = f"the images are {own}" if same == len(chosen) else f"{same / len(chosen):.0%} of the images are {own}"
    else:
        middle = median(min(image.header.width, image.header.height) for image in chosen)
        input_width = input_height = max(side for side in SIDES if side <= max(middle, SIDES[0]))
        shrink = input_width / middle
        shorter = [min(image.header.width, image.header.height) for image in chosen]
        why = f"sizes vary, with shorter sides from {min(shorter)} to {max(shorter)} pixels, in the middle {middle:g}"
    if shrink < 1:
        why += "; a larger input costs its square in time: raise preprocess.height and width where details are fine"
    reasons.append(f"Input {input_width}×{input_height}: {why}.")
    looks = [image.grey for image in chosen if image.grey is not None]
    grey = sum(looks) >= 0.99 * len(looks) if looks else all(image.header.channels == 1 for image in chosen)
    reasons.append(f"{'Grey' if grey else 'Colour'}: {sum(looks):,} of the {len(looks):,} images looked at are grey.")
    return {"height": input_height, "width": input_width, "channels": 1 if grey else 3}


def _training(counts: dict[str, int], size: dict[str, int], reasons: list[str]) -> dict[str, Any]:
    items = sum(counts.values())
    ratio = max(counts.values()) / min(counts.values())
    settings: dict[str, Any] = {"model": "residual"}
    settings["epochs"] = 80 if items < 2_000 else 30 if items < 5_000 else 20
    settings["batch_size"] = 32 if items < 5_000 else 256
    settings["learning_rate"] = 0.1 if items < 5_000 else 0.4
    reasons.append(
        f"{settings['epochs']} epochs in batches of {settings['batch_size']}, at a learning rate that suits those: "
        f"usual for {items:,} images."
    )
    if ratio >= UNBALANCED:
        settings["class_weights"] = "balanced"
        reasons.append(f"Class weights are balanced: the largest class has {ratio:.1f} times the images of the smallest.")
    else:
        reasons.append(f"No class weights: the largest class has only {ratio:.1f} times the images of the smallest.")
    settings["flip"] = "horizontal" if size["channels"] == 3 else "none"
    settings["shift"] = max(1, min(size["height"], size["width"]) // 16)
    reasons.append(
        f"Training shifts images by up to {settings['shift']} pixels"
        + (" and mirrors them: change train.flip to none where left and right differ, as in writing." if size["channels"] == 3
           else ", and does not mirror them: set train.flip where left and right mean the same.")
    )  # fmt: skip
    return settings


def _yaml(document: dict[str, Any], reasons: list[str]) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedSeq

    labels = CommentedSeq(document["validate"]["labels"])
    labels.fa.set_flow_style()
    document = {**document, "validate": {**document["validate"], "labels": labels}}
    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(document, text)
    comments = "".join(f"# {' '.join(reason.split())}\n" for reason in reasons)
    return comments + text.getvalue()

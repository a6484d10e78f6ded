"""Detects the meaning of the folders above labelled images: splits, labels, sites or cameras, renderings of the same pictures.

A level consists of all folders of one depth, counted from 1 below the source. If the same names occur below every folder of a
level, these names are the labels, and the level above is a split (recognized by its words) or a column, such as the camera,
that slices or groups can use.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from evergreen.data.folder_names import split_affix, split_of
from evergreen.errors import WrongUse
from evergreen.kinds.base.proposal import Ask, Question

Folders = tuple[str, ...]  # the folders above an image
Role = Literal["same", "again", "split", "rendering", "column", "names", "label", "group", "unused"]

# If a folder of the level above has at least this fraction of a level's names on average, the names are taken for the labels.
REPEATED = 0.75
COVERED = 0.95  # least fraction of the images that have a folder at a level
MANY = 10  # different names from which a level is a group instead of a column for slices

RENDERINGS = (  # of one picture, in order of preference for training
    "color", "colour", "colored", "rgb", "original", "originals", "raw", "image", "images", "img", "imgs", "photo", "photos", "picture",
    "pictures", "grayscale", "greyscale", "gray", "grey", "segmented", "segmentation", "segmentations", "mask", "masks", "binary",
    "edge", "edges", "contour", "contours", "depth", "heatmap", "heatmaps", "overlay", "overlays", "annotated", "annotation", "annotations",
    "augmented", "enhanced", "cropped", "gt", "groundtruth", "bbox", "bboxes",
)  # fmt: skip
MASKS = frozenset(("mask", "masks", "groundtruth", "gt", "segmentation", "segmentations", "annotation", "annotations"))
COLUMNS = frozenset((  # words before a number that say where, when or of whom an image was taken, not what it shows
    "camera", "cam", "site", "plant", "factory", "line", "station", "device", "session", "day", "week", "month", "year",
    "date", "batch", "lot", "run", "patient", "subject", "person", "participant", "animal", "scene", "video", "clip",
    "sequence", "seq", "fold", "part", "room", "location", "loc", "user", "sample", "slide", "plot", "field", "tile",
    "shot", "take", "round", "hospital", "center", "centre", "scanner", "machine", "sensor", "lab", "zone", "area",
    "region", "view", "angle", "block", "row", "visit", "exam", "study", "case", "series", "folder",
))  # fmt: skip
PLACES = frozenset((  # words that say so without a number
    "north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest", "indoor", "indoors", "outdoor",
    "outdoors", "inside", "outside", "day", "night", "morning", "evening", "summer", "winter", "spring", "autumn", "fall",
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january", "february", "march", "april",
    "may", "june", "july", "august", "september", "october", "november", "december",
))  # fmt: skip


@dataclass
class Level:
    """The folders of one depth.

    Attributes:
        number: counted from 1 below the source.
        counts: the number of images below each name.
        role: the meaning of the folders.
        name: of the column, if it is one.
        taken: the names that the pattern accepts; None to accept all names, including new ones.
    """

    number: int
    counts: Counter[str]
    role: Role
    name: str = ""
    taken: tuple[str, ...] | None = None


@dataclass
class Layout:
    """The detected layout of a source.

    Attributes:
        levels: from the source down to the last one with a meaning.
        left_out: the number of images that the pattern does not accept, by reason.
        reasons: sentences that explain the layout.
        keep_splits: whether the splits given by the source are kept.
        alternatives: other levels that could be the labels.
    """

    levels: list[Level]
    left_out: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    keep_splits: bool = True
    alternatives: list[Level] = field(default_factory=list)

    @property
    def label(self) -> Level:
        """The level of the labels."""
        return next(level for level in self.levels if level.role == "label")

    @property
    def pattern(self) -> str:
        """A regular expression for the folders above an image, with the groups of `collect.pattern`."""
        return "".join(_expression(level, keep_splits=self.keep_splits) for level in self.levels)

    @property
    def slice_pattern(self) -> str | None:
        """A regular expression for `promote.slice_pattern`, with a group for each column; None if there are no columns."""
        if not any(level.role == "column" for level in self.levels):
            return None
        return f"^{''.join(_expression(level, for_slices=True) for level in self.levels)}"

    def question(self) -> Question:
        """The question which level is the labels, if several could be."""
        levels = sorted([self.label, *self.alternatives], key=lambda level: level.number)
        return Question(
            "The labels could be more than one level of folders:",
            "Which level is it?",
            {level.number: f"{_listed(level.counts, 8)} ({len(level.counts):,})" for level in levels},
            self.label.number,
        )

    def tree(self, files: str) -> list[str]:
        """The layout as a small tree, one line per level. `files`: a description of the images."""
        meanings = {
            "same": "", "again": "the same once more", "rendering": "renderings; one of them is taken", "label": "labels",
            "group": "groups: each stays in one split", "unused": "not used", "names": "not used",
            "split": "splits" if self.keep_splits else "splits, not kept",
        }  # fmt: skip
        lines = []
        for depth, level in enumerate(self.levels):
            meaning = f"column {level.name}, for slices" if level.role == "column" else meanings[level.role]
            names = list(level.counts) if level.taken is None else list(level.taken)
            shown = ", ".join(names[:6]) + (f", … ({len(names):,})" if len(names) > 6 else "")
            lines.append(
                f"{'   ' * depth}└─ {shown}/".ljust(46) + f"  level {level.number}" + (f": {meaning}" if meaning else "")
            )
        return [*lines, f"{'   ' * len(self.levels)}└─ {files}"]


def understand(paths: Counter[Folders], labels_at: int | None = None, ask: Ask | None = None) -> Layout:
    """Detect which level is the labels, and the meaning of the others.

    Args:
        paths: the number of images in each folder, by the folders above them.
        labels_at: the level of the labels, if the user has given it.
        ask: called for the level of the labels if several are possible; None to take the likeliest one.

    Raises:
        WrongUse: no level has at least two folders, or the level `labels_at` hasn't.
    """
    layout, paths = _roles(paths, labels_at)
    candidates: list[Level] = []
    for level in layout.levels:
        if level.role in ("names", "column") and _coverage(level, paths) >= (COVERED if candidates else 0.5):
            candidates.append(level)
    if labels_at is not None:
        possible = [level for level in layout.levels if len(level.counts) > 1]
        label = next((level for level in possible if level.number == labels_at), None)
        if label is None:
            raise WrongUse(
                "that level has no folders that could be labels", expected=f"one of {', '.join(str(one.number) for one in possible)}",
                received=labels_at, fix="Give the level of the class folders with --labels-at, counted from 1 below the source.",
            )  # fmt: skip
    else:
        label, layout.alternatives = _choose(
            candidates, paths, one_class=layout.levels[-1:] != [] and layout.levels[-1].role == "same"
        )
        if layout.alternatives and ask is not None:
            label.role, before = "label", label.role
            number = ask(layout.question())
            label.role = before
            label = next(level for level in candidates if level.number == number)
            layout.alternatives = []
    label.role, label.taken = "label", None
    _settle(layout, label, paths)
    return layout


def _roles(paths: Counter[Folders], labels_at: int | None) -> tuple[Layout, Counter[Folders]]:
    """The role of each level by its names alone, and the folders that remain: folders that are not splits, unlabelled ones and
    further renderings are left out."""
    layout = Layout([])
    at = 0
    while True:
        counts: Counter[str] = Counter()
        for path, count in paths.items():
            if len(path) > at:
                counts[path[at]] += count
        if not counts:
            return layout, paths
        level = Level(at + 1, Counter(dict(sorted(counts.items()))), "names")
        here = [path for path in paths if len(path) > at]
        above = layout.levels[-1] if layout.levels else None
        roles = {name: split_of(name) for name in counts}
        labelled = any(other.role in ("names", "column") for other in layout.levels)
        deeper = any(len(path) > at + 1 for path in here)
        if labels_at == level.number:
            pass
        elif above is not None and above.role in ("split", "rendering") and all(path[at] == path[at - 1] for path in here):
            level.role = "again"
        elif len(counts) == 1:
            level.role = "same" if len(here) == len(paths) else "unused"
        elif _is_split_level(roles):
            level.role = "split"
            paths = _leave_out_of_splits(layout, level, paths, at, roles, labelled)
        elif (deeper or labelled) and all(_rendering(name) is not None for name in counts):
            level.role, level.taken = "rendering", (min(counts, key=lambda name: (_rendering(name), name)),)
            paths = _leave_out_renderings(layout, level, paths, at)
        elif column := _column(counts):
            level.role, level.name = "column", column
        layout.levels.append(level)
        at += 1


def _is_split_level(roles: dict[str, str | None]) -> bool:
    """True if all names of a level are splits, or some are and mean different splits: a single one may be a label, such as a
    train. Any text beside the words for splits must be the same in all names, as in seg_train and seg_test."""
    known = {role for role in roles.values() if role}
    beside = {affix for name, role in roles.items() if role and (affix := split_affix(name))}
    return len(beside) <= 1 and (len(known) > 1 if None in roles.values() else bool(known))


def _leave_out_of_splits(
    layout: Layout, level: Level, paths: Counter[Folders], at: int, roles: dict[str, str | None], labelled_above: bool
) -> Counter[Folders]:
    """Leave out folders that are not splits or are unlabelled, and images of splits that are not in class folders."""
    kept = Counter(paths)
    has_folders = {path[at] for path in paths if len(path) > at + 1}
    taken = []
    for name in level.counts:
        inside = [path for path in paths if len(path) > at and path[at] == name]
        if roles[name] is None or roles[name] == "unlabelled":
            what = "masks" if _is_mask(name) else "unlabelled" if roles[name] == "unlabelled" else "which is no split"
            reason = f"in {name}, {what}"
        elif name not in has_folders and has_folders and not labelled_above:
            reason = f"in {name}, which has no class folders"
        else:
            taken.append(name)
            bare = [] if labelled_above or not has_folders else [path for path in inside if len(path) == at + 1]
            inside, reason = bare, f"in {name}, outside its class folders"
        lost = sum(kept.pop(path) for path in inside)
        if lost:
            layout.left_out[reason] = layout.left_out.get(reason, 0) + lost
    level.taken = tuple(taken)
    return kept


def _leave_out_renderings(layout: Layout, level: Level, paths: Counter[Folders], at: int) -> Counter[Folders]:
    [taken] = level.taken or ()
    others = [name for name in level.counts if name != taken]
    kept = Counter({path: count for path, count in paths.items() if len(path) <= at or path[at] == taken})
    layout.left_out[f"in {', '.join(others)}"] = paths.total() - kept.total()
    layout.reasons.append(
        f"The folders {', '.join(level.counts)} are renderings of the same pictures, which must not be in two splits: {taken} is taken."
    )
    return kept


def _coverage(level: Level, paths: Counter[Folders]) -> float:
    return sum(count for path, count in paths.items() if len(path) >= level.number) / max(1, paths.total())


def _repetition(level: Level, paths: Iterable[Folders]) -> float:
    """The fraction of the level's names that occur below each folder of the level above, on average; 1 if all of them do."""
    children: defaultdict[Folders, set[str]] = defaultdict(set)
    for path in paths:
        if len(path) >= level.number:
            children[path[: level.number - 1]].add(path[level.number - 1])
    names = set().union(*children.values()) if children else set()
    return sum(map(len, children.values())) / (len(children) * len(names)) if len(children) > 1 else 0.0


def _choose(candidates: list[Level], paths: Counter[Folders], *, one_class: bool) -> tuple[Level, list[Level]]:
    """The level of the labels, and the other levels that could be the labels."""
    remaining = [level for level in candidates if len({p[level.number - 1] for p in paths if len(p) >= level.number}) > 1]
    plain = [level for level in remaining if level.role == "names"] or remaining
    if not plain:
        raise WrongUse(
            "the images are all in one class" if one_class else "there are no class folders", expected="a folder for each class, two or more",
            fix="Put the images of each class into a folder of its own, named for the class.",
        )  # fmt: skip
    label, others = plain[0], []
    for level in plain[1:]:
        per_folder = paths.total() / max(1, len({path[: level.number] for path in paths}))
        many = len(level.counts) > 5 * len(label.counts) and per_folder < 20  # such as patients below each label
        if _repetition(level, paths) >= REPEATED and not many:
            others.append(label)
            label = level
        elif not many and not all(name.isdecimal() for name in level.counts):
            others.append(level)
    return label, others


def _settle(layout: Layout, label: Level, paths: Counter[Folders]) -> None:
    """Set the final roles of the levels around the labels, and add the reasons."""
    at = label.number - 1
    above, below = layout.levels[:at], layout.levels[at + 1 :]
    for level in above:
        if level.role in ("names", "column") and len(level.counts) > 1:
            level.name = (
                level.name or _column(level.counts) or ("site" if set(map(str.casefold, level.counts)) <= PLACES else "folder")
            )
            level.role = "group" if len(level.counts) >= MANY else "column"
            if level.name in {other.name for other in above if other is not level}:
                level.name += str(level.number)
    groups = [level for level in above if level.role == "group"]
    for level in groups[:-1]:
        level.role = "unused"  # an item has only one group
    used = [level for level in above if level.role == "split"]
    kept = [*above, label]
    for level in below:
        if level.role == "rendering" or (level.role == "split" and not used):
            kept.append(level)
            used += [level] if level.role == "split" else []
        elif level.role == "again":
            kept.append(level)
        elif not groups and level.role in ("names", "column") and _are_groups(level, label, paths):
            level.role = "group"
            kept.append(level)
            groups.append(level)
        else:
            break
    layout.levels = kept
    for level in used[1:]:
        level.role = "unused"
    _judge_splits(layout, used[0] if used else None, label, paths)
    for level in kept:
        if level.role == "group":
            layout.reasons.append(
                f"The {len(level.counts):,} folders of level {level.number}, such as {next(iter(level.counts))}, are groups: all images of "
                "one go to the same split."
            )
        if level.role == "column":
            layout.reasons.append(
                f"The folders {_listed(level.counts)} become the column {level.name}: no champion is replaced by one that is worse in "
                f"one of them (promote.slice_pattern)."
            )
    for reason, count in layout.left_out.items():
        layout.reasons.append(f"{count:,} images {reason}, are left out.")
    if layout.alternatives:
        others = " or ".join(f"{_listed(level.counts)} (--labels-at {level.number})" for level in layout.alternatives)
        layout.reasons.append(f"In doubt: the labels could also be {others}. {_listed(label.counts)} were taken.")


def _are_groups(level: Level, label: Level, paths: Counter[Folders]) -> bool:
    """True if the folders below the labels are so many, with several images each, that each is probably one photographed
    object."""
    if _coverage(level, paths) < COVERED:
        return False
    folders: Counter[Folders] = Counter()
    for path, count in paths.items():
        if len(path) >= level.number:
            folders[path[label.number - 1], path[level.number - 1]] += count
    return len(folders) >= 5 * len(label.counts) and folders.total() >= 2 * len(folders)


def _judge_splits(layout: Layout, split: Level | None, label: Level, paths: Counter[Folders]) -> None:
    """Keep the source's splits, unless they leave a label out of train."""
    if split is None:
        layout.reasons.append(
            "The source gives no splits: 20 % of the items become the test split and 10 % the validation split."
        )
        return
    splits_of: defaultdict[str, set[str | None]] = defaultdict(set)
    for path in paths:
        if len(path) >= max(split.number, label.number):
            splits_of[path[label.number - 1]].add(split_of(path[split.number - 1]))
    untrained = sorted(name for name, splits in splits_of.items() if "train" not in splits)
    names = _listed(split.taken or ())
    if untrained:
        layout.keep_splits = False
        layout.reasons.append(
            f"The folders {names} are not kept as splits, because train has none of {_listed(untrained)}: 20 % of the items become the "
            "test split and 10 % the validation split."
            + (
                " This is a layout for finding anomalies from good items alone, which Evergreen does not do."
                if "good" in splits_of
                else ""
            )
        )
        return
    if len({split_of(name) for name in split.taken or ()}) == 1:
        layout.reasons.append(f"Only {names} has class folders; the missing splits are taken out of it.")
        return
    given = {name: split_of(name) for name in split.taken or ()}
    odd = [f"{name} as {role}" for name, role in given.items() if role != name.lower()]
    layout.reasons.append(f"The folders {names} are kept as the splits that they give{f' ({_listed(odd)})' if odd else ''}.")


def _expression(level: Level, *, keep_splits: bool = True, for_slices: bool = False) -> str:
    exact = "|".join(re.escape(name) for name in (level.taken if level.taken is not None else level.counts))
    if level.role == "split":
        return f"(?P<split>{exact})/" if keep_splits and not for_slices else f"(?:{exact})/"
    if level.role in ("same", "rendering"):
        return f"{exact}/"
    if level.role in ("label", "group") and not for_slices:
        return f"(?P<{level.role}>[^/]+)/"
    return f"(?P<{level.name}>[^/]+)/" if level.role == "column" and for_slices else "[^/]+/"


def _rendering(name: str) -> int | None:
    """The index of a name in `RENDERINGS`; None if it is not one of them."""
    words = re.sub(r"[^a-z]+", "", name.lower())
    return RENDERINGS.index(words) if words in RENDERINGS else None


def _is_mask(name: str) -> bool:
    return re.sub(r"[^a-z]+", "", name.lower()) in MASKS


def _column(names: Iterable[str]) -> str | None:
    """The column name for a level whose names say where, when or of whom images were taken, such as `year` for 2024 and 2025,
    or `camera` for camera-1; None if its names say something else."""
    names = list(names)
    folded = [name.casefold() for name in names]
    if all(re.fullmatch(r"(19|20)\d\d", name) for name in folded):
        return "year"
    if all(re.fullmatch(r"(19|20)\d\d[-_.]?[01]\d([-_.]?[0-3]\d)?", name) for name in folded):
        return "date"
    if all(name in PLACES for name in folded):
        return "site"
    words = {re.sub(r"[-_ .#]*(\d+|[a-z])$", "", name) for name in folded}
    word = re.sub(r"[^a-z]+", "", words.pop()) if len(words) == 1 else ""
    if word in COLUMNS or (word.endswith("s") and word[:-1] in COLUMNS):
        return {"group": "folder"}.get(word, word)
    if len(names) >= MANY and all(re.fullmatch(r"\d{3,}", name) for name in folded):
        return "number"
    return None


def _listed(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", … ({len(names):,})" if len(names) > most else "")

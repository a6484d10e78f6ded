"""The meaning of folder and file names: splits, and files that operating systems leave behind."""

from __future__ import annotations

import re

SPLITS = {  # names of folders, in lower case, and the split that each stands for; "unlabelled": images without labels
    "train": "train", "training": "train", "trn": "train", "extra": "train", "val": "val", "valid": "val", "validation": "val",
    "validate": "val", "dev": "val", "eval": "val", "evaluation": "val", "test": "test", "testing": "test", "tst": "test",
    "pred": "unlabelled", "predict": "unlabelled", "prediction": "unlabelled", "unlabeled": "unlabelled",
    "unlabelled": "unlabelled",
}  # fmt: skip
BESIDE_SPLITS = frozenset(("set", "data", "dataset", "images", "image", "imgs", "folder", "split", "samples"))

# Files and folders that systems leave among images; never items.
LEFTOVERS = frozenset((
    "@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin",
    "lost+found", ".ds_store", ".appledouble", ".trashes", ".spotlight-v100", ".fseventsd", ".ipynb_checkpoints", ".git",
    ".cache", ".thumbnails", ".tmb", "picasa.ini", ".picasa.ini", ".picasaoriginals", "recycler", ".dvc", ".nomedia",
    ".trash-1000", ".temporaryitems", ".documentrevisions-v100", "system volume information",
))  # fmt: skip


def is_leftover(name: str) -> bool:
    """Whether a path was left behind by a system: thumbnails of a NAS, or files that macOS and Windows add to archives and
    folders."""
    return not LEFTOVERS.isdisjoint(name.lower().split("/")) or name.startswith("._") or "/._" in name


def is_hidden(name: str) -> bool:
    """Whether any part of a path begins with a dot."""
    return name.startswith(".") or "/." in name


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: `train`, `val`, `test` or `unlabelled`; None if it stands for none."""
    found = {SPLITS[word] for word in _split_words(name) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def split_affix(name: str) -> str:
    """The rest of a name besides the word for the split, such as `seg` in seg_train; words such as "set" are left out."""
    return " ".join(word for word in _split_words(name) if word not in SPLITS and word not in BESIDE_SPLITS)


def _split_words(name: str) -> list[str]:
    """The words of a name in lower case: seg and train of seg_train, test and set of TestSet, test of testset."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = []
    for word in words:
        stem = next((word.removesuffix(end) for end in BESIDE_SPLITS if word.removesuffix(end) in SPLITS), word)
        found.append(stem)
    return found

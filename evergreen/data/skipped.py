"""What a source holds that is not taken: every file is counted with its reason, and a folder of which nothing is taken is named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.base import SourceEntry

MOST_FOLDERS = 20_000  # that are remembered; what lies in more of them is counted only
READ = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"])
CONVERT = {  # formats of images and videos that are not read: what makes images of them
    **dict.fromkeys((".heic", ".heif"), "convert them, for example with: magick mogrify -format jpg *.heic; or install their reader: pip install pillow-heif"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "develop them to JPEG or 16-bit TIFF, for example with darktable-cli"),
    **dict.fromkeys((".dcm", ".dicom"), "convert them to 16-bit PNG, for example with: dcmj2pnm +on2"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "take frames out of them, for example with: ffmpeg -i FILE -r 1 frame-%05d.png"),
    **dict.fromkeys((".jxl", ".jp2", ".j2k", ".ppm", ".pgm", ".psd", ".exr", ".svg", ".pdf", ".eps", ".ico"), "convert them to PNG, for example with: magick mogrify -format png"),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".tfrecord", ".parquet", ".nii"), "write their images to PNG files first"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive inside a source is not opened: unpack it"),
}  # fmt: skip
HIDDEN = "hidden files (a name that begins with a dot)"
LEFTOVER = "files that systems leave behind (thumbnails and the like)"
OUTSIDE = "files that collect.pattern does not take"


@dataclass
class Skipped:
    """The count of what is not taken.

    Attributes:
        counts: files for each reason.
        taken: items of each folder, of which something is taken.
        skipped: files of each folder for each reason.
        links: links that are not followed, and why.
    """

    counts: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    skipped: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    links: dict[str, str] = field(default_factory=dict)

    def take(self, name: str) -> None:
        """An item of the source was taken."""
        folder = os.path.dirname(name)
        if folder in self.taken or len(self.taken) < MOST_FOLDERS:
            self.taken[folder] += 1

    def skip(self, entry: SourceEntry, reason: str | None = None) -> None:
        """A file of the source was not. `reason`: as `reason_to_skip` where None."""
        reason = reason or reason_to_skip(entry)
        self.counts[reason] += 1
        if entry.problem == "link" and len(self.links) < MOST_FOLDERS:
            self.links[entry.name] = entry.detail
        folder = os.path.dirname(entry.name)
        if folder in self.skipped or len(self.skipped) < MOST_FOLDERS:
            self.skipped[folder][reason] += 1

    def sentences(self) -> list[str]:
        """One for each reason, the most frequent first: how many, in which folders, and what to do. Folders of which nothing at all is taken
        are named."""
        return [self._sentence(reason, count) for reason, count in self.counts.most_common()]

    @property
    def lost(self) -> list[str]:
        """The folders of which nothing is taken although they hold what could be images."""
        return sorted(
            folder for folder, counts in self.skipped.items()
            if folder not in self.taken and any(_could_be_images(reason, folder) for reason in counts)
        )  # fmt: skip

    def _sentence(self, reason: str, count: int) -> str:
        if reason == "links":
            shown = "; ".join(f"{name} is {detail}" for name, detail in list(self.links.items())[:5])
            more = f"; and {len(self.links) - 5:,} more" if len(self.links) > 5 else ""
            return (
                f"{count:,} links are not followed: {shown}{more}. To read what they lead to, set collect.follow_links: true."
            )
        lost = [folder for folder in self.lost if reason in self.skipped[folder]]
        partly = [folder for folder, counts in self.skipped.items() if reason in counts and folder in self.taken]
        where = (
            f", all there is in {_listed(lost)}"
            if lost
            else f", in {_listed(partly)}"
            if partly and _could_be_images(reason, "")
            else ""
        )
        verb, fix = _remedy(reason)
        return f"{count:,} {reason} {verb}{where}{f': {fix}' if fix and (lost or reason.startswith('.')) else ''}."


def reason_to_skip(entry: SourceEntry) -> str:
    """Why an entry that is no item isn't one."""
    ending = os.path.splitext(entry.name)[1].lower()
    if entry.problem == "link":
        return "links"
    if is_leftover(entry.name):
        return LEFTOVER
    if is_hidden(entry.name):
        return HIDDEN
    if entry.problem == "unreadable":
        return f"unreadable files ({entry.detail.split(':')[0]})"
    if ending in CONVERT:
        return f"{ending} files"
    return f"{ending or 'nameless'} files that are no images" if ending not in READ else f"{ending} {OUTSIDE}"


def _could_be_images(reason: str, folder: str) -> bool:
    if reason == HIDDEN:
        return not is_leftover(folder) and is_hidden(folder)
    return reason not in (LEFTOVER, "links") and not reason.endswith("no images")


def _remedy(reason: str) -> tuple[str, str]:
    """What is done with such files, and what a person can do."""
    ending = reason.split(" ")[0]
    if ending in CONVERT and reason.endswith(" files"):
        return "are not read", CONVERT[ending]
    if reason == HIDDEN:
        return "are skipped", "if that is a label, rename the folder"
    if reason.endswith(OUTSIDE):
        return "are skipped", "change it to take them"
    return "are skipped", ""


def _listed(names: list[str], most: int = 5) -> str:
    shown = [name or "the top folder" for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most:,} more folders" if len(shown) > most else "")

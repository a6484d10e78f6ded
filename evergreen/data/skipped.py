"""Files of a source that are not collected: they are counted by reason, and folders from which nothing is collected are
named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from evergreen.data.folder_names import is_hidden, is_leftover
from evergreen.data.sources.base import SourceEntry

MOST_FOLDERS = 20_000  # that are remembered; files in further folders are only counted
READ = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"])
CONVERT = {  # how to make images of files in formats that are not read
    **dict.fromkeys((".heic", ".heif"), "convert them, for example with: magick mogrify -format jpg *.heic; or install their reader: pip install pillow-heif"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "develop them to JPEG or 16-bit TIFF, for example with darktable-cli"),
    **dict.fromkeys((".dcm", ".dicom"), "convert them to 16-bit PNG, for example with: dcmj2pnm +on2"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "to take frames out of them, set collect.frames, such as {every_seconds: 1}"),
    **dict.fromkeys((".jxl", ".jp2", ".j2k", ".ppm", ".pgm", ".psd", ".exr", ".svg", ".pdf", ".eps", ".ico"), "convert them to PNG, for example with: magick mogrify -format png"),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".tfrecord", ".parquet", ".nii"), "write their images to PNG files first"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive inside a source is not opened: unpack it"),
}  # fmt: skip
HIDDEN = "hidden files (a name that begins with a dot)"
LEFTOVER = "files that systems leave behind (thumbnails and the like)"
OUTSIDE = "files that collect.pattern does not take"
UNNAMED = "images that the annotations do not name"


@dataclass
class Skipped:
    """Counts of the files that are not collected.

    Attributes:
        counts: number of files by reason.
        taken: number of items collected from each folder, if any.
        skipped: number of files not collected, by folder and reason.
        links: links that are not followed, and what each is.
    """

    counts: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    skipped: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    links: dict[str, str] = field(default_factory=dict)

    def take(self, name: str) -> None:
        """Count an item of the source that was collected."""
        folder = os.path.dirname(name)
        if folder in self.taken or len(self.taken) < MOST_FOLDERS:
            self.taken[folder] += 1

    def skip(self, entry: SourceEntry, reason: str | None = None) -> None:
        """Count a file of the source that was not collected. `reason` defaults to that of `reason_to_skip`."""
        reason = reason or reason_to_skip(entry)
        self.counts[reason] += 1
        if entry.problem == "link" and len(self.links) < MOST_FOLDERS:
            self.links[entry.name] = entry.detail
        folder = os.path.dirname(entry.name)
        if folder in self.skipped or len(self.skipped) < MOST_FOLDERS:
            self.skipped[folder][reason] += 1

    def sentences(self) -> list[str]:
        """One sentence per reason, the most frequent first: how many files, in which folders, and what to do. Folders from
        which nothing at all is collected are named."""
        return [self._sentence(reason, count) for reason, count in self.counts.most_common()]

    @property
    def lost(self) -> list[str]:
        """The folders from which nothing is collected although they contain files that could be images."""
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
    """Why an entry of a source is not an item."""
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


def reason_to_skip_unlabelled(entry: SourceEntry) -> str:
    """Why an entry without a label is not an item, in a source with annotations."""
    if entry.stated is not None:
        return entry.stated.unlabelled
    is_image = os.path.splitext(entry.name)[1].lower() in READ and not is_leftover(entry.name) and not is_hidden(entry.name)
    return UNNAMED if is_image and not entry.problem else reason_to_skip(entry)


def _could_be_images(reason: str, folder: str) -> bool:
    if reason == HIDDEN:
        return not is_leftover(folder) and is_hidden(folder)
    return reason not in (LEFTOVER, "links") and not reason.endswith("no images")


def _remedy(reason: str) -> tuple[str, str]:
    """What happens to files skipped for this reason, and what the user can do."""
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

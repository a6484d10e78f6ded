"""Where items come from: folders, `.tar`, `.tar.gz` and `.zip` archives, and what an installed library carries.

A source is streamed one item at a time and never unpacked to disk. Archives are taken to be hostile: a name that points
outside, a link (but a hard link to a file of the same archive), a device or an item of absurd size is handed on as a problem, never
followed; an archive that is itself a trap (a bomb, millions of entries, damaged) is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from evergreen import progress
from evergreen.errors import DataRefused, EvergreenError, WrongUse
from evergreen.names import UNIX, WINDOWS, Decoder, readable_name
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

Source = Path | Literal["digits"]

MAX_ITEM_BYTES = 256 * 2**20  # read into memory at most
MAX_ENTRIES = 1_000_000
MAX_HEADER_BYTES = 2**20  # of one entry of a .tar: its name and attributes
MAX_EXPANSION = 200  # an archive's content against its own size …
FREE_EXPANSION_BYTES = 2 * 2**30  # … beyond this many bytes. Photographs hardly compress; a bomb does by a thousand

FROM_WINDOWS = (0, 10, 14)  # the systems on which a .zip's entry was made: FAT, NTFS, VFAT
READABLE_COMPRESSIONS = (0, 8, 12, 14)  # stored, Deflate, bzip2, LZMA
COMPRESSIONS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES encryption"}

BUILTINS = {"digits": datetime(1998, 7, 1, tzinfo=UTC)}  # and their publication dates

SPLITS = {  # what folders are called, in small letters, and the split that they stand for; "unlabelled": images without labels
    "train": "train", "training": "train", "trn": "train", "extra": "train", "val": "val", "valid": "val", "validation": "val",
    "validate": "val", "dev": "val", "eval": "val", "evaluation": "val", "test": "test", "testing": "test", "tst": "test",
    "pred": "unlabelled", "predict": "unlabelled", "prediction": "unlabelled", "unlabeled": "unlabelled",
    "unlabelled": "unlabelled",
}  # fmt: skip
BESIDE_SPLITS = frozenset(("set", "data", "dataset", "images", "image", "imgs", "folder", "split", "samples"))

# What systems leave in folders of images; never items.
LEFTOVERS = frozenset((
    "@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin",
    "lost+found", ".ds_store", ".appledouble", ".trashes", ".spotlight-v100", ".fseventsd", ".ipynb_checkpoints", ".git",
    ".cache", ".thumbnails", ".tmb", "picasa.ini", ".picasa.ini", ".picasaoriginals", "recycler", ".dvc", ".nomedia",
    ".trash-1000", ".temporaryitems", ".documentrevisions-v100", "system volume information",
))  # fmt: skip


def is_leftover(name: str) -> bool:
    """Whether a path is what a system left behind: thumbnails of a NAS, what macOS and Windows put into archives and folders."""
    return not LEFTOVERS.isdisjoint(name.lower().split("/")) or name.startswith("._") or "/._" in name


def is_hidden(name: str) -> bool:
    """Whether a path has a file or a folder whose name begins with a dot."""
    return name.startswith(".") or "/." in name


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: `train`, `val`, `test`, or `unlabelled`; None where it stands for none."""
    found = {SPLITS[word] for word in _split_words(name) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def split_affix(name: str) -> str:
    """What stands beside the word for the split: `seg` in seg_train; empty where that is nothing, or a word such as set."""
    return " ".join(word for word in _split_words(name) if word not in SPLITS and word not in BESIDE_SPLITS)


def _split_words(name: str) -> list[str]:
    """The words of a name in small letters: seg and train of seg_train, test and set of TestSet and of testset."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = []
    for word in words:
        stem = next((word.removesuffix(end) for end in BESIDE_SPLITS if word.removesuffix(end) in SPLITS), word)
        found.append(stem)
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a source.

    Attributes:
        name: its path inside the source, `/` between the parts; undecodable bytes as `\\xNN`.
        data: its bytes, or None where there is a problem.
        size_bytes: what its source says.
        problem: None, or a reason for quarantine: `link`, `not-a-file`, `outside`, `too-large`, `unreadable`.
        detail: one clause about the problem.
        share: how much of the source is behind us, 0 to 1, where that is known.
        encoding: the one that was assumed for its name, where the source doesn't say and it isn't UTF-8.
    """

    name: str
    data: bytes | None
    size_bytes: int
    problem: str | None = None
    detail: str = ""
    share: float | None = None
    encoding: str | None = None


def stream(source: Source, *, encoding: str | None = None, follow_links: bool = False) -> Iterator[Found]:
    """Everything in a source but its folders, in an order that stays the same.

    Args:
        encoding: of the names that the source doesn't say to be UTF-8; None: what all its names together suggest.
        follow_links: whether links that lead out of a folder are followed too. Those inside it always are.

    Raises:
        WrongUse: the source is missing, or no folder and no archive that is understood.
        DataRefused: the archive is damaged or a trap; nothing of it was written anywhere.
    """
    if source == "digits":
        return _stream_digits()
    assert isinstance(source, Path)
    if source.is_dir():
        return _stream_folder(source, encoding, follow_links)
    kind = archive_kind(source)
    if kind == "zip":
        return _stream_zip(source, encoding)
    return _stream_tar(source, encoding, compressed=kind == "tar.gz")


def archive_kind(path: Path) -> Literal["tar", "tar.gz", "zip"]:
    """From the file's first bytes, whatever it is called.

    Raises:
        WrongUse: missing, unreadable, or none of these.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WrongUse(
            f"the source {path} cannot be read: {error.strerror}",
            expected="a folder of images, or a .tar, .tar.gz or .zip of one",
            fix="Check the path and its permissions.",
        ) from None
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start[257:262] == b"ustar" or (path.suffix == ".tar" and len(start) == 512):
        return "tar"
    raise WrongUse(
        f"the source {path} is neither a folder nor an archive that Evergreen reads",
        expected="a folder of images, or a .tar, .tar.gz or .zip of one",
        received=start[:8],
        fix="Pack the folder that holds the class folders again, or give the folder itself.",
    )


def locate(scenario: Scenario, workspace: Workspace, *, download: bool = True) -> Source:
    """The scenario's source on this machine, fetched where it is public and not here yet.

    A public file is taken from the folder EVERGREEN_SAMPLES, else from `shared/data` beside the checkout, else from an earlier
    download, else from its address; wherever it comes from, its checksum must be right.

    Args:
        download: whether a public file that is nowhere on this machine may be fetched.

    Raises:
        WrongUse: the scenario's path does not exist.
        EvergreenError: the public file is nowhere to be had; says what to fetch and where to put it.
    """
    settings = scenario.collect
    if settings.builtin is not None:
        return settings.builtin
    if settings.path is not None:
        path = workspace.root / Path(settings.path).expanduser()
        if not path.exists():
            raise WrongUse(
                f"the images of scenario {scenario.name} are not there", expected="a folder or an archive", received=str(path),
                fix=f"Correct collect.path in scenarios/{scenario.name}.yaml.",
            )  # fmt: skip
        return path
    assert settings.file is not None
    wrong = []
    for folder in _sample_folders(workspace):
        path = folder / settings.file
        if path.is_file():
            if settings.sha256 is None or _sha256(path) == settings.sha256:
                return path
            wrong.append(str(path))
    return _download(scenario, workspace, wrong, allowed=download)


def fingerprint(source: Source, *, follow_links: bool = False) -> str:
    """Says cheaply whether a source may have changed: sha256 (hex) over the names, sizes and times of its files, which are not
    read; for an archive over its own. `follow_links` as in `stream`."""
    digest = hashlib.sha256()
    if not isinstance(source, Path):
        digest.update(f"builtin {source}".encode())
    elif source.is_dir():
        for entry, name in walk(source, "all" if follow_links else "inside"):
            status = entry.stat(follow_symlinks=entry.is_symlink() and entry.is_file())  # a link to a file: what it leads to
            digest.update(b"%s\0%d %d %o\n" % (name, status.st_size, status.st_mtime_ns, status.st_mode))
    else:
        status = source.stat()
        digest.update(b"%s\0%d %d\n" % (os.fsencode(source.name), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def _stream_digits() -> Iterator[Found]:
    """scikit-learn's digits (Alpaydin and Kaynak 1998, UCI repository): 1,797 images of 8×8 grey pixels, 0 to 16 made 0 to 255."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(images, digits.target, strict=True)):
        data = _plain_png(image)
        yield Found(f"digits/{label}/{number:04d}.png", data, len(data), share=(number + 1) / len(images))


def _plain_png(grey: Any) -> bytes:
    """uint8 (height, width) as a PNG without compression: zlib's output differs between its versions and processors, and a
    built-in data set is to be the same bit for bit everywhere."""
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    assert len(rows) < 2**16, "one stored block"
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows + struct.pack(">I", zlib.adler32(rows))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def walk(folder: Path, links: Literal["none", "inside", "all"] = "none") -> Iterator[tuple[os.DirEntry[bytes], bytes]]:
    """Everything below a folder but the folders themselves, sorted by name within each.

    Args:
        links: which links to folders are entered: none, those that stay inside the folder, or all. A link to a folder that it lies in is
            never entered. Those that aren't entered are given as entries.

    Raises:
        WrongUse: a folder below cannot be listed: what it holds could not be accounted for.
    """
    root = os.path.realpath(os.fsencode(folder))
    waiting: list[tuple[bytes, bytes, tuple[bytes, ...]]] = [(os.fsencode(folder), b"", (root,))]
    while waiting:
        path, prefix, above = waiting.pop()
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise WrongUse(
                f"the folder {readable_name(path)} cannot be listed: {error.strerror}", fix="Make it readable, or move it away."
            ) from None
        folders = []
        for entry in entries:
            real = above[-1] + b"/" + entry.name
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                entered = (
                    links != "none" and _is_folder(entry) and (links == "all" or _inside(real, root)) and real not in above
                )
            else:
                entered = entry.is_dir(follow_symlinks=False)
            if entered:
                folders.append((entry.path, prefix + entry.name + b"/", (*above, real)))
            else:
                yield entry, prefix + entry.name
        waiting.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _inside(real: bytes, root: bytes) -> bool:
    return real.startswith(root.rstrip(b"/") + b"/")


def _stream_folder(folder: Path, encoding: str | None, follow_links: bool) -> Iterator[Found]:
    root = os.path.realpath(os.fsencode(folder))
    links: Literal["inside", "all"] = "all" if follow_links else "inside"
    decode = Decoder(lambda: (name for _, name in walk(folder, links)), encoding, UNIX)
    for entry, raw_name in walk(folder, links):
        name, path = decode(raw_name), entry.path
        if entry.is_symlink():
            path = os.path.realpath(path)
            if problem := _link_problem(path, root, follow_links):
                yield Found(name, None, 0, "link", problem, encoding=decode.assumed)
                continue
        yield replace(read_file(name, path), encoding=decode.assumed)


def _link_problem(target: bytes, root: bytes, follow_links: bool) -> str | None:
    """Why a link isn't followed. Links to folders that are followed were entered before."""
    shown = readable_name(target)
    if os.path.isdir(target) and (follow_links or _inside(target, root) or target == root):
        return f"a link to a folder that it lies in: {shown}"
    if not follow_links and not _inside(target, root):
        kind = "a folder" if os.path.isdir(target) else "a file" if os.path.isfile(target) else "nothing"
        return f"a link that leads out of the source, to {kind}: {shown}"
    return None if os.path.isfile(target) else "a link to no file"


def read_file(name: str, path: bytes) -> Found:
    """Never waits: a pipe is opened without blocking, and not read."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return Found(name, None, 0, "not-a-file", "a pipe, a socket or a device")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_ITEM_BYTES:
                return _too_large(name, size)
            data = file.read(MAX_ITEM_BYTES + 1)
    except OSError as error:
        return Found(name, None, 0, "unreadable", error.strerror or str(error))
    return Found(name, data, len(data)) if len(data) <= MAX_ITEM_BYTES else _too_large(name, len(data))


def _too_large(name: str, size_bytes: int) -> Found:
    return Found(name, None, size_bytes, "too-large", f"{size_bytes:,} bytes; at most {MAX_ITEM_BYTES:,} are read")


def _points_outside(raw: bytes) -> bool:
    name = raw.decode("latin-1")
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:3] in (":/", ":\\")


class _Bounded:
    """A file of which nobody can ask for too much at once: a .tar's header may claim a name of gigabytes."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.limit_bytes = MAX_HEADER_BYTES
        self.ended = False  # whether the last piece was a block of zeros, which ends a .tar
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.limit_bytes:
            raise ValueError(f"an entry's header claims {size:,} bytes")
        data = bytes(self.file.read(size))
        self.ended = data == bytes(512)
        return data


class _Tar:
    """The entries of a .tar one after the other, none of which can ask for too much."""

    def __init__(self, path: Path, *, compressed: bool) -> None:
        self.path, self.compressed = path, compressed
        self.archive_bytes = path.stat().st_size
        self.entries = 0
        self.share = 0.0

    def __iter__(self) -> Iterator[tuple[bytes, bool, Any, Callable[[], bytes]]]:
        """Of each entry but folders: its name, whether that is surely UTF-8, the entry, and what reads its content."""
        import gzip
        import tarfile

        self.entries = 0
        with open(self.path, "rb") as file, gzip.open(file) if self.compressed else file as plain:
            bounded = _Bounded(plain)

            def read(member: Any) -> bytes:
                bounded.limit_bytes = MAX_ITEM_BYTES
                with self._named_damage():
                    data = bytes(archive.extractfile(member).read())
                bounded.limit_bytes = MAX_HEADER_BYTES
                return data

            with (
                self._named_damage(),
                tarfile.open(fileobj=bounded, mode="r:", errors="surrogateescape") as archive,  # type: ignore[call-overload]
            ):
                while (member := archive.next()) is not None:
                    archive.members = []  # else it keeps them all
                    self.entries += 1
                    self.share = min(1.0, file.tell() / self.archive_bytes)
                    _refuse_many(self.path, self.entries)
                    _refuse_bomb(self.path, self.archive_bytes, member.offset_data + member.size)
                    if not member.isdir():
                        yield _raw(member.name), "path" in member.pax_headers, member, partial(read, member)
                if (
                    not bounded.ended
                ):  # tarfile takes a damaged or missing header for the end: the rest would be lost in silence
                    raise ValueError("it has no end; some of it may be missing")

    @contextmanager
    def _named_damage(self) -> Iterator[None]:
        import tarfile

        try:
            yield
        except (tarfile.TarError, EOFError, zlib.error, ValueError, OSError, RecursionError, OverflowError) as error:
            raise _damaged(self.path, self.entries, error) from None


def _raw(name: str) -> bytes:
    """A name of a .tar as its bytes, without the "./" that packing "." puts before it."""
    return re.sub(rb"^(\./+)+(?=.)", b"", name.encode("utf-8", "surrogateescape"), flags=re.DOTALL)


def _stream_tar(path: Path, encoding: str | None, *, compressed: bool) -> Iterator[Found]:
    """Hard links come last: what they lead to is read from a second pass over the archive."""
    decode = Decoder(lambda: (raw for raw, known, *_ in _Tar(path, compressed=compressed) if not known), encoding, UNIX)
    links: dict[bytes, list[tuple[int, str]]] = {}  # by what they lead to: their number and name
    tar = _Tar(path, compressed=compressed)
    for raw, known, member, read in tar:
        name = readable_name(raw) if known else decode(raw)
        assumed = None if known else decode.assumed
        target = _raw(member.linkname) if member.islnk() else b"/"
        if not _points_outside(target) and not _points_outside(raw):
            links.setdefault(target, []).append((tar.entries, name))
        elif problem := _tar_problem(member):
            yield Found(name, None, member.size, *problem, tar.share, assumed)
        elif member.size > MAX_ITEM_BYTES:
            yield _too_large(name, member.size)
        elif _points_outside(raw):
            yield Found(name, read(), member.size, "outside", "its name points outside the archive", tar.share, assumed)
        else:
            yield Found(name, read(), member.size, share=tar.share, encoding=assumed)
    yield from _hard_links(path, links, compressed=compressed) if links else ()


def _hard_links(path: Path, links: dict[bytes, list[tuple[int, str]]], *, compressed: bool) -> Iterator[Found]:
    tar = _Tar(path, compressed=compressed)
    expanded = 0
    for raw, _, member, read in tar:
        if raw not in links or not member.isreg() or member.size > MAX_ITEM_BYTES:
            continue
        data = read()
        for number, name in (waiting := links.pop(raw)):
            if number > tar.entries:  # only what came before it can be meant
                expanded += len(data)
                _refuse_bomb(path, tar.archive_bytes, expanded)
                yield Found(name, data, len(data), share=1.0)
        if later := [link for link in waiting if link[0] < tar.entries]:
            links[raw] = later
    for target, waiting in links.items():
        for _, name in waiting:
            yield Found(
                name, None, 0, "link", f"a link to {readable_name(target)[:200]!r}, which is no file that came before it", 1.0
            )


def _tar_problem(member: Any) -> tuple[str, str] | None:
    if member.issym() or member.islnk():
        return "link", f"a link to {member.linkname[:200]!r}"
    if not member.isreg():
        return "not-a-file", "a pipe, a device or something unknown"
    return None


def _stream_zip(path: Path, encoding: str | None) -> Iterator[Found]:
    import zipfile

    archive_bytes = path.stat().st_size
    index = 0
    with open(path, "rb") as file:
        _refuse_many(path, _count_zip_entries(file, archive_bytes))
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                names = [_zip_name(entry) for entry in entries]
                decode = Decoder(lambda: (name for name in names if isinstance(name, bytes)), encoding, WINDOWS)
                _refuse_unreadable(path, entries)
                has_slash = any("/" in entry.filename for entry in entries)
                expanded = 0
                for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
                    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
                    text = decode(name) if isinstance(name, bytes) else name
                    if "\\" in entry.filename and (entry.create_system in FROM_WINDOWS or not has_slash):
                        text = text.replace("\\", "/")  # against the format's rules, as .NET and PowerShell 5 pack
                        if text.endswith("/"):
                            continue  # a folder
                    expanded += entry.file_size if entry.file_size <= MAX_ITEM_BYTES else 0
                    _refuse_bomb(path, archive_bytes, expanded)
                    found = _read_zip_entry(archive, entry, raw, text, (index + 1) / len(entries))
                    yield replace(found, encoding=decode.assumed if isinstance(name, bytes) else None)
        except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError, struct.error) as error:
            raise _damaged(path, index, error) from None


def _count_zip_entries(raw: IO[bytes], archive_bytes: int) -> int:
    """An upper bound from the entries' signatures, in pieces: the reader would take the whole list into memory at once, and
    the count that the archive states may lie."""
    count, overlap = 0, b""
    raw.seek(max(0, archive_bytes - 2**29))  # the list stands at the end
    while piece := raw.read(2**20):
        piece = overlap + piece
        count += piece.count(b"PK\1\2")
        overlap = piece[-3:]
    raw.seek(0)
    return count


def _zip_name(entry: Any) -> str | bytes:
    """Text where the archive says what it is; else bytes of no known encoding."""
    if entry.flag_bits & 0x800:
        return readable_name(entry.filename)
    try:
        raw: bytes = entry.filename.encode("cp437")  # as zipfile has read it
    except UnicodeEncodeError:
        return readable_name(entry.filename)
    extra = entry.extra
    while len(extra) >= 4:  # Info-ZIP's Unicode path: version 1, the checksum of the other name, the name in UTF-8
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and field[:1] == b"\1" and len(field) > 5 and struct.unpack("<L", field[1:5])[0] == zlib.crc32(raw):
            return readable_name(field[5:])
    return raw


def _zip_problem(entry: Any) -> str | None:
    """Why an entry of a .zip can't be read, as a clause, with what to do about it."""
    if entry.flag_bits & 0x1:
        return "encrypted: unpack it with its password (7z x), and give the folder"
    if entry.compress_type not in READABLE_COMPRESSIONS:
        method = COMPRESSIONS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"compressed with {method}, which Python does not read: unpack it (7z x), and give the folder"
    return None


def _refuse_unreadable(path: Path, entries: list[Any]) -> None:
    """An archive of which nothing can be read says why at once."""
    problems = {_zip_problem(entry) for entry in entries}
    if len(problems) == 1 and (problem := problems.pop()) is not None:
        what, fix = problem.split(": ", 1)
        raise DataRefused(
            f"the archive {path} is {what}", fix=f"{fix[:1].upper()}{fix[1:].replace(' it ', ' the archive ', 1)}."
        )


def _read_zip_entry(archive: Any, entry: Any, raw: bytes, name: str, share: float) -> Found:
    import zipfile

    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return Found(name, None, entry.file_size, "link", "a link", share)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Found(name, None, entry.file_size, "not-a-file", "a pipe, a device or something unknown", share)
    if entry.file_size > MAX_ITEM_BYTES:
        return _too_large(name, entry.file_size)
    if problem := _zip_problem(entry):
        return Found(name, None, entry.file_size, "unreadable", problem, share)
    try:
        with archive.open(entry) as file:
            data = file.read(entry.file_size + 1)
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        return Found(name, None, entry.file_size, "unreadable", str(error) or type(error).__name__, share)
    if _points_outside(raw):
        return Found(name, data, len(data), "outside", "its name points outside the archive", share)
    return Found(name, data, len(data), share=share)


def _refuse_many(path: Path, entries: int) -> None:
    if entries > MAX_ENTRIES:
        raise DataRefused(
            f"the archive {path} has too many entries", expected=f"at most {MAX_ENTRIES:,}", received=entries,
            fix="Unpack it yourself if you trust it, and give the folder.",
        )  # fmt: skip


def _refuse_bomb(path: Path, archive_bytes: int, expanded_bytes: int) -> None:
    if expanded_bytes > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * archive_bytes):
        raise DataRefused(
            f"the archive {path} expands beyond measure", expected=f"at most {MAX_EXPANSION} times its own {archive_bytes:,} bytes",
            received=expanded_bytes, fix="Unpack it yourself if you trust it, and give the folder.",
        )  # fmt: skip


def _damaged(path: Path, entries: int, error: Exception) -> DataRefused:
    return DataRefused(
        f"the archive {path} is damaged after {entries:,} entries: {error or type(error).__name__}",
        fix="Fetch or pack it again; nothing of it was kept.",
    )


def _sample_folders(workspace: Workspace) -> list[Path]:
    named = os.environ.get("EVERGREEN_SAMPLES")
    samples = Path(named) if named else workspace.root.parent / "shared" / "data"
    return [samples, workspace.private / "downloads"]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(scenario: Scenario, workspace: Workspace, wrong: list[str], *, allowed: bool) -> Path:
    """Fetch the scenario's public file into `.evergreen/downloads`; it takes its name there once its checksum is right."""
    settings = scenario.collect
    assert settings.file is not None
    folder = _sample_folders(workspace)[0]
    remedy = (
        f"Fetch {settings.url or settings.file} yourself, and put it at {folder / settings.file} (or set EVERGREEN_SAMPLES)."
    )
    if wrong:
        remedy = f"{' and '.join(wrong)} had the wrong checksum. {remedy}"
    if settings.url is None or not allowed:
        raise EvergreenError(f"{settings.file} is not on this machine", fix=remedy)
    target = workspace.private / "downloads" / settings.file
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        digest = _fetch(settings.url, part)
        if settings.sha256 is not None and digest != settings.sha256:
            raise EvergreenError(
                f"{settings.url} gave something else", expected=f"sha256 {settings.sha256}", received=digest, fix=remedy
            )
        os.replace(part, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EvergreenError(f"{settings.file} could not be fetched from {settings.url}: {reason}", fix=remedy) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _fetch(url: str, path: Path) -> str:
    """Download, waiting at most a minute for each piece; returns the sha256 (hex)."""
    import urllib.request
    from http.client import HTTPException

    if not url.startswith(("https://", "http://")):
        raise ValueError("not an address of the web")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, open(path, "wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            with progress.task(f"Downloading {url.rpartition('/')[2]}", total=total / 1e6 or None, unit="MB") as report:
                while piece := answer.read(2**20):
                    digest.update(piece)
                    file.write(piece)
                    report(file.tell() / 1e6)
            if total and file.tell() != total:
                raise ValueError(f"the connection ended after {file.tell():,} of {total:,} bytes")
            file.flush()
            os.fsync(file.fileno())
    except HTTPException as error:
        raise ValueError(str(error)) from None
    return digest.hexdigest()

"""IDX files: all images of a split in one file, their labels in another."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.data.sources import safety
from evergreen.data.sources.opening import open_source
from evergreen.data.sources.png import plain_png
from evergreen.errors import DataRefused, WrongUse
from evergreen.media.images import decode
from tests.support.sources import folder_of, tar_of, zip_of

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([7, 0, 7, 1, 2], np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """An array as an IDX file, uncompressed."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def pair(split: str = "train", images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> dict[str, bytes]:
    return {f"{split}-images-idx3-ubyte": idx(images), f"{split}-labels-idx1-ubyte": idx(labels)}


def compressed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}


CONTAINERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: folder_of(path / "folder", pair()),
    "folder of compressed files": lambda path: folder_of(path / "compressed", compressed(pair())),
    "zip": lambda path: zip_of(path / "a.zip", pair()),
    "tar.gz": lambda path: tar_of(path / "a.tar.gz", compressed(pair()), "w:gz"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_each_image_is_an_entry_with_its_label_and_pixels_whatever_it_is_packed_in(tmp_path: Path, container: str) -> None:
    source = open_source(CONTAINERS[container](tmp_path))
    found = list(source.stream())
    assert [entry.name for entry in found] == [f"train/{label}/{number:05d}.png" for number, label in enumerate(LABELS)]
    for entry, image in zip(found, IMAGES, strict=True):
        assert entry.data is not None and entry.problem is None and entry.size_bytes == len(entry.data)
        np.testing.assert_array_equal(decode(entry.data, 1)[:, :, 0], image)
    # The id of an item is the hash of its bytes: here it was worked out once, and is the same on every machine.
    assert hashlib.sha256(b"".join(entry.data or b"" for entry in found)).hexdigest().startswith("a7a80fbd49bbc037")
    assert {entry.packed_in for entry in found} <= {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"}
    fractions = [entry.fraction_read for entry in found]
    assert container.startswith("folder") or (fractions == sorted(fractions) and fractions[-1] == 1)


@pytest.mark.parametrize("container", CONTAINERS)
def test_names_for_an_estimate_include_those_of_the_images(tmp_path: Path, container: str) -> None:
    source = open_source(CONTAINERS[container](tmp_path))
    assert {name for name, _ in source.names()} >= {entry.name for entry in source.stream()}


def test_t10k_is_the_test_split_and_other_files_stay_as_they_are(tmp_path: Path) -> None:
    files = pair("t10k", IMAGES[:2], LABELS[:2]) | pair("emnist-letters-train", IMAGES[:1], LABELS[:1]) | {"cat/1.png": b"x"}
    names = {entry.name for entry in open_source(folder_of(tmp_path / "f", files)).stream()}
    assert names == {"test/7/00000.png", "test/0/00001.png", "emnist-letters-train/7/00000.png", "cat/1.png"}


def test_other_ways_of_naming_the_files_are_understood(tmp_path: Path) -> None:
    dotted = {name.replace("-idx", ".idx"): data for name, data in pair().items()}
    nested = {f"mnist/{name}/{name}": data for name, data in pair("t10k").items()}
    bare = {f"bare/{name.removeprefix('train-')}": data for name, data in pair().items()}
    names = {entry.name for entry in open_source(folder_of(tmp_path / "f", dotted | nested | bare)).stream()}
    assert {name.rsplit("/", 2)[0] for name in names} == {"train", "mnist/test", "bare/all"} and len(names) == 15


def test_colour_images_have_four_dimensions(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 3), np.uint8)
    files = {"train-images-idx4-ubyte": idx(colours), "train-labels-idx1-ubyte": idx(LABELS[:2])}
    for entry, image in zip(open_source(folder_of(tmp_path / "f", files)).stream(), colours, strict=True):
        np.testing.assert_array_equal(decode(entry.data or b"", 3), image)


def test_a_second_copy_of_a_file_gives_no_items_twice(tmp_path: Path) -> None:
    found = list(open_source(folder_of(tmp_path / "f", pair() | compressed(pair()))).stream())
    assert sum(entry.packed_in is not None for entry in found) == len(IMAGES)
    assert len([entry for entry in found if entry.packed_in is None]) == 2  # passed on as they are, so that they are counted


def test_what_macos_leaves_beside_the_files_is_no_partner(tmp_path: Path) -> None:
    files = pair() | {f"._{name}": b"\0\5\x16\7" for name in pair()}
    assert sum(entry.packed_in is not None for entry in open_source(folder_of(tmp_path / "f", files)).stream()) == len(IMAGES)


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "magic number": ({"train-images-idx3-ubyte": b"\1\2\3\4" + bytes(100)}, r"begins with b'\\x01\\x02\\x03\\x04'.*expected two zero bytes"),
    "not an IDX file": ({"train-images-idx3-ubyte": b"<html>404</html>"}, "begins with b'<htm'"),
    "empty": ({"train-images-idx3-ubyte": b""}, "begins with b''"),
    "inside its header": ({"train-images-idx3-ubyte": idx(IMAGES)[:9]}, "ends inside its header"),
    "labels in place of images": ({"train-images-idx3-ubyte": idx(LABELS)}, "3 or 4 dimensions"),
    "images in place of labels": ({"train-labels-idx1-ubyte": idx(IMAGES)}, "and 1 dimensions"),
    "floats": ({"train-images-idx3-ubyte": idx(IMAGES.astype(">f4"), 13)}, "32-bit floats.*expected unsigned bytes"),
    "fewer labels": ({"train-labels-idx1-ubyte": idx(LABELS[:4])}, "5 images, and train-labels-idx1-ubyte has 4 labels"),
    "truncated": ({"train-images-idx3-ubyte": idx(IMAGES)[:-1]}, "ends early.*the 5 items"),
    "labels truncated": ({"train-labels-idx1-ubyte": idx(LABELS)[:-1]}, "ends early"),
    "goes on": ({"train-images-idx3-ubyte": idx(IMAGES) + b"x"}, "goes on after its last item"),
    "gzip cut off": ({"train-images-idx3-ubyte": gzip.compress(idx(IMAGES))[:-12]}, "cannot be unpacked"),
    "gzip damaged": ({"train-images-idx3-ubyte": gzip.compress(idx(IMAGES))[:-8] + bytes(8)}, "cannot be unpacked"),
    "channels first": ({"train-images-idx3-ubyte": idx(np.zeros((5, 3, 8, 8), np.uint8))}, "3 × 8 × 8.*1 or 3 channels"),
    "no pixels": ({"train-images-idx3-ubyte": idx(np.zeros((5, 0, 8), np.uint8))}, "each image has 0 bytes"),
    "too large an image": ({"train-images-idx3-ubyte": struct.pack(">HBB3I", 0, 8, 3, 5, 2**20, 2**20)}, "each image has"),
    "too many": ({"train-images-idx3-ubyte": struct.pack(">HBB3I", 0, 8, 3, 2**31, 1, 1)}, "too many entries"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    files, reason = BAD[case]
    with pytest.raises(DataRefused, match=f"(?s){reason}"):
        list(open_source(folder_of(tmp_path / "f", pair() | files)).stream())


@pytest.mark.parametrize("there, missing", [("labels", "images"), ("images", "labels")])
def test_a_file_without_its_partner_is_refused(tmp_path: Path, there: str, missing: str) -> None:
    files = {name: data for name, data in pair().items() if there in name} | pair("t10k")
    with pytest.raises(DataRefused, match=f"(?s)train-{there}.*has {there} without {missing}.*Put that file beside it"):
        list(open_source(folder_of(tmp_path / "f", files)).stream())


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "FREE_EXPANSION_BYTES", 1000)
    files = pair("train", np.zeros((5, 900, 900), np.uint8))
    list(open_source(folder_of(tmp_path / "plain", files)).stream())
    with pytest.raises(DataRefused, match="expands beyond measure"):
        list(open_source(folder_of(tmp_path / "bomb", compressed(files))).stream())


def test_a_file_too_large_for_memory_is_refused_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "f", pair())
    monkeypatch.setattr(safety, "MAX_ITEM_BYTES", 64)
    with pytest.raises(DataRefused, match="(?s)at most 64 are read.*gzip"):
        list(open_source(folder).stream())


def test_a_single_file_is_no_source(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", pair())
    with pytest.raises(WrongUse, match=f"(?s)one IDX file.*Give the folder: {folder}"):
        open_source(folder / "train-images-idx3-ubyte")


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_a_plain_png_holds_exactly_the_pixels_whatever_their_number(height: int, width: int, colour: bool) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3) if colour else (height, width), np.uint8)
    np.testing.assert_array_equal(decode(plain_png(pixels), 3 if colour else 1).reshape(pixels.shape), pixels)

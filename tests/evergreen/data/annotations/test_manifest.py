"""Manifests: a table names the images and says what each one is; what cannot be right is refused with the line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.data.annotations.formats import find_annotations
from evergreen.data.annotations.source import AnnotatedSource
from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused, WrongUse
from tests.support.annotated import entries, labels, pictures, problems, settings
from tests.support.sources import folder_of, tar_of, zip_of

IMAGES = pictures(["a/1.png", "a/2.png", "b/3.png"])
ROWS = [
    {"path": "a/1.png", "label": "cat", "site": "north", "weight": 4.5},
    {"path": "a/2.png", "label": "dog", "site": "south", "weight": 12.0},
    {"path": "b/3.png", "label": "cat", "site": None, "weight": None},
]


def as_csv(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    lines = [
        separator.join(rows[0]),
        *(separator.join("" if cell is None else str(cell) for cell in row.values()) for row in rows),
    ]
    return "\n".join(lines).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


TABLES = {
    "labels.csv": as_csv(ROWS),
    "semicolons.csv": as_csv(ROWS, ";"),
    "labels.tsv": as_csv(ROWS, "\t"),
    "marked.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "wide.csv": as_csv(ROWS).decode().encode("utf-16"),
    "windows.csv": as_csv(ROWS).replace(b"\n", b"\r\n"),
    "labels.jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "labels.parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("container", [folder_of, tar_of, zip_of])
def test_a_table_labels_the_images_whatever_they_are_packed_in(tmp_path: Path, table: str, container: Any) -> None:
    path = container(tmp_path / "source", {table: TABLES[table]} | IMAGES)
    source = AnnotatedSource(open_source(path), settings("manifest", file=table, keep=["site", "weight"]), 10**6)
    found = list(source.stream())
    assert labels(found) == {"a/1.png": "cat", "a/2.png": "dog", "b/3.png": "cat"}
    kept = [dict(one.stated.columns) for one in found if one.stated]
    assert [one.get("site") for one in kept] == ["north", "south", None] and float(kept[0]["weight"]) == 4.5
    assert [name for name, _ in source.names()] == ["a/1.png", "a/2.png", "b/3.png"]
    assert [one.data for one in found if one.stated] == list(IMAGES.values())


def test_group_and_split_come_from_their_columns(tmp_path: Path) -> None:
    table = b"path,label,plant,subset\na/1.png,cat,p1,train\na/2.png,dog,,Testing\n"
    found = entries(
        tmp_path / "s", {"labels.csv": table} | IMAGES, "manifest", file="labels.csv", group="plant", split="subset"
    )
    assert [(one.stated.group, one.stated.split) for one in found if one.stated] == [("p1", "train"), (None, "Testing")]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("1.png", "a/1.png"),  # beside the table
        ("a/1.png", "a/1.png"),  # from the source
        ("./1.png", "a/1.png"),
        ("../b/3.png", "b/3.png"),
        ("3.png", "b/3.png"),  # the only one of this name
        ("3", "b/3.png"),  # without its ending
        ("a\\1.png", "a/1.png"),  # as Windows writes it
        ("{root}/b/3.png", "b/3.png"),  # absolute, and inside
    ],
)
def test_a_path_is_relative_to_the_table_or_to_the_source_or_is_enough_of_its_end(tmp_path: Path, path: str, name: str) -> None:
    row = path.replace("{root}", str(tmp_path / "s"))
    found = entries(
        tmp_path / "s", {"a/labels.csv": f"path,label\n{row},cat\n".encode()} | IMAGES, "manifest", file="a/labels.csv"
    )
    assert labels(found) == {name: "cat"}


@pytest.mark.parametrize(
    ("path", "problem", "detail"),
    [
        ("a/9.png", "missing", "labels.csv, line 3 names it, and it is not there"),
        ("", "missing", "labels.csv, line 3 names no image"),
        ("../secret.png", "outside", "labels.csv, line 3: its path leads out of the source"),
        ("/etc/passwd", "outside", "leads out of the source"),
        ("C:\\pictures\\1.png", "outside", "leads out of the source"),
        ("2.png", "ambiguous", "it could be a/2.png and b/2.png"),
    ],
)
def test_an_image_that_is_not_there_or_outside_has_a_problem(tmp_path: Path, path: str, problem: str, detail: str) -> None:
    files = {"labels.csv": f"path,label\na/1.png,cat\n{path},dog\n".encode()} | IMAGES | pictures(["b/2.png"])
    found = entries(tmp_path / "s", files, "manifest", file="labels.csv")
    [bad] = [one for one in found if one.problem]
    assert bad.problem == problem and detail in bad.detail and bad.data is None
    assert labels(found) == {"a/1.png": "cat"}


def test_a_table_of_which_no_image_is_there_is_refused_with_the_first_path(tmp_path: Path) -> None:
    table = b"path,label\nx/1.png,cat\nx/2.png,dog\n"
    with pytest.raises(
        DataRefused, match=r"none of the 2 images.*labels.csv, line 2 names 'x/1.png'.*correct collect.annotations"
    ):
        entries(tmp_path / "s", {"labels.csv": table} | pictures(["a/7.png"]), "manifest", file="labels.csv")


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("labels.csv", b"path,label\na/1.png\n", "labels.csv, line 2: it has 1 cells; expected 2"),
        ("labels.csv", b"path,label\na/1.png,cat,3\n", "line 2: it has 3 cells"),
        ("labels.csv", b'path,label\n"a/1.png,cat\n', "line 2: it is no line of a CSV file"),
        ("labels.csv", b"path,label,label\na/1.png,cat,dog\n", "has the column label twice"),
        ("labels.csv", b"path,label\nca\xe9,cat\n", "not in utf-8.*set collect.annotations.encoding"),
        ("labels.csv", b"path,label\n", "has no row"),
        ("labels.csv", b"", "has no row|is empty"),
        ("labels.jsonl", b'{"path": "a/1.png", "label": "cat"}\n{"path":\n', "labels.jsonl, line 2: it is no JSON"),
        ("labels.jsonl", b"[1]\n", "line 1: it is list, no object"),
        ("labels.parquet", b"PAR1 and no more", "labels.parquet: it is no Parquet file"),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(tmp_path: Path, name: str, table: bytes, message: str) -> None:
    with pytest.raises(DataRefused, match=message):
        entries(tmp_path / "s", {name: table} | IMAGES, "manifest", file=name)


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    files = {"labels.csv": as_csv(ROWS)} | IMAGES
    for number, more in enumerate(
        [{"path": "file"}, {"label": "labels"}, {"group": "patient"}, {"split": "set"}, {"keep": ["time"]}]
    ):
        [(setting, column)] = more.items()
        wanted = column if isinstance(column, str) else column[0]
        with pytest.raises(
            WrongUse, match=f"labels.csv has no column {wanted}; expected one of path, label, site.*annotations.{setting}"
        ):
            entries(tmp_path / str(number), files, "manifest", file="labels.csv", **more)


def test_a_table_that_is_not_there_is_named_with_the_likeliest_other(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"the annotations label.csv are not in .*did you mean labels.csv"):
        entries(tmp_path / "s", {"labels.csv": as_csv(ROWS)} | IMAGES, "manifest", file="label.csv")
    with pytest.raises(ValueError, match="must end in one of"):
        settings("manifest", file="labels.xlsx")


def test_rows_without_a_label_and_images_that_no_row_names_are_no_items(tmp_path: Path) -> None:
    found = entries(
        tmp_path / "s", {"labels.csv": b"path,label\na/1.png,cat\na/2.png,\n"} | IMAGES, "manifest", file="labels.csv"
    )
    assert labels(found) == {"a/1.png": "cat"} and not problems(found)
    assert {one.name for one in found if one.stated is None} == {"labels.csv", "b/3.png"}


def test_another_encoding_is_read_by_its_name(tmp_path: Path) -> None:
    table = "path,label\na/1.png,Dürre\n".encode("cp1252")
    assert labels(entries(tmp_path / "s", {"l.csv": table} | IMAGES, "manifest", file="l.csv", encoding="cp1252")) == {
        "a/1.png": "Dürre"
    }


def test_the_columns_are_found_by_what_is_in_them(tmp_path: Path) -> None:
    names = [f"images/{number}.png" for number in range(8)]
    rows = [
        {
            "img": name,
            "what": "ab"[number % 2],
            "patient_id": f"p{number // 2}",
            "subset": "train",
            "taken": f"2026-01-0{number + 1}",
        }
        for number, name in enumerate(names)
    ]
    other = as_csv([{"camera": "north", "lens": "wide"}, {"camera": "south", "lens": "tele"}])
    folder = folder_of(tmp_path / "s", {"train.csv": as_csv(rows), "cameras.csv": other} | pictures(names))
    assert find_annotations(open_source(folder)) == settings(
        "manifest", file="train.csv", path="img", label="what", group="patient_id", split="subset", keep=["taken"]
    )


def test_a_table_that_names_no_images_is_no_manifest(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "s", {"notes.csv": b"day,note\n1,a\n2,b\n", "x.txt": b"label"} | IMAGES)
    assert find_annotations(open_source(folder)) is None

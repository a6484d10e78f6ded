"""Tables: what is found out about a file, and what is refused."""

from __future__ import annotations

import codecs

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.data.sources.table import CHUNK_ROWS, Table, TableFormat, is_table, open_table, require
from evergreen.errors import DataRefused, WrongUse

FOUND = TableFormat()


def rows(table: Table, *columns: str) -> list[dict[str, object]]:
    return [row for batch in table.batches(columns or table.columns) for row in batch.to_pylist()]


def opened(text: str, name: str = "a.csv", encoding: str = "utf-8", form: TableFormat = FOUND) -> Table:
    return open_table(name, text.encode(encoding), form)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_are_divided_at_the_separator_that_most_lines_have(separator: str) -> None:
    lines = [
        ("day", "flow", "note"),
        *[(f"2026-01-{day:02}", "4.5", "one; two" if separator != ";" else "one, two") for day in range(1, 20)],
    ]
    table = opened("\n".join(separator.join(line) for line in lines))
    assert table.columns == ("day", "flow", "note")
    assert rows(table, "flow", "day")[0] == {"flow": "4.5", "day": "2026-01-01"}


def test_decimal_commas_are_found_and_a_named_sign_is_obeyed() -> None:
    text = "day;flow\n2026-01-01;4,5\n2026-01-02;4,25\n"
    assert opened(text).decimal == ","
    assert opened(text, form=TableFormat(decimal=".")).decimal == "."
    assert opened("day;flow\n2026-01-01;4.5\n2026-01-02;4\n").decimal == "."
    assert opened('day,flow\n2026-01-01,"4,5"\n').decimal == ","


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_the_encoding_is_found_and_a_byte_order_mark_is_no_part_of_a_name(encoding: str) -> None:
    table = opened("größe;wert\nkühl;1\n", encoding=encoding)
    assert table.columns == ("größe", "wert")
    assert rows(table) == [{"größe": "kühl", "wert": "1"}]


def test_a_named_encoding_is_obeyed_unless_a_mark_says_otherwise() -> None:
    named = TableFormat(encoding="shift_jis")
    assert opened("温度,x\n1,2\n", encoding="shift_jis", form=named).columns == ("温度", "x")
    assert opened("温度,x\n1,2\n", encoding="utf-8-sig", form=named).columns == ("温度", "x")
    with pytest.raises(DataRefused, match=r"the text of a.csv is not valid in utf-8 or cp1252.*Name the encoding"):
        open_table("a.csv", b"a,b\n\x81,1\n", FOUND)


def test_every_column_stays_text_so_that_one_that_changes_its_type_midway_is_read() -> None:
    lines = ["day,flow", *[f"{day},{day}" for day in range(200_000)], "x,down", "y,"]
    found = rows(opened("\n".join(lines)), "flow")
    assert [row["flow"] for row in found[-3:]] == ["199999", "down", ""] and len(found) == 200_002


def test_a_row_with_another_number_of_columns_is_kept_aside_with_its_number() -> None:
    table = opened("day,flow\n2026-01-01,4\n2026-01-02,4,5\n2026-01-03,6\n")
    assert [row["flow"] for row in rows(table)] == ["4", "6"]
    assert [(row.number, row.text, row.detail) for row in table.refused] == [
        (3, "2026-01-02,4,5", "it has 3 columns, and the header 2")
    ]


def test_json_lines_keep_the_digits_and_an_absent_value_is_null() -> None:
    text = '{"day": "2026-01-01", "flow": 1.10}\n\n{"flow": NaN, "more": [1, 2]}\nnonsense\n[1]\n{"day": null, "flow": true}\n'
    table = opened(text, "a.jsonl", "utf-8-sig")
    assert table.columns == ("day", "flow", "more")
    assert rows(table, "day", "flow") == [
        {"day": "2026-01-01", "flow": "1.10"}, {"day": None, "flow": "NaN"}, {"day": None, "flow": "true"},
    ]  # fmt: skip
    assert [(row.number, row.detail) for row in table.refused] == [
        (4, "it is no object of JSON"),
        (5, "it is no object of JSON"),
    ]


def test_parquet_keeps_its_types_and_is_read_in_chunks() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"time": pa.array(range(CHUNK_ROWS + 5), pa.timestamp("ms")), "flow": [1.5] * (CHUNK_ROWS + 5)}), sink
    )
    table = open_table("a.parquet", sink.getvalue().to_pybytes(), FOUND)
    batches = list(table.batches(["flow", "time"]))
    assert len(batches) > 1 and batches[0].schema.names == ["flow", "time"]
    assert batches[0].schema.field("time").type == pa.timestamp("ms")
    assert sum(map(len, batches)) == CHUNK_ROWS + 5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "the table a.csv has no rows"),
        ("a.csv", b"day,flow\n", "the table a.csv has no rows"),
        ("a.csv", b"day,day\n1,2\n", "several columns with one name.*'day'"),
        ("a.jsonl", b"\n", "the table a.jsonl has no rows"),
        ("a.parquet", b"PAR1", "the table a.parquet is damaged"),
    ],
)
def test_what_is_no_table_is_refused(name: str, content: bytes, words: str) -> None:
    with pytest.raises(DataRefused, match=words):
        open_table(name, content, FOUND)


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    table = opened("day;flow\n1;2\n", form=TableFormat(separator=","))
    with pytest.raises(WrongUse, match=r"no column 'flow'.*Correct collect; or name the separator"):
        require(table, "a.csv", ["flow"], "collect")
    require(opened("day;flow\n1;2\n"), "a.csv", ["flow"], "collect")


def test_tables_are_known_by_their_names() -> None:
    assert all(map(is_table, ("a.csv", "b/A.TSV", "c.jsonl", "d.parquet"))) and not is_table("a.txt")
    with pytest.raises(WrongUse, match=r"a.txt is no table"):
        open_table("a.txt", codecs.BOM_UTF8, FOUND)

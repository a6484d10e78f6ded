"""What tables of series may be like: each thing that is wrong with one is repaired by rule, or refused with its reason."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import BadItem, DataRefused, WrongUse
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.forecast.recognition import number
from evergreen.kinds.forecast.settings import ForecastScenario
from evergreen.kinds.forecast.times import Clock
from evergreen.workspace import Workspace
from tasks.collect import Collection, collect
from tasks.validate import validate
from tests.support.forecast import lines

HEADER = "time,load\n"


def scenario(**sections: Any) -> ForecastScenario:
    collect = {"path": "source", "time": "time", "values": ["load"], "max_bad": 1.0} | sections.pop("collect", {})
    given = {"name": "load", "kind": "forecast", "seed": 3, "collect": collect, "train": {}} | sections
    return ForecastScenario.model_validate(given)


def collected(folder: Path, text: str, name: str = "a.csv", **sections: Any) -> Collection:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / name).write_text(text)
    return collect(scenario(**sections), Workspace(folder))


def refused(folder: Path, text: str, **sections: Any) -> str:
    """What *validate* says of a table."""
    given = scenario(**sections)
    found = collected(folder, text, **sections)
    with pytest.raises(DataRefused) as refusal:
        validate(given, Workspace(folder), found)
    return str(refusal.value)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("rows", "added", "quarantined"),
    [
        ("2026-01-01T02:00,2\n2026-01-01T01:00,1\n", 2, {}),
        ("2026-01-01T01:00,1\n2026-01-01T01:00,1\n", 1, {}),
        ("2026-01-01T01:00,1\n2026-01-01T01:00,2\n", 0, {"label-conflict": 2}),
        ("2026-01-01T01:00,NaN\n2026-01-01T02:00,\n2026-01-01T03:00,3\n", 1, {"no-value": 2}),
        ("2026-01-01T01:00,inf\n2026-01-01T02:00,-Infinity\n2026-01-01T03:00,1e999\n", 0, {"not-finite": 3}),
        ("2026-01-01T01:00,1\n2026-01-01T02:00,down\n", 1, {"no-number": 1}),
        ("2026-13-01T01:00,1\n,2\n", 0, {"no-time": 2}),
        ("2026-01-01T01:00+01:00,1\n2026-01-01T02:00,2\n2026-01-01T03:00+02:00,2\n", 2, {"mixed-time-zones": 1}),
        ("2026-01-01T01:00,1,5\n2026-01-01T02:00,2\n", 1, {"wrong-columns": 1}),
    ],
    ids=["unsorted", "twice", "contradiction", "missing", "infinite", "changes type", "no time", "mixed zones", "ragged"],
)  # fmt: skip
def test_each_row_is_an_item_or_in_quarantine_with_its_reason(
    tmp_path: Path, rows: str, added: int, quarantined: dict[str, int]
) -> None:
    found = collected(tmp_path, HEADER + rows)
    assert (found.added, found.quarantined) == (added, quarantined)


def test_decimal_commas_are_read_and_thousands_are_not_guessed(tmp_path: Path) -> None:
    found = collected(tmp_path, "time;load\n2026-01-01T01:00;1,5\n2026-01-01T02:00;2,5\n2026-01-01T03:00;1.000,5\n")
    assert (found.added, found.quarantined) == (2, {"no-number": 1})
    assert number("1,5", ",") == number("1.5", ".") == number(1.5, ",") == 1.5
    for text in ("1 000", "1_000", "0x10", "1,5"):
        with pytest.raises(BadItem, match="no-number"):
            number(text, ".")


def test_a_wrong_separator_or_column_is_an_error_that_names_the_columns(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"no column 'time', 'load'.*time;load.*name the separator"):
        collected(tmp_path, "time;load\n2026-01-01T01:00;1\n", collect={"separator": ","})
    with pytest.raises(WrongUse, match=r"no column 'flow'.*'time', 'load'.*Correct collect.time, collect.values"):
        collected(tmp_path, "time;load\n2026-01-01T01:00;1\n", collect={"values": ["flow"]})


def test_a_source_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="the source holds no reading"):
        collected(tmp_path, "nothing", name="a.txt")


def test_the_hour_that_a_zone_has_twice_is_in_summer_time_first_and_one_that_it_leaves_out_is_refused() -> None:
    clock = Clock(None, "Europe/Berlin")
    summer, winter = (clock.read("load", "2026-10-25T02:30") for _ in range(2))
    assert (summer, winter) == (at("2026-10-25T00:30"), at("2026-10-25T01:30"))
    assert clock.read("other", "2026-10-25T02:30") == summer  # each series has its own
    with pytest.raises(BadItem, match=r"no-such-time: the clocks of Europe/Berlin were put forward over 2026-03-29 02:30"):
        clock.read("load", "2026-03-29T02:30")
    assert Clock(None, None).read("load", "2026-03-29T02:30") == at("2026-03-29T02:30")
    assert Clock(None, "Europe/Berlin").read("load", "2026-03-29T02:30+02:00") == at("2026-03-29T00:30")


def test_times_in_another_form_need_its_name() -> None:
    with pytest.raises(BadItem, match="collect.time_format names another form"):
        Clock(None, None).read("load", "31/01/2026 08:05")
    assert Clock("%d/%m/%Y %H:%M", None).read("load", "31/01/2026 08:05") == at("2026-01-31T08:05")


def test_several_columns_and_a_column_of_names_make_several_series(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    text = "place,time,in,out\nA,2026-01-01T01:00,1,2\nB,2026-01-01T01:00,3,4\n"
    collected(tmp_path, text, collect={"values": ["in", "out"], "series": "place"})
    (part,) = (tmp_path / ".evergreen").rglob("part-*.parquet")
    assert pq.read_table(part)["series"].to_pylist() == ["A/in", "A/out", "B/in", "B/out"]


def test_readings_in_order_without_gaps_meet_the_expectations(tmp_path: Path) -> None:
    found = collected(tmp_path, HEADER + lines(0, 300))
    assert validate(scenario(), Workspace(tmp_path), found).items == 300


@pytest.mark.parametrize(
    ("text", "validate_", "words"),
    [
        ("".join(f"2026-01-{day:02}T{hour:02}:00,5\n" for day in range(1, 15) for hour in range(24)), {}, "series: expected more than one value"),
        (lines(0, 50), {}, "readings of a series: expected at least 200"),
        (lines(0, 150) + lines(400, 150), {}, "steps without a reading: expected at most 20 %"),
        (lines(0, 150) + lines(160, 150), {"max_gap_steps": 5}, "longest gap, in steps: expected at most 5"),
        (lines(0, 300), {"lowest": 40, "highest": 45}, "values: expected at least 40 and at most 45"),
        (lines(0, 300) + "".join(f"2026-01-18T{hour:02}:00,5\n" for hour in range(10, 24)), {"max_stuck_steps": 9}, "readings in a row with the same value: expected at most 9"),
        (lines(0, 300).replace(":00,", ":31,", 30), {}, "times off the grid: expected at most 5 %"),
    ],
    ids=["constant", "too short", "missing", "gap", "range", "stuck", "irregular"],
)  # fmt: skip
def test_a_series_that_is_not_as_expected_is_refused_in_words(
    tmp_path: Path, text: str, validate_: dict[str, float], words: str
) -> None:
    about, expected = words.split(": expected ")
    said = refused(tmp_path, HEADER + text, validate=validate_)
    assert about in said and expected in said, said


def test_a_file_of_the_inbox_is_searched_for_readings_whatever_form_it_has() -> None:
    contract, given = kind_of(scenario()).contract, scenario()
    rows = b"time,load\n2026-01-01T01:00,1\n"
    (id,) = contract.ids_in(given, rows)
    assert contract.ids_in(given, b'{"time": "2026-01-01T01:00", "load": 1.0}\n') == {id}
    assert contract.ids_in(given, b"\x89PNG") == set()


def test_a_correction_is_a_finite_number() -> None:
    contract = kind_of(scenario()).contract
    assert contract.corrected(scenario(), "4.50") == "4.5"
    with pytest.raises(BadItem, match="correction-unknown-label"):
        contract.corrected(scenario(), "warm")

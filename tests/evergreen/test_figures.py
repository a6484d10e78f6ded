"""Numbers for people."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen import figures

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
sizes = st.floats(min_value=1e-8, max_value=1e9)
fractions = st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    "said, expected",
    [
        (figures.energy(0.0213, 0.0079), "0.021 ± 0.008 Wh"),
        (figures.energy(12_345), "12 kWh"),
        (figures.energy(0.0048), "4.8 mWh"),
        (figures.energy(1234.5, 21), "1.234 ± 0.021 kWh"),
        (figures.energy(0), "0 Wh"),
        (figures.energy(5, 300), "0 ± 300 Wh"),
        (figures.carbon(3.21), "3.2 gCO2e"),
        (figures.carbon(1234), "1.2 kgCO2e"),
        (figures.money(12.4, "EUR"), "12.40 EUR"),
        (figures.money(0.00211, "EUR"), "0.0021 EUR"),
        (figures.duration(0.085), "85 ms"),
        (figures.duration(4.21), "4.2 s"),
        (figures.duration(59.6), "1 min"),
        (figures.duration(110), "1 min 50 s"),
        (figures.duration(3599.9), "1 h"),
        (figures.duration(200_000), "2 days 8 h"),
        (figures.percent(0.9944, items=318), "99.4 %"),
        (figures.percent(0.99, items=100), "99 %"),
        (figures.percent(0.876, 0.832, 0.911), "88 % (83 to 91 %)"),
        (figures.percent(0.9999), "99.99 %"),
        (figures.points(0.012, -0.003, 0.027), "+1.2 points (-0.3 to +2.7)"),
        (figures.ratio(0.98, 0.91, 1.05), "0.98 (0.91 to 1.05)"),
        (figures.change(1.83), "+83 %"),
        (figures.probability(1e-9), "p < 0.001"),
        (figures.probability(0.034), "p = 0.034"),
        (figures.count(1, "item"), "1 item"),
        (figures.count(1318, "item"), "1,318 items"),
        (figures.count(2, "copy", "copies"), "2 copies"),
        (figures.size(1), "1 byte"),
        (figures.size(4_200_000), "4.2 MB"),
        (figures.plain(0.00001), "0.00001"),
        (figures.plain(2000.0), "2000"),
        (figures.number(12_345.6), "12,346"),
        (figures.short(2.0), "2"),
        (figures.short(0.00012), "0.00012"),
        (figures.short(1234.5), "1,234"),
    ],
)
def test_figures_read_as_people_write_them(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_what_is_not_known_is_said_to_be(nothing: float | None) -> None:
    for say in (figures.energy, figures.carbon, figures.money, figures.duration, figures.percent, figures.size, figures.number,
                figures.ratio, figures.points, figures.plain, figures.power, figures.change):  # fmt: skip
        assert say(nothing) == "unknown"


@given(numbers, st.none() | numbers)
def test_no_figure_is_in_scientific_notation(value: float, uncertainty: float | None) -> None:
    for text in (
        figures.energy(value, uncertainty), figures.carbon(value, uncertainty), figures.power(value, uncertainty),
        figures.money(value, "EUR", uncertainty), figures.number(value, uncertainty), figures.plain(value),
        figures.short(value), figures.duration(value), figures.percent(value), figures.size(abs(value)), figures.ratio(value), figures.change(value),
    ):  # fmt: skip
        assert not re.search(r"\de[+-]?\d", text, re.IGNORECASE)
        assert "nan" not in text and "inf" not in text
        assert not re.search(r"-0(\.0*)?(?![\d.])", text)  # never minus zero


@given(sizes, sizes)
def test_value_and_uncertainty_end_at_the_same_digit(value: float, uncertainty: float) -> None:
    shown, _, error = figures.number(value, uncertainty).partition(" ± ")
    assert len(shown.partition(".")[2]) == len(error.partition(".")[2])
    assert abs(_read(shown) - value) <= 0.15 * uncertainty  # at most half of the last digit, which is at most 2.8 tenths of it
    assert _read(error) == pytest.approx(uncertainty, rel=0.15)
    assert len(error.replace(",", "").replace(".", "").lstrip("0").rstrip("0")) <= 2


@given(sizes, sizes)
def test_the_unit_does_not_change_the_energy(value: float, uncertainty: float) -> None:
    factors = {"µWh": 1e-6, "mWh": 1e-3, "Wh": 1, "kWh": 1e3, "MWh": 1e6}
    text = figures.energy(value)
    if not text.startswith("under"):
        shown, unit = text.split(" ")
        assert _read(shown) * factors[unit] == pytest.approx(value, rel=0.05)
        assert len(text) <= 12
    if " ± " in figures.energy(value, uncertainty):
        shown, _, error, unit = figures.energy(value, uncertainty).split(" ")
        assert _read(error) * factors[unit] == pytest.approx(uncertainty, rel=0.15)


@given(fractions, st.none() | st.integers(1, 10**9))
def test_only_all_is_100_per_cent_and_only_nothing_0(fraction: float, items: int | None) -> None:
    value = float(figures.percent(fraction, items=items).removesuffix(" %"))
    assert (value == 100) == (fraction == 1) or 1 - fraction < 1e-8
    assert (value == 0) == (fraction == 0) or fraction < 1e-8


@given(st.integers(1, 10**6), st.data())
def test_the_digits_of_a_share_tell_one_item_from_the_next(items: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, items - 1))
    assert figures.percent(right / items, items=items) != figures.percent((right + 1) / items, items=items)
    decimals = figures.percent(right / items, items=items).removesuffix(" %").partition(".")[2]
    assert 10 ** -len(decimals) * items / 100 > 0.0999 or not decimals  # no digit beyond the one that an item changes


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_is_near_what_it_says(seconds: float) -> None:
    units = {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "days": 86400}
    words = figures.duration(seconds).split(" ")
    said = sum(_read(many) * units[unit] for many, unit in zip(words[::2], words[1::2], strict=True))
    assert len(words) <= 4
    assert said == pytest.approx(seconds, rel=0.05, abs=0.0006)


def _read(text: str) -> float:
    return float(text.replace(",", ""))

"""Numbers formatted for people: in a suitable unit, with only the significant digits, without scientific notation.

Values that are not known (None, NaN, infinite) are shown as "unknown". Programs get the full numbers from `--json` and the
records.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TypeGuard

UNKNOWN = "unknown"
DIGITS = 2  # significant digits of a number of unknown uncertainty
SMALLEST = 1e-9  # smaller values are shown as 0

# For each unit: the smallest value for which it is used, its name, and its size; the last is used for all smaller values.
_ENERGY = ((1e6, "MWh", 1e6), (1e3, "kWh", 1e3), (1e-2, "Wh", 1.0), (1e-4, "mWh", 1e-3), (0.0, "µWh", 1e-6))
_CARBON = ((1e6, "t", 1e6), (1e3, "kg", 1e3), (1e-2, "g", 1.0), (1e-4, "mg", 1e-3), (0.0, "µg", 1e-6))
_POWER = ((1e3, "kW", 1e3), (1e-1, "W", 1.0), (0.0, "mW", 1e-3))
_SIZE = ((1e12, "TB", 1e12), (1e9, "GB", 1e9), (1e6, "MB", 1e6), (1e3, "kB", 1e3), (0.0, "bytes", 1.0))


def energy(wh: float | None, uncertainty_wh: float | None = None) -> str:
    """Energy in watt-hours: "0.021 ± 0.008 Wh", "12 kWh", "4.8 mWh"."""
    return _quantity(wh, uncertainty_wh, _ENERGY, "Wh")


def carbon(gco2e: float | None, uncertainty_gco2e: float | None = None) -> str:
    """Carbon in grams of CO2 equivalent: "3.2 gCO2e", "0.41 ± 0.12 gCO2e", "1.2 kgCO2e"."""
    text = _quantity(gco2e, uncertainty_gco2e, _CARBON, "g")
    return text if text == UNKNOWN else f"{text}CO2e"


def power(watts: float | None, uncertainty_watts: float | None = None) -> str:
    """Power in watts: "14 W", "1.2 kW"."""
    return _quantity(watts, uncertainty_watts, _POWER, "W")


def size(size_bytes: float | None) -> str:
    """Bytes in decimal units: "317 bytes", "4.2 MB"."""
    if not _known(size_bytes):
        return UNKNOWN
    if size_bytes < 1000:
        return count(round(size_bytes), "byte")
    return _quantity(size_bytes, None, _SIZE, "bytes")


def money(amount: float | None, currency: str = "", uncertainty: float | None = None) -> str:
    """An amount of money: "12.40 EUR"; below one unit of the currency, two significant digits: "0.0021 EUR"."""
    if not _known(amount):
        return UNKNOWN
    text = f"{amount:,.2f}" if abs(amount) >= 1 and not uncertainty else number(amount, uncertainty)
    return f"{text} {currency}".rstrip()


def duration(seconds: float | None) -> str:
    """A duration: "85 ms", "4.2 s", "1 min 50 s", "3 h 5 min", "2 days 4 h"."""
    if not _known(seconds):
        return UNKNOWN
    if abs(seconds) < 1e-6:
        return "0 s"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        return f"{number(1000 * seconds)} ms" if seconds >= 0.01 else f"{number(1000 * seconds, digits=1)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for larger, name, smaller, rest in ((60, "min", 1, "s"), (3600, "h", 60, "min"), (86400, "days", 3600, "h")):
        parts = round(seconds / smaller)
        many, remainder = divmod(parts, larger // smaller)
        if many < (24 * 2 if name == "h" else 60) or name == "days":
            return f"{many:,} {name}" + (f" {remainder} {rest}" if remainder else "")
    raise AssertionError("unreachable")


def percent(fraction: float | None, low: float | None = None, high: float | None = None, items: int | None = None) -> str:
    """A fraction (0 to 1) in percent: "99.4 %"; with an interval, "88 % (83 to 91 %)".

    A fraction below 1 is never shown as 100 %, nor one above 0 as 0 %.

    Args:
        low: the lower end of its interval, a fraction.
        high: the upper end.
        items: number of items on which it was measured; limits the digits to what one item changes.
    """
    if not _known(fraction):
        return UNKNOWN
    places = min(6, max(0, math.ceil(math.log10(items / 100)))) if items else 1
    if not (_known(low) and _known(high)):
        return f"{_per_cent(fraction, places)} %"
    if high > low:
        carried = _places_of_percent(low, high)
        places = min(places, carried) if items else carried
    return f"{_per_cent(fraction, places)} % ({_per_cent(low, places)} to {_per_cent(high, places)} %)"


def points(difference: float | None, low: float | None = None, high: float | None = None) -> str:
    """A difference of fractions in percentage points, signed: "+1.2 points (-0.3 to +2.7)"."""
    if not _known(difference):
        return UNKNOWN
    if not (_known(low) and _known(high)):
        return f"{_zero(100 * difference, 1):+.1f} points"
    places = _places_of_percent(low, high) if high > low else 1
    text = f"{_zero(100 * difference, places):+.{places}f} points"
    return f"{text} ({_zero(100 * low, places):+.{places}f} to {_zero(100 * high, places):+.{places}f})"


def change(ratio: float | None) -> str:
    """The difference of a ratio from one, signed, in percent: 1.83 is "+83 %"."""
    if not _known(ratio):
        return UNKNOWN
    return f"{_zero(100 * (ratio - 1), 0):+,.0f} %"


def ratio(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A ratio, with its interval: "0.98", "0.98 (0.91 to 1.05)"."""
    if not _known(value):
        return UNKNOWN
    if not (_known(low) and _known(high)):
        return number(value)
    place = max(-9, _place((high - low) / 2) if high > low else _digits_place(value, DIGITS))
    return f"{_at(value, place)} ({_at(low, place)} to {_at(high, place)})"


def probability(p: float | None) -> str:
    """A p-value: "p = 0.03", "p < 0.001"."""
    if not _known(p):
        return f"p {UNKNOWN}"
    return "p < 0.001" if p < 0.001 else f"p = {number(p)}"


def count(many: int | None, one: str = "", several: str = "") -> str:
    """A number of things: "1 item", "1,318 items"; `several` is the plural if it is not `one` with an s."""
    if many is None:
        return UNKNOWN
    name = one if many == 1 else several or (f"{one}s" if one else "")
    return f"{many:,} {name}".rstrip()


def number(value: float | None, uncertainty: float | None = None, digits: int = DIGITS) -> str:
    """A number without a unit: "0.021 ± 0.008"; without an uncertainty, it has `digits` significant digits, and at least all
    digits of its integer part."""
    if not _known(value):
        return UNKNOWN
    if _known(uncertainty) and abs(uncertainty) > SMALLEST:
        place = _place(abs(uncertainty))
        return f"{_at(value, place)} ± {_at(abs(uncertainty), place)}"
    return _at(value, min(0, _digits_place(value, digits))) if abs(value) >= SMALLEST else "0"


def short(value: float | None, digits: int = 3) -> str:
    """A number in at most `digits` significant digits, and all of its integer part, without trailing zeros: "0.0012", "2",
    "12.5", "1,234"."""
    text = number(value, digits=digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain(value: float | None) -> str:
    """A setting as a person would write it, with all its digits: "0.003", "0.00001", "2000"."""
    if not _known(value):
        return UNKNOWN
    text = format(Decimal(repr(value + 0.0)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quantity(
    value: float | None, uncertainty: float | None, units: tuple[tuple[float, str, float], ...], unit_of_zero: str
) -> str:
    if not _known(value):
        return UNKNOWN
    uncertainty = abs(uncertainty) if _known(uncertainty) else 0.0
    if value == 0 and not uncertainty:
        return f"0 {unit_of_zero}"
    largest = max(abs(value), uncertainty)
    name, factor = next((name, factor) for least, name, factor in units if largest >= least)
    if largest / factor < 1e-3:
        return f"under 0.001 {name}"
    if uncertainty / factor < 1e-6:
        uncertainty = 0.0
    return f"{number(value / factor, uncertainty / factor)} {name}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _place(uncertainty: float) -> int:
    """The power of ten of an uncertainty's last significant digit.

    By its first three digits: 100 to 354 keep two digits, 355 to 949 one, and 950 to 999 are rounded to 1000, with two digits.

    Source: the rounding rule of the Particle Data Group (Review of Particle Physics, introduction, section 5.3).
    """
    mantissa, exponent = f"{uncertainty:.2e}".split("e")
    leading = round(100 * float(mantissa))
    if leading >= 950:
        return int(exponent)  # rounded to 1000, of which two digits are kept
    return int(exponent) - (1 if leading <= 354 else 0)


def _digits_place(value: float, digits: int) -> int:
    """The power of ten of the last of `digits` significant digits."""
    return int(f"{value:.{digits - 1}e}".split("e")[1]) - (digits - 1) if value else 0


def _at(value: float, place: int) -> str:
    """The value rounded to a power of ten, in plain digits."""
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(place), ROUND_HALF_EVEN, Context(prec=60))
    return f"{abs(rounded) if rounded == 0 else rounded:,f}"


def _per_cent(fraction: float, places: int) -> str:
    while places < 6:
        text = f"{_zero(100 * fraction, places):,.{places}f}"
        if not (0 < fraction < 1 and float(text.replace(",", "")) in (0.0, 100.0)):
            return text
        places += 1
    return f"{_zero(100 * fraction, places):,.{places}f}"


def _places_of_percent(low: float, high: float) -> int:
    """The number of significant decimal places of a percentage, given its interval: those of half the interval's width."""
    return min(6, max(0, -_place(100 * (high - low) / 2)))


def _zero(value: float, places: int) -> float:
    """The value rounded, without negative zero."""
    return round(value, places) + 0.0

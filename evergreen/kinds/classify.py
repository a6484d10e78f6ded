"""One label an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evergreen.dataset import schema
from evergreen.scenario import Validate


@dataclass(frozen=True)
class Looks:
    """What the items of the last accepted version look like: medians of the columns of the same names."""

    brightness: float
    sharpness: float


def expectations(settings: Validate, accepted: Looks | None, *, new_only: bool) -> list[Any]:
    """What the items must be, as Great Expectations' expectations on the table that `tasks.validate` describes.

    Each has its wording in `description`, and in `meta`: `about` (what is judged), `expected`, and the `unit` of a number.

    Args:
        accepted: the looks of the last accepted version, or None where there is none to compare with.
        new_only: whether the new items alone are compared with them, or all items.
    """
    import great_expectations.expectations as gx
    from great_expectations.expectations.row_conditions import Column

    def expect(kind: type, about: str, expected: str, unit: str = "", **arguments: Any) -> Any:
        meta = {"about": about, "expected": expected, "unit": unit}
        return kind(description=f"{about}: {expected}", meta=meta, **arguments)

    columns = [field.name for field in schema() if field.name != "image"]
    suite = [expect(gx.ExpectTableColumnsToMatchSet, "columns", ", ".join(columns), column_set=columns, exact_match=False)]
    suite += [
        expect(gx.ExpectColumnValuesToBeOfType, f"type of {column}", type_, column=column, type_=type_)
        for column, type_ in {
            "id": "str", "label": "str", "width": "int32", "height": "int32", "channels": "int8",
            "brightness": "float32", "sharpness": "float32",
        }.items()
    ]  # fmt: skip
    suite += [
        expect(gx.ExpectColumnValuesToNotBeNull, "ids", "none missing", column="id"),
        expect(gx.ExpectColumnValuesToBeUnique, "ids", "none twice", column="id"),
        expect(gx.ExpectColumnValuesToNotBeNull, "labels", "none missing", column="label"),
        expect(
            gx.ExpectColumnValuesToBeInSet, "labels", f"only {', '.join(settings.labels)}",
            column="label", value_set=settings.labels,
        ),
    ]  # fmt: skip
    suite += [
        expect(
            gx.ExpectTableRowCountToBeBetween, f'label "{label}"', f"at least {settings.min_items_per_label:,}", "items",
            min_value=settings.min_items_per_label, row_condition=Column("label") == label,
        )
        for label in settings.labels
    ]  # fmt: skip
    suite += [
        expect(
            gx.ExpectColumnValuesToBeBetween, side, f"{settings.min_side:,} to {settings.max_side:,} pixels",
            column=side, min_value=settings.min_side, max_value=settings.max_side,
        )
        for side in ("width", "height")
    ]  # fmt: skip
    suite += [
        expect(
            gx.ExpectColumnMaxToBeBetween, about, f"at most {most:.2%}", "share", column=column, max_value=most,
        )
        for about, column, most in (
            ("share of exact copies in the source", "duplicate_share", settings.max_duplicate_share),
            ("share of items seen under two labels", "conflict_share", settings.max_conflict_share),
        )
    ]  # fmt: skip
    suite.append(
        expect(gx.ExpectColumnValuesToBeBetween, "brightness", "0 to 1", column="brightness", min_value=0, max_value=1)
    )
    if accepted is None:
        return suite
    whose: dict[str, Any] = {"row_condition": Column("new") == 1} if new_only else {}
    items = "of the new items" if new_only else "of all items"
    ranges = {
        "brightness": (accepted.brightness - settings.max_brightness_shift, accepted.brightness + settings.max_brightness_shift)
    }
    if accepted.sharpness > 0:  # of blank images no ratio can be said
        ranges["sharpness"] = (
            accepted.sharpness / settings.max_sharpness_ratio,
            accepted.sharpness * settings.max_sharpness_ratio,
        )
    for look, (low, high) in ranges.items():
        expected = f"{low:.4g} to {high:.4g}, as the last accepted version has {getattr(accepted, look):.4g}"
        about = f"median {look} {items}"
        suite.append(
            expect(gx.ExpectColumnMedianToBeBetween, about, expected, column=look, min_value=low, max_value=high, **whose)
        )
    return suite

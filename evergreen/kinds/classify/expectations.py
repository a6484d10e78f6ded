"""The requirements on labelled images, as expectations of Great Expectations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen import figures
from evergreen.kinds.base.expectations import expect, of_the_collection
from evergreen.kinds.classify.items import schema
from evergreen.kinds.classify.settings import ImageValidate


def expectations(settings: ImageValidate, accepted: Mapping[str, float]) -> list[Any]:
    """The requirements on the items, as expectations on the table that `tasks.validate` makes.

    Args:
        accepted: medians of brightness and sharpness in the last accepted version, with which new items are compared; empty if
            there is none.
    """
    import great_expectations.expectations as gx
    from great_expectations.expectations.row_conditions import Column

    columns = [field.name for field in schema() if field.name != "image"]
    types = {
        "id": "str", "label": "str", "width": "int32", "height": "int32", "channels": "int8",
        "brightness": "float32", "sharpness": "float32",
    }  # fmt: skip
    suite = [expect(gx.ExpectTableColumnsToMatchSet, "columns", ", ".join(columns), column_set=columns, exact_match=False)]
    for column, type_ in types.items():
        suite.append(expect(gx.ExpectColumnValuesToBeOfType, f"type of {column}", type_, column=column, type_=type_))
    for column in ("id", "label"):
        suite.append(expect(gx.ExpectColumnValuesToNotBeNull, column, "given", "have none", column=column))
    suite.append(expect(gx.ExpectColumnValuesToBeUnique, "id", "unique", "share theirs", column="id"))
    suite.append(
        expect(
            gx.ExpectColumnValuesToBeInSet, "label", f"one of {', '.join(settings.labels)}", "have another",
            column="label", value_set=settings.labels,
        )
    )  # fmt: skip
    least = settings.min_items_per_label
    for label in settings.labels:
        suite.append(
            expect(
                gx.ExpectTableRowCountToBeBetween, f'label "{label}"', f"at least {least:,}", "items",
                min_value=least, row_condition=Column("label") == label,
            )
        )  # fmt: skip
    low, high = settings.min_side, settings.max_side
    for side in ("width", "height"):
        suite.append(
            expect(
                gx.ExpectColumnValuesToBeBetween, side, f"{low:,} to {high:,} pixels", "are outside",
                column=side, min_value=low, max_value=high,
            )
        )  # fmt: skip
    suite += of_the_collection(settings)
    suite.append(
        expect(
            gx.ExpectColumnValuesToBeBetween,
            "brightness",
            "0 to 1",
            "are outside",
            column="brightness",
            min_value=0,
            max_value=1,
        )
    )
    for look, (least_look, most_look) in _accepted_ranges(settings, accepted).items():
        expected = (
            f"{figures.short(least_look, 4)} to {figures.short(most_look, 4)} "
            f"(it is {figures.short(accepted[look], 4)} in the last accepted version)"
        )
        suite.append(
            expect(
                gx.ExpectColumnMedianToBeBetween, f"median {look} of the new items", expected,
                column=look, min_value=least_look, max_value=most_look, row_condition=Column("new") == 1,
            )
        )  # fmt: skip
    return suite


def _accepted_ranges(settings: ImageValidate, accepted: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The lowest and highest median that new items may have, for brightness and sharpness."""
    if not accepted:
        return {}
    shift, ratio = settings.max_brightness_shift, settings.max_sharpness_ratio
    ranges = {"brightness": (accepted["brightness"] - shift, accepted["brightness"] + shift)}
    if accepted["sharpness"] > 0:  # a ratio is undefined for blank images
        ranges["sharpness"] = (accepted["sharpness"] / ratio, accepted["sharpness"] * ratio)
    return ranges

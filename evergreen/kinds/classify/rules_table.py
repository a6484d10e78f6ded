"""The table of a model's rules for answers: what was requested, what was chosen, and what is reached on val and on the test
split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen import figures
from evergreen.evaluation.proportions import interval
from evergreen.kinds.base.judge import Outputs
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.answers import answered
from evergreen.kinds.classify.thresholds import counted


def rows(split: Split, outputs: Outputs, settings: Mapping[str, Any]) -> tuple[dict[str, str | int], ...]:
    """The table's rows, by heading. Intervals are 95 % confidence intervals (Wilson 1927).

    Args:
        split, outputs: of the model on these items.
        settings: the model's `settings.json`, with the section `answers`.
    """
    section: dict[str, Any] = settings["answers"]
    names = list(split.facts["labels"])
    known = {one["label"]: one for one in section["thresholds"] if one["label"] in names}
    here = counted({"thresholds": [*known.values()]}, split["labels"].astype(int), *answered(outputs), names)
    there = section["val"]

    def row(what: str, requested: str, chosen: str, hits: str, of: str, label: str = "") -> dict[str, str | int]:
        found = {"what": what, "requested": requested, "chosen": chosen}
        for title, counts in (("on val", there), (f"on {split.name}", here)):
            within = counts["labels"][label] if label else counts
            found[title] = _reached(within[hits], within[of])
        return found  # type: ignore[return-value]  # texts are texts or numbers

    table = []
    for label, one in known.items():
        limit = "none" if one["threshold"] is None else f"from {figures.number(one['threshold'])} on"
        requested = f"at least {figures.percent(one['requested'])}"
        for what, of in (("recall", "items"), ("precision", "answers")):
            asked = what == one["target"]
            table.append(row(f"{what} of {label}", requested if asked else "–", limit if asked else "–", "hits", of, label))
    if "unknown_below" in section:
        table.append(row("unsure", "–", f"below {figures.number(section['unknown_below'])}", "unsure", "items"))
    elif any(one["threshold"] is not None for one in known.values()):
        table.append(row("unsure", "–", "label below its threshold", "unsure", "items"))
    if "unlike" in section:
        distance = section["unlike"]["distance"]
        limit = (
            f"none: {section['unlike']['why']}" if distance is None else f"distance over {figures.number(distance, digits=3)}"
        )
        table.append(row("unlike", f"at most {figures.percent(section['unlike']['fraction'])}", limit, "unlike", "items"))
    return (
        *table,
        row("answered", "–", "–", "answered", "items"),
        row("accuracy of the answers", "–", "–", "right", "answered"),
    )


def notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Why what was requested could not be chosen, as sentences."""
    section: dict[str, Any] = settings["answers"]
    asked = {f"{one['target']} of {one['label']}": one for one in section["thresholds"]} | {"unlike": section.get("unlike", {})}
    return tuple(f"No threshold is set for {what}: {one['why']}." for what, one in asked.items() if "why" in one)


def _reached(hits: int, items: int) -> str:
    return f"{figures.percent(hits / items, *interval(hits, items))}, {hits:,} of {items:,}" if items else "no item"

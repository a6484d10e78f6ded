"""The page of `evergreen look`: what a data set holds, and what is suspect in it. One self-contained page.

Jinja2 escapes every name (labels, groups and paths come from outside). The page's content security policy allows one script,
the page's own, by its hash, and no address except `data:`. Without scripts only the map's pictures are missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.kinds.base.explorer import Exploration
from evergreen.reporting.data_counts import Counts

SAMPLES, SAMPLED_LABELS = 8, 40
ERRORS_SHOWN, SIMILAR_SHOWN = 60, 4
GROUPS_SHOWN, BARS_SHOWN, CHANGES_SHOWN = 24, 12, 12  # groups of near-duplicates; bars of a chart; batches
OF_A_GROUP = 8  # near-duplicates of one group that are shown
NEW_SHOWN = 12
SUSPECTS_LISTED = 1_000  # in the JSON
MAP_BYTES = 5_000_000  # of the map's thumbnails
COLOURS = 12  # of labels on the map; further labels share the last one

Thumbnails = Callable[[Sequence[str]], Mapping[str, str | None]]


@dataclass(frozen=True)
class Picture:
    """An item as it is shown.

    Attributes:
        address: a `data:` URL; None if there is no picture.
        note: a few words about it.
    """

    id: str
    label: str
    source: str
    address: str | None
    note: str = ""


def render(
    scenario: str, noun: str, counts: Counts, found: Exploration | None, thumbnails: Thumbnails, *, made_at: datetime
) -> str:
    """The page, as HTML.

    Args:
        noun: the word for an item, in the singular.
        found: what the kind's explorer found; None for a page with the counts alone.
        thumbnails: gives the thumbnails of items as `data:` URLs, by id; None for items that have none.
        made_at: the time shown at the end of the page.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": figures.count, "percent": figures.percent, "probability": probability}
    template = environment.from_string(Path(__file__).with_name("data_page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        scenario=scenario, noun=noun, counts=counts, found=found, bars=_bars(counts), changes=counts.changes[:CHANGES_SHOWN],
        script=script(), policy=script_policy(), made_at=f"{made_at:%Y-%m-%d %H:%M} UTC", verdict=verdict(counts, found, noun),
        **_pictures(counts, found, thumbnails),
    )  # fmt: skip


def script() -> str:
    """The page's own script."""
    return Path(__file__).with_name("data_page.js").read_text(encoding="utf-8")


def script_policy() -> str:
    """The source expression of a content security policy that allows the page's own script, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()}'"


def verdict(counts: Counts, found: Exploration | None, noun: str) -> list[str]:
    """What matters most, in sentences."""
    said = [f"{figures.count(counts.items, noun)} in use, {figures.count(len(counts.by_label), 'label')}."]
    if counts.withdrawn:
        said.append(f"{figures.count(counts.withdrawn, noun)} withdrawn: they are not shown here.")
    if found is None:
        return said
    if found.conclusion:
        said.append(found.conclusion)
    if found.estimated_errors is not None:
        said.append(
            f"About {figures.count(found.estimated_errors, 'label')} may be wrong, by an estimate from the probabilities below; "
            f"{figures.count(len(found.label_errors), f'{noun} has', f'{noun}s have')} another label that is more probable."
        )
    alike = sum(len(group.ids) for group in found.duplicates)
    conflicts = sum(group.conflict for group in found.duplicates)
    if alike:
        said.append(
            f"{figures.count(alike, noun)} in {figures.count(len(found.duplicates), 'group')} of near-duplicates; "
            f"{figures.count(conflicts, 'group has', 'groups have')} different labels."
        )
    return said


def summary(counts: Counts, found: Exploration | None, noun: str) -> dict[str, Any]:
    """The page's content for programs."""
    whole: dict[str, Any] = {
        "items": counts.items,
        "withdrawn": counts.withdrawn,
        "by_label": counts.by_label,
        "by_group": counts.by_group,
        "by_day": counts.by_day,
        "by_source": counts.by_origin,
        "quarantined": counts.quarantined,
        "changes": [{key: value for key, value in asdict(change).items() if key != "new_ids"} for change in counts.changes],
        "conclusions": verdict(counts, found, noun),
    }
    if found is None:
        return whole
    return whole | {
        "estimated_errors": found.estimated_errors,
        "suspects_in_all": len(found.label_errors),
        "suspects": [asdict(one) | {"source": counts.sources.get(one.id, "")} for one in found.label_errors[:SUSPECTS_LISTED]],
        "near_duplicates": [asdict(group) | {"conflict": group.conflict} for group in found.duplicates[:SUSPECTS_LISTED]],
        "outliers": [asdict(one) for one in found.outliers],
        "baselines": [asdict(one) for one in found.baselines],
        "tables": {title: list(rows) for title, rows in found.tables.items()},
        "notes": list(found.notes),
    }


def probability(value: float) -> str:
    """A probability in percent, to a tenth: further digits of an estimate mean nothing."""
    if value < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if value > 0.999 else f"{100 * value:.1f} %"


def _bars(counts: Counts) -> list[dict[str, Any]]:
    """The charts of the counts: each with its title, the word for a bar, and rows of name, count, and share of the largest."""
    charts = {
        "By label": ("label", counts.by_label), "By group": ("group", counts.by_group),
        "By day of collection": ("day", counts.by_day), "By source": ("came through", counts.by_origin),
        "In quarantine": ("reason", counts.quarantined),
    }  # fmt: skip
    found = []
    for title, (word, numbers) in charts.items():
        if not numbers:
            continue
        days = title == "By day of collection"  # the newest days are shown, of all others the first ones
        listed = list(numbers.items())
        shown = listed[-BARS_SHOWN:] if days else listed[:BARS_SHOWN]
        rest = listed[:-BARS_SHOWN] if days else listed[BARS_SHOWN:]
        largest = max(numbers.values())
        rows = [(name, number, 100 * number / largest) for name, number in shown]
        further = f"{len(rest):,} others with {sum(number for _, number in rest):,} in all" if rest else ""
        found.append({"title": title, "word": word, "rows": rows, "further": further})
    return found


def _pictures(counts: Counts, found: Exploration | None, thumbnails: Thumbnails) -> dict[str, Any]:
    """The pictures of each section."""
    nothing: dict[str, Any] = {"samples": {}, "new": [], "errors": [], "groups": [], "outliers": [], "map": None}
    if found is None:
        return nothing
    samples, new = _samples(counts), [id for id in (counts.changes[0].new_ids if counts.changes else ()) if id in counts.labels]
    new, errors, groups = new[:NEW_SHOWN], found.label_errors[:ERRORS_SHOWN], found.duplicates[:GROUPS_SHOWN]
    shown = [
        *(id for ids in samples.values() for id in ids), *new, *(id for group in groups for id in group.ids[:OF_A_GROUP]),
        *(id for one in errors for id in (one.id, *one.similar[:SIMILAR_SHOWN])), *(one.id for one in found.outliers),
    ]  # fmt: skip
    addresses = thumbnails(list(dict.fromkeys([*shown, *(point.id for point in found.points)])))

    def picture(id: str, note: str = "") -> Picture:
        return Picture(id, counts.labels.get(id, ""), counts.sources.get(id, ""), addresses.get(id), note)

    return {
        "samples": {label: [picture(id) for id in ids] for label, ids in samples.items()},
        "new": [picture(id) for id in new] if len(counts.changes) > 1 else [],
        "errors": [(one, picture(one.id), [picture(id) for id in one.similar[:SIMILAR_SHOWN]]) for one in errors],
        "groups": [(group, [picture(id) for id in group.ids[:OF_A_GROUP]]) for group in groups],
        "outliers": [picture(one.id, f"{one.distance:.1f} times") for one in found.outliers],
        "map": _map(found, counts, addresses),
    }


def _samples(counts: Counts) -> dict[str, list[str]]:
    """Ids of a few items of each label, drawn at random."""
    by_label: dict[str, list[str]] = {}
    for id, label in counts.labels.items():
        by_label.setdefault(label, []).append(id)
    random = np.random.default_rng(0)
    return {
        label: [by_label[label][index] for index in random.permutation(len(by_label[label]))[:SAMPLES]]
        for label in sorted(by_label)[:SAMPLED_LABELS]
    }


def _map(found: Exploration, counts: Counts, addresses: Mapping[str, str | None]) -> dict[str, Any] | None:
    """The points with their colours, and what the script shows of each."""
    if not found.points:
        return None
    labels = sorted(counts.by_label, key=lambda label: -counts.by_label[label])
    colour = {label: min(number, COLOURS - 1) for number, label in enumerate(labels)}
    suspects = {one.id for one in found.label_errors[:ERRORS_SHOWN]}
    points, data, room = [], [], MAP_BYTES
    for point in found.points:
        label, address = counts.labels.get(point.id, ""), addresses.get(point.id)
        room -= len(address or "")
        points.append((10 + 980 * point.x, 10 + 680 * point.y, colour.get(label, COLOURS - 1), label, point.id in suspects))
        data.append([label, counts.sources.get(point.id, ""), address if room > 0 else None])
    return {
        "points": points,
        # A script element ends at the first "</", wherever that stands.
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        "legend": [(label, colour[label]) for label in labels[: COLOURS - 1]]
        + ([("others", COLOURS - 1)] if len(labels) >= COLOURS else []),
        "without": sum(one[2] is None for one in data),
    }

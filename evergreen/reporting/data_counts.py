"""The counts of a data set: by label, group, day, source and batch. They are the same for every kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.data.dataset import Records, batches, corrections, origin, parts, read_quarantine, records, table, withdrawals
from evergreen.errors import EvergreenError
from evergreen.kinds.base.contract import Contract
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

UNKNOWN_ORIGIN, NO_GROUP = "not recorded", "no group"


@dataclass(frozen=True)
class Change:
    """What one addition to the data set changed.

    Attributes:
        batch: the name of its folder.
        at: when its items were collected, or its records made, as an ISO date; "" if unknown.
        origin: `source`, `inbox`, or "" for records alone.
        new, corrected, withdrawn, reinstated: numbers of items.
        new_ids: of the new items.
    """

    batch: str
    at: str
    origin: str
    new: int
    corrected: int
    withdrawn: int
    reinstated: int
    new_ids: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    """The items in use.

    Attributes:
        items: their number.
        withdrawn: the number of items that are out of use.
        by_label, by_group, by_day, by_origin: their numbers; groups by size, days in order.
        quarantined: the number of refused items by reason, such as the same content under several labels (`label-conflict`).
        changes: by batch, the newest first.
        labels, sources: of each item, by id.
    """

    items: int
    withdrawn: int
    by_label: dict[str, int]
    by_group: dict[str, int]
    by_day: dict[str, int]
    by_origin: dict[str, int]
    quarantined: dict[str, int]
    changes: tuple[Change, ...]
    labels: dict[str, str]
    sources: dict[str, str]


def count_items(scenario: Scenario, workspace: Workspace, contract: Contract[Any]) -> Counts:
    """Count the items of a scenario's data set.

    Raises:
        WrongUse: the scenario's rule for groups does not match the items.
        EvergreenError: it has no items in use.
    """
    folders = batches(workspace, scenario.name)
    known = records(folders)
    holding = [folder for folder in folders if parts([folder])]
    columns = ["id", "label", "group", "source", "collected_at", *contract.columns(scenario)]
    rows = table(holding, list(dict.fromkeys(columns)), known)
    if not rows.num_rows:
        raise EvergreenError(
            f"scenario {scenario.name} has no items yet", fix=f"Collect them with: evergreen run {scenario.name}"
        )
    groups = contract.groups(scenario, workspace.root, rows).to_pylist()
    ids, labels = rows["id"].to_pylist(), [str(label) for label in rows["label"].to_pylist()]
    days = [at.date().isoformat() for at in rows["collected_at"].to_pylist()]
    by_group = Counter(NO_GROUP if group is None else str(group) for group in groups)
    return Counts(
        items=len(ids),
        withdrawn=len(known.withdrawn),
        by_label=contract.by_label(scenario, labels),
        by_group=dict(by_group.most_common()) if any(group is not None for group in groups) else {},
        by_day=dict(sorted(Counter(days).items())),
        by_origin=_by_origin(holding, known),
        quarantined=dict(Counter(record["reason"] for record in read_quarantine(workspace, scenario.name)).most_common()),
        changes=tuple(reversed([_change(folder) for folder in folders])),
        labels=dict(zip(ids, labels, strict=True)),
        sources=dict(zip(ids, rows["source"].to_pylist(), strict=True)),
    )


def _by_origin(folders: Sequence[Path], known: Records) -> dict[str, int]:
    found: Counter[str] = Counter()
    for folder in folders:
        for part in parts([folder])[:1]:
            found[origin(part) or UNKNOWN_ORIGIN] += table([folder], ["id"], known).num_rows
    return dict(found.most_common())


def _change(folder: Path) -> Change:
    first = next(iter(parts([folder])), None)
    rows = table([folder], ["id", "collected_at"], Records()) if first else None
    corrected, withdrawn = corrections([folder]), withdrawals([folder])
    moments = [one.at[:10] for one in corrected] + [one.at[:10] for one in withdrawn]
    if rows:
        moments.append(rows["collected_at"][0].as_py().date().isoformat())
    return Change(
        batch=folder.name,
        at=max(moments, default=""),
        origin=(origin(first) or UNKNOWN_ORIGIN) if first else "",
        new=rows.num_rows if rows else 0,
        corrected=len({one.id for one in corrected}),
        withdrawn=len({one.id for one in withdrawn if one.withdrawn}),
        reinstated=len({one.id for one in withdrawn if not one.withdrawn}),
        new_ids=tuple(rows["id"].to_pylist()) if rows else (),
    )

"""Items that were kept for longer than a scenario allows (`collect.retention_days`): what they are, and when the next ones will
be. `flows/retention.py` removes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evergreen.data.dataset import Records, batches, iter_parts, read_quarantine
from evergreen.data.inbox import TAKEN, inbox_of
from evergreen.figures import count
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace


@dataclass(frozen=True)
class Expired:
    """What is older than the scenario allows.

    Attributes:
        days: `collect.retention_days`.
        before: items that were collected before this moment (UTC, whole seconds) are too old.
        items: number of such items in the data set.
        quarantined: number of such records in quarantine.
        taken: number of files in the inbox's `taken/` that were put there before.
        oldest: when the oldest item that may stay was collected; None if there is none.
    """

    days: int
    before: datetime
    items: int
    quarantined: int
    taken: int
    oldest: datetime | None

    def __bool__(self) -> bool:
        return bool(self.items or self.quarantined or self.taken)

    def __str__(self) -> str:
        counts = {
            count(self.items, "item"): self.items,
            f"{self.quarantined:,} in quarantine": self.quarantined,
            f"{count(self.taken, 'file')} in the inbox's taken/": self.taken,
        }
        what = ", ".join(text for text, many in counts.items() if many)
        if what:
            return f"collected before {self.before:%Y-%m-%d %H:%M} UTC (collect.retention_days: {self.days}): {what}"
        following = f"; the first item reaches it on {self.oldest + timedelta(days=self.days):%Y-%m-%d}" if self.oldest else ""
        return f"nothing is older than {count(self.days, 'day')} (collect.retention_days){following}"


def expired(scenario: Scenario, workspace: Workspace, now: datetime) -> Expired | None:
    """What is too old in the scenario's data set, quarantine and inbox; None if the scenario keeps items for ever."""
    days = scenario.collect.retention_days
    if days is None:
        return None
    before = limit(days, now)
    ages: list[datetime] = []
    for rows in iter_parts(batches(workspace, scenario.name), ["collected_at"], Records()):
        ages += rows["collected_at"].to_pylist()
    kept = [age for age in ages if age >= before]
    refused = sum(record_is_older(record, before) for record in read_quarantine(workspace, scenario.name))
    taken = sum(1 for _ in older_files(inbox_of(scenario, workspace), before))
    return Expired(days, before, len(ages) - len(kept), refused, taken, min(kept, default=None))


def limit(days: int, now: datetime) -> datetime:
    """The moment before which items are too old. An item that is exactly so many days old may stay."""
    return now.astimezone(UTC).replace(microsecond=0) - timedelta(days=days)


def record_is_older(record: dict[str, object], before: datetime) -> bool:
    """Whether a record of the quarantine is too old."""
    return datetime.fromisoformat(str(record["collected_at"])) < before


def older_files(inbox: Path, before: datetime) -> Iterator[Path]:
    """The files that were put into the inbox's `taken/` before. Moving a file changes its time of change (ctime); its time of
    modification may be that of the photograph."""
    for path in sorted((inbox / TAKEN).rglob("*")):
        status = os.lstat(path)
        if not path.is_dir() and datetime.fromtimestamp(status.st_ctime, UTC) < before:
            yield path

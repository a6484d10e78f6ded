"""What a registered model came from, beside it in its artifacts, so that it travels with the version: whatever new items are compared
with, at any later time and on any machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from evergreen.scenario.settings import Scenario
from evergreen.workspace import replace_file

ORIGIN = "origin.json"
REFERENCE = "reference.npz"  # `evergreen.monitoring.drift.Observations` of its held-out items


@dataclass(frozen=True)
class Origin:
    """Where a model version comes from, and how good it was then.

    Attributes:
        data_version: that it was trained on.
        batches: names of the scenario's batch folders in it.
        registered_at: ISO 8601 in UTC.
        quality: on the test split of then, as the kind's judge counts it up (`Judge.tally`), such as `right` and `items`.
    """

    data_version: str
    batches: tuple[str, ...]
    registered_at: str
    quality: dict[str, float]

    def save(self, path: Path) -> None:
        """Write it as JSON, by one rename."""
        content = {key: value for key, value in asdict(self).items() if key != "quality"} | self.quality
        replace_file(path, json.dumps(content, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Origin | None:
        """What `save` wrote; None where there is none, as with versions that were registered before there was such a file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = {key: content.pop(key) for key in ("data_version", "batches", "registered_at")}
            return cls(**known | {"batches": tuple(known["batches"])}, quality=content)
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Attempt:
    """The last retraining that ended, promoted or not: what it had is not new to the next one as long as the champion is the same, or a
    person has put the one before back.

    Attributes:
        champion: the version in use when it ended; None where there was none.
        batches: names of the batch folders that it had.
        ended_at: ISO 8601 in UTC.
        settings: `settings_digest` of then; empty where it was not recorded.
    """

    champion: int | None
    batches: tuple[str, ...]
    ended_at: str
    settings: str = ""

    def save(self, path: Path) -> None:
        """Write it as JSON, by one rename."""
        replace_file(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Attempt | None:
        """What `save` wrote, or None."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(**told | {"batches": tuple(told["batches"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None


def settings_digest(scenario: Scenario) -> str:
    """A name for all settings that a model, and the gate's decision on it, depend on."""
    settings = scenario.model_dump(mode="json", by_alias=True, include=scenario.deciding)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

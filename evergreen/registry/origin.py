"""The origin of a registered model, stored in its artifacts. It travels with the version, so that new items can be compared
with it at any later time and on any machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from evergreen.scenario.settings import Scenario
from evergreen.workspace import replace_file

ORIGIN = "origin.json"
REFERENCE = "reference.npz"  # `evergreen.monitoring.drift.Observations` of the model's held-out items


@dataclass(frozen=True)
class Origin:
    """The origin of a model version, and its quality at registration.

    Attributes:
        data_version: the version of the data that it was trained on.
        batches: names of the scenario's batch folders in that version.
        registered_at: ISO 8601 in UTC.
        quality: on the test split at that time, as tallied by the kind's judge (`Judge.tally`), such as `right` and `items`.
    """

    data_version: str
    batches: tuple[str, ...]
    registered_at: str
    quality: dict[str, float]

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        content = {key: value for key, value in asdict(self).items() if key != "quality"} | self.quality
        replace_file(path, json.dumps(content, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Origin | None:
        """Read what `save` wrote; None if there is no valid file, as in versions registered before this file existed."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = {key: content.pop(key) for key in ("data_version", "batches", "registered_at")}
            return cls(**known | {"batches": tuple(known["batches"])}, quality=content)
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class LastRetraining:
    """The last completed retraining, whether or not its model was promoted. Its batches are not new to the next retraining as
    long as the champion is the same, or has been rolled back to the previous one.

    Attributes:
        champion: the version in use when it ended; None if there was none.
        batches: names of the batch folders that it used.
        ended_at: ISO 8601 in UTC.
        settings: `settings_digest` at that time; empty if it was not recorded.
    """

    champion: int | None
    batches: tuple[str, ...]
    ended_at: str
    settings: str = ""

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        replace_file(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> LastRetraining | None:
        """Read what `save` wrote; None if there is no valid file."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls(**record | {"batches": tuple(record["batches"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None


def settings_digest(scenario: Scenario) -> str:
    """A digest of all settings on which a model, and the gate's decision about it, depend: 16 hex digits."""
    settings = scenario.model_dump(mode="json", by_alias=True, include=scenario.deciding)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

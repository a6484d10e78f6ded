"""decide: determine whether there is a reason to train again.

Reads   the result of *monitor*, and the scenario's section `retraining`.
Writes  nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from evergreen.kinds.base.kind import kind_of
from evergreen.scenario.settings import Retraining, Scenario
from evergreen.workspace import Workspace
from tasks.monitor import Findings
from tasks.page import Page, bullets
from tasks.stage import Stage


@dataclass(frozen=True)
class Decision:
    """Whether to train again.

    Attributes:
        name: the scenario's name.
        reasons: reasons to train, each a clause with its figures; without any there is nothing to do.
        against: the same for what was checked and is not a reason.
    """

    name: str
    reasons: tuple[str, ...]
    against: tuple[str, ...]

    @property
    def due(self) -> bool:
        """True if there is a reason to train."""
        return bool(self.reasons)

    def __str__(self) -> str:
        if self.due:
            return f"retraining, because {'; '.join(self.reasons)}."
        return f"nothing to do: {'; '.join(self.against)}."


def decide(scenario: Scenario, workspace: Workspace, seen: Findings) -> Decision:
    """Compare the findings of *monitor* with the scenario's settings."""
    settings, judge = scenario.retraining, kind_of(scenario).judge
    if seen.champion is None and not seen.tried:
        return Decision(scenario.name, ("there is no champion yet",), ())
    judged = [
        _enough(settings, seen),
        *([(seen.drift.drifted, seen.drift.reason)] if seen.drift else []),
        *([judge.worse(seen.quality.then, seen.quality.now, settings.quality_level)] if seen.quality else []),
        *([_old(settings, seen)] if seen.age_days is not None and settings.max_age_days is not None else []),
    ]
    reasons = tuple(words for holds, words in judged if holds)
    return Decision(scenario.name, reasons, (*(words for holds, words in judged if not holds), *seen.unknown))


def _enough(settings: Retraining, seen: Findings) -> tuple[bool, str]:
    came = seen.new_items + seen.corrected_items
    words = f"{seen.new_items:,} new and {seen.corrected_items:,} corrected items, where {settings.min_new_items:,} are enough"
    return came >= settings.min_new_items, words


def _old(settings: Retraining, seen: Findings) -> tuple[bool, str]:
    assert seen.age_days is not None and settings.max_age_days is not None
    words = f"the last training was {seen.age_days:.1f} days ago, where {settings.max_age_days:g} are allowed"
    if seen.age_days <= settings.max_age_days:
        return False, words
    if not seen.new_items + seen.corrected_items:
        return False, f"{words}, but the same data would give the same model"
    return True, words


def page(scenario: Scenario, workspace: Workspace, decision: Decision) -> Page:
    """The reasons, and what was checked and is not a reason."""
    lists = {"Reasons to train again": decision.reasons, "No reasons": decision.against}
    return Page(texts={heading: bullets(clauses) for heading, clauses in lists.items() if clauses})


stage = Stage(decide, Decision, page=page)

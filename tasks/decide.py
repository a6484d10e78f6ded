"""decide: is there a reason to train again?

Reads   what `look` found, and the scenario's section `retraining`.
Writes  nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from evergreen.metrics import difference_interval
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace, replace_file
from tasks.look import News
from tasks.stage import Page, Stage

TRIED = "retrained.json"


@dataclass(frozen=True)
class Decision:
    """Whether to train again.

    Attributes:
        reasons: to do so, in words; none: there is nothing to do.
        otherwise: in words, why there is nothing to do; empty where there is a reason.
    """

    reasons: tuple[str, ...]
    otherwise: str

    def __str__(self) -> str:
        return f"train again: {'; '.join(self.reasons)}." if self.reasons else f"nothing to do: {self.otherwise}."


def decide(scenario: Scenario, workspace: Workspace, news: News) -> Decision:
    """Give every reason there is.

    What was learned from already, and did not make a better champion, is no reason a second time: whatever starts the flow, a
    schedule or drift that is seen again and again, it trains once for the same items.
    """
    if not news.new_items:
        return Decision((), "nothing has come in since the champion was trained")
    if _tried(scenario, workspace) == _mark(news):
        return Decision((), "these items were learned from already, and the gate kept the champion")
    reasons = tuple(_reasons(scenario, news))
    return Decision(reasons, "" if reasons else "the new items are few, like the old ones, and predicted as well")


def _reasons(scenario: Scenario, news: News) -> Iterator[str]:
    settings = scenario.retraining
    share = news.new_items / max(news.old_items, 1)
    if settings.min_new_share is not None and share >= settings.min_new_share:
        yield f"{news.new_items:,} new items, {share:.1%} of the {news.old_items:,} learned from (from {settings.min_new_share:.1%} on)"
    if news.drift is not None and news.drift.drifted:
        yield news.drift.reason
    low, high = difference_interval(news.right, news.looked_at, news.test_right, news.test_items)
    if high < 0:
        yield (
            f"the champion gets {news.right / news.looked_at:.1%} of {news.looked_at:,} new items right, and had "
            f"{news.test_right / news.test_items:.1%} at promotion: {-high:.1%} to {-low:.1%} less, with 95 % confidence"
        )
    if settings.max_age_days is not None and news.age_days >= settings.max_age_days:
        yield f"the champion is {news.age_days:.0f} days old (from {settings.max_age_days:g} on)"


def remember_tried(scenario: Scenario, workspace: Workspace, news: News) -> None:
    """Note that a model was trained for these news, whatever the gate said of it."""
    replace_file(workspace.record(scenario.name) / TRIED, json.dumps(_mark(news)).encode())


def _tried(scenario: Scenario, workspace: Workspace) -> dict[str, object] | None:
    try:
        tried: dict[str, object] = json.loads((workspace.record(scenario.name) / TRIED).read_text())
    except (OSError, ValueError):
        return None
    return tried


def _mark(news: News) -> dict[str, object]:
    return {"champion": news.champion, "new_batches": list(news.new_batches)}


def page(scenario: Scenario, workspace: Workspace, decision: Decision) -> Page:
    """The reasons."""
    return Page(tables={"decision": [{"reason": reason} for reason in decision.reasons or (f"none: {decision.otherwise}",)]})


stage = Stage(decide, Decision, page=page)

"""Limits in watt-hours, grams and money for a run and a scenario's calendar month, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from evergreen import figures
from evergreen.energy.carbon import intensity
from evergreen.energy.ledger import Cost, Entry, of_month, read
from evergreen.errors import EvergreenError
from evergreen.planning.estimate import Estimate
from evergreen.scenario.settings import Limits, Scenario
from evergreen.workspace import Workspace


class OverBudget(EvergreenError):
    """A run was not started because it would exceed a limit."""


def is_limited(scenario: Scenario) -> bool:
    """Whether the scenario sets any limit."""
    return any(value is not None for limits in (scenario.budget.run, scenario.budget.month) for _, value in limits)


def check_budget(
    scenario: Scenario, workspace: Workspace, estimate: Estimate, *, now: datetime, spent: Cost | None = None
) -> None:
    """Check that the estimated run stays within its own budget and within what is left of the month's.

    Args:
        spent: what the run itself has spent so far; the ledger includes it too.

    Raises:
        OverBudget: it would not, or its cost can't be known; the message gives the numbers for the first limit exceeded.
    """
    for what, ahead, limit, unit in _limited(scenario.budget.run, estimate.cost, estimate.currency):
        already = getattr(spent, what) if spent else 0.0
        unknown = "" if already is not None else ", and some stages took nobody knows what"
        _refuse_where_over(scenario, "run", what, already or 0.0, unknown, ahead, limit, unit)
    this_month = of_month(read(workspace, scenario.name), now)
    for what, ahead, limit, unit in _limited(scenario.budget.month, estimate.cost, estimate.currency):
        before, unknown = _spent(this_month, what)
        _refuse_where_over(scenario, "month", what, before, unknown, ahead, limit, unit)


def training_limit_wh(scenario: Scenario) -> float | None:
    """The energy at which training stops with its best weights: the lowest of `train.max_wh` and the run's limits of energy
    and carbon, the latter converted by the grid's intensity. Money is only checked before the start."""
    run = scenario.budget.run
    by_carbon = None if run.gco2e is None else run.gco2e / intensity(scenario.country).gco2e_per_kwh * 1000
    return min((limit for limit in (scenario.train.max_wh, run.wh, by_carbon) if limit is not None), default=None)


def left_of_month_wh(scenario: Scenario, workspace: Workspace) -> float | None:
    """What remains of the month's limits of energy and carbon, in Wh, 0 or more; None without such limits. Unmeasured
    consumption isn't counted."""
    month, grid = scenario.budget.month, intensity(scenario.country)
    spent = of_month(read(workspace, scenario.name), datetime.now(UTC))
    left = []
    if month.wh is not None:
        left.append(month.wh - _spent(spent, "energy_wh")[0])
    if month.gco2e is not None:
        left.append((month.gco2e - _spent(spent, "carbon_gco2e")[0]) / grid.gco2e_per_kwh * 1000)
    return max(0.0, min(left)) if left else None


def _limited(limits: Limits, cost: Cost, currency: str | None) -> Iterator[tuple[str, float | None, float, str]]:
    """For each limit that is set: the attribute of `Cost` that it limits, that attribute's value, the limit and its unit."""
    for what, limit, unit in (
        ("energy_wh", limits.wh, "Wh"),
        ("carbon_gco2e", limits.gco2e, "gCO2e"),
        ("money", limits.money, currency or ""),
    ):
        if limit is not None:
            yield what, getattr(cost, what), limit, unit


def _spent(entries: list[Entry], what: str) -> tuple[float, str]:
    """The sum of the known values, and a clause about the unknown ones (empty if there are none)."""
    values = [getattr(entry.cost, what) for entry in entries]
    unknown = sum(value is None for value in values)
    return sum(
        value for value in values if value is not None
    ), f", and {unknown:,} stages took nobody knows what" if unknown else ""


def _refuse_where_over(
    scenario: Scenario, span: str, what: str, spent: float, unknown: str, ahead: float | None, limit: float, unit: str
) -> None:
    key = {"energy_wh": "wh", "carbon_gco2e": "gco2e", "money": "money"}[what]
    fix = f"Raise budget.{span}.{key} in scenarios/{scenario.name}.yaml, train less (epochs, filters)"
    fix += ", or wait for the next month." if span == "month" else "."
    if ahead is None:
        raise OverBudget(
            f"the {span}'s budget of {figures.plain(limit)} {unit} cannot be kept: what the run takes of it can't be known here",
            fix=fix,
        )
    if spent + ahead > limit:
        since = {"run": "already", "month": "this month"}[span]
        before = (
            f"{figures.short(spent)} {unit} are spent {since}{unknown}, and " if spent or unknown or span == "month" else ""
        )
        raise OverBudget(
            f"the run would pass the {span}'s budget of {figures.plain(limit)} {unit}: {before}it is estimated to take {figures.short(ahead)} {unit}",
            fix=fix,
        )

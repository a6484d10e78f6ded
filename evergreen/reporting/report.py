"""The report: was retraining worth it? One self-contained page, made from the existing records.

Jinja2 escapes every name (labels' and files' names come from outside); only the charts, which contain none, are inserted as
they are. The page's content security policy forbids scripts and every address except `data:`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen import figures as figures_
from evergreen.kinds.base.comparison import Figure
from evergreen.kinds.base.metric import Metric
from evergreen.reporting import charts
from evergreen.reporting.history import DataState, Event, History, Version

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Section:
    """The page's section about one scenario."""

    history: History
    answer: str
    notes: tuple[str, ...]
    figures: tuple[tuple[str, str, str], ...]  # name, value, explanation
    charts: tuple[str, ...]
    front_chart: str | None


def render(histories: Sequence[History], *, made_at: datetime) -> str:
    """The page, as HTML.

    Args:
        histories: one for each scenario.
        made_at: the time shown at the end of the page.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "value": value, "interval": interval, "energy": figures_.energy, "carbon": figures_.carbon, "money": figures_.money,
        "count": figures_.count, "day": day, "moment": moment, "story": story, "change": change,
    }  # fmt: skip
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(sections=[section(history) for history in histories], made_at=made_at)


def figures(history: History) -> dict[str, Any]:
    """The page's content for a scenario, for programs; unknown values are None."""
    record = asdict(history) | {"answer": answer(history), "front": history.front()}
    del record["metrics"]
    record |= record.pop("review")["figures"]
    for version in record["versions"]:
        for key, (middle, low, high) in version.pop("quality").items():
            version |= {key: middle, f"{key}_low": low, f"{key}_high": high}
    for state in record["data"]:
        state.pop("thumbnails")
    record["quarantined"] = history.quarantined.by_reason
    return record


def section(history: History) -> Section:
    """A scenario's section, in words and pictures."""
    return Section(history, answer(history), tuple(notes(history)), tuple(_figures(history)), *_charts(history))


def answer(history: History) -> str:
    """Whether retraining was worth it, in a sentence or two."""
    champion = history.version(history.champion)
    if not history.versions:
        return f"No model yet. Train one with: evergreen run {history.scenario}"
    if champion is None:
        return f"{_count(len(history.versions), 'version')} registered, and none is in use."
    metric = history.metrics[0]
    now = f"Version {champion.version} is in use, {metric.title} {value(metric, champion.quality[metric.key])}"
    first, later = history.versions[0], history.versions[1:]
    if not later:
        return f"{now}. Nothing has been retrained yet."
    price = _price(later, history.currency)
    if champion.version == first.version:
        return f"{now}. {_count(len(later), 'retraining')} brought nothing better, for {price}."
    reached, began = champion.quality[metric.key][0], first.quality[metric.key][0]
    if reached is None or began is None:
        return f"{now}. {_count(len(later), 'retraining')} took {price}; what they brought is unknown."
    gain = metric.gain(began, reached)
    brought = f"{metric.gain_text(abs(gain)).lstrip('+')} {'better' if gain > 0 else 'worse'} than version {first.version}" if gain else (
        f"as much as version {first.version}"
    )  # fmt: skip
    return f"{now}: {brought}, for {_count(len(later), 'retraining')} that took {price}."


def notes(history: History) -> Iterable[str]:
    """Remarks that qualify the answer."""
    champion, first = history.version(history.champion), history.versions[0] if history.versions else None
    if champion and first and champion.version != first.version:
        if champion.test_items != first.test_items:
            yield (
                f"Versions {first.version} and {champion.version} were measured on different test splits ({figures_.count(first.test_items)} and "
                f"{figures_.count(champion.test_items)} items). The gate compares on the same items; this page shows what each run measured."
            )
        ends = [version.quality[history.metrics[0].key] for version in (champion, first)]
        lows, highs = (_known(one[number] for one in ends) for number in (1, 2))
        if len(lows) == len(highs) == 2 and max(lows) <= min(highs):
            yield f"The 95 % intervals of versions {first.version} and {champion.version} overlap: taken alone, the difference may be chance."
    if champion and champion.gap:
        yield champion.gap
    if history.versions and (last := history.versions[-1]).promoted is False and last.reason:
        yield f"The last one, version {last.version}, was not promoted: {last.reason}."
    if history.events and history.events[-1].how != "promoted":
        yield f"{story(history.events[-1])}."
    if history.unfinished:
        yield f"{_count(history.unfinished, 'run')} ended without a model; what they took is in what was spent in all."


def _figures(history: History) -> Iterable[tuple[str, str, str]]:
    champion = history.version(history.champion)
    if champion:
        for metric in history.metrics:
            figure = champion.quality[metric.key]
            yield metric.title, value(metric, figure), interval(metric, figure)
        of_1000 = figures_.energy(champion.energy_wh_per_1000, champion.energy_uncertainty_wh_per_1000)
        yield "1,000 predictions", of_1000, "of the version in use"
    if history.versions:
        spent = _sums(history.versions, history.currency)
        made = f"for {_count(len(history.versions), 'model')}"
        yield "energy", spent["energy"], f"{spent['methods']}{made}"
        yield "carbon", spent["carbon"], made
        yield "money", spent["money"], made if history.currency else "the scenario names no price"
    if history.spent is not None:
        whole = history.spent
        yield (
            "spent in all on this machine",
            figures_.energy(whole.energy_wh, whole.energy_uncertainty_wh),
            "every stage that ran, also of runs that failed",
        )
    waited = _known(version.saved_by_waiting_gco2e for version in history.versions)
    warm = _known(version.saved_by_warm_start_wh for version in history.versions)
    nothing = "nothing recorded yet"
    yield "saved by waiting", figures_.carbon(sum(waited)) if waited else "–", _runs_of(waited) or nothing
    yield "saved by warm starts", figures_.energy(sum(warm)) if warm else "–", _runs_of(warm) or nothing


def _charts(history: History) -> tuple[tuple[str, ...], str | None]:
    versions = history.versions
    if not versions:
        return (), None
    numbers, champion, name = [version.version for version in versions], history.champion, history.scenario
    champion = champion if champion in numbers else None
    headline = history.metrics[0]
    factor = 100.0 if headline.unit == "%" else 1.0
    nothing: list[charts.Interval] = [(None, None)] * len(versions)
    drawn = [
        charts.over_versions(
            f"Quality of {name} by version", f"on the test split, {headline.unit}", numbers,
            {
                metric.title: (
                    [_times(factor, v.quality[metric.key][0]) for v in versions],
                    [(_times(factor, v.quality[metric.key][1]), _times(factor, v.quality[metric.key][2])) for v in versions],
                )
                for metric in history.metrics
                if metric.unit == headline.unit
            },
            champion=champion, name=f"{name}-quality", most=100 if headline.unit == "%" else None,
        ),
        charts.over_versions(
            f"Energy that each version of {name} took", "Wh", numbers,
            {"energy": ([v.energy_wh for v in versions], [_around(v.energy_wh, v.energy_uncertainty_wh) for v in versions])},
            champion=champion, name=f"{name}-energy",
        ),
        charts.over_versions(
            f"Carbon that each version of {name} took", "gCO2e", numbers,
            {"carbon": ([v.carbon_gco2e for v in versions], nothing)}, champion=champion, name=f"{name}-carbon",
        ),
    ]  # fmt: skip
    if any(version.money is not None for version in versions):
        money = {"money": ([version.money for version in versions], nothing)}
        drawn.append(
            charts.over_versions(
                f"What each version of {name} cost",
                history.currency or "",
                numbers,
                money,
                champion=champion,
                name=f"{name}-money",
            )
        )
    known = [
        (v, v.quality[headline.key], v.energy_wh_per_1000)
        for v in versions
        if v.quality[headline.key][0] is not None and v.energy_wh_per_1000 is not None
    ]
    if not known:
        return tuple(drawn), None
    unit, scale = _energy_unit(max(energy for _, _, energy in known))
    points = [
        charts.FrontPoint(
            v.version,
            factor * (middle or 0.0),
            (_times(factor, low), _times(factor, high)),
            energy * scale,
            _around(energy * scale, _times(scale, v.energy_uncertainty_wh_per_1000)),
        )
        for v, (middle, low, high), energy in known
    ]
    title = f"{headline.title.capitalize()} of {name} against the energy of a prediction"
    return tuple(drawn), charts.front(
        title, points, history.front(), metric=headline, unit=unit, champion=champion, name=f"{name}-front"
    )


def _energy_unit(largest_wh: float) -> tuple[str, float]:
    """A unit in which the largest value is about 0.1 to 100, and the number of such units in one Wh."""
    return next(
        ((unit, factor) for unit, factor, least in (("Wh", 1.0, 0.1), ("mWh", 1e3, 1e-4)) if largest_wh >= least), ("µWh", 1e6)
    )


def _sums(versions: Sequence[Version], currency: str | None) -> dict[str, str]:
    """Each sum, with the number of unknown parts; if all are unknown, so is the sum."""

    def total(values: list[float | None], shown: Callable[[float], str]) -> str:
        known, missing = _known(values), values.count(None)
        if not known:
            return UNKNOWN
        return shown(sum(known)) + (f" and {missing} unknown" if missing else "")

    uncertain = _known(version.energy_uncertainty_wh for version in versions)
    # The errors of estimates are correlated, so their uncertainties add up.
    uncertainty_wh = sum(uncertain) if len(uncertain) == len(versions) else None
    methods = sorted({method for version in versions for method in version.energy_methods})
    return {
        "energy": total([version.energy_wh for version in versions], lambda wh: figures_.energy(wh, uncertainty_wh)),
        "methods": f"{' and '.join(methods)}, " if methods else "",
        "carbon": total([version.carbon_gco2e for version in versions], figures_.carbon),
        "money": total([version.money for version in versions], lambda sum_: figures_.money(sum_, currency or ""))
        if currency
        else UNKNOWN,
    }


def _price(versions: Sequence[Version], currency: str | None) -> str:
    spent = _sums(versions, currency)
    parts = [spent[what] if spent[what] != UNKNOWN else f"unknown {what}" for what in ("energy", "carbon")]
    return ", ".join([*parts, spent["money"]] if currency else parts)


def story(event: Event) -> str:
    """A change of champion, in words."""
    instead = f" in place of version {event.instead_of}" if event.instead_of is not None else ""
    when = "" if event.at is None else f" on {moment(event.at)}"
    if event.how == "promoted":
        return f"Version {event.version} was promoted{instead}{when}"
    return f"Version {event.version} was put back{instead}{when}"


def change(state: DataState) -> str:
    """The changes of a data version, in words."""
    if state.added is None or state.items is None:
        return "its items are not all in data/ any more"
    parts = [f"{_count(sum(state.added.values()), 'item')} added"] if state.added else []
    if state.relabelled:
        parts.append(f"{_count(state.relabelled, 'label')} corrected")
    if state.withdrawn:
        parts.append(f"{_count(state.withdrawn, 'item')} withdrawn")
    return f"{', '.join(parts) or 'nothing new'}; {_count(sum(state.items.values()), 'item')} in all"


def value(metric: Metric, figure: Figure) -> str:
    """A figure rounded to the digits that its 95 % interval justifies; the interval is shown beside it."""
    return metric.text(*figure).partition(" (")[0]


def interval(metric: Metric, figure: Figure) -> str:
    """The interval of a figure."""
    _, low, high = figure
    if low is None or high is None:
        return "interval unknown"
    return metric.text((low + high) / 2, low, high).partition("(")[2].rstrip(")")


def day(at: datetime) -> str:
    """A date for people, such as 3 May 2026."""
    return f"{at.day} {at:%b %Y}"


def moment(at: datetime) -> str:
    """A moment for people, to the minute, in UTC."""
    return f"{day(at)}, {at:%H:%M} UTC"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _runs_of(values: list[float]) -> str:
    return f"in {_count(len(values), 'run')}" if values else ""


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _around(value: float | None, uncertainty: float | None) -> charts.Interval:
    return (None, None) if value is None or uncertainty is None else (max(0.0, value - uncertainty), value + uncertainty)

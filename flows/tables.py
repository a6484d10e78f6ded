"""The tables that people read in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evergreen import figures
from evergreen.kinds.base.kind import kind_of
from evergreen.planning.estimate import Estimate
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from flows.terminal import console as console_of

if TYPE_CHECKING:
    from flows.overview import Row, Status


def show_summary(summary: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """A run's summary: its stages, its quality and cost, and where to look."""
    console = console_of(out)
    stages = _table(f"{summary['scenario']}: stages", ("stage", "state", ">time", ">energy"))
    for name, stage in summary["stages"].items():
        state = Text(stage["state"], style="green" if stage["state"] == "ran" else "dim")
        stages.add_row(name, state, figures.duration(stage["seconds"]), figures.energy(stage["energy_wh"]))
    console.print(stages)

    result = Table(title=f"{summary['scenario']}: result", title_justify="left", show_header=False)
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for what, value in _facts(summary, workspace).items():
        result.add_row(what, Text(value, style="green" if what == "promoted" and summary["promoted"] else ""))
    console.print(result)

    apart = summary.get("validation_and_test") or {}
    if apart.get("sentence"):
        _say(console, f"{apart['sentence']}", "bold yellow")
    _where_to_look(summary, workspace, console)
    if all(stage["state"] == "unchanged" for stage in summary["stages"].values()):
        _say(console, "Nothing has changed since the last run: nothing was done.", "bold green")


def show_retraining(summary: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """What came, why there was a training or none, and the training's summary."""
    console = console_of(out)
    _say(console, f"Inbox: {summary['inbox']}.")
    for heading, clauses in (("Reasons to train again", summary["reasons"]), ("No reasons", summary["against"])):
        if clauses:
            _say(console, f"{heading}:", "bold")
            _points(console, clauses)
    if summary["retrained"]:
        _points(
            console,
            [
                f"from {one['start']}: {'was promoted' if one['promoted'] else 'was not promoted'}, {one['reason']}"
                for one in summary["tries"]
            ],
        )
        show_summary(summary, workspace, out)
    else:
        state = "It waits" if summary["reasons"] else "Nothing to do"
        _say(console, f"{state} ({figures.energy(summary['energy_wh'])}).", "bold green")


def show_tuning(found: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """The best trials of a tuning and what became of the winner."""
    console, scenario = console_of(out), Scenario.load(workspace.scenarios, found["scenario"])
    scored = sorted((one for one in found["trials"] if one["score"] is not None), key=lambda one: -one["score"])
    own = next(one for one in scored if one["own"])
    shown = scored[:8] + [one for one in scored[8:] if one["own"]]
    table = _table(
        f"{found['scenario']}: the best of {figures.count(len(scored), 'finished trial')}",
        (">trial", f">{found['metric']}, val", ">per 1,000", ">training", "front", "other settings"),
    )
    metric = kind_of(scenario).judge.headline(scenario)
    for one in shown:
        other = [f"{name} {figures.plain(value)}" for name, value in one["settings"].items() if value != own["settings"][name]]
        table.add_row(
            str(one["number"]),
            metric.text(one["quality"]),
            figures.energy(one["energy_wh_per_1000"]),
            figures.energy(one["energy_wh"]),
            "yes" if one["number"] in found["front"] else "",
            "none: the scenario's own" if one["own"] else ", ".join(other),
        )
    console.print(table)
    ended = sum(one["state"] == "pruned" for one in found["trials"])
    why = {"budget": "the budget was spent", "trials": "so many trials were asked for"}[found["stopped"]]
    spent = f"{figures.energy(found['energy_wh'])} of {figures.energy(found['budget_wh'])} spent"
    _say(console, f"{spent}; {figures.count(ended, 'trial')} ended early; {why}.")
    name, winner = found["scenario"], next(one for one in scored if one["number"] == found["winner"])
    if found["applied"]:
        _say(console, f"Written into scenarios/{name}.yaml: trial {found['winner']}. Next: evergreen run {name}", "bold green")
    elif found["better"]:
        _say(console, f"Trial {found['winner']} is {found['reason']}.")
        _say(console, "To write it into the scenario, repeat the command with --apply. Nothing was written.", "bold")
    else:
        why = found["reason"] if winner["own"] else f"Trial {found['winner']} is {found['reason']}"
        _say(console, f"The settings stay: {why}.", "bold")
    _places(
        console,
        {
            "picture": workspace.outputs(name) / "tuning" / "front.png",
            "table": workspace.outputs(name) / "tuning" / "trials.csv",
        },
    )


def show_findings(findings: list[Any], out: IO[str]) -> None:
    """What `evergreen doctor` saw, a line each."""
    table = _table("", ("", "what", "seen", "what to do"))
    signs = {"fine": Text("✓", "green"), "note": Text("•", "yellow"), "broken": Text("✗", "red")}
    for finding in findings:
        table.add_row(signs[finding.state], Text(finding.what), Text(finding.seen), Text(finding.fix))
    console_of(out).print(table)


def show_estimate(expected: Estimate, out: IO[str]) -> None:
    """What a run is expected to take, by stage and in all."""
    console = console_of(out)
    table = _table("If every stage has to run", ("stage", ">time", ">energy"))
    for name, (seconds, energy_wh) in expected.stages.items():
        table.add_row(name, figures.duration(seconds), figures.energy(energy_wh))
    console.print(table)
    cost, least, most = expected.cost, expected.least, expected.most
    span = f"{figures.duration(least.seconds)} to {figures.duration(most.seconds)}"
    facts = {
        "time": f"{figures.duration(cost.seconds)} ({span})",
        "energy": figures.energy(cost.energy_wh, cost.energy_uncertainty_wh),
        "carbon": figures.carbon(cost.carbon_gco2e),
        "money": "no price in the scenario" if cost.money is None else figures.money(cost.money, expected.currency or ""),
    }
    for what, value in facts.items():
        _say(console, f"{what:8}{value}")
    _say(console, f"From: {expected.basis}.")
    if expected.missing:
        _say(console, f"Not counted, as they never ran here: {', '.join(expected.missing)}.")


def show_scenarios(rows: Sequence[Row], out: IO[str]) -> None:
    """`evergreen list`: a line a scenario."""
    console = console_of(out)
    table = _table("", ("scenario", ">items", "champion", "quality", "last run", "schedule"))
    for row in rows:
        if row.problem:
            table.add_row(row.name, "", Text(row.problem, style="red"))
            continue
        champion = "none yet" if row.champion is None else str(row.champion)
        last = "never" if row.last_run is None else f"{row.last_run:%Y-%m-%d}"
        table.add_row(row.name, f"{row.items:,}", champion, row.quality, last, row.schedule or "no")
    console.print(table)
    if not rows:
        _say(console, "No scenario yet. Make one with: evergreen new NAME --images PATH", "bold")


def show_status(status: Status, out: IO[str]) -> None:
    """`evergreen status`: what runs now, where its pages are, and what a run would do."""
    console = console_of(out)
    if status.servers:
        _say(console, "Servers are up:", "bold green")
        _places(console, status.servers)
    else:
        _say(console, "No servers are up. Start Prefect's and MLflow's pages with: evergreen up")
    for lock in status.running:
        _say(console, f"Running: {lock}.", "bold")
    if not status.running:
        _say(console, "Nothing is running.")
    table = _table("", ("scenario", "inbox", "next run begins with", "why"))
    for one in status.scenarios:
        table.add_row(one.name, one.inbox or "empty", one.next_stage or "nothing to do", one.why)
    if status.scenarios:
        console.print(table)


def _table(title: str, headings: Sequence[str]) -> Table:
    """With these headings; `>` before one aligns its column to the right."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    return table


def _say(console: Console, sentence: str, style: str = "") -> None:
    """A sentence in lines that fit. Where nobody reads it at a terminal it stays one line, for programs."""
    console.print(Text(sentence, style=style), soft_wrap=not console.is_terminal)


def _points(console: Console, clauses: Sequence[str]) -> None:
    for clause in clauses:
        _say(console, f"• {clause}")


def _places(console: Console, places: Mapping[str, Path | str]) -> None:
    """Files and addresses, each whole on its line, so that it can be copied and clicked."""
    for what, where in places.items():
        shown = where if isinstance(where, str) else _shown(where)
        console.print(Text(f"  {what:15} {shown}"), soft_wrap=True)


def _facts(summary: dict[str, Any], workspace: Workspace) -> dict[str, str]:
    metrics, judge = summary["metrics"], kind_of(Scenario.load(workspace.scenarios, summary["scenario"])).judge
    facts, items = judge.texts(metrics, (*judge.metrics, *judge.details)), metrics.get("test_items")
    facts[judge.metrics[0].title] += "" if items is None else f" on {figures.count(int(items), 'test item')}"
    energy = figures.energy(summary["energy_wh"], summary["energy_uncertainty_wh"])
    facts["energy"] = f"{energy}, by {' and '.join(summary['energy_methods']) or 'nothing that could be measured'}"
    carbon, per_kwh = summary["carbon_gco2e"], summary["intensity_gco2e_per_kwh"]
    where = "" if carbon is None else f" at {per_kwh:.0f} g/kWh ({summary['intensity_source']})"
    facts["carbon"] = f"{figures.carbon(carbon, _share_of(summary, carbon))}{where}"
    facts["1,000 predictions"] = _predictions(summary)
    if summary["embodied_gco2e"] is not None:
        sci, embodied = figures.carbon(summary["sci_gco2e_per_training"]), figures.carbon(summary["embodied_gco2e"])
        facts["SCI"] = sci if sci == figures.UNKNOWN else f"{sci} a training run, of which {embodied} the machine's making"
    if summary.get("estimate"):
        facts["estimated"] = _estimated(summary)
    facts["data version"] = summary["data_version"]
    facts["model version"] = f"evergreen-{summary['scenario']} version {summary['model_version']}"
    facts["promoted"] = f"{'yes' if summary['promoted'] else 'no'}: {summary['reason']}"
    return facts


def _share_of(summary: dict[str, Any], carbon: float | None) -> float | None:
    """The uncertainty that the energy's brings to the carbon."""
    energy, uncertainty = summary["energy_wh"], summary["energy_uncertainty_wh"]
    return None if carbon is None or not energy or uncertainty is None else carbon * uncertainty / energy


def _predictions(summary: dict[str, Any]) -> str:
    energy = figures.energy(summary["energy_wh_per_1000_predictions"], summary["energy_uncertainty_wh_per_1000_predictions"])
    carbon, sci = summary["carbon_gco2e_per_1000_predictions"], summary["sci_gco2e_per_1000_predictions"]
    grams = "" if carbon is None else f", {figures.carbon(carbon)}"
    return energy + grams + ("" if sci is None else f" ({figures.carbon(sci)} with the machine's making)")


def _estimated(summary: dict[str, Any]) -> str:
    before = summary["estimate"]
    off = figures.change(summary["seconds"] / before["seconds"] if before["seconds"] else None)
    expected = f"{figures.duration(before['seconds'])}, {figures.energy(before['energy_wh'])}"
    return f"{expected}; it took {figures.duration(summary['seconds'])} ({off})"


def _where_to_look(summary: dict[str, Any], workspace: Workspace, console: Console) -> None:
    name = summary["scenario"]
    places: dict[str, Path | str] = {
        "data report": workspace.data_docs(name) / "index.html",
        "pictures": workspace.evaluation(name),
    }
    if (report := workspace.outputs(name) / "report.html").exists():
        places["worth it?"] = report
    places |= summary.get("links") or {"pages": "evergreen up   (prints their addresses)"}
    console.print("Where to look:", style="bold")
    _places(console, places)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

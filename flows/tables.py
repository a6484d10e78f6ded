"""The tables that the commands print in the terminal."""

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
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from flows.terminal import console as console_of

if TYPE_CHECKING:
    from evergreen.energy.sci import Footprint
    from flows.overview import Row, Status
    from flows.summary import RetrainingSummary, TrainingSummary, TuningSummary


def show_summary(summary: TrainingSummary, workspace: Workspace, out: IO[str]) -> None:
    """Print a run's summary: its stages, quality and cost, and where to find more."""
    console = console_of(out)
    stages = _table(f"{summary.scenario}: stages", ("stage", "state", ">time", ">energy"))
    for name, stage in summary.stages.items():
        state = Text(stage.state, style="green" if stage.state == "ran" else "dim")
        stages.add_row(name, state, figures.duration(stage.seconds), figures.energy(stage.energy_wh))
    console.print(stages)

    result = Table(title=f"{summary.scenario}: result", title_justify="left", show_header=False)
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for what, value in _facts(summary, workspace).items():
        result.add_row(what, Text(value, style="green" if what == "promoted" and summary.promoted else ""))
    console.print(result)

    if summary.gap and summary.gap.sentence:
        _say(console, summary.gap.sentence, "bold yellow")
    _where_to_look(summary, workspace, console)
    if summary.unchanged:
        _say(console, summary.headline, "bold green")


def show_retraining(summary: RetrainingSummary, workspace: Workspace, out: IO[str]) -> None:
    """Print what the inbox contained, why a training took place or not, and the training's summary."""
    console = console_of(out)
    _say(console, f"Inbox: {summary.inbox}.")
    for heading, clauses in (("Reasons to train again", summary.reasons), ("No reasons", summary.against)):
        if clauses:
            _say(console, f"{heading}:", "bold")
            _points(console, clauses)
    if summary.trained:
        _points(console, [str(one) for one in summary.trained.tries])
        show_summary(summary.trained.summary, workspace, out)
    else:
        state = "It waits" if summary.reasons else "Nothing to do"
        _say(console, f"{state} ({figures.energy(summary.energy.energy_wh)}).", "bold green")


def show_tuning(summary: TuningSummary, workspace: Workspace, out: IO[str]) -> None:
    """Print the best trials of a tuning, and whether the winner was applied."""
    console, found, name = console_of(out), summary.tuning, summary.scenario
    scenario = load_scenario(workspace.scenarios, name)
    finished = sorted((one for one in found.trials if one.score is not None), key=lambda one: -(one.score or 0.0))
    shown = finished[:8] + [one for one in finished[8:] if one.own]
    metric = kind_of(scenario).judge.headline(scenario)
    table = _table(
        f"{name}: the best of {figures.count(len(finished), 'finished trial')}",
        (">trial", f">{metric.title}, val", ">per 1,000", ">training", "front", "other settings"),
    )
    for one in shown:
        other = [f"{key} {figures.plain(value)}" for key, value in one.settings.items() if value != found.own.settings[key]]
        table.add_row(
            str(one.number),
            metric.text(one.quality),
            figures.energy(one.energy_wh_per_1000),
            figures.energy(one.energy_wh),
            "yes" if one.number in found.front else "",
            "none: the scenario's own" if one.own else ", ".join(other),
        )
    console.print(table)
    ended = sum(one.state == "pruned" for one in found.trials)
    why = {"budget": "the budget was spent", "trials": "so many trials were asked for"}[found.stopped]
    spent = f"{figures.energy(found.energy_wh)} of {figures.energy(found.budget_wh)} spent"
    _say(console, f"{spent}; {figures.count(ended, 'trial')} ended early; {why}.")
    if summary.applied:
        _say(console, f"Written into scenarios/{name}.yaml: trial {found.winner}. Next: evergreen run {name}", "bold green")
    elif found.better:
        _say(console, f"Trial {found.winner} is {found.reason}.")
        _say(console, "To write it into the scenario, repeat the command with --apply. Nothing was written.", "bold")
    else:
        why = found.reason if found.best.own else f"Trial {found.winner} is {found.reason}"
        _say(console, f"The settings stay: {why}.", "bold")
    _places(
        console,
        {
            "picture": workspace.outputs(name) / "tuning" / "front.png",
            "table": workspace.outputs(name) / "tuning" / "trials.csv",
        },
    )


def show_findings(findings: list[Any], out: IO[str]) -> None:
    """Print the findings of `evergreen doctor`, one per line."""
    table = _table("", ("", "what", "seen", "what to do"))
    signs = {"fine": Text("✓", "green"), "note": Text("•", "yellow"), "broken": Text("✗", "red")}
    for finding in findings:
        table.add_row(signs[finding.state], Text(finding.what), Text(finding.seen), Text(finding.fix))
    console_of(out).print(table)


def show_estimate(expected: Estimate, out: IO[str]) -> None:
    """Print the estimated cost of a run, by stage and in total."""
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
    """Print `evergreen list`: one line per scenario."""
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
    """Print `evergreen status`: what is running, where its pages are, and what a run would do."""
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
    for one in status.scenarios:
        if one.retention:
            _say(console, f"{one.name}: {one.retention}.")


def _table(title: str, headings: Sequence[str]) -> Table:
    """An empty table with these headings; a heading that begins with `>` right-aligns its column."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    return table


def _say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence, wrapped to the terminal's width; if the output is not a terminal, it stays on one line, for
    programs."""
    console.print(Text(sentence, style=style), soft_wrap=not console.is_terminal)


def _points(console: Console, clauses: Sequence[str]) -> None:
    for clause in clauses:
        _say(console, f"• {clause}")


def _places(console: Console, places: Mapping[str, Path | str]) -> None:
    """Print paths and URLs, each unbroken on its own line, so that it can be copied and clicked."""
    for what, where in places.items():
        shown = where if isinstance(where, str) else _shown(where)
        console.print(Text(f"  {what:15} {shown}"), soft_wrap=True)


def _facts(summary: TrainingSummary, workspace: Workspace) -> dict[str, str]:
    metrics, judge = dict(summary.metrics), kind_of(load_scenario(workspace.scenarios, summary.scenario)).judge
    facts, items = judge.texts(metrics, (*judge.metrics, *judge.details)), metrics.get("test_items")
    facts[judge.metrics[0].title] += "" if items is None else f" on {figures.count(int(items), 'test item')}"
    energy, training = summary.energy, summary.training
    methods = " and ".join(energy.methods) or "nothing that could be measured"
    facts["energy"] = f"{figures.energy(energy.energy_wh, energy.uncertainty_wh)}, by {methods}"
    grid = f" at {summary.grid.gco2e_per_kwh:.0f} g/kWh ({summary.intensity_source})"
    carbon = figures.carbon(training.carbon_gco2e, training.carbon_uncertainty_gco2e)
    facts["carbon"] = carbon if training.carbon_gco2e is None else f"{carbon}{grid}"
    facts["1,000 predictions"] = _predictions(summary.predictions)
    if training.embodied_gco2e is not None:
        sci, embodied = figures.carbon(training.sci_gco2e), figures.carbon(training.embodied_gco2e)
        facts["SCI"] = sci if sci == figures.UNKNOWN else f"{sci} a training run, of which {embodied} the machine's making"
    if summary.estimate:
        facts["estimated"] = _estimated(summary.estimate, summary.seconds)
    facts["data version"] = summary.data_version
    facts["model version"] = f"evergreen-{summary.scenario} version {summary.model_version}"
    facts["promoted"] = f"{'yes' if summary.promoted else 'no'}: {summary.reason}"
    return facts


def _predictions(of_1000: Footprint) -> str:
    energy = figures.energy(of_1000.energy_wh, of_1000.energy_uncertainty_wh)
    grams = "" if of_1000.carbon_gco2e is None else f", {figures.carbon(of_1000.carbon_gco2e)}"
    making = "" if of_1000.sci_gco2e is None else f" ({figures.carbon(of_1000.sci_gco2e)} with the machine's making)"
    return energy + grams + making


def _estimated(before: Estimate, seconds: float) -> str:
    off = figures.change(seconds / before.cost.seconds if before.cost.seconds else None)
    expected = f"{figures.duration(before.cost.seconds)}, {figures.energy(before.cost.energy_wh)}"
    return f"{expected}; it took {figures.duration(seconds)} ({off})"


def _where_to_look(summary: TrainingSummary, workspace: Workspace, console: Console) -> None:
    name = summary.scenario
    places: dict[str, Path | str] = {
        "data report": workspace.data_docs(name) / "index.html",
        "pictures": workspace.evaluation(name),
    }
    if (report := workspace.outputs(name) / "report.html").exists():
        places["worth it?"] = report
    places |= summary.links or {"pages": "evergreen up   (prints their addresses)"}
    console.print("Where to look:", style="bold")
    _places(console, places)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

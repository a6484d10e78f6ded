"""The tables that people read in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from evergreen.estimate import Estimate
from evergreen.workspace import Workspace


def show_summary(summary: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """A run's summary: its stages, its quality and cost, and where to look."""
    console = Console(file=out, highlight=False)
    stages = Table(title=f"{summary['scenario']}: stages", title_justify="left", header_style="bold")
    for heading, side in (("stage", "left"), ("state", "left"), ("seconds", "right"), ("energy", "right")):
        stages.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, stage in summary["stages"].items():
        stages.add_row(name, stage["state"], f"{stage['seconds']:.1f}", watt_hours(stage["energy_wh"]))
    console.print(stages)

    result = Table(title=f"{summary['scenario']}: result", title_justify="left", show_header=False)
    result.add_column(style="bold")
    result.add_column()
    metrics = summary["metrics"]
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        result.add_row(name.replace("_", " "), f"{metrics[name]:.2%}")
    result.add_row("energy", f"{watt_hours(summary['energy_wh'], summary['energy_uncertainty_wh'])}, by {_methods(summary)}")
    carbon = summary["carbon_gco2e"]
    result.add_row(
        "carbon",
        "unknown"
        if carbon is None
        else f"{carbon:.3g} gCO2e at {summary['intensity_gco2e_per_kwh']:.0f} g/kWh ({summary['intensity_source']})",
    )
    result.add_row("1,000 predictions", _predictions(summary))
    if summary["embodied_gco2e"] is not None:
        embodied, sci = summary["embodied_gco2e"], summary["sci_gco2e_per_training"]
        told = "unknown" if sci is None else f"{sci:.3g} gCO2e a training run, of which {embodied:.3g} the machine's making"
        result.add_row("SCI", told)
    if summary.get("estimate"):
        result.add_row("estimated", _estimated(summary))
    result.add_row("data version", summary["data_version"])
    result.add_row("model version", f"evergreen-{summary['scenario']} version {summary['model_version']}")
    result.add_row("promoted", f"{'yes' if summary['promoted'] else 'no'}: {summary['reason']}")
    console.print(result)

    name = summary["scenario"]
    console.print("Where to look:", style="bold")
    console.print(f"  data report     {_shown(workspace.data_docs(name) / 'index.html')}", soft_wrap=True)
    console.print(f"  pictures        {_shown(workspace.evaluation(name))}", soft_wrap=True)
    if (workspace.outputs(name) / "report.html").exists():
        console.print(f"  worth it?       {_shown(workspace.outputs(name) / 'report.html')}", soft_wrap=True)
    console.print("  Prefect, MLflow evergreen up   (then open the links that it prints)")
    if all(stage["state"] == "unchanged" for stage in summary["stages"].values()):
        console.print("Nothing has changed since the last run: nothing was done.", style="bold green")


def show_retraining(summary: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """What came, why there was a training or none, and the training's summary."""
    console = Console(file=out, highlight=False)
    console.print(f"Inbox: {summary['inbox']}.", soft_wrap=True)
    for heading, clauses in (("Reasons to train again", summary["reasons"]), ("No reasons", summary["against"])):
        if clauses:
            console.print(f"{heading}:", style="bold")
            for clause in clauses:
                console.print(f"• {clause}", soft_wrap=True)
    if summary["retrained"]:
        for one in summary["tries"]:
            became = "was promoted" if one["promoted"] else "was not promoted"
            console.print(f"• from {one['start']}: {became}, {one['reason']}", soft_wrap=True)
        show_summary(summary, workspace, out)
    else:
        state = "It waits" if summary["reasons"] else "Nothing to do"
        console.print(f"{state} ({watt_hours(summary['energy_wh'])}).", style="bold green")


def show_tuning(found: dict[str, Any], workspace: Workspace, out: IO[str]) -> None:
    """The best trials of a tuning and what became of the winner."""
    console = Console(file=out, highlight=False)
    scored = sorted((one for one in found["trials"] if one["score"] is not None), key=lambda one: -one["score"])
    own = next(one for one in scored if one["own"])
    shown = scored[:8] + [one for one in scored[8:] if one["own"]]
    table = Table(
        title=f"{found['scenario']}: the best of {len(scored)} finished trials", title_justify="left", header_style="bold"
    )
    for heading in ("trial", f"{found['metric']}, val", "Wh/1,000", "training", "front"):
        table.add_column(heading, justify="right")
    table.add_column("other settings", overflow="fold")
    for one in shown:
        other = [f"{name} {value:g}" for name, value in one["settings"].items() if value != own["settings"][name]]
        table.add_row(
            str(one["number"]),
            f"{one['quality']:.2%}",
            f"{one['energy_wh_per_1000']:.2g}",
            watt_hours(one["energy_wh"]),
            "yes" if one["number"] in found["front"] else "",
            "none: the scenario's own" if one["own"] else ", ".join(other),
        )
    console.print(table)
    ended = sum(one["state"] == "pruned" for one in found["trials"])
    why = {"budget": "the budget was spent", "trials": "so many trials were asked for"}[found["stopped"]]
    console.print(f"{found['energy_wh']:.3g} of {found['budget_wh']:g} Wh spent; {ended} trials were ended early; {why}.")
    name, winner = found["scenario"], next(one for one in scored if one["number"] == found["winner"])
    if found["applied"]:
        console.print(
            f"Written into scenarios/{name}.yaml: trial {found['winner']}. Next: evergreen run {name}", style="bold green"
        )
    elif found["better"]:
        console.print(f"Trial {found['winner']} is {found['reason']}.", soft_wrap=True)
        console.print("To write it into the scenario, repeat the command with --apply. Nothing was written.", style="bold")
    else:
        told = found["reason"] if winner["own"] else f"Trial {found['winner']} is {found['reason']}"
        console.print(f"The settings stay: {told}.", soft_wrap=True, style="bold")
    console.print(f"  picture  {_shown(workspace.outputs(name) / 'tuning' / 'front.png')}", soft_wrap=True)
    console.print(f"  table    {_shown(workspace.outputs(name) / 'tuning' / 'trials.csv')}", soft_wrap=True)


def show_findings(findings: list[Any], out: IO[str]) -> None:
    """What `evergreen doctor` saw, a line each."""
    table = Table(show_header=True, header_style="bold")
    for heading in ("", "what", "seen", "what to do"):
        table.add_column(heading, overflow="fold")
    signs = {"fine": "[green]✓[/]", "note": "[yellow]•[/]", "broken": "[red]✗[/]"}
    for finding in findings:
        table.add_row(signs[finding.state], finding.what, finding.seen, finding.fix)
    Console(file=out, highlight=False).print(table)


def watt_hours(energy_wh: float | None, uncertainty_wh: float | None = None) -> str:
    if energy_wh is None:
        return "unknown"
    text = f"{energy_wh:.3g}"
    return f"{text} Wh" if uncertainty_wh is None else f"{text} ± {uncertainty_wh:.2g} Wh"


def _predictions(summary: dict[str, Any]) -> str:
    energy = watt_hours(summary["energy_wh_per_1000_predictions"], summary["energy_uncertainty_wh_per_1000_predictions"])
    carbon, sci = summary["carbon_gco2e_per_1000_predictions"], summary["sci_gco2e_per_1000_predictions"]
    grams = "" if carbon is None else f", {carbon:.3g} gCO2e"
    return energy + grams + ("" if sci is None else f" ({sci:.3g} with the machine's making)")


def _methods(summary: dict[str, Any]) -> str:
    return " and ".join(summary["energy_methods"]) or "nothing that could be measured"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _estimated(summary: dict[str, Any]) -> str:
    told = summary["estimate"]
    off = summary["seconds"] / told["seconds"] - 1 if told["seconds"] else 0.0
    return f"{told['seconds']:.1f} s, {watt_hours(told['energy_wh'])}; it took {summary['seconds']:.1f} s ({off:+.0%})"


def show_estimate(expected: Estimate, out: IO[str]) -> None:
    """What a run is expected to take, by stage and in all."""
    console = Console(file=out, highlight=False)
    table = Table(title="If every stage has to run", title_justify="left", header_style="bold")
    for heading, side in (("stage", "left"), ("seconds", "right"), ("energy", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, (seconds, energy_wh) in expected.stages.items():
        table.add_row(name, f"{seconds:.1f}", watt_hours(energy_wh))
    console.print(table)
    cost, least, most = expected.cost, expected.least, expected.most
    console.print(f"time    {cost.seconds:.0f} s ({least.seconds:.0f} to {most.seconds:.0f})")
    console.print(f"energy  {watt_hours(cost.energy_wh, cost.energy_uncertainty_wh)}")
    console.print("carbon  unknown" if cost.carbon_gco2e is None else f"carbon  {cost.carbon_gco2e:.3g} gCO2e")
    console.print("money   no price in the scenario" if cost.money is None else f"money   {cost.money:.3g} {expected.currency}")
    console.print(f"From: {expected.basis}.")
    if expected.missing:
        console.print(f"Not counted, as they never ran here: {', '.join(expected.missing)}.")

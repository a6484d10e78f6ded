"""Adding a scenario: its file, its inbox, and its deployments in `prefect.yaml`."""

from __future__ import annotations

from pathlib import Path

from evergreen.proposal.layout import Layout
from evergreen.workspace import Workspace, replace_file
from flows.deploy import declare


def add_scenario(workspace: Workspace, name: str, text: str) -> Path:
    """Write `scenarios/NAME.yaml` and the scenario's deployments in `prefect.yaml`, and make its inbox. Its first run adds it to `dvc.yaml`.

    Returns:
        The scenario's file.
    """
    path = workspace.scenarios / f"{name}.yaml"
    replace_file(path, text.encode())
    (workspace.root / "inbox" / name).mkdir(parents=True, exist_ok=True)
    declare(workspace)
    return path


def ask_for_labels(layout: Layout) -> int:
    """Ask at the terminal which level of folders is the labels; returns its number."""
    from rich.console import Console
    from rich.prompt import IntPrompt

    console = Console(stderr=True, highlight=False, markup=False)
    levels = sorted([layout.label, *layout.alternatives], key=lambda level: level.number)
    console.print("The labels could be more than one level of folders:")
    for level in levels:
        names = list(level.counts)
        console.print(f"  {level.number}: {', '.join(names[:8])}{', …' if len(names) > 8 else ''} ({len(names):,})")
    choices = [str(level.number) for level in levels]
    return IntPrompt.ask("Which level is it?", choices=choices, default=layout.label.number, console=console)

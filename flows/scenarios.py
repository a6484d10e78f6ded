"""Adding a scenario: its file, its inbox, and its deployments in `prefect.yaml`."""

from __future__ import annotations

from pathlib import Path

from evergreen.kinds.base.proposal import Question
from evergreen.workspace import Workspace, replace_file
from flows.deploy import declare


def add_scenario(workspace: Workspace, name: str, text: str) -> Path:
    """Write `scenarios/NAME.yaml` and the scenario's deployments in `prefect.yaml`, and create its inbox. Its first run adds it
    to `dvc.yaml`.

    Returns:
        The scenario's file.
    """
    path = workspace.scenarios / f"{name}.yaml"
    replace_file(path, text.encode())
    (workspace.root / "inbox" / name).mkdir(parents=True, exist_ok=True)
    declare(workspace)
    return path


def ask(question: Question) -> int:
    """Ask a question at the terminal, and return the number of the chosen answer."""
    from rich.console import Console
    from rich.prompt import IntPrompt

    console = Console(stderr=True, highlight=False, markup=False)
    console.print(question.text)
    for number, text in question.choices.items():
        console.print(f"  {number}: {text}")
    choices = [str(number) for number in question.choices]
    return IntPrompt.ask(question.prompt, choices=choices, default=question.default, console=console)

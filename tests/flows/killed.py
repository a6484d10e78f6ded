"""Runs the stages in this process and kills it where asked.

    python -m tests.flows.killed '{"root": …, "scenario": …, "stage": …, "at": …, "nth": …}'

The argument is a JSON object: `root` (the checkout), `scenario`, and where to kill -9: `stage` with `at` being
"before", "after" or "rename" (with `nth`, from 1: right before the stage's nth rename or replacement of a file, the moments at
which its work becomes visible); no `stage`: not at all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def perform(root: str, scenario: str, stage: str | None = None, at: str = "", nth: int = 1) -> None:
    from evergreen.environment import configure
    from evergreen.workspace import Workspace
    from flows.stages import stages_in_order
    from tasks.stage import Run, Stage

    os.chdir(root)
    os.environ["EVERGREEN_ROOT"] = root
    configure(Workspace(Path(root)))
    inside = {"stage": "", "renames": 0}

    def watch(event: str, _arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and at == "rename" and inside["stage"] == stage:
            inside["renames"] += 1  # type: ignore[operator]
            if inside["renames"] == nth:
                die()

    sys.addaudithook(watch)

    class Watched(Run):
        def __call__(self, step: Stage, *earlier: Any) -> Any:
            if step.name == stage and at == "before":
                die()
            inside["stage"] = step.name
            outcome = step.perform(self.scenario, self.workspace, *earlier)
            self.outcomes.append(outcome)
            inside["stage"] = ""
            if step.name == stage and at == "after":
                die()
            return outcome.result

    with Watched.of(scenario) as run:
        stages_in_order(run)


if __name__ == "__main__":
    perform(**json.loads(sys.argv[1]))

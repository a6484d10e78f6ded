"""Runs the stages in forked children, so that the libraries' import (20 s) is paid once, and kills each child where asked.

Reads one JSON object a line: `root` (the checkout), `scenario`, and where to kill -9 the child: `stage` with `at` being
"before", "after" or "rename" (with `nth`, from 1: right before the stage's nth rename or replacement of a file, the moments at
which its work becomes visible); no `stage`: not at all. Answers with one line: the child's exit status, -9 if it was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
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


def main() -> None:
    import dvc.repo  # noqa: F401
    import great_expectations  # noqa: F401
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow  # noqa: F401
    import onnxruntime  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tf2onnx  # noqa: F401

    import flows.stages  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                perform(**json.loads(line))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()

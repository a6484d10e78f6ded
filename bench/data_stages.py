"""Brings a scenario's data in, in this checkout and without Prefect: python -m bench.data_stages NAME. Prints each stage's
seconds as JSON.

It is a process of its own, so that its memory and its time can be measured, and imports nothing but what the stages need.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from evergreen.environment import configure
from evergreen.workspace import Workspace
from tasks import collect, preprocess, validate, version
from tasks.stage import Run, Stage


class PlainRun(Run):
    """A run whose stages are performed without Prefect."""

    def __call__(self, stage: Stage, *earlier: Any) -> Any:
        """As `Run`."""
        outcome = stage.perform(self.scenario, self.workspace, *earlier)
        self.outcomes.append(outcome)
        return outcome.result


def main(name: str) -> None:
    configure(Workspace.find())
    with PlainRun.of(name) as run:
        collection = run(collect.stage)
        run(validate.stage, collection)
        run(version.stage, collection)
        run(preprocess.stage)
    print(json.dumps({outcome.stage: outcome.seconds for outcome in run.outcomes}))


if __name__ == "__main__":
    main(sys.argv[1])

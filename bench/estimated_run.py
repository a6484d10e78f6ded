"""One run of the quickstart in this checkout, without Prefect: python -m bench.estimated_run, with --estimate estimated
beforehand.

Prints JSON: the estimate (null without --estimate), and the seconds and energy (Wh) that the stages from `train` on really
took.
"""

from __future__ import annotations

import json
import sys

from bench.data_stages import PlainRun
from evergreen.environment import configure
from evergreen.planning.estimate import estimate
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from flows.stages import stages_in_order
from tasks.trial import trial

FROM_TRAIN_ON = ("train", "evaluate", "register", "promote")


def main() -> None:
    workspace = Workspace.find()
    configure(workspace)
    scenario = load_scenario(workspace.scenarios, "quickstart")
    expected = estimate(scenario, workspace, trial, first="train").to_dict() if "--estimate" in sys.argv else None
    run = PlainRun(scenario, workspace)
    stages_in_order(run)
    outcomes = [outcome for outcome in run.outcomes if outcome.stage in FROM_TRAIN_ON]
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(json.dumps([expected, seconds, sum(outcome.energy.energy_wh or 0 for outcome in outcomes)]))


if __name__ == "__main__":
    main()

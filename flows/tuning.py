"""`evergreen tune`: runs the tuning as a Prefect flow, and writes the winner's settings into the scenario."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from prefect import flow

from evergreen.scenario.loading import parse_scenario
from evergreen.scenario.settings import Name
from evergreen.workspace import Workspace, replace_file
from flows.publishing import failure_shown
from flows.stoppable import stoppable
from flows.summary import TuningSummary
from flows.visible import progress_shown
from tasks import tune
from tasks.stage import Run
from tasks.tune import Tuning


@flow(name="tuning", flow_run_name="tuning-{scenario}", persist_result=False)
@stoppable
def tuning(scenario: Name, budget_wh: float, trials: int = 1000, apply: bool = False) -> TuningSummary:
    """Try other settings of a scenario's training within a budget of energy.

    Args:
        scenario: the name of a file in scenarios/, without its ending.
        budget_wh: watt-hours for all trials together, with what earlier sessions of the same study took.
        trials: that are to end, at most.
        apply: write the winner into the scenario, if it is better by more than chance.
    """
    with failure_shown(scenario), progress_shown(scenario), Run.of(scenario) as run:
        result: Tuning = run(tune.stage, budget_wh, trials)
        applied = apply and result.better
        if applied:
            write_settings(run.workspace, scenario, result.best.settings)
    return TuningSummary(scenario, result, applied)


def write_settings(workspace: Workspace, name: str, settings: dict[str, float]) -> None:
    """Write settings of `train` into a scenario's file, keeping comments and order.

    Raises:
        WrongUse: the file would no longer be a valid scenario; it is left unchanged.
    """
    from ruamel.yaml import YAML

    yaml, path = YAML(), workspace.scenarios / f"{name}.yaml"
    yaml.preserve_quotes, yaml.width = True, 1000
    document = yaml.load(path.read_text(encoding="utf-8"))
    document["train"].update(settings)
    text = io.BytesIO()
    yaml.dump(document, text)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_bytes(text.getvalue())
        parse_scenario(trial)
    replace_file(path, text.getvalue())

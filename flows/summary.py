"""What a run leaves for people: the summary it prints, and the totals on its MLflow run."""

from __future__ import annotations

import contextlib
import json
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evergreen.carbon import intensity
from evergreen.energy import Energy
from evergreen.environment import prefect_answers
from evergreen.records import record_metrics, record_summary
from evergreen.registry import connect
from evergreen.sci import footprint
from evergreen.waiting import provider, saved_gco2e
from evergreen.workspace import replace_file
from tasks.evaluate import of_1000_predictions
from tasks.stage import Run

if TYPE_CHECKING:
    from evergreen.estimate import Estimate
    from tasks.evaluate import Evaluation
    from tasks.promote import Promotion
    from tasks.register import Registration
    from tasks.version import DataVersion

log = logging.getLogger("evergreen")

TOTALS = (  # of a summary, that the MLflow run gets as metrics
    "energy_wh",
    "carbon_gco2e",
    "embodied_gco2e",
    "sci_gco2e_per_training",
    "carbon_gco2e_per_1000_predictions",
    "sci_gco2e_per_1000_predictions",
)


def conclude(
    run: Run, data_version: DataVersion, evaluation: Evaluation, registration: Registration, promotion: Promotion
) -> dict[str, Any]:
    """The run's summary as `evergreen run --json` prints it; also written to `outputs/NAME/record/summary.json`, and its
    totals to the MLflow run where anything ran."""
    total = sum((outcome.energy for outcome in run.outcomes), start=Energy.nothing())
    grid = intensity(run.scenario.country)
    training, predictions = footprint(run.scenario, total), footprint(run.scenario, of_1000_predictions(evaluation.metrics))
    summary = {
        "scenario": run.scenario.name,
        "run_id": registration.run_id,
        "model_version": registration.model_version,
        "promoted": promotion.promoted,
        "reason": promotion.reason,
        "data_version": data_version.data_version,
        "metrics": evaluation.metrics,
        "validation_and_test": evaluation.gap,
        "energy_wh": total.energy_wh,
        "energy_uncertainty_wh": total.uncertainty_wh,
        "energy_methods": list(total.methods),
        "carbon_gco2e": training.carbon_gco2e,
        "embodied_gco2e": training.embodied_gco2e,
        "sci_gco2e_per_training": training.sci_gco2e,
        "energy_wh_per_1000_predictions": predictions.energy_wh,
        "energy_uncertainty_wh_per_1000_predictions": predictions.energy_uncertainty_wh,
        "carbon_gco2e_per_1000_predictions": predictions.carbon_gco2e,
        "sci_gco2e_per_1000_predictions": predictions.sci_gco2e,
        "intensity_gco2e_per_kwh": grid.gco2e_per_kwh,
        "intensity_source": f"{grid.source}, {grid.year}",
        "seconds": sum(outcome.seconds for outcome in run.outcomes),
        "stages": stages_of(run),
    }
    if any(outcome.state == "ran" for outcome in run.outcomes):
        replace_file(run.workspace.record(run.scenario.name) / "summary.json", json.dumps(summary, indent=1).encode())
        _log(run, registration, summary)
    return summary


def estimated(expected: Estimate | None) -> dict[str, Any]:
    """What a run's summary says of what was expected of it."""
    return {"estimate": None if expected is None else expected.told()}


def note_saving(run: Run, summary: dict[str, Any], reason_found_at: datetime, started_at: datetime) -> float | None:
    """What waiting has saved, in gCO2e, also on the MLflow run; None where the run did not wait, or nobody can tell."""
    if reason_found_at == started_at:
        return None
    saved = saved_gco2e(
        provider(run.scenario, run.workspace),
        energy_wh=summary["energy_wh"],
        seconds=summary["seconds"],
        reason_found_at=reason_found_at,
        started_at=started_at,
    )
    if saved is not None:
        with contextlib.suppress(Exception):  # MLflow being away must not undo a finished run
            client = connect(run.workspace).MlflowClient()
            record_metrics(client, summary["run_id"], {"carbon_gco2e_saved_by_waiting": saved})
    return saved


def publish(summary: dict[str, Any]) -> None:
    """Put the run's cost on Prefect's page, a row a stage, and say it where the run has made a new champion. Called within a flow."""
    from prefect.artifacts import create_table_artifact

    from flows.events import emit_promotion

    if summary["promoted"] and summary["stages"]["promote"]["state"] == "ran":
        emit_promotion(summary["scenario"], summary["model_version"], summary["reason"])
    rows = [{"stage": name, **stage} for name, stage in summary["stages"].items()]
    rows.append({"stage": "all", "state": "", "seconds": summary["seconds"], "energy_wh": summary["energy_wh"]})
    carbon = summary["carbon_gco2e"]
    told = "unknown" if carbon is None else f"{carbon:.3g} gCO2e at {summary['intensity_gco2e_per_kwh']:.0f} gCO2e/kWh"
    try:
        if prefect_answers():
            create_table_artifact(table=rows, key=f"{summary['scenario']}-cost", description=f"Carbon: {told}.")
    except Exception as error:  # a page that can't be drawn must not undo a finished run
        log.warning("The cost could not be shown on Prefect's page (%s).", error)


def stages_of(run: Run) -> dict[str, dict[str, Any]]:
    """State, seconds and energy by stage; a stage that a flow has called twice has both together."""
    stages: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(outcome.stage for outcome in run.outcomes):
        calls = [outcome for outcome in run.outcomes if outcome.stage == name]
        spent = sum((outcome.energy for outcome in calls), start=Energy.nothing())
        stages[name] = {
            "state": "ran" if any(outcome.state == "ran" for outcome in calls) else "unchanged",
            "seconds": sum(outcome.seconds for outcome in calls),
            "energy_wh": spent.energy_wh,
        }
    return stages


def _log(run: Run, registration: Registration, summary: dict[str, Any]) -> None:
    """Totals and each stage's share on the MLflow run, as `evergreen.records` keeps them. MLflow being away must not undo a finished run."""
    try:
        mlflow = connect(run.workspace)
        recorded = record_summary(mlflow, registration.run_id, summary, run.workspace.data_docs(run.scenario.name))
        measured = {"run_seconds": recorded["seconds"]} | {name: recorded.get(name) for name in TOTALS}
        for name, stage in recorded["stages"].items():
            if stage["state"] == "ran":
                measured |= {f"stage/{name}/seconds": stage["seconds"], f"stage/{name}/energy_wh": stage["energy_wh"]}
        record_metrics(mlflow.MlflowClient(), registration.run_id, measured)
    except Exception as error:
        log.warning(
            "The run's totals could not be written to MLflow (%s); they are in %s.",
            error,
            run.workspace.record(run.scenario.name) / "summary.json",
        )

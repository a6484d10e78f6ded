"""What a run leaves for people: the summary it prints, and the totals on its MLflow run."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.energy.carbon import intensity
from evergreen.energy.meter import Energy
from evergreen.energy.sci import footprint
from evergreen.kinds.base.kind import kind_of
from evergreen.planning.waiting import provider, saved_gco2e
from evergreen.registry.models import connect
from evergreen.registry.records import record_metrics, record_summary
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file
from flows.report import try_to_write
from tasks.evaluate import of_1000_predictions
from tasks.page import Page, bullets, plain
from tasks.page import publish as publish_page
from tasks.register import seen_in_mlflow
from tasks.stage import Run

if TYPE_CHECKING:
    from evergreen.planning.estimate import Estimate
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
        "champion": promotion.champion,
        "champion_changed": promotion.changed,
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
        "requested": run.requested | ({"force": True} if run.force else {}),
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


def publish(workspace: Workspace, summary: dict[str, Any]) -> None:
    """Write the scenario's report, show the run's summary on Prefect's page, and say it where the run has made a new champion. Called within a
    flow, at its end.

    Args:
        summary: of a training, or of a retraining, whether or not it trained.
    """
    from flows.events import emit_promotion

    name = summary["scenario"]
    trained = summary.get("retrained", True)
    if trained and summary["champion_changed"]:
        emit_promotion(name, summary["model_version"], summary["reason"])
    report = try_to_write(workspace, name) if trained else None
    publish_page(workspace, name, "summary", headline(summary), lambda: page(workspace, summary, report))


def headline(summary: dict[str, Any]) -> str:
    """What came of a run, in a sentence."""
    if not summary.get("retrained", True):
        return (
            f"Waits: {'; '.join(summary['against'])}."
            if summary["reasons"]
            else f"Nothing to do: {'; '.join(summary['against'])}."
        )
    if all(stage["state"] == "unchanged" for stage in summary["stages"].values()):
        return "Nothing has changed since the last run: nothing was done."
    became = (
        "was promoted" if summary["champion_changed"] else "stays the champion" if summary["promoted"] else "was not promoted"
    )
    return f"Version {summary['model_version']} {became}: {summary['reason']}."


def page(workspace: Workspace, summary: dict[str, Any], report: tuple[Path, str] | None) -> Page:
    """A run's summary as Prefect's page shows it: the result, the reasons, what it took, where to look.

    Args:
        report: the page that was written, and its answer.
    """
    name, trained = summary["scenario"], summary.get("retrained", True)
    texts = {"": plain(report[1])} if report else {}
    if "inbox" in summary:
        texts["What came"] = plain(f"Inbox: {summary['inbox']}.")
    for heading, key in (("Reasons to train again", "reasons"), ("No reasons", "against")):
        if summary.get(key):
            texts[heading] = bullets(summary[key])
    if summary.get("tries"):
        texts["Tries"] = bullets(
            f"from {one['start']}: {'promoted' if one['promoted'] else 'not promoted'}, {one['reason']}"
            for one in summary["tries"]
        )
    links: dict[str, str | Path] = {"Report: was retraining worth it?": report[0]} if report else {}
    links |= {text: path for text, path in _pages(workspace, name).items() if path.exists()}
    if not trained:
        taken = f"{figures.duration(summary['seconds'])}, {figures.energy(summary['energy_wh'])}."
        return Page(texts=texts | {"What it took": taken}, links=links)
    return Page(
        texts=texts,
        tables={
            "Result": [{"what": what, "value": value} for what, value in facts(workspace, summary).items()],
            "What each stage took": [
                {
                    "stage": stage,
                    "state": one["state"],
                    "time": figures.duration(one["seconds"]),
                    "energy": figures.energy(one["energy_wh"]),
                }
                for stage, one in summary["stages"].items()
            ],
        },
        links=links | seen_in_mlflow(workspace, summary["run_id"], name, summary["model_version"]),
    )


def facts(workspace: Workspace, summary: dict[str, Any]) -> dict[str, str]:
    """A trained run's figures for people, by what they are."""
    metrics, intensity_ = summary["metrics"], summary["intensity_gco2e_per_kwh"]
    judge = kind_of(Scenario.load(workspace.scenarios, summary["scenario"])).judge
    found = {
        **judge.texts(metrics, judge.metrics),
        "time": figures.duration(summary["seconds"]),
        "energy": f"{figures.energy(summary['energy_wh'], summary['energy_uncertainty_wh'])} "
        f"({' and '.join(summary['energy_methods']) or 'not measured'})",
        "carbon": f"{figures.carbon(summary['carbon_gco2e'])} at {intensity_:.0f} gCO2e/kWh ({summary['intensity_source']})",
        "1,000 predictions": figures.energy(
            summary["energy_wh_per_1000_predictions"], summary["energy_uncertainty_wh_per_1000_predictions"]
        ),
    }
    if summary.get("estimate"):
        found["estimated before"] = (
            f"{figures.duration(summary['estimate']['seconds'])}, {figures.energy(summary['estimate']['energy_wh'])}"
        )
    if summary.get("carbon_gco2e_saved_by_waiting") is not None:
        found["saved by waiting"] = figures.carbon(summary["carbon_gco2e_saved_by_waiting"])
    if summary.get("energy_wh_saved_by_warm_start") is not None:
        found["saved by fine-tuning"] = figures.energy(summary["energy_wh_saved_by_warm_start"])
    if summary.get("requested"):
        found["requested for this run"] = ", ".join(f"{name} {value}" for name, value in summary["requested"].items())
    return found | {"model version": str(summary["model_version"]), "data version": summary["data_version"]}


@contextlib.contextmanager
def failure_shown(name: str) -> Iterator[None]:
    """Within a flow: where the block fails, the run's page opens with what happened and what to do."""
    try:
        yield
    except Exception as error:
        sentence, workspace = f"Failed: {error}", Workspace.find()
        existing = {text: path for text, path in _pages(workspace, name).items() if path.exists()}
        publish_page(workspace, name, "summary", sentence, lambda: Page(links=existing))
        raise


def _pages(workspace: Workspace, name: str) -> dict[str, Path]:
    return {
        "Data Docs: is the data fit to train on?": workspace.data_docs(name) / "index.html",
        "All pages and pictures": workspace.outputs(name),
    }


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
    """Totals and each stage's share on the MLflow run, as `evergreen.registry.records` keeps them. MLflow being away must not undo a finished run."""
    try:
        mlflow = connect(run.workspace)
        recorded = record_summary(mlflow, registration.run_id, summary, run.workspace.data_docs(run.scenario.name))
        measured = {"run_seconds": recorded["seconds"]} | {name: recorded.get(name) for name in TOTALS}
        for name, stage in recorded["stages"].items():
            if stage["state"] == "ran":
                measured |= {f"stage/{name}/seconds": stage["seconds"], f"stage/{name}/energy_wh": stage["energy_wh"]}
        record_metrics(mlflow.MlflowClient(), registration.run_id, measured)
    except Exception as error:  # noqa: BLE001 (the run is finished, also without them)
        log.warning(
            "The run's totals could not be written to MLflow (%s); they are in %s.",
            error,
            run.workspace.record(run.scenario.name) / "summary.json",
        )

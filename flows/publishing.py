"""Publishing a run's result: the scenario's report, the summary on Prefect's page, and the event of a new champion. Called at
the end of a flow, within it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from evergreen import figures
from evergreen.kinds.base.kind import kind_of
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from flows.summary import RetrainingSummary, TrainingSummary
from tasks.page import Page, bullets, plain
from tasks.page import publish as publish_page
from tasks.register import seen_in_mlflow


def publish_training(workspace: Workspace, summary: TrainingSummary) -> None:
    """Write the report, emit the event of a new champion, and show the summary."""
    report = _finished(workspace, summary)
    publish_page(workspace, summary.scenario, "summary", summary.headline, lambda: _training_page(workspace, summary, report))


def publish_retraining(workspace: Workspace, summary: RetrainingSummary) -> None:
    """The same for a retraining. If nothing was trained, only the summary is shown."""
    report = _finished(workspace, summary.trained.summary) if summary.trained else None
    publish_page(workspace, summary.scenario, "summary", summary.headline, lambda: _retraining_page(workspace, summary, report))


@contextlib.contextmanager
def failure_shown(name: str) -> Iterator[None]:
    """Within a flow: if the block fails, the run's page shows what happened and what to do."""
    try:
        yield
    except Exception as error:
        sentence, workspace = f"Failed: {error}", Workspace.find()
        publish_page(workspace, name, "summary", sentence, lambda: Page(links=_pages(workspace, name)))
        raise


def facts(workspace: Workspace, summary: TrainingSummary) -> dict[str, str]:
    """A run's figures as text, by title."""
    judge = kind_of(load_scenario(workspace.scenarios, summary.scenario)).judge
    energy, predictions = summary.energy, summary.predictions
    found = {
        **judge.texts(dict(summary.metrics), judge.metrics),
        "time": figures.duration(summary.seconds),
        "energy": f"{figures.energy(energy.energy_wh, energy.uncertainty_wh)} ({' and '.join(energy.methods) or 'not measured'})",
        "carbon": f"{figures.carbon(summary.training.carbon_gco2e)} at {summary.grid.gco2e_per_kwh:.0f} gCO2e/kWh "
        f"({summary.intensity_source})",
        "1,000 predictions": figures.energy(predictions.energy_wh, predictions.energy_uncertainty_wh),
    }
    if summary.estimate:
        expected = summary.estimate.cost
        found["estimated before"] = f"{figures.duration(expected.seconds)}, {figures.energy(expected.energy_wh)}"
    if summary.requested:
        found["requested for this run"] = ", ".join(f"{name} {value}" for name, value in summary.requested.items())
    return found | {"model version": str(summary.model_version), "data version": summary.data_version}


def _finished(workspace: Workspace, summary: TrainingSummary) -> tuple[Path, str] | None:
    """Emit the promotion event and write the report; returns its file and its answer, or None if it could not be written."""
    from flows.events import emit_promotion
    from flows.report import try_to_write

    if summary.champion_changed:
        emit_promotion(summary.scenario, summary.model_version, summary.reason)
    return try_to_write(workspace, summary.scenario)


def _training_page(workspace: Workspace, summary: TrainingSummary, report: tuple[Path, str] | None) -> Page:
    """The result, the cost of each stage, and links."""
    name = summary.scenario
    links: dict[str, str | Path] = {"Report: was retraining worth it?": report[0]} if report else {}
    return Page(
        texts={"": plain(report[1])} if report else {},
        tables={
            "Result": [{"what": what, "value": value} for what, value in facts(workspace, summary).items()],
            "What each stage took": [
                {
                    "stage": stage,
                    "state": one.state,
                    "time": figures.duration(one.seconds),
                    "energy": figures.energy(one.energy_wh),
                }
                for stage, one in summary.stages.items()
            ],
        },
        links=links | _pages(workspace, name) | seen_in_mlflow(workspace, summary.run_id, name, summary.model_version),
    )


def _retraining_page(workspace: Workspace, summary: RetrainingSummary, report: tuple[Path, str] | None) -> Page:
    """The new items, the reasons, the attempts, and the content of a training's page."""
    trained = summary.trained
    page = _training_page(workspace, trained.summary, report) if trained else Page(links=_pages(workspace, summary.scenario))
    texts, tables = {**page.texts, "What came": plain(f"Inbox: {summary.inbox}.")}, dict(page.tables)
    for heading, clauses in (("Reasons to train again", summary.reasons), ("No reasons", summary.against)):
        if clauses:
            texts[heading] = bullets(clauses)
    if trained:
        texts["Tries"] = bullets(str(one) for one in trained.tries)
        tables["Result"] = [*tables["Result"], *({"what": what, "value": value} for what, value in _saved(summary).items())]
    else:
        taken = f"{figures.duration(summary.seconds)}, {figures.energy(summary.energy.energy_wh)}."
        texts["What it took"] = taken
    return Page(texts=texts, tables=tables, links=page.links)


def _saved(summary: RetrainingSummary) -> dict[str, str]:
    """What was saved by waiting and by fine-tuning, as far as it is known."""
    found, carbon = {}, summary.carbon_gco2e_saved_by_waiting
    if carbon is not None:
        found["saved by waiting"] = figures.carbon(carbon)
    if summary.trained and (energy_wh := summary.trained.energy_wh_saved_by_warm_start) is not None:
        found["saved by fine-tuning"] = figures.energy(energy_wh)
    return found


def _pages(workspace: Workspace, name: str) -> dict[str, str | Path]:
    """Links to those of a scenario's pages that exist already."""
    pages = {
        "Data Docs: is the data fit to train on?": workspace.data_docs(name) / "index.html",
        "All pages and pictures": workspace.outputs(name),
    }
    return {text: path for text, path in pages.items() if path.exists()}

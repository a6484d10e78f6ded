"""The result of a run with its figures: what the commands print, and what is recorded in the MLflow run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evergreen.energy.carbon import Intensity, intensity
from evergreen.energy.meter import Energy
from evergreen.energy.sci import Footprint, footprint
from evergreen.kinds.base.judge import Gap
from evergreen.registry.models import connect
from evergreen.registry.records import record_metrics, record_summary
from evergreen.workspace import replace_file
from tasks.evaluate import of_1000_predictions
from tasks.stage import Run

if TYPE_CHECKING:
    from evergreen.planning.estimate import Estimate
    from tasks.evaluate import Evaluation
    from tasks.promote import Promotion
    from tasks.register import Registration
    from tasks.tune import Tuning
    from tasks.version import DataVersion

log = logging.getLogger("evergreen")

TOTALS = (  # keys of a summary that are logged to the MLflow run as metrics
    "energy_wh",
    "carbon_gco2e",
    "embodied_gco2e",
    "sci_gco2e_per_training",
    "carbon_gco2e_per_1000_predictions",
    "sci_gco2e_per_1000_predictions",
)


@dataclass(frozen=True)
class StageTotals:
    """What a stage did in a run.

    Attributes:
        state: `ran` or `unchanged`.
        seconds, energy_wh: its duration and energy; the energy is None if it was not measured.
    """

    state: str
    seconds: float
    energy_wh: float | None


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a run of all stages.

    Attributes:
        scenario: the scenario's name.
        run_id: of the version's MLflow run.
        model_version: the version that the run trained, or found unchanged.
        promoted: whether it is the champion; `reason` says why or why not.
        champion: the version in use at the end; None if there is none.
        champion_changed: whether this run changed it.
        data_version: the hash of the scenario's items.
        metrics: of the version on the test split.
        gap: quality on val compared with test (`Judge.gap`); None if unknown.
        energy: measured energy of all stages of this run.
        grid: the carbon intensity used for the footprints.
        training, predictions: footprints of this run and of 1,000 predictions.
        seconds: duration of the stages.
        stages: by name, in order.
        requested: settings requested for this run only.
        estimate: the estimate made before the run; None if none was possible.
        links: URLs of the run's pages by name, on servers that are up.
    """

    scenario: str
    run_id: str
    model_version: int
    promoted: bool
    reason: str
    champion: int | None
    champion_changed: bool
    data_version: str
    metrics: Mapping[str, float | None]
    gap: Gap | None
    energy: Energy
    grid: Intensity
    training: Footprint
    predictions: Footprint
    seconds: float
    stages: Mapping[str, StageTotals]
    requested: Mapping[str, Any]
    estimate: Estimate | None = None
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def unchanged(self) -> bool:
        """True if no stage ran."""
        return all(stage.state == "unchanged" for stage in self.stages.values())

    @property
    def headline(self) -> str:
        """The result of the run, in a sentence."""
        if self.unchanged:
            return "Nothing has changed since the last run: nothing was done."
        became = "was promoted" if self.champion_changed else "stays the champion" if self.promoted else "was not promoted"
        return f"Version {self.model_version} {became}: {self.reason}."

    def to_dict(self) -> dict[str, Any]:
        """The summary as `evergreen run --json` prints it."""
        return {
            "scenario": self.scenario,
            "run_id": self.run_id,
            "model_version": self.model_version,
            "promoted": self.promoted,
            "reason": self.reason,
            "champion": self.champion,
            "champion_changed": self.champion_changed,
            "data_version": self.data_version,
            "metrics": dict(self.metrics),
            "validation_and_test": None if self.gap is None else self.gap.to_dict(),
            "energy_wh": self.energy.energy_wh,
            "energy_uncertainty_wh": self.energy.uncertainty_wh,
            "energy_methods": list(self.energy.methods),
            "carbon_gco2e": self.training.carbon_gco2e,
            "embodied_gco2e": self.training.embodied_gco2e,
            "sci_gco2e_per_training": self.training.sci_gco2e,
            "energy_wh_per_1000_predictions": self.predictions.energy_wh,
            "energy_uncertainty_wh_per_1000_predictions": self.predictions.energy_uncertainty_wh,
            "carbon_gco2e_per_1000_predictions": self.predictions.carbon_gco2e,
            "sci_gco2e_per_1000_predictions": self.predictions.sci_gco2e,
            "intensity_gco2e_per_kwh": self.grid.gco2e_per_kwh,
            "intensity_source": self.intensity_source,
            "seconds": self.seconds,
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "requested": dict(self.requested),
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "links": dict(self.links),
        }

    @property
    def intensity_source(self) -> str:
        """The source of the grid's carbon intensity."""
        return f"{self.grid.source}, {self.grid.year}"


@dataclass(frozen=True)
class Try:
    """One training of a retraining.

    Attributes:
        start: the initial weights, such as `version 3` or `scratch`.
        version: the resulting version; None if there is none.
        promoted: whether the gate promoted it; `reason` says why or why not.
        energy_wh: energy of training, evaluation and gate; None if it was not measured, or nothing was trained.
    """

    start: str
    version: int | None
    promoted: bool
    reason: str
    energy_wh: float | None = None

    def __str__(self) -> str:
        return f"from {self.start}: {'was promoted' if self.promoted else 'was not promoted'}, {self.reason}"


@dataclass(frozen=True)
class Trained:
    """The result of a retraining's trainings.

    Attributes:
        summary: of the last training.
        tries: all trainings, in order.
        energy_wh_saved_by_warm_start: negative if the warm start was in vain; None if none was tried, or if it is unknown.
    """

    summary: TrainingSummary
    tries: tuple[Try, ...]
    energy_wh_saved_by_warm_start: float | None


@dataclass(frozen=True)
class RetrainingSummary:
    """The result of a retraining, whether or not anything was trained.

    Attributes:
        scenario: the scenario's name.
        reasons, against: reasons to train again, and not to, in words.
        inbox: what was taken from the inbox, in words.
        drift: whether new items drifted; None if that was not checked.
        energy: of all stages of this run.
        seconds: duration of the stages.
        trained: None if nothing was trained: there was no reason to, or the run waits for a cleaner hour.
        carbon_gco2e_saved_by_waiting: None if the run did not wait, or if it is unknown.
    """

    scenario: str
    reasons: tuple[str, ...]
    against: tuple[str, ...]
    inbox: str
    drift: bool | None
    energy: Energy
    seconds: float
    trained: Trained | None = None
    carbon_gco2e_saved_by_waiting: float | None = None

    @property
    def headline(self) -> str:
        """The result of the run, in a sentence."""
        if self.trained:
            return self.trained.summary.headline
        return f"{'Waits' if self.reasons else 'Nothing to do'}: {'; '.join(self.against)}."

    def to_dict(self) -> dict[str, Any]:
        """The summary as `evergreen retrain --json` prints it; a training's figures are top-level keys."""
        decided = {
            "reasons": list(self.reasons),
            "against": list(self.against),
            "inbox": self.inbox,
            "drift": self.drift,
            "retrained": self.trained is not None,
        }
        if self.trained is None:
            spent = {
                "energy_wh": self.energy.energy_wh,
                "energy_methods": list(self.energy.methods),
                "seconds": self.seconds,
            }
            return {"scenario": self.scenario, **spent, **decided}
        return {
            **self.trained.summary.to_dict(),
            "tries": [asdict(one) for one in self.trained.tries],
            "energy_wh_saved_by_warm_start": self.trained.energy_wh_saved_by_warm_start,
            **decided,
            "carbon_gco2e_saved_by_waiting": self.carbon_gco2e_saved_by_waiting,
        }


@dataclass(frozen=True)
class TuningSummary:
    """The result of a tuning.

    Attributes:
        applied: whether the winner's settings were written into the scenario's file.
    """

    scenario: str
    tuning: Tuning
    applied: bool

    def to_dict(self) -> dict[str, Any]:
        """The summary as `evergreen tune --json` prints it."""
        return {"scenario": self.scenario, **asdict(self.tuning), "applied": self.applied}


def conclude(
    run: Run, data_version: DataVersion, evaluation: Evaluation, registration: Registration, promotion: Promotion
) -> TrainingSummary:
    """Make the run's summary. If any stage ran, write it to `outputs/NAME/record/summary.json`, and its totals to the MLflow
    run."""
    total = energy_of(run)
    summary = TrainingSummary(
        scenario=run.scenario.name,
        run_id=registration.run_id,
        model_version=registration.model_version,
        promoted=promotion.promoted,
        reason=promotion.reason,
        champion=promotion.champion,
        champion_changed=promotion.changed,
        data_version=data_version.data_version,
        metrics=evaluation.metrics,
        gap=evaluation.gap,
        energy=total,
        grid=intensity(run.scenario.country),
        training=footprint(run.scenario, total),
        predictions=footprint(run.scenario, of_1000_predictions(evaluation.metrics)),
        seconds=seconds_of(run),
        stages=stages_of(run),
        requested=run.requested | ({"force": True} if run.force else {}),
    )
    if not summary.unchanged:
        record = {key: value for key, value in summary.to_dict().items() if key not in ("estimate", "links")}
        replace_file(run.workspace.record(run.scenario.name) / "summary.json", json.dumps(record, indent=1).encode())
        _log(run, record)
    return summary


def energy_of(run: Run) -> Energy:
    """The energy used by all stages of a run so far."""
    return sum((outcome.energy for outcome in run.outcomes), start=Energy.nothing())


def seconds_of(run: Run) -> float:
    """The duration of all stages of a run so far."""
    return sum(outcome.seconds for outcome in run.outcomes)


def stages_of(run: Run) -> dict[str, StageTotals]:
    """State, seconds and energy by stage; if a flow called a stage twice, both calls are added up."""
    stages: dict[str, StageTotals] = {}
    for name in dict.fromkeys(outcome.stage for outcome in run.outcomes):
        calls = [outcome for outcome in run.outcomes if outcome.stage == name]
        spent = sum((outcome.energy for outcome in calls), start=Energy.nothing())
        state = "ran" if any(outcome.state == "ran" for outcome in calls) else "unchanged"
        stages[name] = StageTotals(state, sum(outcome.seconds for outcome in calls), spent.energy_wh)
    return stages


def _log(run: Run, summary: dict[str, Any]) -> None:
    """Record the totals and each stage's figures in the MLflow run (`evergreen.registry.records`). An unreachable MLflow must
    not undo a finished run."""
    try:
        mlflow, run_id = connect(run.workspace), summary["run_id"]
        recorded = record_summary(mlflow, run_id, summary, run.workspace.data_docs(run.scenario.name))
        measured = {"run_seconds": recorded["seconds"]} | {name: recorded.get(name) for name in TOTALS}
        for name, stage in recorded["stages"].items():
            if stage["state"] == "ran":
                measured |= {f"stage/{name}/seconds": stage["seconds"], f"stage/{name}/energy_wh": stage["energy_wh"]}
        record_metrics(mlflow.MlflowClient(), run_id, measured)
    except Exception as error:  # noqa: BLE001 (the run is finished even without them)
        log.warning(
            "The run's totals could not be written to MLflow (%s); they are in %s.",
            error,
            run.workspace.record(run.scenario.name) / "summary.json",
        )

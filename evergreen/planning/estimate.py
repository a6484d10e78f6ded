"""Estimates a run's cost before it starts, from earlier runs of the scenario on this machine or from a short trial.

A stage's cost is a start-up part plus a part proportional to its work (items; for training, items times epochs), for one kind
of work on one machine (`evergreen.kinds.base.learner`: the same network on items of the same size). If the stage's earlier
entries in the ledger did different amounts of work, both parts are fitted to them by non-negative least squares (Lawson and
Hanson 1974); otherwise the whole cost is taken to be proportional. If there is no entry of that kind, a trial trains the real
network for some seconds on random pixels. Stages that never ran are not counted, but listed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.data.dataset import batches, parts
from evergreen.energy.ledger import Cost, Entry, device, read
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

TRAINING = "train"
FEW = 3  # earlier runs needed to compute their spread
# With fewer, the fraction by which a run may differ from them, by judgement (bench/README.md has the measured errors).
SPREAD_OF_FEW = 0.3
SPREAD_OF_TRIAL = 0.5  # a trial takes only seconds, and the machine's speed varies
LEAST_SPREAD = 0.1
LATEST = 10  # runs that count, since a machine changes
SPREAD_OF_OTHERS = 1.0  # for estimates from other scenarios or machines: half or twice as long is likely
# Start-up seconds of a stage, and seconds per item, on two cores (bench/README.md). Used to estimate a first run of a scenario
# if no other scenario has run the stage on this machine.
USUAL_SECONDS = {
    "collect": (1.0, 0.0005),
    "validate": (4.0, 0.00005),
    "version": (0.2, 0.0),
    "preprocess": (0.2, 0.0002),
    "evaluate": (2.5, 0.0005),
    "register": (2.0, 0.0),
    "promote": (0.2, 0.0),
}


@dataclass(frozen=True)
class Expected:
    """The expected cost of one stage.

    Attributes:
        seconds, energy_wh, energy_uncertainty_wh: the expected amounts; energy is None if unknown.
        spread: fraction by which the actual amounts may differ.
        basis: what the estimate is based on, as a clause.
    """

    seconds: float
    energy_wh: float | None
    energy_uncertainty_wh: float | None
    spread: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """What a run will cost if every stage has to run.

    Attributes:
        cost: the expected cost; its energy's uncertainty covers only the measurement.
        spread: fraction by which the actual cost may differ, either way.
        stages: expected seconds and watt-hours by stage.
        basis: what the estimate is based on, in a sentence.
        missing: stages that never ran here and are not counted.
        currency: of the money; None without prices.
        perhaps: the cost of a second training, in case the gate refuses the first; included in `most`.
    """

    cost: Cost
    spread: float
    stages: dict[str, tuple[float, float | None]]
    basis: str
    missing: tuple[str, ...]
    currency: str | None
    perhaps: Cost | None = None

    def __str__(self) -> str:
        cost = self.cost
        span = f"{figures.duration(self.least.seconds)} to {figures.duration(self.most.seconds)}"
        parts = [f"{figures.duration(cost.seconds)} ({span})"]
        parts.append("unknown energy" if cost.energy_wh is None else figures.energy(cost.energy_wh))
        if cost.carbon_gco2e is not None:
            parts.append(figures.carbon(cost.carbon_gco2e))
        if cost.money is not None:
            parts.append(figures.money(cost.money, self.currency or ""))
        without = f"; without {', '.join(self.missing)}, which never ran here" if self.missing else ""
        return f"estimated: {', '.join(parts)} ({self.basis}{without})."

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values, for a summary."""
        return {
            **asdict(self.cost),
            "seconds_least": self.least.seconds,
            "seconds_most": self.most.seconds,
            "currency": self.currency,
            "basis": self.basis,
            "missing": list(self.missing),
            "seconds_of_a_second_training": None if self.perhaps is None else self.perhaps.seconds,
            "stages": {name: {"seconds": seconds, "energy_wh": wh} for name, (seconds, wh) in self.stages.items()},
        }

    @property
    def most(self) -> Cost:
        """The upper end."""
        most = _times(self.cost, 1 + self.spread)
        return most if self.perhaps is None else most + self.perhaps

    @property
    def least(self) -> Cost:
        """The lower end."""
        return _times(self.cost, max(0.0, 1 - self.spread))

    def after(self, stages: dict[str, tuple[float, float | None]], spent: Cost, perhaps: Cost | None) -> Estimate:
        """This estimate plus what the run has done already.

        Args:
            stages: seconds and watt-hours of each stage that has run.
            spent: the total cost of these stages.
            perhaps: as the attribute.
        """
        total = spent + self.cost
        return replace(
            self,
            cost=total,
            spread=self.spread * self.cost.seconds / max(total.seconds, 1e-9),
            stages={**stages, **self.stages},
            perhaps=perhaps,
        )


class NothingKnown(EvergreenError):
    """There is nothing to base an estimate on."""


Trial = Callable[[Scenario, float], Expected]
Count = Callable[[Scenario, Workspace], tuple[int, str]]


def no_trial(scenario: Scenario, work: float) -> Expected:
    """A `Trial` for callers that have no time for one."""
    raise NothingKnown(f"no run of {scenario.name} with these settings says what training takes on this machine")


def estimate(
    scenario: Scenario, workspace: Workspace, trial: Trial, *, first: str = "collect", count: Count | None = None
) -> Estimate:
    """Estimate a run.

    Args:
        trial: estimates training if there is no earlier run to go by, given the scenario and the items times
            epochs (`Learner.equivalent_epochs`).
        first: the first stage that runs; all later ones run too.
        count: counts the items of the source if nothing was collected yet, and describes how; without it, such a run can't be
            estimated.

    Raises:
        NothingKnown: no data were collected yet, so the number of items is unknown; or `trial` raises it.
    """
    here, counted, learner = device(), "", kind_of(scenario).learner
    if count is not None and not _collected(scenario, workspace):
        all_items, counted = count(scenario, workspace)
        items = _split(scenario, all_items)
    else:
        items = item_counts(scenario, workspace)
    entries = [entry for entry in read(workspace, scenario.name) if entry.device == here and entry.work]
    ahead = {
        "collect": (items["all"], "items"),
        "validate": (items["all"], "items"),
        "version": (1, ""),
        "preprocess": (items["all"], learner.preparation_work(scenario)),
        TRAINING: (items["train"] * learner.equivalent_epochs(scenario), learner.training_work(scenario)),
        "evaluate": (items["test"], learner.prediction_work(scenario)),
        "register": (1, ""),
        "promote": (1, ""),
    }
    ahead = dict(list(ahead.items())[list(ahead).index(first) :])
    found = {
        stage: expected([entry for entry in entries if (entry.stage, entry.work_kind) == (stage, kind)], work)
        for stage, (work, kind) in ahead.items()
    }
    if TRAINING in ahead:
        found[TRAINING] = found[TRAINING] or trial(scenario, ahead[TRAINING][0])
    if counted:
        others = _of_all_scenarios(workspace, here)
        for stage, (work, _) in ahead.items():
            found[stage] = found[stage] or _by_others(stage, work, others, found.get(TRAINING))
    known = {stage: one for stage, one in found.items() if one is not None}
    costs = {stage: Cost.of(scenario, one.seconds, one.energy_wh, one.energy_uncertainty_wh) for stage, one in known.items()}
    total = functools.reduce(Cost.__add__, costs.values(), Cost(0.0, 0.0, 0.0, 0.0, 0.0 if scenario.price else None))
    training = known.get(TRAINING)
    return Estimate(
        total,
        spread=sum(one.spread * one.seconds for one in known.values()) / max(total.seconds, 1e-9),
        stages={stage: (cost.seconds, cost.energy_wh) for stage, cost in costs.items()},
        basis="; ".join(
            part
            for part in (
                f"training by {training.basis}" if training else "nothing is trained",
                counted,
                "the other stages by what they usually take" if counted else "",
            )
            if part
        ),
        missing=tuple(stage for stage in ahead if found[stage] is None),
        currency=scenario.price.currency if scenario.price else None,
    )


def expected(entries: list[Entry], work: float) -> Expected | None:
    """Estimate from the latest entries, all of one stage and kind of work; None if there are none."""
    latest = entries[-LATEST:]
    if not latest:
        return None
    done = np.array([entry.work for entry in latest], float)
    seconds = np.array([entry.cost.seconds for entry in latest])
    line = _line(done, seconds)
    spread = SPREAD_OF_FEW
    if len(latest) >= FEW:
        off = seconds / np.maximum([line(one) for one in done], 1e-9) - 1
        spread = max(LEAST_SPREAD, float(2 * np.sqrt(np.square(off).sum() / (len(off) - 1))))
    energies, doubts = (
        [value for value in values if value is not None]
        for values in zip(*((entry.cost.energy_wh, entry.cost.energy_uncertainty_wh) for entry in latest), strict=True)
    )
    energy_wh = uncertainty_wh = None
    if len(energies) == len(doubts) == len(latest):
        energy_wh, uncertainty_wh = (_line(done, np.array(values))(work) for values in (energies, doubts))
    times = f"the last {len(latest)} like it on this machine" if len(latest) > 1 else "the last one like it on this machine"
    return Expected(line(work), energy_wh, uncertainty_wh, spread, times)


def _line(work: np.ndarray, spent: np.ndarray) -> Callable[[float], float]:
    """A function from an amount of work to what it takes, fitted to what was spent on earlier amounts."""
    from scipy.optimize import nnls

    if len(np.unique(work)) == 1:
        middle = float(np.median(spent))
        return lambda amount: middle * amount / float(work[0])
    scale = work.max()
    (start, pace), _ = nnls(np.column_stack([np.ones_like(work), work / scale]), spent)
    return lambda amount: float(start + pace * amount / scale)


def item_counts(scenario: Scenario, workspace: Workspace) -> dict[str, int]:
    """The number of items in the data set (`all`) and in the splits `train` and `test`.

    Raises:
        NothingKnown: nothing was collected yet.
    """
    import json

    import pyarrow.parquet as pq

    items = sum(pq.read_metadata(part).num_rows for part in parts(batches(workspace, scenario.name)))
    if not items:
        raise NothingKnown(
            f"nothing was collected for {scenario.name} yet, so nobody knows how many items it has to learn from",
            fix=f"Run it once (evergreen run {scenario.name}); every later run is estimated beforehand.",
        )
    counts, summary = _split(scenario, items), Path(workspace.splits(scenario.name) / "summary.json")
    try:
        counted = json.loads(summary.read_text())
        last = {split: round(items * counted["splits"][split] / counted["items"]) for split in ("train", "test")}
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return counts
    return counts | last  # in the proportions of the last split


def _collected(scenario: Scenario, workspace: Workspace) -> bool:
    return any(True for _ in parts(batches(workspace, scenario.name)))


def _split(scenario: Scenario, items: int) -> dict[str, int]:
    """How many of so many items each split will get, according to the scenario."""
    settings = scenario.preprocess
    fractions = {"train": 1 - settings.val_share - settings.test_share, "test": settings.test_share}
    return {"all": items, **{split: round(fraction * items) for split, fraction in fractions.items()}}


def _of_all_scenarios(workspace: Workspace, here: str) -> list[Entry]:
    files = sorted((workspace.private / "ledger").glob("*.jsonl"))
    return [entry for file in files for entry in read(workspace, file.stem) if entry.device == here and entry.work]


def _by_others(stage: str, work: float, others: list[Entry], training: Expected | None) -> Expected:
    """Estimate a stage from other scenarios' runs on this machine. Without any, use its seconds on another machine and the
    power that training draws here."""
    alike = expected([entry for entry in others if entry.stage == stage], work)
    if alike is not None:
        return replace(alike, spread=SPREAD_OF_OTHERS)
    start, each = USUAL_SECONDS[stage]
    seconds = start + each * work
    if training is None or training.energy_wh is None or training.energy_uncertainty_wh is None or not training.seconds:
        return Expected(seconds, None, None, SPREAD_OF_OTHERS, "what it took on another machine")
    fraction = seconds / training.seconds
    energy_wh, uncertainty_wh = training.energy_wh * fraction, training.energy_uncertainty_wh * fraction
    return Expected(seconds, energy_wh, uncertainty_wh, SPREAD_OF_OTHERS, "what it took on another machine")


def _times(cost: Cost, factor: float) -> Cost:
    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    return Cost(
        cost.seconds * factor,
        times(cost.energy_wh),
        times(cost.energy_uncertainty_wh),
        times(cost.carbon_gco2e),
        times(cost.money),
    )

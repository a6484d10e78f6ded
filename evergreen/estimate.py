"""What a run will take, before it starts: from what earlier runs of the scenario took on this machine, or from a short trial.

What a stage takes is a part for starting, and a part in proportion to its work (items; for training items times epochs), for one kind of work on one
machine: the same network on pixels of the same size. Its earlier entries in the ledger give both, by least squares of parts that are not
negative (Lawson and Hanson 1974), where they did different amounts of work; else all is taken to be in proportion. Where no entry is of the kind, a
trial trains the real network for some seconds on random pixels. Stages that never ran are not counted, and named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.dataset import batches, parts
from evergreen.errors import EvergreenError
from evergreen.ledger import Cost, Entry, device, read
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace

TRAINING = "train"
FEW = 3  # earlier runs; of fewer, their spread says too little
SPREAD_OF_FEW = (
    0.3  # the share by which a run then may differ from them, by judgement (bench/README.md says how far off they were)
)
SPREAD_OF_TRIAL = 0.5  # a trial of seconds: the machine's pace changes
LEAST_SPREAD = 0.1
LATEST = 10  # runs that count: a machine changes


@dataclass(frozen=True)
class Expected:
    """Of one stage.

    Attributes:
        seconds, energy_wh, energy_uncertainty_wh: that it will take; energy None where it is unknown.
        spread: share by which it may differ from that.
        basis: where it is from, as a clause.
    """

    seconds: float
    energy_wh: float | None
    energy_uncertainty_wh: float | None
    spread: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """What a run will take if every stage has to run.

    Attributes:
        cost: the expected one; its energy's uncertainty covers the measurement alone.
        spread: share by which the run may differ from it, either way.
        stages: expected seconds and watt-hours by stage.
        basis: where it is from, in a sentence.
        missing: stages that never ran here and are not counted.
        currency: of the money; None without prices.
    """

    cost: Cost
    spread: float
    stages: dict[str, tuple[float, float | None]]
    basis: str
    missing: tuple[str, ...]
    currency: str | None

    def __str__(self) -> str:
        cost = self.cost
        parts = [f"{cost.seconds:.0f} s ({self.least.seconds:.0f} to {self.most.seconds:.0f})"]
        parts.append("unknown energy" if cost.energy_wh is None else f"{cost.energy_wh:.3g} Wh")
        if cost.carbon_gco2e is not None:
            parts.append(f"{cost.carbon_gco2e:.3g} gCO2e")
        if cost.money is not None:
            parts.append(f"{cost.money:.3g} {self.currency}")
        without = f"; without {', '.join(self.missing)}, which never ran here" if self.missing else ""
        return f"estimated: {', '.join(parts)} ({self.basis}{without})."

    def told(self) -> dict[str, Any]:
        """For a summary in JSON."""
        return {
            **asdict(self.cost),
            "seconds_least": self.least.seconds,
            "seconds_most": self.most.seconds,
            "currency": self.currency,
            "basis": self.basis,
            "missing": list(self.missing),
            "stages": {name: {"seconds": seconds, "energy_wh": wh} for name, (seconds, wh) in self.stages.items()},
        }

    @property
    def most(self) -> Cost:
        """The upper end."""
        return _times(self.cost, 1 + self.spread)

    @property
    def least(self) -> Cost:
        return _times(self.cost, max(0.0, 1 - self.spread))


class NothingKnown(EvergreenError):
    """Nothing tells what a run will take."""


Trial = Callable[[Scenario, float], Expected]


def no_trial(scenario: Scenario, work: float) -> Expected:
    """For those who have no time for one."""
    raise NothingKnown(f"no run of {scenario.name} with these settings has told what training takes on this machine")


def estimate(scenario: Scenario, workspace: Workspace, trial: Trial, *, first: str = "collect") -> Estimate:
    """Estimate a run.

    Args:
        trial: what training will take where no earlier run tells it, given the scenario and the items times epochs.
        first: the stage from which on all run.

    Raises:
        NothingKnown: no data were collected yet, so that nobody knows how many items there will be; or `trial` says so.
    """
    here, items = device(), item_counts(scenario, workspace)
    entries = [entry for entry in read(workspace, scenario.name) if entry.device == here and entry.work]
    ahead = {
        "collect": (items["all"], "items"),
        "validate": (items["all"], "items"),
        "version": (1, ""),
        "preprocess": (items["all"], pixels_kind(scenario)),
        TRAINING: (items["train"] * scenario.train.epochs, training_kind(scenario)),
        "evaluate": (items["test"], network_kind(scenario)),
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
    known = {stage: one for stage, one in found.items() if one is not None}
    costs = {stage: Cost.of(scenario, one.seconds, one.energy_wh, one.energy_uncertainty_wh) for stage, one in known.items()}
    total = functools.reduce(Cost.__add__, costs.values(), Cost(0.0, 0.0, 0.0, 0.0, 0.0 if scenario.price else None))
    training = known.get(TRAINING)
    return Estimate(
        total,
        spread=sum(one.spread * one.seconds for one in known.values()) / max(total.seconds, 1e-9),
        stages={stage: (cost.seconds, cost.energy_wh) for stage, cost in costs.items()},
        basis=f"training by {training.basis}" if training else "nothing is trained",
        missing=tuple(stage for stage in ahead if found[stage] is None),
        currency=scenario.price.currency if scenario.price else None,
    )


def expected(entries: list[Entry], work: float) -> Expected | None:
    """From the latest entries, all of one stage and kind; None without any."""
    latest = entries[-LATEST:]
    if not latest:
        return None
    done = np.array([entry.work for entry in latest], float)
    seconds = np.array([entry.cost.seconds for entry in latest])
    told = _line(done, seconds)
    spread = SPREAD_OF_FEW
    if len(latest) >= FEW:
        off = seconds / np.maximum([told(one) for one in done], 1e-9) - 1
        spread = max(LEAST_SPREAD, float(2 * np.sqrt(np.square(off).sum() / (len(off) - 1))))
    energies, doubts = (
        [value for value in values if value is not None]
        for values in zip(*((entry.cost.energy_wh, entry.cost.energy_uncertainty_wh) for entry in latest), strict=True)
    )
    energy_wh = uncertainty_wh = None
    if len(energies) == len(doubts) == len(latest):
        energy_wh, uncertainty_wh = (_line(done, np.array(values))(work) for values in (energies, doubts))
    times = f"the last {len(latest)} like it on this machine" if len(latest) > 1 else "the last one like it on this machine"
    return Expected(told(work), energy_wh, uncertainty_wh, spread, times)


def _line(work: np.ndarray, spent: np.ndarray) -> Callable[[float], float]:
    """What is spent on an amount of work, by what was."""
    from scipy.optimize import nnls

    if len(np.unique(work)) == 1:
        middle = float(np.median(spent))
        return lambda amount: middle * amount / float(work[0])
    scale = work.max()
    (start, pace), _ = nnls(np.column_stack([np.ones_like(work), work / scale]), spent)
    return lambda amount: float(start + pace * amount / scale)


def item_counts(scenario: Scenario, workspace: Workspace) -> dict[str, int]:
    """How many items the data set holds (`all`), and how many are learned from (`train`) and tested on (`test`).

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
    settings, summary = scenario.preprocess, Path(workspace.splits(scenario.name) / "summary.json")
    shares = {"train": 1 - settings.val_share - settings.test_share, "test": settings.test_share}
    try:
        told = json.loads(summary.read_text())
        shares = {split: told["splits"][split] / told["items"] for split in shares}  # as it was dealt the last time
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        pass
    return {"all": items, **{split: round(share * items) for split, share in shares.items()}}


def pixels_kind(scenario: Scenario) -> str:
    pixels = scenario.preprocess
    return f"{pixels.height}×{pixels.width}×{pixels.channels}"


def network_kind(scenario: Scenario) -> str:
    """What decides how much work the network has with an item."""
    train = scenario.train
    ways = ", both ways" if train.mirror else ""
    return (
        f"{train.model} of {train.filters} filters on {pixels_kind(scenario)}, {len(scenario.validation.labels)} labels{ways}"
    )


def training_kind(scenario: Scenario) -> str:
    """What decides how much work learning from an item is."""
    train = scenario.train
    return (
        f"{network_kind(scenario)}, {train.precision} precision, batches of {train.batch_size}, flip {train.flip}, shift {train.shift}, "
        f"erase {train.erase}"
    )


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

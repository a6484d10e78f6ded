"""trial: estimate the cost of training on this machine by training the scenario's network for some seconds on random data, and
count the items of a source that has not been collected yet.

Reads   the scenario; to count items, the names in its source.
Writes  nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from evergreen import figures, progress
from evergreen.energy.meter import Energy, Meter
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import kind_of, source_of
from evergreen.planning.estimate import SPREAD_OF_TRIAL, Expected, NothingKnown
from evergreen.preparation.arrays import network_inputs
from evergreen.scenario.settings import Scenario
from evergreen.training.precision import dtype_policy, training_policy
from evergreen.training.selection import folds_of
from evergreen.workspace import Workspace

TRIAL_SECONDS = 5.0
COUNT_SECONDS = 5.0  # after this time the rest of an archive is extrapolated


def trial(scenario: Scenario, work: float) -> Expected:
    """Estimate the cost of a training, or of comparing several where the scenario leaves open how to train.

    Args:
        work: items times epochs (`Learner.equivalent_epochs`).
    """
    from evergreen.environment import import_tensorflow

    with progress.task("Starting TensorFlow"):
        import_tensorflow()
    learner = kind_of(scenario).learner
    items = work / learner.equivalent_epochs(scenario)
    candidates = learner.candidates(scenario, round(items))
    tried = [scenario.with_train(one.settings) for one in candidates if not one.left_out]
    pixels, trained = scenario.preprocess, tried or [scenario]
    val_items = round(items * pixels.val_share / max(1e-9, 1 - pixels.val_share - pixels.test_share))
    trainings = items * (folds_of(val_items) if tried else 1)
    seconds = TRIAL_SECONDS / len(trained)
    each = [_energy(one, trainings * learner.equivalent_epochs(one), seconds) for one in trained]
    spent = sum(each, start=Energy.nothing())
    basis = f"a trial of {TRIAL_SECONDS:.0f} s"
    return Expected(spent.seconds, spent.energy_wh, spent.uncertainty_wh, SPREAD_OF_TRIAL, basis)


def _energy(scenario: Scenario, work: float, seconds: float) -> Energy:
    """Estimate what one training takes, by a trial of so many seconds."""
    settings, learner, started = scenario.train, kind_of(scenario).learner, time.monotonic()
    split = learner.random_split(scenario, settings.batch_size, np.random.default_rng(scenario.seed))
    inputs, targets = network_inputs(split, learner), learner.targets(split, np.arange(len(split)))
    with dtype_policy(training_policy(settings)):
        model = learner.build(scenario, split, steps=100)
        only_predicts = learner.equivalent_epochs(scenario) < 1

        def step() -> float:
            """Run the network once, and return the work done."""
            if only_predicts:
                model.predict_on_batch(inputs)
                return settings.batch_size / 3
            model.train_on_batch(inputs, targets)
            return float(settings.batch_size)

        step()  # traces the network
        start_seconds, done = time.monotonic() - started, 0.0
        with Meter() as meter, progress.task("Trial of the training", total=seconds) as report:
            while not done or meter.spent().seconds < seconds:
                done += step()
                report(meter.spent().seconds)
    return meter.spent() * (work / done) + replace(Energy.nothing(), seconds=start_seconds)


def count_items(scenario: Scenario, workspace: Workspace) -> tuple[int, str]:
    """The number of items in the scenario's source, and how it was determined, as a clause. Nothing is collected or downloaded.

    Raises:
        NothingKnown: the source is not on this machine, or contains no item.
    """
    with progress.task("Counting the items", unit="items") as report:
        try:
            source = source_of(scenario, workspace, download=False)
        except EvergreenError as error:
            raise NothingKnown(f"nobody knows how many items {scenario.name} has: {error.happened}", fix=error.fix) from None
        contract, items, seen, fraction = kind_of(scenario).contract, 0, 0, 1.0
        until = time.monotonic() + COUNT_SECONDS
        for name, fraction_read in source.names():
            items += contract.count(scenario, source, name)
            seen += 1
            report(items, fraction=fraction_read)
            if fraction_read is not None and fraction_read > 0 and time.monotonic() > until:
                fraction = fraction_read
                break
    if not items:
        raise NothingKnown(
            f"no item is found in the source of {scenario.name} among {figures.count(seen, 'entry', 'entries')}",
            fix=f"Correct the section collect in scenarios/{scenario.name}.yaml, or the source.",
        )
    if fraction < 1:
        return round(
            items / fraction
        ), f"about {round(items / fraction):,} items, by {figures.percent(fraction)} of the archive"
    return items, f"{figures.count(items, 'item')} counted in the source"

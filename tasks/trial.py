"""trial: what learning takes on this machine, by doing it for some seconds with the scenario's own network on random pixels.

Reads   nothing but the scenario.
Writes  nothing.
"""

from __future__ import annotations

import time

import numpy as np

from evergreen.energy import Meter
from evergreen.estimate import SPREAD_OF_TRIAL, Expected
from evergreen.kinds import kind_of
from evergreen.scenario import Scenario

TRIAL_SECONDS = 5.0


def trial(scenario: Scenario, work: float) -> Expected:
    """What training will take.

    Args:
        work: items times epochs.
    """
    from evergreen.environment import import_tensorflow
    from tasks.train import precision

    started = time.monotonic()
    import_tensorflow()
    import keras

    settings, pixels, labels = scenario.train, scenario.preprocess, len(scenario.validation.labels)
    random = np.random.default_rng(scenario.seed)
    images = random.integers(0, 256, (settings.batch_size, pixels.height, pixels.width, pixels.channels), np.uint8)
    told = np.eye(labels, dtype=np.float32)[random.integers(0, labels, settings.batch_size)]
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision(settings))
    try:
        model = kind_of(scenario).build(settings, images.shape[1:], labels, steps=100)
        model.train_on_batch(images, told)  # traces the network
        start_seconds, steps = time.monotonic() - started, 0
        with Meter() as meter:
            while steps == 0 or meter.spent().seconds < TRIAL_SECONDS:
                model.train_on_batch(images, told)
                steps += 1
    finally:
        keras.config.set_dtype_policy(usual)
    spent, share = meter.spent(), work / (steps * settings.batch_size)
    return Expected(
        start_seconds + spent.seconds * share,
        None if spent.energy_wh is None else spent.energy_wh * share,
        None if spent.uncertainty_wh is None else spent.uncertainty_wh * share,
        SPREAD_OF_TRIAL,
        f"a trial of {spent.seconds:.0f} s",
    )

"""Callbacks of a training, called as Keras's `fit` calls them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evergreen.energy.meter import Meter
from evergreen.training.checkpoint import TrainingState
from evergreen.training.spending import Spending


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.compile("sgd", "mse")
    return network


def end_epoch(state: TrainingState, callbacks: list[Any], model: Any, **metrics: float) -> None:
    model.stop_training = False
    state.history.append(metrics)
    for callback in callbacks:
        callback.set_model(model)
        callback.on_epoch_end(len(state.history) - 1, metrics)


def test_the_weights_of_the_lowest_validation_loss_are_kept_even_after_one_that_is_no_number(model: Any) -> None:
    from evergreen.training.callbacks import KeepBestWeights

    state = TrainingState()
    best = KeepBestWeights(state, [])
    expected = [(math.nan, 1), (0.5, 2), (0.7, 2), (math.nan, 2), (0.4, 5)]
    for number, (val_loss, best_epoch) in enumerate(expected, start=1):
        model.set_weights([np.full((1, 1), number)])
        end_epoch(state, [best], model, loss=1.0, val_loss=val_loss)
        assert state.best_epoch == best_epoch and best.weights[0] == best_epoch


def test_without_a_validation_split_the_last_weights_are_kept(model: Any) -> None:
    from evergreen.training.callbacks import KeepBestWeights

    state = TrainingState()
    best = KeepBestWeights(state, [])
    for number in (1, 2):
        model.set_weights([np.full((1, 1), number)])
        end_epoch(state, [best], model, loss=float(number))
        assert state.best_epoch == number and best.weights[0] == number


def test_what_ends_a_training_first_is_its_reason(model: Any) -> None:
    from evergreen.training.callbacks import StopAfterEpochs, StopOnDivergence, StopWithoutProgress

    state = TrainingState(best_epoch=1)
    callbacks = [StopOnDivergence(state, 10.0), StopWithoutProgress(state, 1), StopAfterEpochs(state, 2)]
    end_epoch(state, callbacks, model, loss=10.0, val_loss=1.0)
    assert not state.stopped and not model.stop_training
    end_epoch(state, callbacks, model, loss=1.0, val_loss=2.0)  # the last one, and no better than the first
    assert state.stopped == "patience" and model.stop_training


@pytest.mark.parametrize("loss", [10.1, math.inf, math.nan])
def test_an_epoch_of_too_large_a_loss_has_diverged(model: Any, loss: float) -> None:
    from evergreen.training.callbacks import StopOnDivergence

    state = TrainingState()
    end_epoch(state, [StopOnDivergence(state, 10.0)], model, loss=loss)
    assert state.stopped == "diverged"


def test_spending_counts_earlier_attempts_and_unknown_energy_stays_unknown() -> None:
    with Meter() as meter:
        assert Spending(meter, 100.0, 5.0).seconds() >= 100
        assert (Spending(meter, 100.0, 5.0).energy_wh() or 0) >= 5
        assert Spending(meter, 100.0, None).energy_wh() is None


@pytest.fixture
def averaging() -> Any:
    """A network of one weight, to which its optimizer adds 1 in each step; it keeps the average with a momentum of 0.5."""
    import keras

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    network.compile(keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5), lambda _, found: -found)
    network.optimizer.build(network.trainable_variables)
    return network


def test_the_average_of_the_weights_is_what_is_validated_and_kept(averaging: Any) -> None:
    from evergreen.training.callbacks import KeepBestWeights, ValidateAverages

    one, state = np.ones((1, 1), np.float32), TrainingState()
    for _ in range(3):
        averaging.train_on_batch(one, one)  # 1, 2, 3; the average: 1, 1.5, 2.25
    swap, best = ValidateAverages(), KeepBestWeights(state, [])
    swap.set_model(averaging)
    assert averaging.evaluate(one, one, verbose=0) == pytest.approx(-3)
    assert averaging.evaluate(one, one, verbose=0, callbacks=[swap]) == pytest.approx(-2.25)
    assert averaging.get_weights()[0].item() == 3  # training goes on from the weights as they are
    end_epoch(state, [best], averaging, loss=1.0, val_loss=1.0)
    assert best.weights[0].item() == pytest.approx(2.25)


def test_before_the_first_step_there_is_no_average(averaging: Any) -> None:
    from evergreen.training.callbacks import KeepBestWeights, averages_of

    averaging.set_weights([np.full((1, 1), 7)])
    assert averages_of(averaging) == []
    state = TrainingState()
    best = KeepBestWeights(state, [])
    end_epoch(state, [best], averaging, loss=1.0, val_loss=1.0)
    assert best.weights[0].item() == 7

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import EvergreenError
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.preparation.arrays import epoch_order, facts, open_split, ordered_batches, steps_per_epoch, training_batches
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from tests.support.shipped import ROOT

LEARNER = ImageLearner()


def split_of(items: int) -> Split:
    """Items that can be distinguished: the number of an item is its pixels, its number modulo 3 is its label."""
    numbers = np.arange(items)
    pixels = np.broadcast_to(numbers[:, None, None, None], (items, 4, 5, 3)).astype(np.uint8)
    return Split("train", {"images": pixels, "labels": (numbers % 3).astype(np.uint8)}, {"labels": ["a", "b", "c"]})


def scenario(**train: Any) -> Scenario:
    """The quickstart with these settings of `train`."""
    return load_scenario(ROOT / "scenarios", "quickstart").with_train(train)


def numbers_of(batches: object) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches.as_numpy_iterator()]  # type: ignore[attr-defined]


def write(folder: Path, split: Split, name: str = "train") -> None:
    np.save(folder / f"{name}-images.npy", split["images"])
    np.save(folder / f"{name}-labels.npy", split["labels"])


def test_a_split_is_mapped_and_not_read(tmp_path: Path) -> None:
    write(tmp_path, split_of(7))
    split = open_split(tmp_path, "train")
    assert isinstance(split["images"], np.memmap) and len(split) == 7


def test_labels_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["b", "a", "ö"]', encoding="utf-8")
    assert facts(tmp_path) == {"labels": ["b", "a", "ö"]}


def test_a_missing_split_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError, match="the val split cannot be read"):
        open_split(tmp_path, "val")


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    write(tmp_path, split_of(7))
    path = tmp_path / "train-images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EvergreenError, match="the train split cannot be read"):
        open_split(tmp_path, "train")


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    split = split_of(7)
    write(tmp_path, Split("train", {"images": split["images"], "labels": split["labels"][:-1]}, {}))
    with pytest.raises(EvergreenError, match="don't fit"):
        open_split(tmp_path, "train")


def test_arrays_of_python_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "train-images.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(EvergreenError, match="the train split cannot be read"):
        open_split(tmp_path, "train")


@given(items=st.integers(1, 500), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10_000))
def test_an_epoch_has_every_item_once_in_an_order_that_can_be_had_again(items: int, seed: int, epoch: int) -> None:
    order = epoch_order(items, seed, epoch)
    assert sorted(order) == list(range(items))
    assert (order == epoch_order(items, seed, epoch)).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(items=st.integers(1, 60), batch_size=st.integers(1, 70), epochs=st.integers(1, 3))
def test_every_training_batch_is_full_and_no_item_comes_twice_in_an_epoch(items: int, batch_size: int, epochs: int) -> None:
    batches = numbers_of(training_batches(scenario(epochs=epochs, batch_size=batch_size), split_of(items), LEARNER))
    steps = steps_per_epoch(items, batch_size)
    assert len(batches) == steps * epochs
    assert {len(batch) for batch in batches} == {min(batch_size, items)}
    for epoch in range(epochs):
        seen = [number for batch in batches[epoch * steps : (epoch + 1) * steps] for number in batch]
        assert len(set(seen)) == len(seen)


@pytest.mark.slow
def test_going_on_from_a_later_epoch_gives_the_very_batches_of_the_whole_training() -> None:
    split = split_of(50)
    four_epochs = scenario(epochs=4, batch_size=8)
    whole = numbers_of(training_batches(four_epochs, split, LEARNER))
    rest = numbers_of(training_batches(four_epochs, split, LEARNER, first_epoch=2))
    assert rest == whole[2 * steps_per_epoch(50, 8) :]


@pytest.mark.slow
def test_going_on_from_a_later_epoch_mixes_the_same_images() -> None:
    mixed = scenario(epochs=4, batch_size=8, mixup=0.5)
    whole = [images.tolist() for images, _ in training_batches(mixed, split_of(50), LEARNER).as_numpy_iterator()]
    rest = [images.tolist() for images, _ in training_batches(mixed, split_of(50), LEARNER, first_epoch=2).as_numpy_iterator()]
    assert rest == whole[2 * steps_per_epoch(50, 8) :]


@pytest.mark.slow
def test_balanced_sampling_draws_every_label_about_equally_often() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10, np.uint8)
    split = Split("train", {"images": np.zeros((1000, 4, 5, 3), np.uint8), "labels": labels}, {"labels": ["a", "b", "c"]})
    balanced = scenario(epochs=1, batch_size=1000, sampling="balanced")
    ((_, targets),) = training_batches(balanced, split, LEARNER).as_numpy_iterator()
    assert (np.abs(targets.sum(axis=0) - 333) < 80).all()


@pytest.mark.slow
def test_ordered_batches_give_every_item_once_in_order() -> None:
    assert numbers_of(ordered_batches(split_of(7), LEARNER, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.slow
def test_a_batch_holds_pixels_as_bytes_and_labels_as_one_hot() -> None:
    images, labels = next(ordered_batches(split_of(4), LEARNER, 4).as_numpy_iterator())
    assert images.dtype == np.uint8 and images.shape == (4, 4, 5, 3)
    assert labels.dtype == np.float32 and labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]

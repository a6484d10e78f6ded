"""Drift on real digits, as a small network sees them that was trained on the first 500: found where there is some, rarely
where there is none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import EvergreenError, WrongUse
from evergreen.kinds.classify.contract import ImageContract
from evergreen.media.images import BadImage
from evergreen.monitoring.drift import (
    Drift,
    Feature,
    Observations,
    compare,
    held_out,
    least_p_value,
    observe,
    reference,
)
from evergreen.scenario.loading import load_scenario
from evergreen.serving.embedding import EmbeddingModel
from evergreen.workspace import Workspace
from tests.tiny import NAME, Tiny

CONTRACT = ImageContract()
PROPERTIES = CONTRACT.properties
FEATURES = (*PROPERTIES, "embedding", "predicted label")

UNSEEN = range(500, 1_797)  # digits that the small network was not trained on


@pytest.fixture(scope="module")
def model(tiny_once: Path) -> EmbeddingModel:
    return EmbeddingModel.open(Workspace(tiny_once).model(NAME))


@pytest.fixture(scope="module")
def seen(model: EmbeddingModel) -> Observations:
    """All digits that the network was not trained on, shuffled: any two parts of them differ by chance alone."""
    from tests.tasks.test_preprocess import digit

    everything = observe(model, CONTRACT, (digit(number)[0] for number in UNSEEN))
    return everything.take(np.random.default_rng(0).permutation(len(everything)))


@pytest.fixture(scope="module")
def known(seen: Observations) -> Observations:
    return seen.take(np.arange(700))


@pytest.fixture(scope="module")
def new(seen: Observations) -> Observations:
    return seen.take(np.arange(700, 1_000))


def altered(model: EmbeddingModel, alter: Callable[[np.ndarray], np.ndarray], items: int = 150) -> Observations:
    """Some of the digits after something was done to their pixels, float64 `(8, 8)`, 0 to 255."""
    import cv2

    from evergreen.media.images import decode
    from tests.tasks.test_preprocess import digit

    def images() -> list[bytes]:
        taken = np.random.default_rng(1).choice(UNSEEN, items, replace=False)
        pixels = (decode(digit(int(number))[0], 1)[..., 0].astype(float) for number in taken)
        return [bytes(cv2.imencode(".png", np.clip(alter(one), 0, 255).astype(np.uint8))[1]) for one in pixels]

    return observe(model, CONTRACT, images())


def feature(drift: Drift, name: str) -> Feature:
    (found,) = (one for one in drift.features if one.name == name)
    return found


@pytest.mark.slow
def test_items_of_one_kind_alarm_no_more_often_than_the_level_allows(seen: Observations) -> None:
    """Of 60 comparisons at 0.05, 9 or more alarm with a chance of 0.3 %; the draws are the same each time."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(60):
        order = random.permutation(len(seen))
        alarms += compare(seen.take(order[:600]), seen.take(order[600:700]), alpha=0.05).drifted
    assert alarms < 9


@pytest.mark.parametrize(
    ("alter", "moved"),
    [
        (lambda pixels: 0.7 * pixels, "brightness"),
        (lambda pixels: 255 - pixels, "embedding"),
        (lambda pixels: pixels[::-1], "embedding"),
        (lambda pixels: np.tile(pixels, (2, 2)), "width"),
    ],
    ids=["darker", "inverted", "upside down", "larger"],
)
def test_altered_images_are_found(
    model: EmbeddingModel, known: Observations, alter: Callable[[np.ndarray], np.ndarray], moved: str
) -> None:
    drift = compare(known, altered(model, alter), alpha=0.05)
    assert drift.drifted and feature(drift, moved).drifted and moved in drift.reason
    assert feature(drift, moved).distance > 0.2


def test_one_label_alone_is_found_and_named(known: Observations, seen: Observations) -> None:
    threes = seen.take(np.flatnonzero(seen.predicted == 3)[:60])
    drift = compare(known, threes, alpha=0.05)
    labels = feature(drift, "predicted label")
    assert labels.drifted and '"3" for 100.0% of the new items (94.0% to 100.0% with 95 % confidence)' in labels.reason
    assert labels.distance == pytest.approx(1 - (known.predicted == 3).mean())


def test_a_property_that_moved_is_reported_with_figures(known: Observations, new: Observations) -> None:
    """All brightnesses of the reference are 0.2 or 0.4 by halves; the new ones are 0.6."""
    known, new = (dataclasses.replace(one, properties=one.properties.copy()) for one in (known, new))
    known.properties[:350, 0], known.properties[350:, 0], new.properties[:, 0] = 0.2, 0.4, 0.6
    drift = compare(known, new, alpha=0.05)
    brightness = feature(drift, "brightness")
    assert [one.name for one in drift.features if one.drifted] == ["brightness"]
    assert drift.reason.startswith("drift: brightness moved by more than chance (300 new items against 700 held-out ones")
    assert brightness.distance == 1 and brightness.new_quantiles == pytest.approx([0.6] * 5)
    assert brightness.reference_quantiles == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.4])
    assert "brightness: median 0.6, 0.3 in the reference; at most 0.4 are 0% of the new items and 100% of the reference" in str(
        drift
    )


def test_no_drift_says_so(known: Observations, new: Observations) -> None:
    drift = compare(known, new, alpha=0.05)
    assert not drift.drifted and drift.reason.startswith("no drift: nothing moved by more than chance")
    assert not any(one.drifted for one in drift.features)


def test_a_result_can_be_kept_as_json(known: Observations, new: Observations) -> None:
    drift = compare(known, new, alpha=0.05)
    again = json.loads(json.dumps(dataclasses.asdict(drift)))
    assert [one["name"] for one in again["features"]] == list(FEATURES) and again["items"] == 300
    assert "\n" not in again["reason"]


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_new_items_does_not_matter(known: Observations, new: Observations, random: object) -> None:
    order = list(range(len(new)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert compare(known, new.take(np.array(order)), alpha=0.05) == compare(known, new, alpha=0.05)


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 300), st.integers(5, 60), st.integers(0, 2**31))
def test_p_values_are_chances_and_the_verdict_follows_from_them(
    seen: Observations, known_items: int, new_items: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(seen))
    drift = compare(seen.take(order[:known_items]), seen.take(order[-new_items:]), alpha=0.1)
    for one in drift.features:
        assert 0 < one.p_value <= one.p_value_together <= 1 and one.distance >= 0
        assert one.drifted == (one.p_value_together <= 0.1)
    assert drift.drifted == any(one.drifted for one in drift.features)


def test_what_never_varies_is_no_drift(known: Observations, new: Observations) -> None:
    def constant(one: Observations) -> Observations:
        nothing = np.zeros_like
        return dataclasses.replace(
            one, properties=nothing(one.properties), embeddings=nothing(one.embeddings), predicted=nothing(one.predicted)
        )

    drift = compare(constant(known), constant(new), alpha=0.05)
    assert [one.p_value for one in drift.features] == [1] * len(FEATURES) and not drift.drifted


def test_more_dimensions_than_items_are_no_obstacle(known: Observations, seen: Observations) -> None:
    few, fewer = known.take(np.arange(20)), seen.take(np.arange(700, 710))
    assert few.embeddings.shape[1] > 30 and not feature(compare(few, fewer, alpha=0.05), "embedding").drifted
    moved = dataclasses.replace(fewer, embeddings=fewer.embeddings + 20)
    assert feature(compare(few, moved, alpha=0.05), "embedding").drifted


@pytest.mark.parametrize(
    ("known_items", "new_items", "by_hand"),
    [(1, 1, 1), (3, 2, 2 / 10), (10, 1, 2 / 11), (5, 0, 1), (0, 5, 1), (20, 3, 2 / 1771)],
)
def test_the_least_p_value_is_two_of_all_choices(known_items: int, new_items: int, by_hand: float) -> None:
    assert least_p_value(known_items, new_items) == pytest.approx(by_hand)


@pytest.mark.parametrize("items", [0, 1])
def test_too_few_items_are_refused_with_the_reason(known: Observations, new: Observations, items: int) -> None:
    with pytest.raises(
        EvergreenError, match=rf"{items} new items against a reference of 100 can't show drift; .* Wait for more"
    ):
        compare(known.take(np.arange(100)), new.take(np.arange(items)), alpha=0.05)


def test_an_empty_reference_is_refused(known: Observations, new: Observations) -> None:
    with pytest.raises(EvergreenError, match="against a reference of 0 can't show drift"):
        compare(known.take(np.arange(0)), new, alpha=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["embeddings", "properties"])
def test_observations_that_are_no_numbers_are_refused(
    known: Observations, new: Observations, column: str, value: float
) -> None:
    broken = getattr(new, column).copy()
    broken[3:5, 1] = value
    with pytest.raises(EvergreenError, match="2 of 300 items new have a property or embedding that is no finite"):
        compare(known, dataclasses.replace(new, **{column: broken}), alpha=0.05)


def test_a_reference_of_another_model_is_refused(known: Observations, new: Observations) -> None:
    with pytest.raises(EvergreenError, match="the reference is of another model .* Make the reference anew"):
        compare(dataclasses.replace(known, model="0" * 64), new, alpha=0.05)


def test_a_reference_of_other_labels_is_refused(known: Observations, new: Observations) -> None:
    with pytest.raises(EvergreenError, match="the reference has other labels .* Make the reference anew"):
        compare(dataclasses.replace(known, labels=tuple("abcdefghij")), new, alpha=0.05)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, float("nan")])
def test_a_level_that_is_no_chance_is_refused(known: Observations, new: Observations, alpha: float) -> None:
    with pytest.raises(WrongUse, match="above 0 and below 1"):
        compare(known, new, alpha=alpha)


def test_what_is_no_image_is_refused(model: EmbeddingModel) -> None:
    with pytest.raises(BadImage):
        observe(model, CONTRACT, [b"not an image"])


def test_no_images_give_no_observations(model: EmbeddingModel) -> None:
    nothing = observe(model, CONTRACT, [])
    assert len(nothing) == 0 and nothing.properties.shape == (0, len(PROPERTIES)) and nothing.embeddings.shape == (0, 32)


def test_the_reference_is_what_its_encoded_images_give(tiny: Tiny, model: EmbeddingModel) -> None:
    from evergreen.data.dataset import batches, iter_images

    ids = held_out(tiny.workspace, NAME)["id"].to_pylist()
    images = dict(iter_images(batches(tiny.workspace, NAME), ids))
    found, expected = reference(tiny.scenario, tiny.workspace, model), observe(model, CONTRACT, [images[id] for id in ids])
    np.testing.assert_array_equal(found.properties, expected.properties)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.predicted, expected.predicted)


def test_the_reference_holds_no_item_that_the_network_learned_from(tiny: Tiny) -> None:
    assert set(held_out(tiny.workspace, NAME)["split"].to_pylist()) == {"val", "test"}


def test_of_many_held_out_items_the_same_few_are_taken_each_time(tiny: Tiny, model: EmbeddingModel) -> None:
    one, same, other = (reference(tiny.scenario, tiny.workspace, model, most_items=40, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 40
    np.testing.assert_array_equal(one.embeddings, same.embeddings)
    assert not np.array_equal(one.embeddings, other.embeddings)


def test_a_scenario_that_never_ran_has_no_reference(workspace: Workspace, model: EmbeddingModel) -> None:
    with pytest.raises(EvergreenError, match="the splits of quickstart cannot be read .* Run the scenario first"):
        reference(load_scenario(workspace.scenarios, NAME), workspace, model)


def test_a_data_set_that_lacks_its_items_gives_no_reference(tiny: Tiny, model: EmbeddingModel) -> None:
    import shutil

    shutil.rmtree(tiny.workspace.data(NAME))
    with pytest.raises(EvergreenError, match="lacks .* of the items that it was split into.* dvc checkout"):
        reference(tiny.scenario, tiny.workspace, model)


def test_a_stored_reference_is_read_back_as_it_was(known: Observations, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    known.save(path)
    again = Observations.load(path)
    assert (again.model, again.labels) == (known.model, known.labels)
    for column in ("properties", "embeddings", "predicted"):
        np.testing.assert_array_equal(getattr(again, column), getattr(known, column))
    assert path.stat().st_size < 200 * len(known)


def test_a_damaged_or_missing_reference_is_an_error_that_says_so(known: Observations, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    with pytest.raises(EvergreenError, match=r"the reference reference.npz cannot be read"):
        Observations.load(path)
    known.save(path)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK" + bytes(100), content[:200] + bytes(200) + content[400:]):
        path.write_bytes(damaged)
        with pytest.raises(EvergreenError, match="cannot be read"):
            Observations.load(path)


def test_a_reference_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, model=np.array([{}], object), labels=np.array(["a"]))
    with pytest.raises(EvergreenError, match="cannot be read"):
        Observations.load(path)

"""When a model answers, when it does not know, and what that counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation.gate import decide
from evergreen.kinds.base.labelling import Answer
from evergreen.kinds.base.split import Split
from evergreen.kinds.classify.answers import ANSWERED, UNLIKE, UNSURE, Answering, Threshold
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.judge import ImageJudge
from evergreen.kinds.classify.labelling import ImageLabelling
from evergreen.kinds.classify.metrics import confusion_of_answers, f1_macro_interval, label_quality, quality, quality_of_answers
from evergreen.kinds.classify.settings import ImagePromote

FIRE, NORMAL, SMOKE = range(3)
NAMES = ["fire", "normal", "smoke"]
PROBABILITIES = np.array(
    [[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.1, 0.85, 0.05], [0.35, 0.25, 0.4], [0.1, 0.5, 0.4], [0.2, 0.4, 0.4]], np.float32
)
SETTINGS: dict[str, Any] = {
    "shape": [4, 4, 3],
    "labels": NAMES,
    "answers": {
        "unknown_below": 0.55,
        "unlike": {"fraction": 0.01, "distance": 2.0},
        "thresholds": [{"label": "fire", "target": "recall", "requested": 0.9, "threshold": 0.25}],
    },
}


def decided(answering: Answering, distance: np.ndarray | None = None) -> list[tuple[int, int]]:
    answer, unknown = answering.decide(PROBABILITIES, distance)
    assert answer.dtype == np.int64 and unknown.dtype == np.int8
    return list(zip(answer.tolist(), unknown.tolist(), strict=True))


def test_an_explanation_is_of_the_answer_that_the_rules_give() -> None:
    codec = ImageCodec(SETTINGS)
    outputs = {"probabilities": PROBABILITIES[1:2], "distance": np.array([0.1], np.float32)}  # "normal" is more probable
    assert ImageLabelling().answer(codec, outputs) == Answer("fire", "")
    far = {"probabilities": PROBABILITIES[:1], "distance": np.array([9.0], np.float32)}
    assert ImageLabelling().answer(codec, far) == Answer("fire", "unlike")
    without_rules = ImageCodec({"shape": [4, 4, 3], "labels": NAMES})
    assert ImageLabelling().answer(without_rules, {"probabilities": PROBABILITIES[1:2]}) == Answer("normal", "")


def test_without_rules_the_most_probable_label_is_always_the_answer() -> None:
    expected = [(label, ANSWERED) for label in PROBABILITIES.argmax(axis=1)]
    assert decided(Answering()) == expected
    assert decided(Answering.of({"labels": NAMES}), np.full(6, 1e9)) == expected


def test_an_answer_of_a_low_probability_is_unsure_and_a_distant_item_unlike() -> None:
    distance = np.array([9.0, 1.0, float("nan"), 0.0, 0.0, 0.0])
    assert decided(Answering(unknown_below=0.5, largest_distance=8.0), distance) == [
        (FIRE, UNLIKE), (NORMAL, ANSWERED), (NORMAL, UNLIKE), (SMOKE, UNSURE), (NORMAL, ANSWERED), (NORMAL, UNSURE),
    ]  # fmt: skip


def test_a_threshold_for_recall_overrules_more_probable_labels_and_one_for_precision_does_not() -> None:
    recall = Answering(unknown_below=0.55, thresholds=(Threshold(FIRE, 0.25, overrules=True),))
    assert [found for found in decided(recall) if found[0] == FIRE] == [(FIRE, ANSWERED)] * 3
    assert decided(recall)[4] == (NORMAL, UNSURE), "the other labels keep the common limit"
    precision = Answering(thresholds=(Threshold(FIRE, 0.25, overrules=False), Threshold(NORMAL, 0.55, overrules=False)))
    assert decided(precision) == [
        (FIRE, ANSWERED), (NORMAL, ANSWERED), (NORMAL, ANSWERED), (SMOKE, ANSWERED), (NORMAL, UNSURE), (NORMAL, UNSURE),
    ]  # fmt: skip


def test_of_two_labels_that_reach_their_thresholds_the_one_that_exceeds_it_by_more_is_the_answer() -> None:
    rules = Answering(thresholds=(Threshold(FIRE, 0.3, overrules=True), Threshold(SMOKE, 0.1, overrules=True)))
    assert decided(rules)[3] == (SMOKE, ANSWERED)  # 0.4 / 0.1 against 0.35 / 0.3
    assert decided(rules)[0] == (FIRE, ANSWERED)


def test_a_prediction_says_that_and_why_it_is_not_known_in_python_and_in_the_table() -> None:
    codec = ImageCodec(SETTINGS)
    outputs = {"probabilities": PROBABILITIES, "distance": np.array([1, 1, 3, 1, 1, 1], np.float32)}
    assert codec.outputs == ("probabilities", "distance")
    found = codec.predictions(outputs)
    assert [one.label for one in found] == ["fire", "fire", None, "fire", None, None]
    assert [one.unknown for one in found] == ["", "", "unlike", "", "unsure", "unsure"]
    assert [round(one.probability, 2) for one in found] == [0.9, 0.3, 0.85, 0.35, 0.5, 0.4]
    table = codec.table(outputs)
    assert list(table) == list(codec.columns()) == ["label", "probability", "unknown", "p_fire", "p_normal", "p_smoke"]
    assert table["unknown"][2] == "unlike" and table["label"][2] is None


def test_a_model_of_a_scenario_that_says_nothing_of_it_answers_and_looks_as_before() -> None:
    codec = ImageCodec({key: value for key, value in SETTINGS.items() if key != "answers"})
    assert codec.outputs == ImageCodec.outputs == ("probabilities",)
    outputs = {"probabilities": PROBABILITIES}
    assert codec.decided(outputs) == outputs and "unknown" not in {**codec.table(outputs), **codec.columns()}
    assert all(one.label is not None and one.unknown == "" for one in codec.predictions(outputs))


def test_an_item_that_is_not_known_counts_as_a_wrong_answer_with_the_most_probable_label() -> None:
    labels, answer = np.array([FIRE, FIRE, NORMAL, NORMAL]), np.array([FIRE, FIRE, NORMAL, FIRE])
    unknown = np.array([ANSWERED, UNSURE, ANSWERED, UNLIKE])
    probabilities = np.eye(3, dtype=np.float32)[answer]
    found = quality_of_answers(labels, probabilities, answer, unknown)
    assert found["accuracy"] == 0.5 and found["coverage"] == 0.5 and found["accuracy_answered"] == 1
    assert found["accuracy_most_probable"] == 0.75 and found["recall_macro"] == 0.5 and found["precision_macro"] == 1
    # F1 of fire: one hit, two items, three claims, of which two were refused; of normal: one hit, two items, one claim.
    assert found["f1_macro"] == pytest.approx((2 / 5 + 2 / 3) / 2)
    rows = label_quality(confusion_of_answers(labels, answer, unknown, 3), NAMES)
    assert (rows[FIRE].items, rows[FIRE].recall, rows[FIRE].precision, rows[FIRE].f1) == (2, 0.5, 1, 2 / 5)
    low, high = f1_macro_interval(labels, answer, unknown == ANSWERED)
    assert low <= found["f1_macro"] <= high


def test_a_model_that_knows_nothing_is_not_right_at_all() -> None:
    found = quality_of_answers(np.array([0, 1]), np.eye(2), np.array([0, 1]), np.array([UNSURE, UNSURE]))
    assert found["accuracy"] == found["f1_macro"] == found["coverage"] == 0 and "accuracy_answered" not in found


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_no_figure_over_all_items_rises_by_refusing_to_answer(seed: int, right: float, refused: float) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 40)
    answer = np.where(random.random(40) < right, labels, random.integers(0, 3, 40))
    probabilities, unknown = np.eye(3)[answer], (random.random(40) < refused) * UNSURE
    before, after = quality(labels, probabilities), quality_of_answers(labels, probabilities, answer, unknown)
    for figure in ("accuracy", "f1_macro", "recall_macro"):
        assert after[figure] <= before[figure] + 1e-12
    assert quality_of_answers(labels, probabilities, answer, unknown * 0) == pytest.approx(
        {**before, **{key: after[key] for key in ("accuracy_most_probable",)}}
        | {"coverage": 1, "coverage_low": pytest.approx(0.9, abs=0.1), "coverage_high": 1}
        | {key.replace("accuracy", "accuracy_answered"): before[key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
    )


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_the_gate_prefers_the_model_that_answers_to_one_that_refuses_the_same_items(metric: str) -> None:
    random, judge = np.random.default_rng(0), ImageJudge()
    labels = random.integers(0, 3, 300)
    answer = np.where(random.random(300) < 0.9, labels, (labels + 1) % 3)
    split = Split("test", {"labels": labels}, {"labels": NAMES})
    refusing = np.where(random.random(300) < 0.3, UNSURE, ANSWERED).astype(np.int8)
    scenario = type("Scenario", (), {"promote": ImagePromote(metric=metric)})()
    outputs = {"probabilities": np.eye(3)[answer], "answer": answer}
    predictions, measured = [], []
    for unknown in (np.zeros(300, np.int8), refusing):
        given_outputs = {**outputs, "unknown": unknown}
        predictions.append(judge.predictions(given_outputs, {"labels": NAMES}, split.facts))
        measured.append(judge.measure(split, given_outputs)[metric])
    compared = judge.compare(scenario, split, *predictions)
    assert [float(one[0]) for one in compared.values(compared.counts[None])] == pytest.approx(measured)
    promoted = decide(judge.compare(scenario, split, *predictions[::-1]), scenario.promote, None)
    refused = decide(compared, scenario.promote, None)
    assert promoted.promote and not refused.promote and refused.gain < 0

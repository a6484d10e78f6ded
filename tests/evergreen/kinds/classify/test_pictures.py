"""The pictures of an evaluation: nothing is cut off or overlaps, whatever the labels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evergreen.kinds.classify import pictures
from evergreen.kinds.classify.answers import Answering, Threshold
from evergreen.kinds.classify.metrics import calibration, confusion_of_answers, label_quality

LABELS = {
    "two": ["no", "yes"],
    "long": ["defect of the kind that only appears after the second firing, at the rim" + " of a plate" * 3, "$5 & $6", "good"],
    "twenty": [f"class number {number}" for number in range(20)],
    "forty": [f"species {number}" for number in range(40)],
    "hundred": [f"superclass_{number}/fine_label_{number}" for number in range(100)],
}


def evaluated(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Right labels and probabilities of a model that is right on two items of three, and on none of the first label's."""
    chance = np.random.default_rng(1)
    labels = np.arange(20 * len(names)) % len(names)
    probabilities = chance.random((len(labels), len(names))).astype(np.float32)
    right = (chance.random(len(labels)) < 0.66) & (labels > 0)
    probabilities[right, labels[right]] += 2
    probabilities[labels == 0, 0] = 0
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def fits(figure: Figure) -> bool:
    """Whether all that is drawn lies within the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    return drawn.x0 >= -0.02 and drawn.y0 >= -0.02 and drawn.x1 <= width + 0.02 and drawn.y1 <= height + 0.02


def all_pictures(names: list[str]) -> dict[str, Figure]:
    labels, probabilities = evaluated(names)
    given = Answering(unknown_below=0.3).decide(probabilities, None)
    matrix = confusion_of_answers(labels, *given, len(names))
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 12, 16, 3), np.uint8)
    sheet, _ = pictures.commonest_mistakes(labels, probabilities, *given, names, images, [str(n) for n in range(len(labels))])
    return {
        "confusion": pictures.confusion_matrix(matrix, names),
        "coverage": pictures.coverage(labels, probabilities, *given, names),
        "by label": pictures.quality_by_label(label_quality(matrix, names)),
        "reliability": pictures.reliability(calibration(labels, probabilities)),
        "mistakes": sheet,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", LABELS)
def test_nothing_is_cut_off_and_no_label_overlaps_its_neighbour(kind: str) -> None:
    for name, figure in all_pictures(LABELS[kind]).items():
        assert fits(figure), name
        if name in ("confusion", "by label"):
            boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels() if text.get_text()]
            assert len(boxes) == len(LABELS[kind])
            assert all(above.y0 >= below.y1 - 1 for above, below in zip(boxes, boxes[1:], strict=False)), name


def test_every_label_has_a_bar_and_accuracies_go_from_0_to_100_percent() -> None:
    names = LABELS["twenty"]
    axes = all_pictures(names)["by label"].axes[0]
    assert len(axes.patches) == 20 and axes.patches[0].get_width() == 0 and axes.patches[0].get_linewidth() > 1  # type: ignore[attr-defined]
    assert axes.get_xlim() == (0, 1) and axes.xaxis.get_major_formatter()(1) == "100%"


def test_the_kept_epoch_is_marked_on_the_learning_curve() -> None:
    history = [{"loss": 1 / n, "accuracy": 1 - 1 / n, "val_loss": abs(n - 3) + 1.0, "val_accuracy": 0.5} for n in range(1, 7)]
    loss, accuracy = pictures.learning_curve(history).axes
    for axes in (loss, accuracy):
        assert axes.get_title() and "kept: epoch 3" in [line.get_label() for line in axes.lines]
    assert accuracy.get_ylim() == (0, 1) and loss.get_ylim()[0] == 0


def test_without_a_validation_split_the_last_epoch_is_kept_and_a_loss_that_is_no_number_is_drawn() -> None:
    for history in (
        [{"loss": 1.0, "accuracy": 0.5}] * 2,
        [{"loss": float("nan"), "accuracy": 0.5, "val_loss": float("nan"), "val_accuracy": 0.5}] * 2,
    ):
        figure = pictures.learning_curve(history)
        assert fits(figure) and "kept: epoch 2" in [line.get_label() for line in figure.axes[0].lines]
    assert pictures.learning_curve([]).axes


def test_the_sheet_shows_the_surest_examples_of_the_commonest_mistakes() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    probabilities = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.9, 0.1, 0], [0.4, 0.6, 0], [0, 1, 0], [0.7, 0.3, 0], [0, 0, 1]])
    images = np.zeros((7, 8, 8, 1), np.uint8)
    given = Answering().decide(probabilities, None)
    names = ["cat", "dog", "cow"]
    figure, ids = pictures.commonest_mistakes(labels, probabilities, *given, names, images, list("abcdefg"))
    assert ids == ["a", "b", "d", "f"]
    assert [part.get_suptitle() for part in figure.subfigs] == [
        "cat, predicted as dog: 3 of 4 (75.0 %)",
        "dog, predicted as cat: 1 of 2 (50.0 %)",
    ]
    assert [axes.get_title() for axes in figure.subfigs[0].axes[:4]] == ["90.0 %", "80.0 %", "60.0 %", ""]
    right = Answering().decide(probabilities[4:5], None)
    figure, ids = pictures.commonest_mistakes(labels[4:5], probabilities[4:5], *right, names, images[4:5], ["e"])
    assert ids == [] and figure.texts[0].get_text() == "None of 1 answer is wrong."


def test_mistakes_are_the_models_own_answers_and_never_what_it_does_not_know() -> None:
    labels, names = np.array([1, 1, 0]), ["fire", "normal"]
    probabilities = np.array([[0.3, 0.7], [0.45, 0.55], [0.9, 0.1]], np.float32)
    images = np.zeros((3, 8, 8, 1), np.uint8)
    given = Answering(unknown_below=0.6, thresholds=(Threshold(0, 0.4, True),)).decide(probabilities, None)
    _, ids = pictures.commonest_mistakes(labels, probabilities, *given, names, images, list("abc"))
    assert ids == ["b"]  # "fire" reaches its threshold, though "normal" is more probable
    unsure = Answering(unknown_below=0.6).decide(probabilities, None)
    _, ids = pictures.commonest_mistakes(1 - labels, probabilities, *unsure, names, images, list("abc"))
    assert sorted(ids) == ["a", "c"]

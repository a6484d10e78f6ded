"""The pictures of a training and its evaluation. Labels are drawn literally (`evergreen.media.lettering`), and nothing is cut
off."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.kinds.base.codec import Network
from evergreen.kinds.classify.answers import ANSWERED

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evergreen.kinds.classify.metrics import Calibration, LabelQuality

LABEL_WIDTH = 28  # characters per line of a label
LABEL_LINES = 3
COMMONEST = 6  # pairs of labels in the picture of mistakes
EXAMPLES = 6  # of each pair
COVERAGE_POINTS, COVERAGE_LABELS = 200, 10  # at most, in the picture of coverage
HEAT_MAPS = 3  # of right answers, and as many of wrong ones
COUNTED_LABELS = 40  # with more, the confusion matrix has no room for numbers


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Plot loss and accuracy by epoch, on train and on val if there is one, and the epoch whose weights were kept.

    Args:
        history: one entry per epoch, as in `outputs/NAME/model/history.json`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    epochs, kept = range(1, len(history) + 1), _kept_epoch(history)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, text in ((metric, "train"), (f"val_{metric}", "val")):
            if history and key in history[0]:
                axes.plot(epochs, [entry[key] for entry in history], marker="." if len(history) < 40 else "", label=text)
        if kept:
            axes.axvline(kept, color="gray", linestyle="--", linewidth=1, label=f"kept: epoch {kept}")
        axes.set(xlabel="epoch", ylabel=metric, title=f"{metric.capitalize()} by epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if history:
            axes.legend()
        if metric == "loss":
            axes.set_ylim(bottom=0)
        else:
            _percent(axes, "y")
    return figure


def _kept_epoch(history: Sequence[Mapping[str, float]]) -> int | None:
    """The epoch whose weights training keeps: the first one with the lowest loss on val; without val, the last one."""
    losses = [entry["val_loss"] for entry in history if entry.get("val_loss", float("nan")) == entry.get("val_loss")]
    if not losses:
        return len(history) or None
    return next(number for number, entry in enumerate(history, 1) if entry.get("val_loss") == min(losses))


def confusion_matrix(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the test items by actual and predicted label, and those that the model does not know.

    Args:
        matrix: int `(labels, 2 labels)`, from `evergreen.kinds.classify.metrics.confusion_of_answers`.
    """
    import numpy as np
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    count = len(names)
    texts, style, longest = _labels(names)
    answers, unknown = texts, matrix[:, count:].sum(axis=1, keepdims=True)
    matrix = matrix[:, :count]
    if unknown.any():
        answers, matrix = [*texts, "not known"], np.hstack([matrix, unknown])
    cell, size = (0.55, 9) if count <= 20 else (0.34, 7) if count <= COUNTED_LABELS else (0.2, 6)
    lines = max(text.count("\n") + 1 for text in texts)
    cell = max(cell, lines * size / 72 * 1.35)
    side, margin = max(3.0, cell * count), 0.9 + longest * size * 0.0092
    figure = Figure(figsize=(side + margin + 1.4, side + margin + 0.4), layout="constrained")
    axes = figure.subplots()
    fractions = matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    # A square-root scale, so that even one item in a hundred is visible.
    image = axes.imshow(fractions, cmap="Greens", norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(
        image, ax=axes, label="fraction of the label's items", shrink=min(1.0, 6 / side), format=PercentFormatter(1)
    )
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    axes.set_xticks(
        range(len(answers)), answers, rotation=90 if count > 20 else 45, ha="center" if count > 20 else "right", **style
    )
    axes.set_yticks(range(count), texts, **style)
    if count <= 20:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.tick_params(labelsize=size)
    axes.set(xlabel="predicted", ylabel="actual", title="Test items by actual and predicted label")
    if count <= COUNTED_LABELS:
        for row, column in zip(*matrix.nonzero(), strict=True):
            color = "white" if fractions[row, column] > 0.3 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=size - 1)
    return figure


def quality_by_label(table: Sequence[LabelQuality]) -> Figure:
    """Plot the fraction of right predictions for each label, with its 95 % interval; every label has a visible bar."""
    from matplotlib.figure import Figure

    texts, style, longest = _labels([one.label for one in table])
    lines = max(text.count("\n") + 1 for text in texts)
    size = 9 if len(table) <= 30 else 7
    row = max(0.3 if len(table) <= 30 else 0.2, lines * size / 72 * 1.35)
    figure = Figure(figsize=(6.5 + longest * size * 0.0092, 1.3 + row * len(table)), layout="constrained")
    axes = figure.subplots()
    for position, one in enumerate(table):
        if one.recall is None or one.recall_low is None or one.recall_high is None:
            axes.text(0.01, position, "no test item", va="center", fontsize=size - 1, color="gray")
            continue
        axes.barh(
            position, one.recall, height=0.7, color="tab:green", edgecolor="tab:green", linewidth=1.5
        )  # the edge is visible even at 0
        axes.plot([one.recall_low, one.recall_high], [position, position], color="black", linewidth=1)
    axes.set_yticks(range(len(table)), texts, **style)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=size)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(table)), [f"{_in_percent(one.recall)} of {one.items:,}" for one in table])
    right.tick_params(labelsize=size, length=0)
    _percent(axes, "x")
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="right, of the label's test items (line: 95 % interval)", title="Right by label")
    return figure


def reliability(table: Sequence[Calibration]) -> Figure:
    """Plot the accuracy by the confidence of the model."""
    from matplotlib.figure import Figure

    from evergreen.kinds.classify.metrics import calibration_error

    figure = Figure(figsize=(5, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles, widths = [(entry.low + entry.high) / 2 for entry in table], [entry.high - entry.low for entry in table]
    above.bar(
        middles, [entry.accuracy for entry in table], width=widths, color="tab:green", edgecolor="white", label="were right"
    )
    above.plot([0, 1], [0, 1], color="gray", linestyle="--", label="as sure as right")
    above.set(ylabel="fraction that was right", title=f"Calibration error {100 * calibration_error(table):.1f} %")
    above.legend(loc="upper left")
    below.bar(middles, [entry.items for entry in table], width=widths, color="tab:gray", edgecolor="tab:gray")
    below.set(xlabel="probability of the predicted label", ylabel="items", yscale="log")
    below.set_ylim(bottom=0.5)  # so that a single item has a visible bar
    _percent(above, "y")
    _percent(below, "x")
    return figure


def coverage(
    labels: np.ndarray, probabilities: np.ndarray, answer: np.ndarray, unknown: np.ndarray, names: Sequence[str]
) -> Figure:
    """Plot what refusing to answer gives and takes: the accuracy of the answers, and the recall of labels, by the fraction of
    items that are answered, if those with the lowest probability are refused; and what the model does.

    Args:
        labels: int `(items,)`, the true labels.
        probabilities: float `(items, labels)`.
        answer, unknown: as `evergreen.kinds.classify.answers.Answering.decide` returns them.
        names: of the labels.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from evergreen.evaluation.proportions import interval

    items = len(labels)
    order = np.argsort(-probabilities[np.arange(items), answer], kind="stable")
    right, many = (answer == labels)[order].cumsum(), np.arange(1, items + 1)
    known, fractions = unknown == ANSWERED, many / items
    shown = np.unique(np.linspace(0, items - 1, min(items, COVERAGE_POINTS)).astype(int))
    bands = np.array([interval(int(right[at]), int(many[at])) for at in shown])
    texts, style, _ = _labels(names)
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(
        "What it costs to say “I don't know” (test split; the least probable answers are refused first)", fontsize=11
    )
    left, of_labels = figure.subplots(1, 2)
    left.fill_between(fractions[shown], bands[:, 0], bands[:, 1], color="tab:green", alpha=0.15, label="95 % interval")
    left.plot(fractions[shown], right[shown] / many[shown], color="tab:green", label="accuracy of the answers")
    if known.any():
        made = float(known.mean()), float((answer == labels)[known].mean())
        left.plot(*made, "o", color="black", label=f"the model: {_in_percent(made[1])} of {_in_percent(made[0])} answered")
    frequent = np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable")[:COVERAGE_LABELS]
    for index in sorted(label for label in frequent.tolist() if (labels == label).any()):
        of_label = (labels == index)[order]
        found = (of_label & (answer == labels)[order]).cumsum() / of_label.sum()
        (line,) = of_labels.plot(fractions[shown], found[shown], label=texts[index])
        recall = float((known & (answer == labels) & (labels == index)).sum() / of_label.sum())
        of_labels.plot(float(known.mean()), recall, "o", color=line.get_color())
    left.set(ylabel="right, of the answers", xlabel="answered, of all items", title="Accuracy against coverage", xlim=(0, 1.01))
    of_labels.set(ylabel="found, of the label's items", xlabel="answered, of all items", title="Recall against coverage")
    low = max(0.0, min(float(bands[len(bands) // 10 :, 0].min()), float((right / many).min())) - 0.02)
    _percent(of_labels, "y")
    _percent(left, "y")
    for axes in (left, of_labels):
        _percent(axes, "x")
        axes.set_xlim(0, 1.01)
        axes.grid(alpha=0.3)
    left.set_ylim(low, 1.005)
    of_labels.set_ylim(0, 1.01)
    left.legend(loc="lower left", fontsize=8)
    for text in of_labels.legend(loc="upper left", fontsize=8).get_texts():
        text.set(**style)
    return figure


def commonest_mistakes(
    labels: np.ndarray,
    probabilities: np.ndarray,
    answer: np.ndarray,
    unknown: np.ndarray,
    names: Sequence[str],
    images: np.ndarray,
    ids: Sequence[str],
) -> tuple[Figure, list[str]]:
    """Draw the most frequent confusions of two labels, each with the items that were misclassified with the highest
    probability. Items that the model does not know are left out.

    Args:
        labels, probabilities, answer, unknown: as in `coverage`.
        images: uint8 `(items, height, width, channels)`, the network's input.
        ids: of the items.

    Returns:
        The picture, and the ids of the items on it.
    """
    import numpy as np
    from matplotlib.figure import Figure

    predicted, is_answered = answer, unknown == ANSWERED
    wrong = np.flatnonzero((predicted != labels) & is_answered)
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True)).most_common(COMMONEST)
    if not pairs:
        figure = Figure(figsize=(6, 1.2))
        figure.text(0.5, 0.5, f"None of {figures.count(int(is_answered.sum()), 'answer')} is wrong.", ha="center", va="center")
        return figure, []
    texts, style, _ = _labels(names)
    texts = [text.replace("\n", " ") for text in texts]
    titles = [
        textwrap.wrap(
            f"{texts[actual]}, predicted as {texts[guess]}: {count:,} of {int((labels == actual).sum()):,} ({_in_percent(count / (labels == actual).sum())})",
            90,
        )
        for (actual, guess), count in pairs
    ]
    heights = [1.75 + 0.2 * len(title) for title in titles]
    figure = Figure(figsize=(9, 0.5 + sum(heights)), layout="constrained")
    figure.suptitle("The commonest mistakes on the test split (with the probability of the wrong label)", fontsize=11)
    shown: list[str] = []
    rows = figure.subfigures(len(pairs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ((actual, guess), _), title, part in zip(pairs, titles, rows, strict=True):
        part.suptitle("\n".join(title), x=0.01, ha="left", fontsize=9, **style)
        of_pair = wrong[(labels[wrong] == actual) & (predicted[wrong] == guess)]
        surest = of_pair[np.argsort(-probabilities[of_pair, guess], kind="stable")][:EXAMPLES].tolist()
        for position, axes in enumerate(part.subplots(1, EXAMPLES)):
            axes.set_axis_off()
            if position < len(surest):
                item = surest[position]
                image = images[item] if images.shape[3] == 3 else images[item, :, :, 0]
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_title(_in_percent(float(probabilities[item, guess])), y=-0.18, fontsize=8)
                shown.append(ids[item])
    return figure, shown


def heat_maps(
    labels: np.ndarray,
    probabilities: np.ndarray,
    answer: np.ndarray,
    unknown: np.ndarray,
    names: Sequence[str],
    images: np.ndarray,
    ids: Sequence[str],
    model: Network,
) -> tuple[Figure, list[str]]:
    """Draw on which parts of the image answers rest: the surest right answer for each of the most frequent labels, and the
    surest wrong answers.

    Args:
        labels, probabilities, answer, unknown, images, ids: as in `commonest_mistakes`.
        model: that answered.

    Returns:
        The picture, and the ids of the items on it.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from evergreen.kinds.classify.heat_maps import heat_map

    predicted, sure = answer, probabilities[np.arange(len(answer)), answer]
    by_sureness = np.argsort(-sure, kind="stable")
    by_sureness = by_sureness[unknown[by_sureness] == ANSWERED]
    right, wrong = (by_sureness[(predicted == labels)[by_sureness] == is_right] for is_right in (True, False))
    frequent = [label for label, _ in Counter(labels[right].tolist()).most_common(HEAT_MAPS)]
    chosen = [*(right[labels[right] == label][0] for label in frequent), *wrong[:HEAT_MAPS]]
    texts, style, _ = _labels(names)
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    figure.suptitle("Where it looked: red parts speak for the answer, blue ones against it", fontsize=11)
    columns = figure.subplots(2, 2 * HEAT_MAPS, squeeze=False).T
    for one in columns.flat:
        one.set_axis_off()
    for axes, item in zip(columns, chosen, strict=False):
        heat, image = heat_map(model, images[item], int(predicted[item])), images[item]
        most = max(float(np.abs(heat).max()), 1e-9)
        for one in axes:
            one.imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        axes[1].imshow(heat, cmap="coolwarm", vmin=-most, vmax=most, alpha=0.5, interpolation="bilinear", extent=extent)
        actual = "right" if predicted[item] == labels[item] else f"it is\n{texts[labels[item]]}"
        axes[0].set_title(f"{texts[predicted[item]]}\n{_in_percent(float(sure[item]))}: {actual}", fontsize=7, **style)
    return figure, [ids[item] for item in chosen]


def _labels(names: Sequence[str]) -> tuple[list[str], dict[str, Any], int]:
    """Wrap labels for drawing. Also returns the text properties for matplotlib and the length of the longest line."""
    from evergreen.media.lettering import drawable

    texts, style = drawable(names)
    wrapped = []
    for text in texts:
        lines = textwrap.wrap(text, LABEL_WIDTH) or [text]
        if len(lines) > LABEL_LINES:
            lines = [*lines[: LABEL_LINES - 1], "… " + text[-(LABEL_WIDTH - 2) :]]  # labels often differ at the end
        wrapped.append("\n".join(lines))
    return wrapped, style, max(len(line) for text in wrapped for line in text.split("\n"))


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    (axes.set_xlim if which == "x" else axes.set_ylim)(0, 1)
    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1))


def _in_percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.0f} %" if value in (0, 1) else f"{100 * value:.1f} %"

"""Charts as SVG that stands inside a page: drawn by matplotlib, coloured by the page's own style.

One drawing serves light and dark: matplotlib draws in stand-in colours, which become the page's CSS variables. Text stays text (it can be
searched, read aloud, and takes the page's font), and the same figures give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nobody would draw with, and what they mean on the page.
INK, SOFT, LINE, BACK, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
VARIABLES = {
    INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", BACK: "var(--back)", FIRST: "var(--first)", SECOND: "var(--second)",
}  # fmt: skip
SIZE_INCHES = (4.7, 2.9)

Interval = tuple[float | None, float | None]


def over_versions(
    title: str,
    unit: str,
    versions: Sequence[int],
    series: Mapping[str, tuple[Sequence[float | None], Sequence[Interval]]],
    *,
    champion: int | None,
    name: str,
    from_zero: bool = True,
) -> str:
    """A point a version, with its interval; the champion's is ringed. What is unknown has no point.

    Args:
        title, unit: what is drawn, and the text beside the axis.
        series: values and intervals (low, high) by name; two at most.
        name: of the chart, unlike any other's on the page.
        from_zero: whether the axis begins there.
    """
    figure, axes = _empty(unit)
    for number, (text, (values, intervals)) in enumerate(series.items()):
        colour, aside = (FIRST, SECOND)[number], 0.0 if len(series) == 1 else (-0.07, 0.07)[number]
        known = [
            (place + aside, value, low, high)
            for place, (value, (low, high)) in enumerate(zip(values, intervals, strict=True))
            if value is not None
        ]
        if not known:
            continue
        at, heights = [point[0] for point in known], [point[1] for point in known]
        axes.plot(at, heights, color=colour, linewidth=1.2, zorder=2, marker="os"[number], markersize=5, label=text)
        for x, value, low, high in known:
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=colour, linewidth=1, zorder=1, marker="_", markersize=5)
            if champion is not None and round(x) == versions.index(champion):
                axes.plot([x], [value], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK, zorder=3)
    step = max(1, -(-len(versions) // 12))
    ticks = range(0, len(versions), step)
    axes.set_xticks(ticks, [str(versions[place]) for place in ticks])
    axes.set_xlim(-0.6, len(versions) - 0.4)
    axes.set_xlabel("model version", color=SOFT)
    if from_zero:
        axes.set_ylim(bottom=0)
    if len(series) > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
    told = "; ".join(
        f"{text}: "
        + ", ".join(f"version {v} {'unknown' if y is None else f'{y:.4g}'}" for v, y in zip(versions, ys, strict=True))
        for text, (ys, _) in series.items()
    )
    return _svg(figure, name, title, f"{unit}. {told}.")


def front(
    title: str, points: Sequence[tuple[int, float, float]], best: Sequence[int], *, champion: int | None, name: str
) -> str:
    """Accuracy against the energy of a prediction, a point a version, and the front: no version is better for less.

    Args:
        points: version, accuracy in percent, Wh per 1,000 predictions.
        best: the versions on the front.
    """
    figure, axes = _empty("accuracy, %")
    chosen = sorted((wh, accuracy) for version, accuracy, wh in points if version in best)
    axes.step(
        [wh for wh, _ in chosen], [accuracy for _, accuracy in chosen], where="post", color=FIRST, linewidth=1.2, zorder=1
    )
    for version, accuracy, wh in points:
        on_front = version in best
        axes.plot([wh], [accuracy], "o", markersize=6, zorder=2, color=FIRST if on_front else SOFT,
                  markerfacecolor=FIRST if on_front else BACK)  # fmt: skip
        if version == champion:
            axes.plot([wh], [accuracy], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK, zorder=3)
        axes.annotate(str(version), (wh, accuracy), (7, 5), textcoords="offset points", color=INK, fontsize=9)
    axes.margins(0.15)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("Wh per 1,000 predictions", color=SOFT)
    told = ", ".join(f"version {version} {accuracy:.4g} % for {wh:.3g} Wh" for version, accuracy, wh in points)
    return _svg(figure, name, title, f"On the front: {', '.join(map(str, best))}. {told}.")


def _empty(unit: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(color=LINE, labelcolor=SOFT, labelsize=9)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_ylabel(unit, color=SOFT)
    axes.ticklabel_format(useOffset=False, style="plain")
    return figure, axes


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "axes.formatter.useoffset": False}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' id="[\w.]+_\d+"', "", drawn)  # names for groups that nothing refers to, the same in every chart
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"\n\s*", "\n", drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    view = re.search(r'viewBox="[^"]*"', drawn)
    assert view is not None  # matplotlib always writes one
    head = (
        f'<svg {view[0]} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>'
    )
    return head + drawn[drawn.index(">") + 1 :]

"""Charts as inline SVG: drawn by matplotlib, coloured by the page's style.

One drawing serves light and dark mode: matplotlib draws in placeholder colours, which are replaced by the page's CSS variables.
Text stays text (searchable, readable by screen readers, in the page's font), and the same figures give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evergreen import figures
from evergreen.kinds.base.metric import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder colours that no drawing uses, and the CSS variables that replace them.
INK, SOFT, LINE, BACK, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
VARIABLES = {
    INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", BACK: "var(--back)", FIRST: "var(--first)", SECOND: "var(--second)",
}  # fmt: skip
SIZE_INCHES = (4.7, 2.9)

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class FrontPoint:
    """A version's headline metric (fractions in percent), its energy for 1,000 predictions, and their intervals."""

    version: int
    quality: float
    quality_interval: Interval
    energy: float
    energy_interval: Interval


def over_versions(
    title: str,
    unit: str,
    versions: Sequence[int],
    series: Mapping[str, tuple[Sequence[float | None], Sequence[Interval]]],
    *,
    champion: int | None,
    name: str,
    most: float | None = None,
) -> str:
    """A chart with a point and its interval for each version, on an axis from 0; the champion's point is ringed, and unknown
    values have none.

    Args:
        title, unit: what is drawn, and the label of the axis.
        series: values and intervals (low, high) by name; two at most.
        name: of the chart, unique on the page.
        most: the upper end of the axis, such as 100 per cent; None to fit the values.
    """
    figure, axes = _empty(unit)
    for number, (text, (values, intervals)) in enumerate(series.items()):
        colour, aside = (FIRST, SECOND)[number], 0.0 if len(series) == 1 else (-0.07, 0.07)[number]
        known = [
            (position + aside, value, low, high)
            for position, (value, (low, high)) in enumerate(zip(values, intervals, strict=True))
            if value is not None
        ]
        if not known:
            continue
        at, heights = [point[0] for point in known], [point[1] for point in known]
        axes.plot(
            at, heights, color=colour, linewidth=1.2, zorder=2, marker="os"[number], markersize=5, label=text, clip_on=False
        )
        for x, value, low, high in known:
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=colour, linewidth=1, zorder=1, marker="_", markersize=5, clip_on=False)
            if champion is not None and round(x) == versions.index(champion):
                axes.plot(
                    [x],
                    [value],
                    marker="o",
                    markersize=12,
                    markerfacecolor="none",
                    markeredgecolor=INK,
                    zorder=3,
                    clip_on=False,
                )
    step = max(1, -(-len(versions) // 12))
    ticks = range(0, len(versions), step)
    axes.set_xticks(ticks, [str(versions[position]) for position in ticks])
    axes.set_xlim(-0.6, len(versions) - 0.4)
    axes.set_xlabel("model version", color=SOFT)
    axes.margins(y=0.12)
    axes.set_ylim(0, most)
    if len(series) > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
    described = "; ".join(
        f"{text}: " + ", ".join(f"version {v} {figures.number(y, digits=3)}" for v, y in zip(versions, ys, strict=True))
        for text, (ys, _) in series.items()
    )
    return _svg(figure, name, title, f"{unit}. {described}.")


def front(
    title: str, points: Sequence[FrontPoint], best: Sequence[int], *, metric: Metric, unit: str, champion: int | None, name: str
) -> str:
    """A chart of the headline metric against the energy of a prediction, with a point and its intervals for each version.
    Filled points are on the Pareto front.

    Args:
        best: the versions on the front.
        metric: the headline metric.
    """
    figure, axes = _empty(f"{metric.title}, {metric.unit}")
    for point in points:
        on_front = point.version in best
        colour = FIRST if on_front else SOFT
        low, high = point.quality_interval
        if low is not None and high is not None:
            axes.plot([point.energy, point.energy], [low, high], color=colour, linewidth=1, zorder=1, clip_on=False)
        least, most = point.energy_interval
        if least is not None and most is not None:
            axes.plot([least, most], [point.quality, point.quality], color=colour, linewidth=1, zorder=1, clip_on=False)
        axes.plot([point.energy], [point.quality], "o", markersize=6, zorder=2, color=colour,
                  markerfacecolor=FIRST if on_front else BACK, clip_on=False)  # fmt: skip
        if point.version == champion:
            axes.plot([point.energy], [point.quality], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK,
                      zorder=3, clip_on=False)  # fmt: skip
        axes.annotate(
            str(point.version), (point.energy, point.quality), (8, -14), textcoords="offset points", color=INK, fontsize=9
        )
    axes.set_ylim(bottom=0, top=100 if metric.unit == "%" else None)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel(f"{unit} per 1,000 predictions", color=SOFT)
    listed = ", ".join(
        f"version {p.version} {p.quality:.1f} {metric.unit} for {figures.number(p.energy)} {unit}" for p in points
    )
    return _svg(figure, name, title, f"On the front: {', '.join(map(str, best))}. {listed}.")


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
    drawn = re.sub(r' id="[\w.]+_\d+"', "", drawn)  # ids of groups that are never referenced, the same in every chart
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

"""Drift on CIFAR-10: how often it is found where there is none, and how often where there is, from 500 items.

A network learns nine of the ten labels; the tenth, frog, is the class that it has never seen. The reference is 4,000 held-out
items (val and test), and every draw of 500 is from the 9,400 others, without replacement. Beside it, the same draws against
another reference each, and against one of train items, to see what overfitting does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.report import Row, environment, fresh_checkout, samples, show
from bench.trained import bring_in, trained
from evergreen.evaluation.proportions import interval
from evergreen.kinds.classify.contract import ImageContract
from evergreen.monitoring.drift import Drift, Observations, compare, held_out, observe, reference
from evergreen.scenario.loading import load_scenario
from evergreen.serving.embedding import EmbeddingModel
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, UNSEEN, CONTRACT = "cifar10", "frog", ImageContract()
ALPHA = 0.05
DRAWN_ITEMS = 500
ALTERED_ITEMS = 2_000  # of the pool, for each severity; each draw takes 500 of them
REFERENCE_ITEMS = 4_000
SEED = 7


@dataclass(frozen=True)
class Shift:
    """One way to drift.

    Attributes:
        name, unit: of the severity, for people.
        severities: from the mildest.
        alter: pixels uint8 `(height, width, 3)` RGB and a severity to an encoded image; None for the unseen class, whose
            severity is its percentage of the draw.
        asked: the severity that must be found.
    """

    name: str
    unit: str
    severities: tuple[float, ...]
    alter: Callable[[np.ndarray, float], bytes] | None
    asked: float


@dataclass(frozen=True)
class Cell:
    """Detection at one severity: draws in which drift was found, by anything and by each group of features."""

    severity: float
    draws: int
    found: int
    by_properties: int
    by_embedding: int
    by_label: int


def blur(pixels: np.ndarray, sigma_pixels: float) -> bytes:
    import cv2

    return encoded(cv2.GaussianBlur(pixels, (0, 0), sigma_pixels))


def darken(pixels: np.ndarray, lost_percent: float) -> bytes:
    return encoded(np.rint(pixels * (1 - lost_percent / 100)).astype(np.uint8))


def compress(pixels: np.ndarray, quality: float) -> bytes:
    import cv2

    return encoded(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def encoded(pixels: np.ndarray, suffix: str = ".png", settings: Sequence[int] = ()) -> bytes:
    import cv2

    return bytes(cv2.imencode(suffix, pixels[..., ::-1], list(settings))[1])


SHIFTS = (
    Shift("blur", "standard deviation, pixels", (0.25, 0.3, 0.35, 0.4, 0.5, 1), blur, 1),
    Shift("darkening", "% of the light lost", (1, 3, 5, 10, 20, 40), darken, 40),
    Shift("JPEG", "quality", (90, 80, 70, 50, 30, 10), compress, 10),
    Shift("unseen class", "% of the items", (2, 5, 10, 15, 20, 30, 100), None, 100),
)


def without_unseen(folder: Path) -> Workspace:
    """A checkout in which the nine labels went through all stages up to train, by the scenario that lacks the tenth."""
    checkout = fresh_checkout(folder)
    scenario = checkout / "scenarios" / f"{NAME}.yaml"
    text = scenario.read_text(encoding="utf-8")
    scenario.write_text(
        text.replace(f"{UNSEEN}, ", "").replace("(?P<label>[^/]+)", f"(?P<label>(?!{UNSEEN})[^/]+)"), encoding="utf-8"
    )
    bring_in(NAME, checkout, environment(checkout) | {"EVERGREEN_SAMPLES": str(samples())})
    trained(NAME, Workspace(checkout), filters=16, epochs=5)
    return Workspace(checkout)


def unseen_images() -> Iterator[bytes]:
    """The encoded images of the class that the network never saw: the archive's test items."""
    with tarfile.open(samples() / "cifar10.tar.gz") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if f"test/{UNSEEN}/" in entry.name and entry.isfile() else None
            if content:
                yield content.read()


@dataclass(frozen=True)
class Bench:
    """The held-out items, split into a reference and a pool to draw from.

    Attributes:
        everything: all held-out items of the nine labels.
        order: int `(items,)`: the first `REFERENCE_ITEMS` are the reference, the others the pool.
    """

    workspace: Workspace
    model: EmbeddingModel
    everything: Observations
    order: np.ndarray

    @classmethod
    def of(cls, workspace: Workspace) -> Bench:
        model = EmbeddingModel.open(workspace.model(NAME))
        scenario = load_scenario(workspace.scenarios, NAME)
        everything = reference(scenario, workspace, model, most_items=sys.maxsize)
        return cls(workspace, model, everything, np.random.default_rng(SEED).permutation(len(everything)))

    @property
    def known(self) -> Observations:
        return self.everything.take(self.order[:REFERENCE_ITEMS])

    def altered_pixels(self) -> list[np.ndarray]:
        """The pixels of the pool's first `ALTERED_ITEMS`."""
        from evergreen.data.dataset import batches, iter_images
        from evergreen.media.images import decode

        ids = held_out(self.workspace, NAME)["id"].to_pylist()
        chosen = [ids[row] for row in self.order[REFERENCE_ITEMS : REFERENCE_ITEMS + ALTERED_ITEMS]]
        return [decode(image, 3) for _, image in iter_images(batches(self.workspace, NAME), chosen)]

    def train_reference(self) -> Observations:
        """What the reference is not: items that the network learned from."""
        import pyarrow.parquet as pq

        from evergreen.data.dataset import batches, iter_images

        items = pq.read_table(self.workspace.splits(NAME) / "items.parquet", filters=[("split", "=", "train")])
        taken = np.random.default_rng(SEED).choice(len(items), REFERENCE_ITEMS, replace=False)
        ids = items.take(taken)["id"].to_pylist()
        return observe(self.model, CONTRACT, (image for _, image in iter_images(batches(self.workspace, NAME), ids)))


def without_drift(bench: Bench, draws: int, known: Observations | None) -> list[Drift]:
    """Draws from the pool that nothing was done to.

    Args:
        known: the reference of all draws, as one champion has it; None for another one each, as many champions would have.
    """
    found = []
    for number in range(draws):
        random = np.random.default_rng((SEED, number))
        order = bench.order if known else random.permutation(len(bench.everything))
        drawn = bench.everything.take(random.choice(order[REFERENCE_ITEMS:], DRAWN_ITEMS, replace=False))
        found.append(compare(known or bench.everything.take(order[:REFERENCE_ITEMS]), drawn, alpha=ALPHA))
        progress("no drift", number, draws)
    return found


def detection(bench: Bench, shift: Shift, draws: int, pixels: Sequence[np.ndarray], unseen: Observations) -> list[Cell]:
    """One cell a severity."""
    cells = []
    for severity in shift.severities:
        if shift.alter:
            new = observe(bench.model, CONTRACT, (shift.alter(image, severity) for image in pixels))
        found = []
        for number in range(draws):
            random = np.random.default_rng((SEED, number))
            if shift.alter:
                drawn = new.take(random.choice(len(new), DRAWN_ITEMS, replace=False))
            else:
                strange = round(DRAWN_ITEMS * severity / 100)
                usual = random.choice(bench.order[REFERENCE_ITEMS:], DRAWN_ITEMS - strange, replace=False)
                drawn = together(bench.everything.take(usual), unseen.take(random.choice(len(unseen), strange, replace=False)))
            found.append(compare(bench.known, drawn, alpha=ALPHA))
            progress(f"{shift.name} {severity:g}", number, draws)
        cells.append(
            Cell(
                severity,
                draws,
                sum(drift.drifted for drift in found),
                times(found, CONTRACT.properties),
                times(found, ("embedding",)),
                times(found, ("predicted label",)),
            )
        )
    return cells


def together(one: Observations, other: Observations) -> Observations:
    columns = ((one.properties, other.properties), (one.embeddings, other.embeddings), (one.predicted, other.predicted))
    return Observations(one.model, one.labels, one.names, *(np.concatenate(pair) for pair in columns))


def times(found: Sequence[Drift], features: Sequence[str]) -> int:
    """In how many of the comparisons one of these features drifted."""
    return sum(any(feature.drifted for feature in drift.features if feature.name in features) for drift in found)


def alarm_row(what: str, found: Sequence[Drift], *, asked: bool = True) -> Row:
    """The fraction of alarms, beside that of seven tests at the same level that know nothing of one another.

    Args:
        asked: whether the level must be held; it is not by what is shown as the wrong way.
    """
    alarms = sum(drift.drifted for drift in found)
    alone = sum(any(feature.p_value <= ALPHA for feature in drift.features) for drift in found)
    return Row(
        f"drift: false alarms in {len(found):,} draws of {DRAWN_ITEMS}, {what}",
        fraction(alarms, len(found)),
        f"{len(found[0].features)} tests at {ALPHA:.0%} each {fraction(alone, len(found))}",
        f"{alarms / len(found):.1%}",
        f"{ALPHA:.0%} at most" if asked else "–",
        alarms <= ALPHA * len(found) if asked else None,
    )


def asked_row(shift: Shift, cells: Sequence[Cell]) -> Row:
    (cell,) = (cell for cell in cells if cell.severity == shift.asked)
    return Row(
        f"drift: {shift.name}, {shift.asked:g} ({shift.unit}), found from {DRAWN_ITEMS} items",
        fraction(cell.found, cell.draws),
        "–",
        f"{cell.found / cell.draws:.0%}",
        "100 %",
        cell.found == cell.draws,
    )


def fraction(hits: int, items: int) -> str:
    low, high = interval(hits, items)
    return f"{hits / items:.1%} ({low:.1%} to {high:.1%})"


def table(detected: dict[str, list[Cell]]) -> str:
    """Detection against severity, as Markdown."""
    lines = [
        "| drift | severity | found (95 % interval) | by properties | by embedding | by label |",
        "|---|---|---|---|---|---|",
    ]
    for shift in SHIFTS:
        for cell in detected[shift.name]:
            by = [f"{hits / cell.draws:.0%}" for hits in (cell.by_properties, cell.by_embedding, cell.by_label)]
            severity = f"{cell.severity:g} ({shift.unit})"
            lines.append(f"| {shift.name} | {severity} | {fraction(cell.found, cell.draws)} | {' | '.join(by)} |")
    return "\n".join(lines)


def draw(detected: dict[str, list[Cell]]) -> Figure:
    """Detection against severity, one panel a shift."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, shift in zip(figure.subplots(1, len(SHIFTS), sharey=True), SHIFTS, strict=True):
        cells = detected[shift.name]
        positions = range(len(cells))
        fractions = np.array([cell.found / cell.draws for cell in cells])
        ends = np.array([interval(cell.found, cell.draws) for cell in cells])
        within = np.clip([fractions - ends[:, 0], ends[:, 1] - fractions], 0, None)
        axes.errorbar(positions, fractions, within, color="tab:green", marker="o", capsize=3, label="anything")
        for by, text, style in (
            ("by_properties", "image properties", ":"),
            ("by_embedding", "embedding", "--"),
            ("by_label", "predicted label", "-."),
        ):
            axes.plot(
                positions, [getattr(cell, by) / cell.draws for cell in cells], color="tab:gray", linestyle=style, label=text
            )
        axes.axhline(ALPHA, color="tab:red", linewidth=0.8, label=f"level {ALPHA:g}")
        axes.set(title=shift.name, xlabel=shift.unit, ylim=(-0.03, 1.03))
        axes.set_xticks(positions, [f"{cell.severity:g}" for cell in cells])
    figure.axes[0].set_ylabel(f"fraction of draws of {DRAWN_ITEMS} items\nin which drift was found")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def progress(what: str, number: int, draws: int) -> None:
    if sys.stderr.isatty() or number + 1 == draws:
        print(f"\r{what}: {number + 1:,} of {draws:,}", end="\n" if number + 1 == draws else "", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--picture", type=Path, help="write detection against severity there, as PNG")
    parser.add_argument("--checkout", type=Path, help="where the nine labels are prepared and trained; made there if missing")
    parser.add_argument("--draws", type=int, default=1_000, help="without drift")
    parser.add_argument("--drifting-draws", type=int, default=50, help="for each severity")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.checkout or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ready = (Workspace(folder).model(NAME) / "model.onnx").is_file()
        bench = Bench.of(Workspace(folder) if ready else without_unseen(folder))
        rows = [
            alarm_row("one reference", without_drift(bench, arguments.draws, bench.known)),
            alarm_row("another reference each", without_drift(bench, arguments.draws, None)),
            alarm_row(
                "a reference of train items instead",
                without_drift(bench, arguments.draws, bench.train_reference()),
                asked=False,
            ),
        ]
        pixels, unseen = bench.altered_pixels(), observe(bench.model, CONTRACT, unseen_images())
        detected = {shift.name: detection(bench, shift, arguments.drifting_draws, pixels, unseen) for shift in SHIFTS}
    rows += [asked_row(shift, detected[shift.name]) for shift in SHIFTS]
    if arguments.picture:
        draw(detected).savefig(arguments.picture, dpi=90)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows)
        print(table(detected))


if __name__ == "__main__":
    main()

"""What a person's decisions in `evergreen review` are worth: the accuracy gained by each 100, beside a queue in random order.

Simulated on real images: frozen features of the pre-trained network (their first 128 principal components) and a logistic
regression that is fitted again after each 100 decisions; the person is replaced by the original labels. Groups (clips,
photographs) are either in train or in test.

- `errors`: 8 % of train's labels are replaced by another one at random. The queue asks first for the labels that a regression
  fitted to the other folds finds least probable beside its own answer.
- `unsure`, the same labels: the queue of those of which the regression is least sure.
- `inbox`: 100 random items have their labels, and all others have none; the queue asks first for the least sure.
- `mistakes`: 8 % of test's labels are replaced. What is measured is not the model, but how far off its measured accuracy is.

With --page, how long the page takes instead: from the key to the first frame with the next picture, in Chromium, over the
photographs of `security`, in a copy of a checkout in which `evergreen run security` has made a champion.

Run: python -m bench.review [--seeds 3] [--page CHECKOUT] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.features import DEPTHS, GROUPS, features, read
from bench.report import Row, environment, fresh_checkout, show

SIDE, COMPONENTS = 224, 128
FLIPPED, AT_ONCE, ROUNDS, FIRST = 0.08, 100, 5, 100
KEYS, PAUSE_MILLISECONDS = 100, 150  # what a quick person needs for a picture, at least

Choose = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def fitted(inputs: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(inputs, labels)


def out_of_fold(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Probabilities by regressions that were not fitted to the items, `(items, labels)`."""
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(labels), count))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(inputs, labels, groups):
        model = fitted(inputs[train], labels[train])
        found[np.ix_(test, model.classes_)] = model.predict_proba(inputs[test])
    return found


def flipped(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    chosen = generator.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + generator.integers(1, count, len(chosen))) % count
    return wrong


def correcting(
    train: tuple[np.ndarray, np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], queue: str, seed: int
) -> list[float]:
    """The accuracy on test after 0, 100, 200, … decisions about train's labels, and then the fraction of the replaced
    labels that were found."""
    inputs, truth, groups = train
    count, generator = int(truth.max()) + 1, np.random.default_rng(seed)
    labels, open_ = flipped(truth, count, generator), np.ones(len(truth), bool)
    wrong, reached, found = int((labels != truth).sum()), list[float](), list[float]()
    for _ in range(ROUNDS + 1):
        model = fitted(inputs, labels)
        reached.append(float(model.score(*test)))
        found.append(1 - float((labels != truth).sum()) / wrong)
        if queue == "random":
            order = generator.permutation(len(truth)).astype(float)
        elif queue == "unsure":
            order = model.predict_proba(inputs).max(axis=1)
        else:
            sure = out_of_fold(inputs, labels, groups, count)
            order = sure[np.arange(len(labels)), labels] - sure.max(axis=1)
        chosen = np.argsort(np.where(open_, order, np.inf), kind="stable")[: min(AT_ONCE, int(open_.sum()))]
        labels[chosen], open_[chosen] = truth[chosen], False
    return reached + found


def labelling(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], queue: str, seed: int) -> list[float]:
    """The accuracy on test with 100, 200, … labels."""
    inputs, truth = train
    generator = np.random.default_rng(seed)
    has = np.zeros(len(truth), bool)
    has[generator.choice(len(truth), FIRST, replace=False)] = True
    reached = []
    for _ in range(ROUNDS + 1):
        model = fitted(inputs[has], truth[has])
        reached.append(float(model.score(*test)))
        order = (
            generator.permutation(len(truth)).astype(float) if queue == "random" else model.predict_proba(inputs).max(axis=1)
        )
        chosen = np.argsort(np.where(has, np.inf, order), kind="stable")[: min(AT_ONCE, int((~has).sum()))]
        has[chosen] = True
    return reached


def measuring(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], queue: str, seed: int) -> list[float]:
    """How far the measured accuracy is off, as a fraction, after 0, 100, … decisions about test's labels."""
    inputs, truth = test
    generator = np.random.default_rng(seed)
    labels, model = flipped(truth, int(truth.max()) + 1, generator), fitted(*train)
    answers, sure = model.predict(inputs), model.predict_proba(inputs).max(axis=1)
    open_, off = np.ones(len(truth), bool), []
    for _ in range(ROUNDS + 1):
        off.append(abs(float((answers == labels).mean() - (answers == truth).mean())))
        order = generator.permutation(len(truth)).astype(float) if queue == "random" else np.where(answers != labels, -sure, 1)
        chosen = np.argsort(np.where(open_, order, np.inf), kind="stable")[: min(AT_ONCE, int(open_.sum()))]
        labels[chosen], open_[chosen] = truth[chosen], False
    return off


def simulated(data: str, seeds: int) -> list[dict[str, Any]]:
    from sklearn.decomposition import PCA
    from sklearn.model_selection import StratifiedGroupKFold

    images, labels, groups = read(data, SIDE)
    every = features(images)
    whole = np.concatenate([every[depth] for depth in DEPTHS["stages 1, 2, 4, 6"]], axis=1)
    # A third of the groups is held out, so that small sets have enough test items.
    train, test = next(iter(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(whole, labels, groups)))
    spread = whole[train].std(axis=0) + 1e-6
    components = PCA(COMPONENTS, random_state=0).fit(whole[train] / spread)
    inputs = components.transform(whole / spread)
    given, held = (inputs[train], labels[train]), (inputs[test], labels[test])
    ways: dict[str, tuple[tuple[str, ...], Callable[[str, int], list[float]]]] = {
        "errors": (("errors", "unsure", "random"), lambda queue, seed: correcting((*given, groups[train]), held, queue, seed)),
        "inbox": (("unsure", "random"), lambda queue, seed: labelling(given, held, queue, seed)),
        "mistakes": (("mistakes", "random"), lambda queue, seed: measuring(given, held, queue, seed)),
    }
    found = []
    for what, (queues, run) in ways.items():
        for queue in queues:
            runs = np.array([run(queue, seed) for seed in range(seeds)])
            found.append(
                {
                    "data": data, "train": len(train), "test": len(test), "what": what, "queue": queue,
                    "percent": [[round(100 * value, 2) for value in one] for one in runs],
                }
            )  # fmt: skip
            print(f"{data} {what} {queue}: {100 * np.median(runs, axis=0)}", file=sys.stderr, flush=True)
    return found


WATCH = """
window.waits = [];
addEventListener("keydown", (event) => {
  const pressed = event.timeStamp;
  requestAnimationFrame(() => { const channel = new MessageChannel();
    channel.port1.onmessage = () => waits.push(performance.now() - pressed); channel.port2.postMessage(0); });
}, true);
"""


def page(used: Path) -> list[Row]:
    """From key to picture, over the photographs of `security`, on a copy of the checkout."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        checkout = fresh_checkout(Path(folder) / "checkout")
        for name in ("data/security", "outputs/security", "mlruns"):
            shutil.copytree(used / name, checkout / name, dirs_exist_ok=True)
        command = [sys.executable, "-m", "flows.cli", "review", "security", "--queue", "unsure", "--no-open"]
        server = subprocess.Popen(command, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                opened = browser.new_page(viewport={"width": 1400, "height": 1000})
                opened.add_init_script(WATCH)
                opened.goto(address)
                opened.locator("#picture img").wait_for(timeout=400_000)
                rows = []
                for heat in (False, True):
                    if heat:
                        opened.keyboard.press("h")
                    opened.wait_for_timeout(3000)
                    opened.evaluate("waits.length = 0")
                    for number in range(KEYS):
                        opened.keyboard.press(str(1 + number % 3))
                        opened.wait_for_timeout(PAUSE_MILLISECONDS)
                    rows.append(_row(sorted(opened.evaluate("waits")), heat))
                browser.close()
                return rows
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


def _row(waits: list[float], heat: bool) -> Row:
    high = waits[int(0.95 * len(waits))]
    return Row(
        f"review: key to next picture, {len(waits)} pictures of 608×608{' with heat maps' if heat else ''}",
        f"median {statistics.median(waits):.0f} ms, 95 % {high:.0f} ms, longest {waits[-1]:.0f} ms",
        "–",
        f"95 % within {high:.0f} ms",
        "50 ms",
        high < 50,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(GROUPS), action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", type=Path, metavar="CHECKOUT")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    started = time.monotonic()
    if arguments.page:
        show(page(arguments.page))
        return
    for data in arguments.data or sorted(GROUPS):
        for row in simulated(data, arguments.seeds):
            medians = np.median(row["percent"], axis=0)
            text = f"{row['data']}, {row['what']}, {row['queue']}: " + ", ".join(f"{one:.1f}" for one in medians)
            print(json.dumps(row) if arguments.json else text, flush=True)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

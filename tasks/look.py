"""look: compare what has come in since the champion was trained with what it was made for.

Reads   the champion and its run in MLflow, the data set's batches that it was not trained from.
Writes  nothing.
Stops   when the champion's files or lineage can't be read.

Nothing is trained and no TensorFlow is loaded: the champion runs on ONNX Runtime.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.dataset import batches, iter_images, table
from evergreen.drift import FEATURES, Drift, Observations, compare, least_p_value, observe
from evergreen.embedding import EmbeddingModel
from evergreen.errors import EvergreenError
from evergreen.registry import connect, download, find_version, model_name
from evergreen.scenario import Scenario
from evergreen.workspace import Workspace
from tasks.register import REFERENCE
from tasks.stage import Page, Stage

MOST_ITEMS = 2_000  # of the new ones that are looked at; more would cost, and hardly see more


@dataclass(frozen=True)
class News:
    """What has come in since the champion was trained.

    Attributes:
        champion: its version.
        age_days: since it was registered.
        old_items: of the data set it was made from.
        new_items: in the data set since.
        new_batches: names of the batches they came in.
        drift: the comparison; None where it was not asked for, or there are too few new items to show any.
        looked_at: new items that the champion predicted.
        right: of these, how many as they are labelled.
        test_items, test_right: the same at promotion, on its test split.
    """

    champion: int
    age_days: float
    old_items: int
    new_items: int
    new_batches: tuple[str, ...]
    drift: Drift | None
    looked_at: int
    right: int
    test_items: int
    test_right: int

    def __str__(self) -> str:
        if not self.new_items:
            return f"nothing new since version {self.champion} was trained, {self.age_days:.1f} days ago."
        return (
            f"{self.new_items:,} items are new to version {self.champion}, which was trained from {self.old_items:,}, "
            f"{self.age_days:.1f} days ago; it gets {self.right:,} of {self.looked_at:,} right."
        )


def look(scenario: Scenario, workspace: Workspace) -> News:
    """Look at the items that the champion was not trained from.

    Raises:
        WrongUse: there is no champion.
        EvergreenError: its files or its run can't be read.
    """
    name = scenario.name
    client = connect(workspace).MlflowClient()
    version = find_version(workspace, name, "champion")
    champion = client.get_model_version(model_name(name), str(version))
    metrics = client.get_run(champion.run_id).data.metrics
    learned_from = _batches_of(client, champion.run_id)
    new = [folder for folder in batches(workspace, name) if folder.name not in learned_from]
    old = [folder for folder in batches(workspace, name) if folder.name in learned_from]
    items = table(new, ["id", "label"]).to_pylist()
    old_items = len(table(old, ["label"]))
    seed = np.random.default_rng(scenario.seed)
    chosen = [items[place] for place in np.sort(seed.permutation(len(items))[:MOST_ITEMS])]
    labels = {item["id"]: item["label"] for item in chosen}
    drift, right = None, 0
    if chosen:
        model = EmbeddingModel.open(download(workspace, name, str(version)) / "artifacts")
        found = dict(iter_images(new, labels))
        seen = observe(model, (found[id] for id in labels))
        right = sum(model.labels[place] == label for place, label in zip(seen.predicted, labels.values(), strict=True))
        drift = _drift(scenario, _reference(client, champion.run_id), seen)
    test_items = int(metrics["test_items"])
    return News(
        version, (time.time() - champion.creation_timestamp / 1000) / 86_400, old_items, len(items),
        tuple(folder.name for folder in new), drift, len(chosen), int(right), test_items, round(metrics["test_accuracy"] * test_items),
    )  # fmt: skip


def _drift(scenario: Scenario, known: Observations, seen: Observations) -> Drift | None:
    alpha = scenario.retraining.drift_alpha
    if alpha is None or least_p_value(len(known), len(seen)) > alpha / len(FEATURES):
        return None
    return compare(known, seen, alpha=alpha, seed=scenario.seed)


def _reference(client: Any, run_id: str) -> Observations:
    return Observations.load(_artifact(client, run_id, REFERENCE))


def _batches_of(client: Any, run_id: str) -> set[str]:
    record = json.loads(_artifact(client, run_id, "lineage/record/stage-version.json").read_text())
    return set(record["result"]["batches"])


def _artifact(client: Any, run_id: str, path: str) -> Path:
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run_id, path))
    except (MlflowException, OSError) as error:
        raise EvergreenError(
            f"the champion's run {run_id} has no {path} ({error})",
            fix="It was registered by an earlier Evergreen: train once with evergreen run NAME, and promote the result.",
        ) from None


def page(scenario: Scenario, workspace: Workspace, news: News) -> Page:
    """Each feature of the comparison."""
    if news.drift is None:
        return Page()
    rows = [
        {"feature": one.name, "drifted": one.drifted, "p value, all in view": one.p_value_together, "what": one.reason}
        for one in news.drift.features
    ]
    return Page(tables={"drift": rows})


stage = Stage(look, News, page=page, retries=2)

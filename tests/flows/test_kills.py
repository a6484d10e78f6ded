"""kill -9 at every stage boundary and inside each stage: a plain re-run goes on as if nothing had happened.

After each point of the table the stages are run again up to the one that was killed, and all that a user relies on must be as
in the run that nobody disturbed. What follows starts from the same state, and so need not be repeated for each point; that a
whole run ends well after a kill in every stage, one after the other, is a test of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from ruamel.yaml import YAML

from tests.flows.conftest import Checkout, clone, prepared
from tests.support.shipped import ROOT

pytestmark = pytest.mark.slow

STAGES = ["collect", "validate", "version", "preprocess", "train", "evaluate", "register", "promote"]
# (stage, which of its renames are points): each is a moment at which some of its work becomes visible. The first four of
# preprocess are those of what DVC's stages depend on.
RENAMES = {
    "collect": (1, 2), "validate": (1,), "version": (1, 2), "preprocess": (1, 3, 5, 6), "train": (1, 2, 3), "evaluate": (1, 2),
    "register": (1,), "promote": (1,),
}  # fmt: skip
POINTS = [(stage, at, 1) for stage in STAGES for at in ("before", "after")][1:] + [
    (stage, "rename", nth) for stage, points in RENAMES.items() for nth in points
]


def perform(**request: Any) -> int:
    """Run the stages in a checkout, killed where asked; gives the exit status."""
    done = prepared().run("tests.flows.killed", [json.dumps(request)], ROOT, dict(os.environ), 600)
    assert done is not None
    return done[0]


def tiny(folder: Path) -> Checkout:
    """A clone with a scenario of 400 digits in two label folders, one broken file among them, and one epoch."""
    import cv2
    from sklearn.datasets import load_digits

    checkout = clone(folder)
    digits = load_digits(n_class=2)
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "images" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image * 15)
    (folder / "images" / "0" / "broken.png").write_bytes(b"no image")
    done = checkout.evergreen("new", "tiny", "--images", "images")
    assert done.status == 0, done.err
    path = folder / "scenarios" / "tiny.yaml"
    document = YAML().load(path.read_text())
    document["train"].update({"model": "plain", "filters": 4, "epochs": 1})
    with open(path, "w") as file:
        YAML().dump(document, file)
    return checkout


def state(checkout: Checkout) -> dict[str, Any]:
    """All that a user relies on, as far as the run has come."""
    root, name = checkout.root, "tiny"
    lock, metrics = root / "dvc.lock", root / "outputs" / name / "metrics.json"
    stages = YAML(typ="safe").load(lock.read_text())["stages"] if lock.exists() else {}
    parts = sorted((root / "data" / name).glob("*/*.parquet"))
    staged = sorted((root / ".evergreen" / "staging" / name).glob("*-*/*.parquet"))
    return {
        # Not the data set's hash: an item that had to be collected anew says so in `collected_at`.
        "items": items(parts),
        "staged": items(staged),
        "versioned": (root / "data.dvc").exists(),
        "outputs": {stage: [out["md5"] for out in entry["outs"]] for stage, entry in stages.items()},
        "metrics": json.loads(metrics.read_text()) if metrics.exists() else None,
        "registry": registry(root / "mlruns" / "mlflow.db"),
        "quarantined": len((root / "quarantine" / name / "records.jsonl").read_text().splitlines()),
        "checkpoints": [path.name for path in (root / ".evergreen" / "checkpoints" / name).glob("*/*")],
    }


def items(parts: list[Path]) -> list[tuple[str, str]]:
    found = pyarrow.dataset.dataset(parts).to_table(["id", "label"]).to_pydict() if parts else {"id": [], "label": []}
    return sorted(zip(found["id"], found["label"], strict=True))


def registry(store: Path) -> dict[str, Any]:
    """The model's versions and aliases."""
    if not store.exists():
        return {}
    with sqlite3.connect(store) as tables:
        versions = tables.execute("SELECT version FROM model_versions ORDER BY version").fetchall()
        aliases = tables.execute("SELECT alias, version FROM registered_model_aliases ORDER BY alias").fetchall()
    return {"versions": [version for (version,) in versions], "aliases": dict(aliases)}


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkout]:
    """The checkout as it is before each stage, and, as "end", after an undisturbed run."""
    folder = tmp_path_factory.mktemp("snapshots")
    current = tiny(folder / STAGES[0])
    found = {STAGES[0]: current}
    for stage, following in zip(STAGES, [*STAGES[1:], "end"], strict=True):
        current = current.copy(folder / following)
        status = perform(
            root=str(current.root), scenario="tiny", **({"stage": stage, "at": "after"} if following != "end" else {})
        )
        assert status == (-9 if following != "end" else 0)
        found[following] = current
    return found


@pytest.mark.parametrize(("stage", "at", "nth"), POINTS, ids=lambda value: str(value))
def test_a_rerun_goes_on_as_if_nothing_had_happened(
    snapshots: dict[str, Checkout], tmp_path: Path, stage: str, at: str, nth: int
) -> None:
    checkout = snapshots[stage].copy(tmp_path / "copy")
    following = [*STAGES, "end"][STAGES.index(stage) + 1]
    assert perform(root=str(checkout.root), scenario="tiny", stage=stage, at=at, nth=nth) == -9, "the point was never reached"
    again = {"stage": stage, "at": "after"} if following != "end" else {}
    assert perform(root=str(checkout.root), scenario="tiny", **again) == (-9 if again else 0)
    assert state(checkout) == state(snapshots[following])
    shutil.rmtree(checkout.root)


def test_a_run_killed_in_every_stage_in_turn_still_ends_well(snapshots: dict[str, Checkout], tmp_path: Path) -> None:
    checkout = snapshots[STAGES[0]].copy(tmp_path / "copy")
    for stage in STAGES:
        assert perform(root=str(checkout.root), scenario="tiny", stage=stage, at="rename", nth=1) == -9
    assert perform(root=str(checkout.root), scenario="tiny") == 0
    assert state(checkout) == state(snapshots["end"])

"""A checkout that was used with an earlier version goes on: its data, runs, champion and served models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.flows.conftest import Checkout, Done
from tests.support.shipped import ROOT, copy_project

EARLIER = "0d1364e5b808"  # the last commit before the packages and the kinds
HISTORY = "history.json"
ENTRY_POINTS = """\
[mlflow.artifact_repository]
mlflow-artifacts = evergreen.artifacts:served_or_beside
evergreen = evergreen.artifacts:RelocatableArtifacts
"""
KEPT = ("data.dvc", "dvc.lock", "dvc.yaml", "scenarios", "prefect.yaml")  # what git tracks, and using a checkout changes
PREDICT = """if True:
    from pathlib import Path
    import pandas as pd
    from evergreen.data.dataset import batches, iter_images
    from evergreen.registry.models import connect
    from evergreen.workspace import Workspace
    from tasks.evaluate import test_ids
    workspace = Workspace(Path("."))
    model = connect(workspace).pyfunc.load_model("models:/evergreen-quickstart@champion")
    images = [image for _, image in iter_images(batches(workspace, "quickstart"), test_ids(workspace, "quickstart"))]
    print(model.predict(pd.DataFrame({"image": images}))["label"].str.cat())
"""


def earlier(folder: Path) -> Checkout:
    """A checkout of the earlier version, with the entry points that it installs, in which the quickstart was run."""
    archive = subprocess.run(["git", "archive", EARLIER], cwd=ROOT, capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"the history has no commit {EARLIER}")
    folder.mkdir()
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive.stdout, check=True)
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    installed = folder / "evergreen_mlops-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: evergreen-mlops\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    checkout = Checkout(folder, hands_over=True)
    checkout.change("quickstart", "epochs: 12", "epochs: 3")
    done = checkout.run(sys.executable, "-m", "flows.cli", "run", "quickstart")
    assert done.status == 0, done.err
    return checkout


def command(checkout: Checkout, *arguments: str) -> Done:
    """A command of today's version."""
    done = checkout.evergreen(*arguments)
    assert done.status == 0, done.err
    return done


def upgrade(checkout: Checkout, scratch: Path) -> None:
    """The project's files of today, and what the checkout was used for of then: as `git pull` leaves it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout.root, check=True, capture_output=True).stdout
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        if name.partition("/")[0] not in KEPT:
            (checkout.root / name).unlink()
    for name in ("evergreen", "tasks", "flows", "evergreen_mlops-0.1.0.dist-info"):
        shutil.rmtree(checkout.root / name)
    copy_project(scratch)
    for name in KEPT:
        if name != "dvc.yaml":
            shutil.rmtree(scratch / name) if (scratch / name).is_dir() else (scratch / name).unlink(missing_ok=True)
    shutil.copytree(scratch, checkout.root, dirs_exist_ok=True)


def outputs(checkout: Checkout) -> dict[str, bytes]:
    """Splits, model and what it predicted, bit for bit. `model.onnx` has one output more today, and the figures of an epoch are
    compared by value."""
    workspace = checkout.workspace
    folders = (workspace.splits("quickstart"), workspace.model("quickstart"))
    kept = [path for folder in folders for path in folder.iterdir() if path.name not in (HISTORY, "model.onnx")]
    return {path.name: path.read_bytes() for path in (*kept, workspace.evaluation("quickstart") / "predictions.parquet")}


def epochs(checkout: Checkout) -> list[list[float]]:
    """The figures of each epoch: means over batches, whose last digits depend on the threads that add them up."""
    return [list(epoch.values()) for epoch in json.loads((checkout.workspace.model("quickstart") / HISTORY).read_text())]


def predictions(checkout: Checkout, program: str) -> str:
    """The labels that the champion gives the first items, as MLflow serves it."""
    done = checkout.run(sys.executable, "-c", program)
    assert done.status == 0, done.err
    return done.out


@pytest.mark.slow
def test_a_checkout_of_an_earlier_version_runs_compares_serves_and_rolls_back(tmp_path: Path) -> None:
    checkout = earlier(tmp_path / "checkout")
    before, figures = outputs(checkout), epochs(checkout)
    predicted = predictions(checkout, PREDICT.replace("data.dataset", "dataset").replace("registry.models", "registry"))
    upgrade(checkout, tmp_path / "today")

    result = json.loads(command(checkout, "run", "quickstart", "--json").out)
    assert outputs(checkout) == before, "the same data, settings and seed give the same splits and model"
    assert np.allclose(epochs(checkout), figures, rtol=1e-4)
    assert (result["model_version"], result["champion"], result["champion_changed"]) == (2, 1, False)
    assert "0 of " in result["reason"] and "not better" in result["reason"]
    assert "Nothing has changed" in command(checkout, "run", "quickstart").out
    assert predictions(checkout, PREDICT) == predicted, "the script that was registered with the model still answers"

    checkout.change("quickstart", "epochs: 3", "epochs: 4")
    command(checkout, "run", "quickstart")
    command(checkout, "promote", "quickstart", "--version", "3", "--force")
    assert "version 1 is the champion again" in command(checkout, "rollback", "quickstart").out
    history = json.loads(command(checkout, "report", "quickstart", "--json").out)["scenarios"]["quickstart"]
    assert [version["version"] for version in history["versions"]] == [1, 2, 3] and history["champion"] == 1

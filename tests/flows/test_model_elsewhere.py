"""The registered model where it is used: with MLflow alone, outside the checkout, and behind `mlflow models serve`."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement

from evergreen.data.dataset import batches, iter_images
from evergreen.serving.scoring import Model
from flows.servers import end_tree
from tasks.evaluate import test_ids as ids_of_the_test_split
from tests.flows.conftest import BIN, HIDDEN, Up, free_port

pytestmark = [pytest.mark.slow, pytest.mark.servers]

MODEL = "models:/evergreen-quickstart@champion"
PREDICT = f"""if True:
    import json, sys
    import mlflow, pandas as pd
    model = mlflow.pyfunc.load_model({MODEL!r})
    table = model.predict(pd.DataFrame({{"image": [open(path, "rb").read() for path in sys.argv[1:]]}}))
    code = next(module.__file__ for name, module in sys.modules.items() if name.startswith("evergreen_served_"))
    assert "tensorflow" not in sys.modules
    print(json.dumps([table["label"].tolist(), code, mlflow.pyfunc.get_model_dependencies({MODEL!r})]))
"""


@pytest.fixture(scope="module")
def images(up: Up, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A few files of encoded test images."""
    requested = ids_of_the_test_split(up.checkout.workspace, "quickstart")[:5]
    found = dict(iter_images(batches(up.checkout.workspace, "quickstart"), requested))
    folder = tmp_path_factory.mktemp("images")
    for place, id in enumerate(requested):
        (folder / f"{place}.png").write_bytes(found[id])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def champion(up: Up) -> Path:
    """The folder in which the server keeps the champion's files."""
    from mlflow import MlflowClient

    version = MlflowClient(up.mlflow_url, up.mlflow_url).get_model_version_by_alias("evergreen-quickstart", "champion")
    (folder,) = (up.checkout.workspace.mlruns / "artifacts").glob(
        f"*/models/{version.source.removeprefix('models:/')}/artifacts"
    )
    return folder


@pytest.fixture(scope="module")
def expected(champion: Path, images: list[Path]) -> list[str]:
    """What it makes of them."""
    return [found.label for found in Model.open(champion / "artifacts").predict([path.read_bytes() for path in images])]


@pytest.fixture(scope="module")
def requirements(champion: Path) -> list[str]:
    return (champion / "requirements.txt").read_text().split()


@pytest.fixture(scope="module")
def only_the_requirements(requirements: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of an environment in which nothing but the model's requirements was installed: links to those installed
    here, file by file, with what they were compiled to."""
    folder = tmp_path_factory.mktemp("only the requirements")
    ahead, seen = list(requirements), set()
    while ahead:
        requirement = Requirement(ahead.pop())
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        distribution = importlib.metadata.distribution(requirement.name)
        ahead += distribution.requires or []
        for file in distribution.files or []:
            source = Path(str(distribution.locate_file(file)))
            for one in (source, *source.parent.glob(f"__pycache__/{source.stem}.*.pyc")):
                link = folder / file.parent / one.relative_to(source.parent)
                if ".." not in file.parts and one.is_file() and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(one)
    return folder


def outside(up: Up, **variables: str) -> dict[str, str]:
    """The environment of somebody who knows MLflow's address and has nothing to do with the checkout."""
    return {name: value for name, value in os.environ.items() if name not in HIDDEN} | {
        "MLFLOW_TRACKING_URI": up.mlflow_url,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        **variables,
    }


def predict(folder: Path, environment: dict[str, str], images: list[Path], *options: str) -> tuple[list[str], str, str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", PREDICT, *map(str, images)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    labels, code, dependencies = json.loads(done.stdout.splitlines()[-1])
    return labels, code, dependencies


def test_it_predicts_where_only_its_own_requirements_are_installed(
    up: Up, only_the_requirements: Path, requirements: list[str], images: list[Path], expected: list[str], tmp_path: Path
) -> None:
    # -S: no other packages than those that PYTHONPATH names.
    labels, code, listed = predict(tmp_path, outside(up, PYTHONPATH=str(only_the_requirements)), images, "-S")
    assert labels == expected
    assert "/code/evergreen_served_" in code  # the copy that travels with the model
    assert Path(listed).name == "requirements.txt" and "mlflow-skinny" in requirements[0]


def test_it_predicts_in_the_projects_environment_outside_the_checkout(
    up: Up, images: list[Path], expected: list[str], tmp_path: Path
) -> None:
    labels, code, _ = predict(tmp_path, outside(up, PYTHONPATH=str(up.checkout.root)), images)
    assert labels == expected
    assert "/code/evergreen_served_" in code  # not the project as it is now


@pytest.fixture(scope="module")
def served(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`, started outside the checkout."""
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    environment = outside(up, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(up.checkout.root))
    with open(folder / "log", "wb") as log:
        process = psutil.Popen(
            [BIN / "mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local", "--port", str(port)],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while not _answers(f"{address}/ping"):
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.3)
        yield address
    finally:
        end_tree(process)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split"])
def test_mlflow_models_serve_answers_images_in_base64(served: str, images: list[Path], expected: list[str], form: str) -> None:
    encoded = [base64.b64encode(path.read_bytes()).decode() for path in images]
    question: dict[str, Any] = {
        "dataframe_records": [{"image": image} for image in encoded],
        "dataframe_split": {"columns": ["image"], "data": [[image] for image in encoded]},
    }
    request = urllib.request.Request(
        f"{served}/invocations",
        data=json.dumps({form: question[form]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert [row["label"] for row in json.load(response)["predictions"]] == expected

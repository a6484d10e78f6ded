"""What all tests share: the real data where it is present, and an empty checkout to work in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evergreen.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real data; the test is skipped where it is missing."""
    folder = Path(os.environ.get("EVERGREEN_SAMPLES", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set EVERGREEN_SAMPLES to the folder that holds cifar10.tar.gz and the others")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A checkout with the shipped scenarios and nothing collected yet."""
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    for name in ("dvc.yaml", "data.dvc", ".dvcignore"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "dvc.yaml").touch()
    return Workspace(tmp_path)

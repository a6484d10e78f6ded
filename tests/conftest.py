"""What all tests share: the real data where it is present, and an empty checkout to work in."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from evergreen.environment import pin_keras
from evergreen.workspace import Workspace
from tests.support.once import made_once
from tests.support.shipped import ROOT, SCENARIOS, shipped

if TYPE_CHECKING:
    from tests.tiny import Tiny

TRAINED = {"tiny_once", "registered_once"}  # fixtures that train a network

pin_keras()
hypothesis.settings.register_profile("evergreen", deadline=None)  # no test depends on the machine's pace
hypothesis.settings.load_profile("evergreen")
os.environ |= {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}  # no test asks the network for anything


def pytest_configure() -> None:
    """Children get the signals' usual meaning. A shell lets what it runs in the background, or by nohup, ignore Ctrl-C or the
    end of the terminal, and a process that ignores a signal hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_report_header() -> list[str]:
    """Say so where what is tested is not what stands here."""
    changed = [name for name in SCENARIOS if _differs(f"scenarios/{name}.yaml")]
    return [f"scenarios tested as committed, not as changed here: {', '.join(changed)}"] if changed else []


def _differs(name: str) -> bool:
    return not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (shipped() / name).read_bytes()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: the tests with servers wait most of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run beside each other, those of a file stay together, and those that share the servers of `evergreen up`. The
    long ones, with whole processes, come first, so that none is left to the end alone. What trains a network is slow."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        servers = "up" in fixtures
        if TRAINED & set(fixtures):
            item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group("up" if servers else item.path.relative_to(ROOT).as_posix()))
    items.sort(key=lambda item: "flows" not in item.path.parts)


@pytest.fixture(autouse=True, scope="session")
def captured_stream_stays_open() -> None:
    """TensorFlow's logger holds the standard error it was born with, here pytest's, and closes it when Prefect sets up logging
    anew after DVC has put Colorama's in its place. The process's own is never closed."""
    from absl import logging

    logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real data; the test is skipped where it is missing."""
    folder = Path(os.environ.get("EVERGREEN_SAMPLES", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set EVERGREEN_SAMPLES to the folder that holds cifar10.tar.gz and the others")
    return folder


@pytest.fixture(autouse=True)
def own_servers() -> Iterator[None]:
    """No test hears of the servers or the checkout that another one, or the machine's owner, has named in the environment."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL", "EVERGREEN_PAGES_URL", "EVERGREEN_ROOT")
    for name in names:
        os.environ.pop(name, None)
    yield
    for name in names:
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_proxies() -> Iterator[None]:
    """`urlopen` keeps the proxies that the environment named when it was first called: no test leaves them to the next."""
    yield
    urllib.request.install_opener(None)  # type: ignore[arg-type]  # the next call makes one anew


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A checkout with the shipped scenarios and nothing collected yet."""
    shutil.copytree(shipped() / "scenarios", tmp_path / "scenarios")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(shipped() / name, tmp_path / name)
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def tiny_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which 500 digits went through all stages up to evaluate, with a network of a second. See `tiny`."""
    from tests.tiny import make

    return made_once(tmp_path_factory, "tiny", make)


@pytest.fixture(scope="session")
def registered_once(tiny_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after register. See `registered`."""
    from tests.tiny import Tiny

    return made_once(
        tmp_path_factory, "registered", lambda folder: Tiny(shutil.copytree(tiny_once, folder, symlinks=True)).register()
    )


@pytest.fixture
def tiny(tiny_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A copy of `tiny_once`, to change at will."""
    return _tiny(tiny_once, tmp_path, monkeypatch)


@pytest.fixture
def registered(registered_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A copy of `registered_once`: version 1 is the challenger, and there is no champion."""
    return _tiny(registered_once, tmp_path, monkeypatch)


def _tiny(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    from tests.tiny import Tiny

    monkeypatch.setattr("tasks.evaluate.MEASURE_SECONDS", 0.01)
    monkeypatch.setenv("EVERGREEN_ROOT", str(folder / "checkout"))  # as a command sets it, for processes that a test starts
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tiny(shutil.copytree(made, folder / "checkout", symlinks=True))

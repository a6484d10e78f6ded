"""What a retraining meets when the world fails it: MLflow or the DVC remote away, a full disk, another retraining at the same
time. Each time the champion answers, what is finished is kept, and the next retraining takes it up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from evergreen.data.dataset import batches
from evergreen.data.versions import data_unchanged
from evergreen.environment import answers as reached
from evergreen.errors import EvergreenError, Unreachable
from evergreen.registry.models import aliases, tracking_uri
from evergreen.serving.scoring import load
from flows.servers import LOOPBACK
from tasks import evaluate, monitor, preprocess, promote, register, train
from tasks.stage import Stage
from tests.evergreen.data.test_versions import change
from tests.flows.conftest import Checkout, free_port
from tests.flows.test_retraining import Unseen, retrain, source_of_digits
from tests.tasks.test_monitor import drop, relax
from tests.tasks.test_preprocess import digit
from tests.tiny import NAME, Tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def due(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A champion, and enough new digits in the inbox for a retraining."""
    registered.promote()
    prepare(registered)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a server that is away is away
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.delenv("PREFECT_API_URL")
    return registered


def prepare(tiny: Tiny) -> None:
    relax(tiny.workspace)
    source_of_digits(tiny, 30)
    change(tiny.workspace, "retraining", min_new_items=60, start_from="scratch")
    drop(tiny.workspace, range(500, 570))


def answers(tiny: Tiny) -> None:
    """The champion tells digits."""
    found = load(tiny.workspace, NAME).predict(tiny.images[:40])
    assert len(found) == 40 and all(0 < one.probability <= 1 for one in found)


class Interrupted(Unseen):
    """A pass over the stages in which something happens before or after one of them."""

    before: Stage | None = None
    after: Stage | None = None
    happens: Callable[[], object]

    def __call__(self, stage: Stage, *earlier: Any) -> Any:
        if stage is self.before:
            self.happens()
        result = super().__call__(stage, *earlier)
        if stage is self.after:
            self.happens()
        return result


def interrupted(tiny: Tiny, happens: Callable[[], object], *, before: Stage | None = None, after: Stage | None = None) -> Any:
    from flows.retraining import retrain_where_due

    run = Interrupted(tiny.scenario, tiny.workspace)
    run.before, run.after, run.happens = before, after, happens
    return retrain_where_due(run).to_dict()


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: stage["state"] for name, stage in summary["stages"].items()}


class Mlflow:
    """A real server over the checkout's own store, that comes and goes."""

    def __init__(self, tiny: Tiny) -> None:
        self.tiny, self.port = tiny, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        from flows.servers import serving_options

        command = [Path(sys.executable).parent / "mlflow", "server", "--host", LOOPBACK, "--port", str(self.port), "--workers", "1",
                   *serving_options(self.tiny.workspace)]  # fmt: skip
        reported = os.environ | {"EVERGREEN_ROOT": str(self.tiny.root), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        reported.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            command, env=reported, cwd=self.tiny.root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 120
        while not reached(f"{self.url}/health"):
            assert self.process.poll() is None and time.monotonic() < until, "MLflow's server did not come up"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def mlflow(due: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    server = Mlflow(due)
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        assert tracking_uri(due.workspace) == server.url
        yield server
    finally:
        server.stop()


def test_mlflow_may_go_before_during_and_after_the_training_and_nothing_is_trained_twice(due: Tiny, mlflow: Mlflow) -> None:
    answers(due)
    mlflow.stop()
    with pytest.raises(Unreachable, match="does not answer.*what is finished is kept"):
        retrain(due)
    answers(due)  # with the server away: the champion was kept here
    assert len(batches(due.workspace, NAME)) == 2 and data_unchanged(due.workspace, NAME)  # what came is in the data set

    mlflow.start()
    with pytest.raises(Unreachable, match="could not be registered.*nothing is trained twice"):
        interrupted(due, mlflow.stop, before=train.stage)
    answers(due)

    mlflow.start()
    with pytest.raises(Unreachable, match="does not answer"):
        interrupted(due, mlflow.stop, after=register.stage)
    answers(due)

    mlflow.start()
    assert aliases(due.workspace, NAME) == {"champion": 1, "challenger": 2}
    summary = retrain(due)
    assert summary["retrained"] and summary["model_version"] == 2
    assert {states(summary)[name] for name in ("preprocess", "train", "evaluate", "register")} == {"unchanged"}
    answers(due)
    assert retrain(due)["retrained"] is False  # the same items are no reason twice


@pytest.mark.parametrize("stage", [monitor.stage, train.stage, register.stage], ids=lambda stage: stage.name)
def test_a_dvc_remote_that_goes_is_no_reason_to_stop(due: Tiny, stage: Stage) -> None:
    remote = due.workspace.private / "dvc-remote"

    def gone() -> None:
        shutil.rmtree(remote, ignore_errors=True)
        remote.write_text("a file where the folder was")

    remote.mkdir(parents=True, exist_ok=True)
    summary = interrupted(due, gone, before=stage)
    assert summary["retrained"] and len(batches(due.workspace, NAME)) == 2
    answers(due)
    remote.unlink()
    drop(due.workspace, range(570, 640))
    assert retrain(due)["retrained"]
    held = {path.name for path in remote.rglob("*") if path.is_file()}
    stored = [path for folder in batches(due.workspace, NAME) for path in folder.iterdir()]
    assert len(held) >= len(stored) == 3  # the remote has all of it again, also what it missed


@pytest.fixture
def small(due: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tiny, Path]]:
    """The same checkout on a file system of its own with little room, and a file that takes what is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.lstat().st_size for path in due.root.rglob("*") if path.is_file()) // 2**20 + 60
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    tiny = Tiny(shutil.copytree(due.root, disk / "checkout", symlinks=True))
    monkeypatch.chdir(tiny.root)
    yield tiny, disk / "ballast"
    monkeypatch.chdir("/")
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), open(ballast, "ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), open(ballast, "ab", buffering=0) as file:
        while True:
            file.write(b"x" * 256)


STAGES = [monitor.stage, preprocess.stage, train.stage, evaluate.stage, register.stage, promote.stage]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_full_disk_is_said_and_nothing_is_lost(small: tuple[Tiny, Path], stage: Stage) -> None:
    tiny, ballast = small
    answers(tiny)
    with pytest.raises(EvergreenError) as caught:
        interrupted(tiny, lambda: fill(ballast), before=stage)
    reported = str(caught.value)
    assert any(words in reported for words in ("no room left", "No space left", "disk is full", "disk I/O error")), reported
    answers(tiny)
    assert aliases(tiny.workspace, NAME)["champion"] == 1
    ballast.unlink()
    summary = retrain(tiny)
    assert summary["retrained"] and len(batches(tiny.workspace, NAME)) == 2
    assert data_unchanged(tiny.workspace, NAME)
    answers(tiny)


@pytest.fixture
def late(checkout: Checkout) -> Checkout:
    """A checkout whose inbox has enough new digits for a retraining, and whose trainings take their time."""
    for number in range(300):
        image, label = digit(number)
        path = checkout.root / "inbox" / NAME / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(other_bytes(image))
        os.utime(path, (1, 1))
    checkout.change(NAME, "epochs:", "epochs: 30  #")
    change(checkout.workspace, "retraining", settle_seconds=0, start_from="scratch")
    return replace(checkout, hands_over=True)


def other_bytes(image: bytes) -> bytes:
    """The same picture, a little darker: a new item."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
    return bytes(cv2.imencode(".png", (pixels * 0.8).astype(np.uint8))[1].tobytes())


def test_two_retrainings_at_once_are_one_retraining(late: Checkout) -> None:
    command = [sys.executable, "-m", "flows.cli", "retrain", NAME, "--json"]
    both = [
        subprocess.Popen(
            command, cwd=late.root, env=late.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    reported = sorted((json.loads(out) for out, _ in outs), key=lambda one: one["retrained"])
    assert [one["retrained"] for one in reported] == [False, True]
    assert any("Waiting for the lock" in err for _, err in outs)
    assert len(batches(late.workspace, NAME)) == 2
    assert len(load(late.workspace, NAME).predict([digit(1)[0]])) == 1


def test_a_prefect_that_is_away_from_the_start_is_said_in_a_line_and_nothing_is_touched(late: Checkout) -> None:
    waiting = sorted((late.root / "inbox" / NAME).rglob("*.png"))
    done = late.evergreen("retrain", NAME, PREFECT_API_URL=f"http://{LOOPBACK}:9/api")  # nothing answers at the discard port
    assert done.status == 1 and "does not answer" in done.err and "unset PREFECT_API_URL" in done.err, done.err
    assert sorted((late.root / "inbox" / NAME).rglob("*.png")) == waiting and len(batches(late.workspace, NAME)) == 1
    assert len(load(late.workspace, NAME).predict([digit(1)[0]])) == 1


def test_a_prefect_that_goes_in_the_midst_undoes_nothing(late: Checkout) -> None:
    port = free_port()
    reported = late.environment | {
        "PREFECT_HOME": str(late.root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = psutil.Popen(
        [Path(sys.executable).parent / "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)],
        env=reported,
        cwd=late.root,
        **quiet,
    )
    try:
        url = f"http://{LOOPBACK}:{port}/api"
        until = time.monotonic() + 120
        while not reached(f"{url}/health"):
            assert server.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        command = [sys.executable, "-m", "flows.cli", "retrain", NAME, "--json"]
        running = subprocess.Popen(
            command,
            cwd=late.root,
            env=late.environment
            | {"PREFECT_API_URL": url, "PREFECT_CLIENT_MAX_RETRIES": "1"},  # it tries for minutes otherwise
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 120
        while not list((late.workspace.checkpoints(NAME)).rglob("state.npz")):
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        for process in [*server.children(recursive=True), server]:
            process.kill()
        server.wait(30)
    try:
        out, err = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 1 and "does not answer" in err and "Finished stages are kept" in err, err
    assert "Traceback" not in err
    again = late.evergreen("retrain", NAME, "--json")
    assert again.status == 0, again.err
    # All of it was done, and noted: nothing is left to do.
    assert again.json["retrained"] is False or again.json["stages"]["train"]["state"] == "unchanged"
    assert len(load(late.workspace, NAME).predict([digit(1)[0]])) == 1

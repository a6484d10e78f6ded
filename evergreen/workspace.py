"""The layout of a checkout, and locks and atomic writes for it.

data/NAME/00000-HASH/part-00000.parquet   the data set (tracked by data.dvc); each collection adds a folder
outputs/NAME/…                            outputs of the stages; DVC tracks splits/, model/ and evaluation/
quarantine/NAME/…                         refused items, each with the reason
mlruns/…                                  MLflow's store and artifacts
.evergreen/…                              files of this machine only: staging, checkpoints, locks, Prefect's home
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evergreen.errors import EvergreenError, WrongUse

DATA_PAGE = "look.html"  # in outputs/NAME


@dataclass(frozen=True)
class Workspace:
    """A checkout. All paths of the project are relative to `root`, so that a moved checkout still works."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The checkout named by EVERGREEN_ROOT, else the nearest folder at or above `start` (default: the current one) that
        contains `dvc.yaml` and `scenarios/`.

        Raises:
            WrongUse: there is none, or its path can't be part of a URI.
        """
        named = os.environ.get("EVERGREEN_ROOT")
        start = Path(named) if named else (start or Path.cwd())
        for folder in [start.resolve(), *start.resolve().parents]:
            if (folder / "dvc.yaml").is_file() and (folder / "scenarios").is_dir():
                _refuse_odd(folder)
                return cls(folder)
        raise WrongUse(
            f"{start} is not inside an Evergreen checkout",
            expected="a folder with dvc.yaml and scenarios/",
            fix="Change into your clone, or set EVERGREEN_ROOT to it.",
        )

    @property
    def scenarios(self) -> Path:
        """The folder of the scenarios' YAML files."""
        return self.root / "scenarios"

    @property
    def mlruns(self) -> Path:
        """MLflow's own store."""
        return self.root / "mlruns"

    @property
    def private(self) -> Path:
        """The folder for files of this machine only; neither in git nor in DVC."""
        return self.root / ".evergreen"

    def data(self, name: str) -> Path:
        """The data set: batches of Parquet files, versioned by DVC."""
        return self.root / "data" / name

    def quarantine(self, name: str) -> Path:
        """The refused items, with the reasons."""
        return self.root / "quarantine" / name

    def outputs(self, name: str) -> Path:
        """The outputs of the stages."""
        return self.root / "outputs" / name

    def splits(self, name: str) -> Path:
        """The output of preprocess."""
        return self.outputs(name) / "splits"

    def model(self, name: str) -> Path:
        """The output of train."""
        return self.outputs(name) / "model"

    def evaluation(self, name: str) -> Path:
        """The output of evaluate."""
        return self.outputs(name) / "evaluation"

    def dependencies(self, name: str) -> Path:
        """The dependencies of DVC's stages besides data, one file each."""
        return self.outputs(name) / "dependencies"

    def data_docs(self, name: str) -> Path:
        """The Data Docs, the HTML pages of Great Expectations."""
        return self.outputs(name) / "data-docs"

    def record(self, name: str) -> Path:
        """The stages' records of values that differ from run to run (seconds, energy, latency, MLflow run id). They are kept
        out of DVC's outputs, which must be the same for the same inputs."""
        return self.outputs(name) / "record"

    def staging(self, name: str) -> Path:
        """A batch that is not complete yet."""
        return self.private / "staging" / name

    def checkpoints(self, name: str) -> Path:
        """The checkpoints from which a killed training resumes."""
        return self.private / "checkpoints" / name

    def features(self, name: str) -> Path:
        """The features of the items with which `evergreen look` compares them."""
        return self.private / "features" / name

    def review(self, name: str) -> Path:
        """What `evergreen review` keeps: its log and what it has computed."""
        return self.private / "review" / name

    def champion(self, name: str) -> Path:
        """The last copy of the champion, which answers while MLflow is unreachable."""
        return self.private / "champion" / name

    def data_page(self, name: str) -> Path:
        """The page of the data set, by `evergreen look`."""
        return self.outputs(name) / DATA_PAGE

    def explained(self, name: str) -> Path:
        """The pictures of `evergreen explain`."""
        return self.outputs(name) / "explained"

    @contextlib.contextmanager
    def lock(self, what: str, *, timeout_seconds: float = 24 * 3600) -> Iterator[None]:
        """Hold the checkout's lock `what` ("data" or "run-NAME"); a second process waits, and reports the holder.

        The operating system releases the lock when its holder dies for any reason.

        Raises:
            WrongUse: the lock is not free after `timeout_seconds`; the error names the holder.
        """
        from filelock import FileLock, Timeout

        folder = self.private / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock, holder_file = FileLock(folder / f"{what}.lock"), folder / f"{what}.holder.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if timeout_seconds:
                print(f"Waiting for the lock '{what}', held by {_holder(holder_file)}.", file=sys.stderr)
            try:
                lock.acquire(timeout=timeout_seconds)
            except Timeout:
                raise WrongUse(
                    f"the lock '{what}' of {self.root} is held by {_holder(holder_file)}",
                    fix="Wait for it to end, or end it, and try again.",
                ) from None
        try:
            holder = {"pid": os.getpid(), "command": " ".join(sys.argv)[:200], "since": time.strftime("%F %T")}
            replace_file(holder_file, json.dumps(holder).encode())
            yield
        finally:
            holder_file.unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def room_for(what: str) -> Iterator[None]:
    """Convert the error of a full disk to a readable one.

    Args:
        what: what the space is needed for.

    Raises:
        EvergreenError: there is no space left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise EvergreenError(
            f"there is no room left {what} ({error.filename or error.strerror})",
            fix="Free some space and run the same again: what is finished is kept, and nothing was half done.",
        ) from None


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a kill leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`, which replaces `path` at the end. If the block raises, or the process is killed,
    `path` is unchanged (or, in the worst case, absent, so that its stage runs again)."""
    import shutil

    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(left_over, ignore_errors=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.mkdir()
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    old = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    if path.exists():
        path.rename(old)
    beside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_odd(root: Path) -> None:
    """
    Raises:
        WrongUse: MLflow and its database would misinterpret a part of this path, and write outside the checkout.
    """
    odd = [character for character in "%?#\n" if character in str(root)]
    if odd:
        raise WrongUse(
            f"the checkout's path has {' and '.join(map(repr, odd))} in it, which ends or changes the address of a database",
            expected="a path without %, ? and #",
            received=str(root),
            fix="Rename the folder, or clone into another one.",
        )


def _holder(holder_file: Path) -> str:
    try:
        holder = json.loads(holder_file.read_text())
        return f"process {holder['pid']} ({holder['command']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"

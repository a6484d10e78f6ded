"""Where everything is kept in one checkout, and who may write there.

data/NAME/00000-HASH/part-00000.parquet   the data set (tracked by data.dvc); one folder a collection, only ever added
outputs/NAME/…                            what the stages write; splits/, model/, evaluation/ belong to DVC
quarantine/NAME/…                         items that were refused, each with its reason
mlruns/…                                  MLflow's store and artifacts
.evergreen/…                              this machine's own: staging, checkpoints, locks, Prefect's home
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


@dataclass(frozen=True)
class Workspace:
    """One checkout. Every path of the project hangs from `root`, so that a moved checkout still works."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The checkout named by EVERGREEN_ROOT, else the nearest folder at or above `start` (default: the current
        one) that holds `dvc.yaml` and `scenarios/`.

        Raises:
            WrongUse: there is none, or its path can't be part of an address.
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
        """The scenarios' YAML files."""
        return self.root / "scenarios"

    @property
    def mlruns(self) -> Path:
        """MLflow's own store."""
        return self.root / "mlruns"

    @property
    def private(self) -> Path:
        """This machine's own folder; never in git, never in DVC."""
        return self.root / ".evergreen"

    def data(self, name: str) -> Path:
        """The data set: batches of Parquet files, versioned by DVC."""
        return self.root / "data" / name

    def quarantine(self, name: str) -> Path:
        """What was refused, with the reasons."""
        return self.root / "quarantine" / name

    def outputs(self, name: str) -> Path:
        """What the stages make."""
        return self.root / "outputs" / name

    def splits(self, name: str) -> Path:
        """What preprocess makes."""
        return self.outputs(name) / "splits"

    def model(self, name: str) -> Path:
        """What train makes."""
        return self.outputs(name) / "model"

    def evaluation(self, name: str) -> Path:
        """What evaluate makes."""
        return self.outputs(name) / "evaluation"

    def data_docs(self, name: str) -> Path:
        """The pages of Great Expectations."""
        return self.outputs(name) / "data-docs"

    def record(self, name: str) -> Path:
        """What stages note about themselves that differs from run to run (seconds, energy, latency, MLflow run id):
        kept out of DVC's outputs, which are the same whenever their inputs are."""
        return self.outputs(name) / "record"

    def staging(self, name: str) -> Path:
        """A batch that is not complete yet."""
        return self.private / "staging" / name

    def checkpoints(self, name: str) -> Path:
        """What a killed training goes on from."""
        return self.private / "checkpoints" / name

    @contextlib.contextmanager
    def lock(self, what: str, *, timeout_seconds: float = 24 * 3600) -> Iterator[None]:
        """Hold the checkout's lock `what` ("data", or "run-NAME"); a second process waits and is told for whom.

        The operating system frees it when its holder dies, however that happens.

        Raises:
            WrongUse: not free after `timeout_seconds`; the error names the holder.
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
    """Say a full disk in words.

    Args:
        what: that the room is needed for.

    Raises:
        EvergreenError: there is none left.
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
    """Write `content` to `path` so that a kill leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; at the end it takes `path`'s place. If the block raises, or the process is
    killed, `path` is as it was (or, at the worst moment, absent: then its stage runs again)."""
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
        WrongUse: MLflow and its database would take a part of this path for something else, and write beside the checkout.
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

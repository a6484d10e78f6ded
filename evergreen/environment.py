"""The environment every tool below starts in: telemetry off, and the servers of `evergreen up` found when they answer."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from evergreen import progress
from evergreen.metering import IDLE_WATTS
from evergreen.workspace import Workspace, replace_file


@dataclass(frozen=True)
class Servers:
    """What `evergreen up` wrote about itself in `.evergreen/up.json`."""

    pid: int
    prefect_url: str
    mlflow_url: str

    @property
    def prefect_api_url(self) -> str:
        return f"{self.prefect_url}/api"

    def write(self, workspace: Workspace) -> None:
        replace_file(workspace.private / "up.json", json.dumps(asdict(self)).encode())

    @classmethod
    def running(cls, workspace: Workspace) -> Servers | None:
        """The servers of this checkout, if both answer now."""
        try:
            servers = cls(**json.loads((workspace.private / "up.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        both = answers(f"{servers.prefect_api_url}/health") and answers(f"{servers.mlflow_url}/health")
        return servers if both else None


def answers(url: str, timeout_seconds: float = 2.0) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def prefect_answers() -> bool:
    """Whether there is somebody to show things to: Prefect's client would try again for a minute each time. Without a server of its own, Prefect
    starts one for the run."""
    url = os.environ.get("PREFECT_API_URL")
    return not url or answers(f"{url}/health")


def configure(workspace: Workspace, *, verbose: bool = False) -> Servers | None:
    """Set this process's environment, before any of the tools is imported. What the user has set is kept.

    Returns:
        The servers of `evergreen up` that this process will use, or None.
    """
    defaults = {
        "EVERGREEN_ROOT": str(workspace.root),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(workspace.private / "prefect"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",  # errors reach people as one line of ours
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR" if verbose else "CRITICAL",  # a server that is away is told once, by us
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # some 15 s for each question: a server that starts again is waited for, one that is gone not for minutes
        "PREFECT_LOGGING_EXTRA_LOGGERS": "evergreen",  # so that Prefect's pages show what the stages say
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # it keeps the exception of what failed: never as a pickle
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "INFO" if verbose else "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GX_ANALYTICS_ENABLED": "False",
        "DVC_NO_ANALYTICS": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(OSError):
        os.environ.setdefault(IDLE_WATTS, idle_watts_file(workspace).read_text())
    (workspace.private / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect makes its home, but not what is above it
    servers = Servers.running(workspace)
    if servers:
        os.environ.setdefault("PREFECT_API_URL", servers.prefect_api_url)
        os.environ.setdefault("MLFLOW_TRACKING_URI", servers.mlflow_url)
    if "PREFECT_API_URL" in os.environ:  # somebody listens: a run that is killed is marked as crashed when it falls silent
        os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    return servers


def idle_watts_file(workspace: Workspace) -> Path:
    """What `evergreen doctor` has measured of this machine: a number."""
    return workspace.private / "idle-watts"


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that its libraries write to standard error as they load: no setting reaches them, and
    they need worry nobody. They are shown where the import fails."""
    if "tensorflow" in sys.modules:
        return
    with tempfile.TemporaryFile() as held, progress.task("Starting TensorFlow"):
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            held.seek(0)
            with contextlib.suppress(OSError):  # where nobody reads it any more, the error itself must still be heard of
                os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

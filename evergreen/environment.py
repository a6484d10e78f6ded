"""The environment in which every tool starts: telemetry off, and the servers of `evergreen up` in use if they answer."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import locale
import logging
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from evergreen import progress
from evergreen.errors import EvergreenError
from evergreen.workspace import Workspace, replace_file

log = logging.getLogger("evergreen")

IDLE_WATTS = "EVERGREEN_IDLE_WATTS"  # environment variable with the idle power of the processors and their memory


@dataclass(frozen=True)
class Servers:
    """The servers of `evergreen up`, as recorded in `.evergreen/up.json`."""

    pid: int
    prefect_url: str
    mlflow_url: str
    pages_url: str = ""  # of `flows.pages`; earlier versions of `evergreen up` had none

    @property
    def prefect_api_url(self) -> str:
        """The address of Prefect's API."""
        return f"{self.prefect_url}/api"

    def write(self, workspace: Workspace) -> None:
        """Record the addresses for other processes of this checkout; `running` reads them."""
        replace_file(workspace.private / "up.json", json.dumps(asdict(self)).encode())

    @classmethod
    def running(cls, workspace: Workspace) -> Servers | None:
        """The servers of this checkout, if both Prefect and MLflow answer now."""
        try:
            servers = cls(**json.loads((workspace.private / "up.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        both = answers(f"{servers.prefect_api_url}/health") and answers(f"{servers.mlflow_url}/health")
        return servers if both else None


PAGES_URL = "EVERGREEN_PAGES_URL"


def pages_url() -> str | None:
    """The address of the server that shows the content of `outputs/`; None if none answers, as a link would be dead."""
    url = os.environ.get(PAGES_URL)
    return url if url and answers(f"{url}/") else None


def answers(url: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a GET request is answered with status 200 in time."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def prefect_answers() -> bool:
    """Whether Prefect's server answers, whose client would otherwise retry for a minute in each call. True if no server is
    configured, since Prefect then starts one for the run."""
    url = os.environ.get("PREFECT_API_URL")
    return not url or answers(f"{url}/health")


# Settings of other projects, from a shell's profile, a git hook or a notebook: they would lead to a different network, or write
# its record elsewhere. Settings for a server and its connection (PREFECT_API_URL, MLFLOW_TRACKING_URI, …), a device
# (CUDA_VISIBLE_DEVICES) or numbers of threads remain in effect.
_FOREIGN = re.compile(
    r"""
      KERAS_(?!HOME$).*
    | TF_(ENABLE|DISABLE|DETERMINISTIC|USE|XLA|MLIR|CUDNN|CUBLAS|AUTO|FP16|BF16|MKL|GRAPPLER|OVERRIDE|CONFIG)(_.*)? | XLA_FLAGS | (ONEDNN|DNNL|OPENCV|GX_CLOUD)_.*
    | MLFLOW_(?!TRACKING_|HTTP_|S3_|DISABLE_TELEMETRY$|LOGGING_LEVEL$|ENABLE_ARTIFACTS_PROGRESS_BAR$|SUPPRESS_PRINTING_URL_TO_STDOUT$).*
    | PREFECT_(?!_|HOME$|API_(URL|KEY|AUTH_STRING|TLS_INSECURE_SKIP_VERIFY|SSL_CERT_FILE)$|CLIENT_|CSRF_|CLOUD_|INTERNAL_LOGGING_LEVEL$
        |LOGGING_(LEVEL|HANDLERS_CONSOLE_LEVEL)$|SERVER_(LOGGING_LEVEL|ANALYTICS_ENABLED|EPHEMERAL_STARTUP_TIMEOUT_SECONDS)$).*
    | GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|NAMESPACE|PREFIX|CONFIG|CONFIG_PARAMETERS
        |CONFIG_COUNT|GRAFT_FILE|SHALLOW_FILE|REPLACE_REF_BASE|NO_REPLACE_OBJECTS|IMPLICIT_WORK_TREE)
    """,
    re.VERBOSE,
)
# Lists what was ignored, for this process and its children; if it is set, all remaining settings are Evergreen's own.
_IGNORED = "EVERGREEN_IGNORED"
PATIENCE = {  # by default, MLflow retries an unreachable server for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UTF8 = "EVERGREEN_UTF8"
_KERAS_HOME = Path(__file__).parent / "keras_home"


def configure(workspace: Workspace, *, verbose: bool = False) -> Servers | None:
    """Set this process's environment, before any of the tools is imported, and find the servers of `evergreen up`. Settings
    that name the user's own servers are kept.

    Returns:
        The running servers of `evergreen up`, or None.
    """
    pin(workspace, verbose=verbose)
    servers = Servers.running(workspace)
    if servers:
        os.environ.setdefault("PREFECT_API_URL", servers.prefect_api_url)
        os.environ.setdefault("MLFLOW_TRACKING_URI", servers.mlflow_url)
        os.environ.setdefault(PAGES_URL, servers.pages_url)
    if "PREFECT_API_URL" in os.environ:  # the server marks a killed run as crashed once its heartbeats stop
        os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    return servers


def pin(workspace: Workspace, *, verbose: bool = False) -> None:
    """Set this process's environment except for servers, so that the same settings give the same metrics, whatever the user's
    global settings are. Those that were found and are ignored are logged in one line."""
    found = _ignore_foreign()
    defaults = {
        "EVERGREEN_ROOT": str(workspace.root),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(workspace.private / "prefect"),
        "PREFECT_PROFILES_PATH": str(workspace.private / "prefect" / "profiles.toml"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",  # users see errors as one line of ours
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR" if verbose else "CRITICAL",  # an unreachable server is reported once, by us
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # about 15 s per request: enough for a restarting server, and not minutes for one that is down
        "PREFECT_LOGGING_EXTRA_LOGGERS": "evergreen",  # so that Prefect's pages show the stages' logs
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # exceptions of failed runs are stored too, never as a pickle
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "INFO" if verbose else "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for results; the links are among them
        **PATIENCE,
        "GX_ANALYTICS_ENABLED": "False",
        "DVC_NO_ANALYTICS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.update(_keras(), MPLBACKEND="Agg", PYTHONUTF8="1")
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib and matplotlib.origin:  # use its defaults for charts, not the user's matplotlibrc
        os.environ["MATPLOTLIBRC"] = str(Path(matplotlib.origin).parent / "mpl-data" / "matplotlibrc")
    _bypass_proxies()
    with contextlib.suppress(OSError):
        os.environ.setdefault(IDLE_WATTS, idle_watts_file(workspace).read_text())
    (workspace.private / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect creates its home, but not the parent folders
    if found:
        log.info("Ignored of your global settings: %s.", ", ".join(found))


@contextlib.contextmanager
def changed(**variables: str) -> Iterator[None]:
    """Set variables of this process's environment for the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def short_patience() -> contextlib.AbstractContextManager[None]:
    """Within the block, MLflow gives up on an unreachable server as early as in Evergreen's own commands, unless the
    environment sets its retries and timeout."""
    return changed(**{name: value for name, value in PATIENCE.items() if name not in os.environ})


def ignored() -> list[str]:
    """The user's global settings that were found and are ignored here, in words."""
    return [one for one in os.environ.get(_IGNORED, "").split(os.pathsep) if one]


def _ignore_foreign() -> list[str]:
    """Remove other projects' settings, once for a process and its children; returns what was found, in words."""
    if _IGNORED in os.environ:
        return []
    theirs = "PREFECT__FLOW_RUN_ID" in os.environ  # started by a Prefect worker, which sets the Prefect settings
    held = _keras() | {"GIT_PYTHON_REFRESH": "quiet"}
    found = [
        name
        for name, value in sorted(os.environ.items())
        if _FOREIGN.fullmatch(name) and value != held.get(name) and not (theirs and name.startswith("PREFECT_"))
    ]
    if "MLFLOW_TRACKING_URI" in os.environ and "MLFLOW_REGISTRY_URI" in found:
        found.remove("MLFLOW_REGISTRY_URI")  # the user's own server has a separate registry
    for name in found:
        del os.environ[name]
    folder = os.environ.get("TMPDIR")
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        del os.environ["TMPDIR"]
        found.append(f"TMPDIR ({folder} can't be written)")
    found += _keras_settings()
    os.environ[_IGNORED] = os.pathsep.join(found)
    return found


def pin_keras() -> None:
    """Make Keras read the project's settings, not the user's, when it is imported."""
    os.environ.update(_keras())


def _keras() -> dict[str, str]:
    """The variables that set the folder of Keras's settings and its backend."""
    return {"KERAS_HOME": str(_KERAS_HOME), "KERAS_BACKEND": "tensorflow"}


def _keras_settings() -> list[str]:
    """The settings in the user's own keras.json that differ from the project's, in words."""
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        ours, theirs = (json.loads(file.read_text(encoding="utf-8")) for file in (_KERAS_HOME / "keras.json", path))
        return [f"{name} in {path}" for name in ours if theirs.get(name, ours[name]) != ours[name]]
    except (OSError, ValueError, AttributeError):
        return []


def _bypass_proxies() -> None:
    """Exclude this machine from a configured proxy, which could not reach its servers."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") and value for name, value in os.environ.items()):
        return
    given = [part.strip() for name in ("no_proxy", "NO_PROXY") for part in os.environ.get(name, "").split(",")]
    spared = ",".join(dict.fromkeys(part for part in (*given, *LOOPBACK) if part))
    os.environ.update(no_proxy=spared, NO_PROXY=spared)


def in_utf8() -> None:
    """Restart this process in UTF-8 mode if the system's locale (LC_ALL, LANG) would decode files and names as anything but
    UTF-8."""
    if locale.getencoding().lower().replace("-", "") in ("utf8", "cp65001") or sys.flags.utf8_mode or os.environ.get(_UTF8):
        return
    os.environ.update({_UTF8: "1", "PYTHONUTF8": "1"})
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (no shell is needed)


def threads() -> dict[str, int | str]:
    """The numbers of threads, as far as they are set. They are recorded with a run, since sums depend on the order of their
    terms."""
    import tensorflow as tf

    named = {
        name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
    }
    return {
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "tensorflow_intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads() or "processors",
        "tensorflow_inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads() or "processors",
        **{name.lower(): value for name, value in named.items()},
    }


def idle_watts_file(workspace: Workspace) -> Path:
    """The file with this machine's idle power as measured by `evergreen doctor`: a number of watts."""
    return workspace.private / "idle-watts"


def import_tensorflow() -> None:
    """Import TensorFlow without the harmless lines that its libraries write to standard error as they load, which no setting
    suppresses. They are shown if the import fails.

    Raises:
        EvergreenError: Keras was imported with another backend before.
    """
    if "tensorflow" not in sys.modules:
        pin_keras()  # in case `configure` was not called
        _import_in_silence()
        logging.getLogger("tensorflow").addFilter(_is_no_retracing)
    import keras

    if keras.config.backend() != "tensorflow":
        raise EvergreenError(
            "Keras was imported with another backend, before Evergreen", expected="tensorflow", received=keras.config.backend(),
            fix="Set KERAS_BACKEND=tensorflow before it is imported.",
        )  # fmt: skip
    for name, value in json.loads((_KERAS_HOME / "keras.json").read_text(encoding="utf-8")).items():
        if name != "backend":
            getattr(keras.config, f"set_{name}")(value)


def _is_no_retracing(record: logging.LogRecord) -> bool:
    """False for the warning that TensorFlow compiles a function again, as it must where several networks are compared."""
    return "retracing" not in str(record.msg)


def _import_in_silence() -> None:
    with tempfile.TemporaryFile() as held, progress.task("Starting TensorFlow"):
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401 (the import is the purpose)
        except BaseException:
            held.seek(0)
            with contextlib.suppress(OSError):  # if standard error is closed, still raise the error itself
                os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

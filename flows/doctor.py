"""`evergreen doctor`: checks this machine and checkout, reports what is missing, and how to fix it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from evergreen import figures
from evergreen.environment import Servers, answers, ignored
from evergreen.workspace import Workspace, replace_file

GIB = 2**30
IDLE_SECONDS = 5.0
LEAST_MEMORY_GIB = 2.0  # TensorFlow and its libraries use one
OWNERS = ("prefect", "mlflow", "dvc", "great-expectations", "tensorflow", "keras", "onnxruntime", "codecarbon")
# Newer versions break Prefect's server or its scheduler, which package resolvers can't know.
MUST_STAY_BELOW = {"fastapi": (0, 148), "sqlalchemy": (2, 1), "pandas": (3, 1)}


@dataclass(frozen=True)
class Finding:
    """One line of `evergreen doctor`: what was checked, what was found, and what to do about it."""

    state: Literal["fine", "note", "broken"]
    what: str
    seen: str
    fix: str = ""


def examine(workspace: Workspace) -> list[Finding]:
    """Check everything that a run depends on."""
    return [
        *_python(),
        *_packages(),
        *_room(workspace),
        *_settings(workspace),
        *_scenarios(workspace),
        *_fonts(workspace),
        *_data(workspace),
        *_devices(),
        *_idle(workspace),
        *_servers(workspace),
    ]


def _python() -> Iterator[Finding]:
    seen = sys.version.split()[0]
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("fine" if good else "broken", "Python", seen, "" if good else "Use Python 3.11, 3.12 or 3.13.")


def _packages() -> Iterator[Finding]:
    for name in OWNERS:
        try:
            yield Finding("fine", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("broken", name, "missing", "Run make install.")
    for name, bound in MUST_STAY_BELOW.items():
        version = importlib.metadata.version(name)
        if tuple(int(part) for part in version.split(".")[:2]) >= bound:
            limit = ".".join(map(str, bound))
            yield Finding(
                "broken", name, version, f"Must stay below {limit}: run make install, which brings the locked versions."
            )


def _room(workspace: Workspace) -> Iterator[Finding]:
    free = shutil.disk_usage(workspace.root).free / GIB
    yield Finding("fine" if free > 5 else "note", "free disk", f"{free:.0f} GiB", "" if free > 5 else "Data may not fit.")

    memory = psutil.virtual_memory().available / GIB
    few = memory < LEAST_MEMORY_GIB
    yield Finding(
        "note" if few else "fine",
        "free memory",
        f"{memory:.1f} GiB",
        "End other programs: a training may be killed." if few else "",
    )
    if not os.access(workspace.root, os.W_OK):
        yield Finding(
            "broken", "checkout", f"{workspace.root} can't be written", "Make it yours, or clone into another folder."
        )


def _settings(workspace: Workspace) -> Iterator[Finding]:
    """Which of the user's global settings were found, and whether they have an effect."""
    for name in ignored():
        yield Finding("note", "global setting", name, "Ignored: no run is changed by it.")
    proxies = sorted(
        name for name, value in os.environ.items() if value and name.lower() in ("http_proxy", "https_proxy", "all_proxy")
    )
    if proxies:
        yield Finding("fine", "proxy", f"{', '.join(proxies)}; this machine is reached without it")
    for variable, path in (("PREFECT_API_URL", "health"), ("MLFLOW_TRACKING_URI", "health")):
        url = os.environ.get(variable, "")
        if url.startswith("http") and not answers(f"{url.rstrip('/')}/{path}"):
            yield Finding("broken", variable, f"{url} does not answer", "Start that server, or unset the variable.")
    profiles = Path.home() / ".prefect" / "profiles.toml"
    with contextlib.suppress(OSError, ValueError):
        if "PREFECT_API_URL" in profiles.read_text(encoding="utf-8"):
            yield Finding("note", "Prefect profile", str(profiles), "Ignored. To use its server, set PREFECT_API_URL.")
    here = Path(__file__).resolve().parent.parent
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        shadowing = [name for name in ("evergreen", "tasks", "flows") if (Path(folder).resolve() / name).exists()]
        if shadowing and Path(folder).resolve() != here:
            yield Finding("broken", "PYTHONPATH", f"{folder} has another {', '.join(shadowing)}", "Unset PYTHONPATH.")


def _scenarios(workspace: Workspace) -> Iterator[Finding]:
    from evergreen.data.sources.opening import locate
    from evergreen.errors import WrongUse
    from evergreen.scenario.loading import parse_scenario

    for path in sorted(workspace.scenarios.glob("*.yaml")):
        try:
            scenario = parse_scenario(path)
        except WrongUse as error:
            yield Finding("broken", f"scenario {path.stem}", str(error), "Fix the file.")
            continue
        source = (
            scenario.collect.builtin
            or scenario.collect.path
            or scenario.collect.remote
            or (scenario.collect.sql and "a database")
            or scenario.collect.file
            or ""
        )
        try:
            locate(scenario, workspace, download=False)
            yield Finding("fine", f"scenario {path.stem}", source)
        except Exception:  # noqa: BLE001 (the finding says that the source was not found, whatever the cause)
            yield Finding(
                "note",
                f"scenario {path.stem}",
                f"{source} is not on this machine",
                "It is fetched when first run, or put it into the folder that EVERGREEN_SAMPLES names.",
            )


def _fonts(workspace: Workspace) -> Iterator[Finding]:
    """Check whether pictures can show the labels of all scenarios."""
    from evergreen.errors import WrongUse
    from evergreen.kinds.base.kind import kind_of
    from evergreen.media.lettering import fonts_for, remedy
    from evergreen.scenario.loading import parse_scenario

    labels: set[str] = set()
    for path in workspace.scenarios.glob("*.yaml"):
        with contextlib.suppress(WrongUse):
            scenario = parse_scenario(path)
            labels.update(label for label in kind_of(scenario).contract.known_labels(scenario) if not label.isascii())
    missing = "".join(sorted(fonts_for(labels)[1])) if labels else ""
    if missing:
        yield Finding(
            "note", "fonts", f"none has {missing[:20]}, which labels use; pictures show numbers instead", remedy(missing)
        )
    elif labels:
        yield Finding("fine", "fonts", "have all letters of the labels")


def _data(workspace: Workspace) -> Iterator[Finding]:
    from dvc.repo import Repo

    from evergreen.data.versions import refuse_conflicts
    from evergreen.errors import EvergreenError

    try:
        refuse_conflicts(workspace)
    except EvergreenError as error:
        yield Finding("broken", "merge", error.happened, error.fix)
    for begun in sorted((workspace.private / "forget").glob("*.json")):
        yield Finding(
            "broken", "forget", f"of scenario {begun.stem} was not finished", f"Go on with: evergreen forget {begun.stem}"
        )
    with Repo(str(workspace.root)) as repo:
        remote = repo.config["core"].get("remote")
        yield Finding(
            "fine" if remote else "note", "DVC remote", remote or "none", "" if remote else "dvc remote add --default …"
        )
    good = (workspace.root / ".git").exists()
    yield Finding(
        "fine" if good else "note",
        "git",
        "a repository" if good else "not a repository",
        "" if good else "dvc exp and the commit of a model need git: git init.",
    )


def _devices() -> Iterator[Finding]:
    from evergreen.energy.meter import available_methods

    methods = available_methods()
    yield Finding(
        "fine" if set(methods) != {"estimate"} else "note",
        "energy",
        ", ".join(methods) or "unknown",
        "" if set(methods) != {"estimate"} else "No counter can be read: energy is estimated, give or take 40 %.",
    )
    yield Finding("fine", "processors", str(os.cpu_count()))


def _idle(workspace: Workspace) -> Iterator[Finding]:
    """Measure the power of the idle processors, if they have energy counters, and store it for all later runs."""
    from evergreen.energy.methods import POWERCAP, Rapl, measure_idle_watts
    from evergreen.environment import idle_watts_file

    rapl = Rapl(POWERCAP)
    rapl.start()
    if not rapl.readable:
        return
    watts = measure_idle_watts(IDLE_SECONDS, POWERCAP)
    if watts is None:
        yield Finding(
            "note", "idle power", "not measured: other programs are running", "Run evergreen doctor when nothing runs."
        )
        return
    replace_file(idle_watts_file(workspace), f"{watts:.4g}".encode())
    yield Finding("fine", "idle power", f"{figures.power(watts)}, measured now and used from now on")


def _servers(workspace: Workspace) -> Iterator[Finding]:
    servers, note = Servers.running(workspace), workspace.private / "up.json"
    if servers:
        yield Finding("fine", "servers", f"{servers.prefect_url} and {servers.mlflow_url}")
    elif note.exists():
        yield Finding(
            "note", "servers", "evergreen up was ended by force, or does not answer", "End what is left of it; evergreen up."
        )
    else:
        yield Finding("note", "servers", "not up", "evergreen up starts them; evergreen run works without.")

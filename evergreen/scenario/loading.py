"""Reads scenario files with the settings of their kinds."""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path

from evergreen.errors import WrongUse
from evergreen.scenario.document import Document
from evergreen.scenario.kinds import scenario_type
from evergreen.scenario.settings import NAME_PATTERN, Scenario


def load_scenario(folder: Path, name: str) -> Scenario:
    """Read `folder/name.yaml`.

    Raises:
        WrongUse: there is no such scenario, it is not YAML, or a key or value isn't allowed; the message names file, line and
            key.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not re.fullmatch(NAME_PATTERN, name) or name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        raise WrongUse(
            "there is no such scenario",
            expected=f"one of {', '.join(known) or 'none yet'}",
            received=name,
            fix=f"Did you mean {near[0]}?" if near else "Make one of your own images with: evergreen new NAME --images PATH",
        )
    return parse_scenario(folder / f"{name}.yaml")


def parse_scenario(path: Path) -> Scenario:
    """Read one scenario file; its `name` must be that of the file.

    Raises:
        WrongUse: the file is not YAML, or a key or value isn't allowed; the message names file, line and key.
    """
    return _parsed(path, path.read_bytes())


@functools.lru_cache(maxsize=32)
def _parsed(path: Path, content: bytes) -> Scenario:
    """Parse a scenario, with a cache: a command loads its scenario several times, and parsing takes longer than everything else
    in a run in which nothing has changed.

    Args:
        content: of the file; part of the cache's key.
    """
    document = Document.read(path)
    scenario = document.validated(scenario_type(document.kind, path.name, document.line(("kind",))))
    if scenario.name != path.stem:
        raise WrongUse(
            f"{path.name}, line {document.line(('name',))}: name must be the file's",
            expected=path.stem,
            received=scenario.name,
            fix="Rename one of the two.",
        )
    return scenario

"""The installed kinds of scenario: the entry points of the group `evergreen.kinds`, of this project and of any other package.

Thus every process finds the same kinds: a DVC stage, a Prefect worker, a child process that decodes images.
"""

from __future__ import annotations

import difflib
import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from evergreen.errors import WrongUse
from evergreen.scenario.settings import Scenario

GROUP = "evergreen.kinds"


class Installed(Protocol):
    """The object of an entry point: a kind, of which only the settings are used here (see `evergreen.kinds.base.Kind`)."""

    @property
    def scenario_type(self) -> type[Scenario]:
        """The class of the kind's scenarios."""


@functools.cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def installed_kinds() -> list[str]:
    """The names of all kinds, in alphabetical order."""
    return sorted(_entry_points())


@functools.cache
def load_kind(name: str) -> Any:
    """Load the kind with this name from its entry point.

    Raises:
        KeyError: there is no such kind.
    """
    return _entry_points()[name].load()


def scenario_type(kind: str | None, file: str, line: int) -> type[Scenario]:
    """The class of a kind's scenarios: the union of all kinds' classes, distinguished by `kind`.

    Args:
        kind: the kind that a scenario's file names; None if it names none.
        file, line: its position, for the error message.

    Raises:
        WrongUse: no such kind is installed.
    """
    known = installed_kinds()
    if kind is None:
        raise WrongUse(f"{file}, line {line}: kind: this key is missing", expected=f"one of {', '.join(known)}")
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        raise WrongUse(
            f"{file}, line {line}: kind: there is no such kind of scenario",
            expected=f"one of {', '.join(known)}",
            received=kind,
            fix=f"Did you mean {near[0]}?" if near else "Install the package that brings it, or correct the line.",
        )
    found: Installed = load_kind(kind)
    return found.scenario_type

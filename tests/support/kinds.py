"""Kinds of scenario in tests: those that are installed, the tiny one of this folder (`readings`), and an example of each for
the contract suite.

The tiny kind is found as the kind of any other package is: through the entry points of a distribution on the path, here
`tests/support/installed`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from evergreen.kinds.base.kind import Kind
from evergreen.scenario import kinds
from evergreen.scenario.settings import Scenario

INSTALLED = Path(__file__).parent / "installed"
GROUP = "evergreen.kind_examples"  # entry points, each an `Example`, by the name of its kind


@dataclass(frozen=True)
class Example:
    """A small scenario of a kind, as the contract suite takes it.

    Attributes:
        settings: as a scenario's file says them, with the source at `collect.path`: `source`.
        write: writes the source, a folder, of a few hundred items from which a network learns within seconds.
    """

    settings: Mapping[str, Any]
    write: Callable[[Path], None]

    def scenario(self) -> Scenario:
        """The scenario."""
        kind: Kind = kinds.load_kind(self.settings["kind"])
        return kind.scenario_type.model_validate(dict(self.settings))


@contextlib.contextmanager
def tiny_kind_installed() -> Iterator[None]:
    """Within the block, this process finds the tiny kind too."""
    sys.path.insert(0, str(INSTALLED))
    _forget_kinds()
    try:
        yield
    finally:
        sys.path.remove(str(INSTALLED))
        _forget_kinds()


def examples() -> dict[str, Example]:
    """The examples of all kinds that have one, by the kind's name."""
    from tests.support import classify, forecast

    with tiny_kind_installed():
        found = {point.name: point.load() for point in entry_points(group=GROUP)}
    return {"classify": classify.EXAMPLE, "forecast": forecast.EXAMPLE, **found}


def _forget_kinds() -> None:
    kinds._entry_points.cache_clear()
    kinds.load_kind.cache_clear()

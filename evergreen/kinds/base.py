"""What a kind of scenario expects of its items, and how it makes arrays of them, builds, measures and draws.

No flow and no task asks which kind a scenario is of: it calls `kind_of(scenario)`. A new kind is one more file here with the
same functions as `classify`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from evergreen.scenario.settings import Scenario


def kind_of(scenario: Scenario) -> ModuleType:
    """The module of the scenario's kind, with `expectations`, `arrays`, `build`, `measure` and `draw`."""
    return importlib.import_module(f"evergreen.kinds.{scenario.kind}")

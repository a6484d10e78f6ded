"""What a kind of scenario brings: the parts that its folder implements, and how a scenario finds them.

No flow and no task asks which kind a scenario is of, and neither do gate, registry and report: they call the parts of `kind_of(scenario)`. Kinds are
found by entry points (`evergreen.scenario.kinds`), so that another package can bring one. docs/kinds.md shows how to add one, by an example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract
from evergreen.kinds.base.judge import Judge
from evergreen.kinds.base.learner import Learner
from evergreen.scenario.kinds import load_kind
from evergreen.scenario.settings import Scenario


@dataclass(frozen=True)
class Kind:
    """The parts of one kind.

    Attributes:
        name: as a scenario's `kind` names it.
        scenario_type: the class of its scenarios' settings.
        contract: what an item is.
        codec: of its models; one is made for each model's settings.
        learner: its networks, and how they learn.
        judge: how good a model is.
    """

    name: str
    scenario_type: type[Scenario]
    contract: Contract[Any]
    codec: type[Codec]
    learner: Learner[Any]
    judge: Judge[Any]


def kind_of(scenario: Scenario) -> Kind:
    """The kind of a scenario."""
    kind: Kind = load_kind(scenario.kind)
    return kind

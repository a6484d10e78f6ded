"""A kind of scenario: the parts that its folder implements.

Flows, tasks, gate, registry and report never ask which kind a scenario is; they call the parts of `kind_of(scenario)`. Kinds
are found through entry points (`evergreen.scenario.kinds`), so other packages can provide them. docs/kinds.md shows by an
example how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evergreen.data.sources.base import Source
from evergreen.data.sources.opening import locate
from evergreen.kinds.base.codec import Codec
from evergreen.kinds.base.contract import Contract
from evergreen.kinds.base.explorer import Explorer
from evergreen.kinds.base.judge import Judge
from evergreen.kinds.base.labelling import Labelling
from evergreen.kinds.base.learner import Learner
from evergreen.scenario.kinds import load_kind
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace


@dataclass(frozen=True)
class Kind:
    """The parts of one kind. Their classes must be defined at the top level of their modules, so that their code can be found
    (`tasks.dependencies`).

    Attributes:
        name: as a scenario's `kind` names it.
        scenario_type: the class of its scenarios' settings.
        contract: defines what an item is.
        codec: of its models; instantiated with each model's settings.
        learner: builds and trains its networks.
        judge: measures the quality of models.
        explorer: examines data sets for `evergreen look`; None if the page is to show the counts alone.
        labelling: shows items to people who label them, and explains answers; None if the kind has no such part.
    """

    name: str
    scenario_type: type[Scenario]
    contract: Contract[Any]
    codec: type[Codec]
    learner: Learner[Any]
    judge: Judge[Any]
    explorer: Explorer[Any] | None = None
    labelling: Labelling[Any] | None = None


def kind_of(scenario: Scenario) -> Kind:
    """The kind of a scenario."""
    kind: Kind = load_kind(scenario.kind)
    return kind


def source_of(scenario: Scenario, workspace: Workspace, *, download: bool = True) -> Source:
    """The source of a scenario's items on this machine; a public file that is not here yet is downloaded.

    Args:
        download: whether a public file may be downloaded.

    Raises: as `evergreen.data.sources.opening.locate`.
    """
    return kind_of(scenario).contract.source(scenario, locate(scenario, workspace, download=download))

"""promote: let the challenger take the champion's place, if it has earned it; a first model, if it is better than none.

Reads   the registered models, today's test split, its encoded images, and how many items of each label were learned from.
Writes  what was found into the challenger's model card; the aliases `@champion` and `@previous`, each in one step; a refusal on the version.

Both models predict the same test items, from encoded bytes, as they do in use; `evergreen.evaluation.gate` decides. A decision is remembered, and what it
has led to never is: which version is the champion now is asked of MLflow every time (`Promotion.now`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.data.dataset import batches, table
from evergreen.errors import EvergreenError
from evergreen.evaluation.energy_ratio import EnergyRatio, energy_ratio
from evergreen.evaluation.gate import Verdict, decide, decide_first
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.registry.card import comparison, complete_card
from evergreen.registry.models import aliases, crown, download, find_version, look_up, model_name, moving_aliases, refuse
from evergreen.registry.origin import settings_digest
from evergreen.scenario.settings import Scenario
from evergreen.serving.runtime import Model
from evergreen.serving.scoring import open_model
from evergreen.workspace import Workspace
from tasks.evaluate import test_ids
from tasks.page import Page
from tasks.register import Registration
from tasks.stage import Stage


@dataclass(frozen=True)
class Promotion:
    """What became of a model version.

    Attributes:
        model: its name in MLflow.
        model_version: that was considered.
        promoted: whether it is the champion now.
        reason: in a sentence.
        champion: the version in use now; None where there is none.
        previous: the one that was; None where there was none, or it still is.
        settings: the scenario's section `promote`.
        slices: both models by label and by the scenario's slices (`evergreen.evaluation.gate.Slice`); empty where nothing was compared.
        tries: among how many challengers of one retraining the chance of a wrong promotion was shared out.
        energy: of a prediction, against the champion's (`evergreen.evaluation.energy_ratio.EnergyRatio`); None where nothing was compared, or it isn't known.
        fingerprint, created_at_ms: of the version (`evergreen.registry.models.Held`); empty where that isn't known.
        changed: whether this very decision has made it the champion.
    """

    model: str
    model_version: int
    promoted: bool
    reason: str
    champion: int | None
    previous: int | None
    settings: dict[str, Any]
    slices: list[dict[str, Any]] = field(default_factory=list)
    tries: int = 1
    energy: dict[str, Any] | None = None
    fingerprint: str = ""
    created_at_ms: int = 0
    changed: bool = False

    def __str__(self) -> str:
        if self.promoted:
            done = f"version {self.model_version} is the champion"
        elif self.champion is None:
            done = f"version {self.model_version} is not promoted, and there is no champion"
        else:
            done = f"version {self.champion} stays champion"
        return f"{done}: {self.reason}."

    def now(self, champion: int | None) -> Promotion | None:
        """The decision with what holds now: people and other checkouts move the alias, too, and what they did stays so.

        Args:
            champion: the version that has the alias in MLflow.

        Returns:
            None where there is to be a new decision: the champion that this version did not beat is gone, and there is no other.
        """
        own = self.model_version
        if champion == own:
            other = f"it was promoted by other means, after the gate had refused it ({self.reason})"
            return replace(self, promoted=True, champion=own, reason=self.reason if self.promoted else other, changed=False)
        if self.promoted and champion is None:
            again = f"evergreen promote {self.model.removeprefix('evergreen-')} --version {own} --force sets it again"
            reason = f"it was promoted ({self.reason}), and the alias @champion has been removed since; {again}"
        elif self.promoted:
            reason = f"version {own} was promoted ({self.reason}), and version {champion} has taken its place since"
        elif champion == self.champion:
            reason = self.reason
        elif champion is None:
            return None
        else:
            reason = f"version {own} was refused ({self.reason}), and version {champion} has become the champion since"
        return replace(self, promoted=False, champion=champion, previous=None, reason=reason, changed=False)


def promote(scenario: Scenario, workspace: Workspace, registration: Registration, tries: int = 1) -> Promotion:
    """Ask the gate about the version that was just registered.

    Args:
        tries: as `evergreen.evaluation.gate.decide`.

    Raises:
        EvergreenError: the champion's or the challenger's files can't be read. Then all is as it was.
    """
    promotion = promote_version(scenario, workspace, registration.model_version, tries=tries)
    return replace(promotion, fingerprint=registration.fingerprint, created_at_ms=registration.created_at_ms)


def promote_version(
    scenario: Scenario, workspace: Workspace, version: int | None, *, force: bool = False, tries: int = 1
) -> Promotion:
    """Ask the gate about any version.

    Args:
        version: None means the challenger.
        force: make it the champion whatever the gate would say.
        tries: as `evergreen.evaluation.gate.decide`.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: a model's files, or the test items, can't be read.
    """
    name = scenario.name
    challenger = find_version(workspace, name, "challenger" if version is None else str(version))
    promotion = Promotion(
        model_name(name), challenger, promoted=True, reason="it is already", champion=challenger, previous=None,
        settings=scenario.promote.model_dump(mode="json"), tries=tries,
    )  # fmt: skip
    # Held all the while: what is promoted has beaten the very champion that it replaces.
    with moving_aliases(workspace, name):
        champion = aliases(workspace, name).get("champion")
        if champion == challenger:
            return promotion
        if force:
            crown(workspace, name, challenger)
            return replace(promotion, reason="it was asked for, whatever the gate says", previous=champion, changed=True)
        verdict, energy = compare(scenario, workspace, champion, challenger, tries)
        slices = [asdict(one) for one in verdict.slices]
        complete_card(workspace, name, challenger, comparison(champion, verdict.reason, slices))
        promotion = replace(promotion, reason=verdict.reason, slices=slices, energy=asdict(energy) if energy else None)
        if verdict.promote:
            crown(workspace, name, challenger)
            return replace(promotion, previous=champion, changed=True)
        refuse(workspace, name, challenger, verdict.reason, champion, settings_digest(scenario))
    return replace(promotion, promoted=False, champion=champion)


def compare(
    scenario: Scenario, workspace: Workspace, champion: int | None, challenger: int, tries: int = 1
) -> tuple[Verdict, EnergyRatio | None]:
    """The gate's verdict on two versions, on today's test split, with the energy that it went by.

    Args:
        champion: None where there is none: a first model must be better than the baseline of its kind.

    Raises:
        EvergreenError: as `promote_version`.
    """
    name, kind = scenario.name, kind_of(scenario)
    splits, folders = workspace.splits(name), batches(workspace, name)
    test, rows = open_split(splits, "test"), {id: row for row, id in enumerate(test_ids(workspace, name))}
    versions = [version for version in (champion, challenger) if version is not None]
    artifacts = [download(workspace, name, str(version)) / "artifacts" for version in versions]
    models = [open_model(folder) for folder in artifacts]
    predicted: list[np.ndarray] = []
    sample: list[Any] = []
    stored = kind.contract.items(scenario, folders, list(rows))
    while chunk := list(islice(stored, 1024)):
        chosen, items = [rows[id] for id, _ in chunk], [item for _, item in chunk]
        found = [kind.judge.predictions(model.outputs(items), model.codec.settings, test.facts) for model in models]
        predicted = predicted or [np.full((len(test), *one.shape[1:]), -1, one.dtype) for one in found]
        for whole, part in zip(predicted, found, strict=True):
            whole[chosen] = part
        sample.extend(items[: scenario.evaluate.latency_items - len(sample)])
    if not sample:
        raise EvergreenError("no item of the test split is in the data set", fix="Bring it back with: dvc checkout data.dvc")
    if champion is None:
        baseline = kind.judge.baseline(scenario, test, predicted[0], open_split(splits, "train"))
        return decide_first(baseline, scenario.promote, seed=scenario.seed), None
    compared = kind.judge.compare(scenario, test, predicted[0], predicted[1])
    turns = [partial(predict_one, model, cycle(sample)) for model in models]
    energy = energy_ratio([folder / "model.onnx" for folder in artifacts], turns)
    columns = _columns(scenario, workspace, rows)
    return decide(compared, scenario.promote, energy, columns=columns, seed=scenario.seed, tries=tries), energy


def predict_one(model: Model, items: Iterator[Any]) -> int:
    """One prediction of one item, as in use."""
    model.predict([next(items)])
    return 1


def _columns(scenario: Scenario, workspace: Workspace, rows: dict[str, int]) -> dict[str, list[str]]:
    """The values of the columns that the scenario slices by, in the order of the test split; of a time, its day. Where an item has no value,
    "none"."""
    wanted, pattern = scenario.promote.slices, re.compile(scenario.promote.slice_pattern or "")
    found: dict[str, list[str]] = {column: ["none"] * len(rows) for column in (*wanted, *pattern.groupindex)}
    if not found:
        return {}
    for row in table(batches(workspace, scenario.name), sorted({"id", "source", *wanted})).to_pylist():
        if row["id"] not in rows:
            continue
        named = match.groupdict() if (match := pattern.search(row["source"])) else {}
        for column, value in ({column: row[column] for column in wanted} | named).items():
            if value is not None:
                found[column][rows[row["id"]]] = f"{value:%Y-%m-%d}" if column == "collected_at" else str(value)
    return found


def recalled(scenario: Scenario, workspace: Workspace, registration: Registration, *tries_and_last: Any) -> Promotion | None:
    """The last decision, with what MLflow holds now; None where there is to be a new one: about another version, by other settings, or as
    `Promotion.now` says."""
    last: Promotion = tries_and_last[-1]
    if last.model_version != registration.model_version or last.settings != scenario.promote.model_dump(mode="json"):
        return None
    # A record of before these two were kept is taken to be of the version with that number.
    of_this = (last.fingerprint, last.created_at_ms) == (registration.fingerprint, registration.created_at_ms)
    if last.fingerprint and not of_this:
        return None
    held = look_up(workspace, scenario.name, registration.fingerprint)
    found = last.now(held.aliases.get("champion"))
    return found and replace(found, fingerprint=registration.fingerprint, created_at_ms=registration.created_at_ms)


def page(scenario: Scenario, workspace: Workspace, promotion: Promotion) -> Page:
    """What was decided, and why."""
    compared = [
        {
            "items with": f"{one['column']} {one['value']}",
            "items": one["items"],
            "champion": figures.percent(one["champion"], one["champion_low"], one["champion_high"]),
            "challenger": figures.percent(one["challenger"], one["challenger_low"], one["challenger_high"]),
            "test for worse": "too few items" if one["p_value_worse"] is None else figures.probability(one["p_value_worse"]),
        }
        for one in promotion.slices
    ]
    decided = "**Promoted.**" if promotion.promoted else "**Not promoted.**"
    return Page(texts={"": decided}, tables={"Right answers of both models": compared})


stage = Stage(promote, Promotion, recalled=recalled, page=page, retries=2)

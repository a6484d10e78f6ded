"""promote: make the challenger the champion if the gate accepts it; a first model must beat a baseline.

Reads   the registered models, the current test split and its encoded items, and the training split for the baseline.
Writes  the comparison into the challenger's model card; the aliases `@champion` and `@previous`, each in one step; a refusal as
        tags of the version.

Both models predict the same test items from encoded bytes, as when serving, and `evergreen.evaluation.gate` decides. The
decision is stored, but not its effect: every run asks MLflow which version is the champion now (`Promotion.now`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.data.dataset import batches
from evergreen.data.slices import sliced_columns
from evergreen.errors import EvergreenError
from evergreen.evaluation.energy_ratio import EnergyRatio, energy_ratio
from evergreen.evaluation.gate import Slice, Verdict, decide, decide_first
from evergreen.kinds.base.kind import kind_of
from evergreen.preparation.arrays import open_split
from evergreen.registry.card import comparison, complete_card
from evergreen.registry.models import aliases, download, find_version, look_up, model_name, moving_aliases, refuse, set_champion
from evergreen.registry.origin import settings_digest
from evergreen.scenario.settings import Scenario
from evergreen.serving.scoring import Model
from evergreen.workspace import Workspace
from tasks.evaluate import test_ids
from tasks.page import Page
from tasks.register import Registration
from tasks.stage import Stage


@dataclass(frozen=True)
class Promotion:
    """The decision on a model version.

    Attributes:
        model: the model's name in MLflow.
        model_version: the version that was considered.
        promoted: whether it is the champion now.
        reason: the reason, as a clause.
        champion: the version in use now; None if there is none.
        previous: the version in use before; None if there was none, or if it is still in use.
        settings: the scenario's section `promote`.
        slices: both models by label and by the scenario's slices; empty if nothing was compared.
        tries: the number of challengers of one retraining among which the chance of a wrong promotion was divided.
        energy: of a prediction, relative to the champion's; None if nothing was compared, or if it is unknown.
        fingerprint, created_at_ms: of the version (`evergreen.registry.models.Held`); empty if unknown.
        changed: whether this decision made it the champion.
    """

    model: str
    model_version: int
    promoted: bool
    reason: str
    champion: int | None
    previous: int | None
    settings: dict[str, Any]
    slices: tuple[Slice, ...] = ()
    tries: int = 1
    energy: EnergyRatio | None = None
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
        """The stored decision, updated to the current champion: users and other checkouts move the alias too, and that is
        respected.

        Args:
            champion: the version that now has the alias in MLflow.

        Returns:
            None if a new decision is needed: the champion that this version did not beat is gone, and there is no other.
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
        tries: as in `evergreen.evaluation.gate.decide`.

    Raises:
        EvergreenError: the champion's or the challenger's files can't be read. Then nothing has changed.
    """
    promotion = promote_version(scenario, workspace, str(registration.model_version), tries=tries)
    return replace(promotion, fingerprint=registration.fingerprint, created_at_ms=registration.created_at_ms)


def promote_version(
    scenario: Scenario, workspace: Workspace, requested: str, *, force: bool = False, tries: int = 1
) -> Promotion:
    """Ask the gate about any version.

    Args:
        requested: the version's number, or an alias such as `challenger`.
        force: make it the champion without asking the gate.
        tries: as in `evergreen.evaluation.gate.decide`.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: a model's files, or the test items, can't be read.
    """
    name = scenario.name
    challenger = find_version(workspace, name, requested)
    promotion = Promotion(
        model_name(name), challenger, promoted=True, reason="it is already", champion=challenger, previous=None,
        settings=scenario.promote.model_dump(mode="json"), tries=tries,
    )  # fmt: skip
    # The lock is held throughout, so that the promoted version has beaten the champion that it replaces.
    with moving_aliases(workspace, name):
        champion = aliases(workspace, name).get("champion")
        if champion == challenger:
            return promotion
        if force:
            set_champion(workspace, name, challenger)
            return replace(promotion, reason="it was asked for, whatever the gate says", previous=champion, changed=True)
        verdict, energy = compare(scenario, workspace, champion, challenger, tries)
        metric = kind_of(scenario).judge.metrics[0]
        complete_card(workspace, name, challenger, comparison(champion, verdict.reason, verdict.slices, metric))
        promotion = replace(promotion, reason=verdict.reason, slices=verdict.slices, energy=energy)
        if verdict.promote:
            set_champion(workspace, name, challenger)
            return replace(promotion, previous=champion, changed=True)
        refuse(workspace, name, challenger, verdict.reason, champion, settings_digest(scenario))
    return replace(promotion, promoted=False, champion=champion)


def compare(
    scenario: Scenario, workspace: Workspace, champion: int | None, challenger: int, tries: int = 1
) -> tuple[Verdict, EnergyRatio | None]:
    """The gate's verdict on two versions, on the current test split, with the energy ratio that it used.

    Args:
        champion: None if there is none: a first model must be better than the baseline of its kind.

    Raises:
        EvergreenError: as in `promote_version`.
    """
    name, kind = scenario.name, kind_of(scenario)
    splits, folders = workspace.splits(name), batches(workspace, name)
    test, rows = open_split(splits, "test"), {id: row for row, id in enumerate(test_ids(workspace, name))}
    versions = [version for version in (champion, challenger) if version is not None]
    artifacts = [download(workspace, name, str(version)) / "artifacts" for version in versions]
    models = [Model.open(folder) for folder in artifacts]
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
    columns = sliced_columns(scenario, workspace, list(rows))
    objections = kind.judge.objections(scenario, test, predicted[1])
    verdict = decide(
        compared, scenario.promote, energy, columns=columns, objections=objections, seed=scenario.seed, tries=tries
    )
    return verdict, energy


def predict_one(model: Model, items: Iterator[Any]) -> int:
    """Predict one item, as when serving."""
    model.predict([next(items)])
    return 1


def recalled(scenario: Scenario, workspace: Workspace, registration: Registration, *tries_and_last: Any) -> Promotion | None:
    """The last decision, updated to MLflow's current state; None if a new one is needed: for another version or other settings,
    or if `Promotion.now` returns None."""
    last: Promotion = tries_and_last[-1]
    if last.model_version != registration.model_version or last.settings != scenario.promote.model_dump(mode="json"):
        return None
    # A result stored before fingerprints were recorded is assumed to belong to the version with that number.
    of_this = (last.fingerprint, last.created_at_ms) == (registration.fingerprint, registration.created_at_ms)
    if last.fingerprint and not of_this:
        return None
    held = look_up(workspace, scenario.name, registration.fingerprint)
    found = last.now(held.aliases.get("champion"))
    return found and replace(found, fingerprint=registration.fingerprint, created_at_ms=registration.created_at_ms)


def page(scenario: Scenario, workspace: Workspace, promotion: Promotion) -> Page:
    """What was decided, and why."""
    metric = kind_of(scenario).judge.metrics[0]
    compared: list[dict[str, str | int]] = [
        {
            "items with": f"{one.column} {one.value}",
            "items": one.items,
            "champion": metric.text(one.champion, one.champion_low, one.champion_high),
            "challenger": metric.text(one.challenger, one.challenger_low, one.challenger_high),
            "test for worse": "too few items" if one.p_value_worse is None else figures.probability(one.p_value_worse),
        }
        for one in promotion.slices
    ]
    decided = "**Promoted.**" if promotion.promoted else "**Not promoted.**"
    return Page(texts={"": decided}, tables={f"{metric.title.capitalize()} of both models": compared})


stage = Stage(promote, Promotion, recalled=recalled, page=page, retries=2)

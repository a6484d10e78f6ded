"""promote: let the challenger take the champion's place, if it has earned it.

Reads   the registered models, today's test split, and its encoded images.
Writes  what was found into the challenger's model card; the aliases `@champion` and `@previous`, each in one step.

Both models predict the same test items, from encoded bytes, as they do in use; `evergreen.gate` decides.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from evergreen import figures
from evergreen.card import comparison, complete_card
from evergreen.dataset import batches, iter_images, table
from evergreen.feed import Split, label_names
from evergreen.gate import Paired, Verdict, decide
from evergreen.registry import aliases, crown, download, find_version, model_name, moving_aliases
from evergreen.scenario import Scenario
from evergreen.scoring import Model
from evergreen.workspace import Workspace
from tasks.evaluate import measure_serving, test_ids
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
        champion: the version in use now.
        previous: the one that was; None where there was none, or it still is.
        settings: the scenario's section `promote`.
        slices: both models by label and by the scenario's slices (`evergreen.gate.Slice`); empty where nothing was compared.
        tries: among how many challengers of one retraining the chance of a wrong promotion was shared out.
    """

    model: str
    model_version: int
    promoted: bool
    reason: str
    champion: int
    previous: int | None
    settings: dict[str, Any]
    slices: list[dict[str, Any]] = field(default_factory=list)
    tries: int = 1

    def __str__(self) -> str:
        done = f"version {self.model_version} is the champion" if self.promoted else f"version {self.champion} stays champion"
        return f"{done}: {self.reason}."


def promote(scenario: Scenario, workspace: Workspace, registration: Registration, tries: int = 1) -> Promotion:
    """Ask the gate about the version that was just registered.

    Args:
        tries: as `evergreen.gate.decide`.

    Raises:
        EvergreenError: the champion's or the challenger's files can't be read. Then all is as it was.
    """
    return promote_version(scenario, workspace, registration.model_version, tries=tries)


def promote_version(
    scenario: Scenario, workspace: Workspace, version: int | None, *, force: bool = False, tries: int = 1
) -> Promotion:
    """Ask the gate about any version.

    Args:
        version: None means the challenger.
        force: make it the champion whatever the gate would say.
        tries: as `evergreen.gate.decide`.

    Raises:
        WrongUse: there is no such version.
        EvergreenError: a model's files, or the test items, can't be read.
    """
    name = scenario.name
    challenger = find_version(workspace, name, "challenger" if version is None else str(version))
    # Held all the while: what is promoted has beaten the very champion that it replaces.
    with moving_aliases(workspace, name):
        champion = aliases(workspace, name).get("champion")
        passes, reason = True, "there was no champion yet"
        slices: list[dict[str, Any]] = []
        if force:
            reason = "it was asked for, whatever the gate says"
        elif champion == challenger:
            reason = "it is already"
        elif champion is not None:
            verdict = compare(scenario, workspace, champion, challenger, tries)
            passes, reason, slices = verdict.promote, verdict.reason, [asdict(one) for one in verdict.slices]
            complete_card(workspace, name, challenger, comparison(champion, reason, slices))
        if passes:
            crown(workspace, name, challenger)
    now = challenger if passes else champion
    assert now is not None
    previous = champion if passes and champion != challenger else None
    settings = scenario.promote.model_dump(mode="json")
    return Promotion(model_name(name), challenger, passes, reason, now, previous, settings, slices, tries)


def compare(scenario: Scenario, workspace: Workspace, champion: int, challenger: int, tries: int = 1) -> Verdict:
    """The gate's verdict on two versions, on today's test split.

    Raises:
        EvergreenError: as `promote_version`.
    """
    name = scenario.name
    names, test = label_names(workspace.splits(name)), Split.open(workspace.splits(name), "test")
    place = {id: row for row, id in enumerate(test_ids(workspace, name))}
    folders = [download(workspace, name, str(version)) / "artifacts" for version in (champion, challenger)]
    models = [Model.open(folder) for folder in folders]
    predicted = [np.full(len(test), -1) for _ in models]
    places = [np.array([names.index(label) if label in names else -1 for label in model.labels]) for model in models]
    sample: list[bytes] = []
    stored = iter_images(batches(workspace, name), place)
    while chunk := list(islice(stored, 1024)):
        rows, images = [place[id] for id, _ in chunk], [image for _, image in chunk]
        for model, found, place_of in zip(models, predicted, places, strict=True):
            found[rows] = place_of[model.encoded_probabilities(images).argmax(axis=1)]
        sample.extend(images[: scenario.evaluate.latency_items - len(sample)])
    paired = Paired(test.labels.astype(int), predicted[0], predicted[1], names, _columns(scenario, workspace, place))
    same = (folders[0] / "model.onnx").read_bytes() == (folders[1] / "model.onnx").read_bytes()
    ratio = (
        1.0 if same else _energy_ratio(models, sample)
    )  # a measurement would say that one and the same is cheaper, now and then
    return decide(paired, scenario.promote, ratio, seed=scenario.seed, tries=tries)


def _columns(scenario: Scenario, workspace: Workspace, place: dict[str, int]) -> dict[str, list[str]]:
    """The values of the columns that the scenario slices by, in the order of the test split; of a time, its day. Where an item has no value,
    "none"."""
    wanted, pattern = scenario.promote.slices, re.compile(scenario.promote.slice_pattern or "")
    found: dict[str, list[str]] = {column: ["none"] * len(place) for column in (*wanted, *pattern.groupindex)}
    if not found:
        return {}
    for row in table(batches(workspace, scenario.name), sorted({"id", "source", *wanted})).to_pylist():
        if row["id"] not in place:
            continue
        named = match.groupdict() if (match := pattern.search(row["source"])) else {}
        for column, value in ({column: row[column] for column in wanted} | named).items():
            if value is not None:
                found[column][place[row["id"]]] = f"{value:%Y-%m-%d}" if column == "collected_at" else str(value)
    return found


def _energy_ratio(models: list[Model], images: list[bytes]) -> float | None:
    """Energy of a prediction, challenger to champion; None where it can't be measured."""
    champion, challenger = (measure_serving(model, images).energy_wh_per_1000 for model in models)
    return challenger / champion if champion and challenger else None


def unchanged(scenario: Scenario, workspace: Workspace, registration: Registration, *tries_and_last: Any) -> bool:
    """A decision stands until there is another version or other settings: what a person rolled back stays so."""
    last: Promotion = tries_and_last[-1]
    return last.model_version == registration.model_version and last.settings == scenario.promote.model_dump(mode="json")


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


stage = Stage(promote, Promotion, unchanged=unchanged, page=page, retries=2)

"""`evergreen forget NAME`: permanently removes items from the data set and from everything derived from it; `evergreen
reinstate NAME`: brings withdrawn items back into use."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from evergreen import progress
from evergreen.data.dataset import Withdrawal, batches, records, stage_records
from evergreen.data.inbox import inbox_of
from evergreen.data.versions import (
    Objects,
    add_data,
    data_version,
    delete_objects,
    fetch_data,
    objects_with,
    push_data,
    stage_status,
)
from evergreen.errors import EvergreenError, WrongUse
from evergreen.figures import count
from evergreen.kinds.base.kind import kind_of
from evergreen.privacy.forgetting import (
    Asked,
    Plan,
    clean_files,
    clean_models,
    dealt_file,
    journal,
    keep_splits,
    matches,
    models_with,
    rewrite_data,
)
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace

log = logging.getLogger("evergreen")

EXAMPLES = 5


@dataclass(frozen=True)
class Forgotten:
    """What was removed.

    Attributes:
        scenario: the scenario's name.
        items: number of items removed from the data set.
        quarantined: number of items removed from quarantine.
        objects: number of objects removed from DVC's cache and remotes, counting copies.
        models: versions trained on data with the items; they are tagged, and should be replaced.
        champion: whether the champion is one of them.
        data_version: the data set's current version; None if there is none.
        left: what still contains the items and must be deleted by the user.
    """

    scenario: str
    items: int
    quarantined: int
    objects: int
    models: tuple[int, ...]
    champion: bool
    data_version: str | None
    left: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"Forgotten: {count(self.items, 'item')} of the data set {self.scenario}, {self.quarantined:,} in quarantine, "
            f"{count(self.objects, 'object')} of DVC's cache and remotes. Data version: {self.data_version or 'none'}."
        ]
        if self.models:
            versions = ", ".join(map(str, self.models))
            lines.append(
                f"Model versions whose data held them, marked by the tag forgotten_items{', the champion among them' * self.champion}: "
                f"{versions}. Train anew with: evergreen run {self.scenario}. These versions' data can no longer be checked out whole."
            )
        lines += [f"Still there, and yours to delete: {one}." for one in self.left]
        return "\n".join(lines)


def asked(
    workspace: Workspace, name: str, ids: Sequence[str] | None, sources: Sequence[str] | None, groups: Sequence[str] | None
) -> Asked:
    """The items that a command names.

    Raises:
        WrongUse: it names none (unless an interrupted command is to be completed), or an id is invalid.
    """
    if not (ids or sources or groups) and Plan.load(workspace, name) is None:
        raise WrongUse("no items are named", expected="--id SHA256, --source PATTERN or --group GROUP", fix="Name the items.")
    for id in ids or ():
        if not re.fullmatch(r"[0-9a-fA-F]{64}", id):
            raise WrongUse(
                "an id is not the sha256 of an item",
                expected="64 hex digits",
                received=id,
                fix="An image's is the sha256 of its file: see sha256sum.",
            )
    return Asked(tuple(id.lower() for id in ids or ()), tuple(sources or ()), tuple(groups or ()))


def forget(workspace: Workspace, name: str, asked: Asked, confirm: Callable[[str], bool]) -> Forgotten | None:
    """Remove items permanently. If it is killed half-way, repeating the command completes it.

    Args:
        confirm: called with a description of what will be removed; if it returns False, nothing is removed.

    Returns:
        What was removed; None if `confirm` returned False.

    Raises:
        WrongUse: there is no such item.
        Unreachable: MLflow does not answer.
        EvergreenError: the DVC remote does not answer.
    """
    with _alone(workspace, name):
        plan = Plan.load(workspace, name)
        if plan is not None:
            log.info("An interrupted removal is completed: %s.", count(len(plan.ids), "item"))
        else:
            with progress.task("Looking for what holds them"):
                fetch_data(workspace, name)
                plan = planned(workspace, name, asked)
            if not confirm(in_words(plan)):
                return None
            begin(workspace, plan)
        return complete(workspace, plan)


def begin(workspace: Workspace, plan: Plan) -> None:
    """Store a plan, after which its deletion can be completed whatever happens.

    Raises:
        EvergreenError: the plan would remove an item only in part; nothing is changed.
    """
    plan.check(workspace)
    with progress.task("Keeping the others' splits"):
        keep_others_splits(workspace, plan)
    plan.save(workspace)


def complete(workspace: Workspace, plan: Plan) -> Forgotten:
    """Carry out a plan that is stored. The caller holds the locks."""
    name = plan.scenario
    with progress.task("Taking them out"):
        rewrite_data(workspace, plan)
        version = data_version(workspace, name)
        if batches(workspace, name):
            version = add_data(workspace, name)
        problem = push_data(workspace, name) if version else ""
        deleted = delete_objects(workspace, plan.objects)
        scenario = load_scenario(workspace.scenarios, name)
        contract = kind_of(scenario).contract
        left = clean_files(workspace, plan, inbox_of(scenario, workspace), partial(contract.ids_in, scenario))
        clean_models(workspace, plan, lambda what: log.info("Taken out of %s", what))
    dealt_file(workspace, name).unlink(missing_ok=True)
    journal(workspace, name).unlink()
    if problem:
        log.warning("The data set was not copied to the DVC remote (%s); the next run tries again.", problem)
    left += [f"the same {contract.noun} in the data set of scenario {other}" for other in plan.shared_with]
    champion = _champion(workspace, name) in plan.models
    return Forgotten(name, sum(plan.labels.values()), plan.quarantined, deleted, plan.models, champion, version, tuple(left))


def keep_others_splits(workspace: Workspace, plan: Plan) -> None:
    """Store the splits of the remaining items, which they keep so that the test set stays comparable. Without a model of these
    data this is not needed."""
    from tasks.preprocess import preprocess

    dealt_file(workspace, plan.scenario).unlink(missing_ok=True)
    if not plan.models:
        return
    try:
        if not stage_status(workspace, "preprocess", plan.scenario).unchanged:
            preprocess(load_scenario(workspace.scenarios, plan.scenario), workspace)
        keep_splits(workspace, plan)
    except EvergreenError as error:
        log.warning("The items that stay may change their splits, which could not be kept: %s", error)


def planned(workspace: Workspace, name: str, asked: Asked) -> Plan:
    """What `forget` would remove."""
    scenario, found = load_scenario(workspace.scenarios, name), matches(workspace, name, asked)
    mine = [one for one in found if one.batch is not None]
    ids, folders = tuple(sorted({one.id for one in found})), {one.batch for one in mine if one.batch}
    objects = objects_with(workspace, name, ids) if ids else Objects((), ())
    return Plan(
        scenario=name,
        ids=ids,
        labels=kind_of(scenario).contract.by_label(scenario, [one.label for one in mine]),
        quarantined=len({one.id for one in found if one.batch is None}),
        examples=tuple(dict.fromkeys(one.source for one in found))[:EXAMPLES],
        batches=tuple(sorted(folders)),
        objects=objects.oids,
        shared_with=objects.shared_with,
        models=models_with(workspace, name, folders) if folders else (),
        collected_before=None if asked.collected_before is None else asked.collected_before.isoformat(),
    )


def in_words(plan: Plan) -> str:
    """The description of a plan that the user is asked to confirm."""
    labels = ", ".join(f"{count:,} {label}" for label, count in plan.labels.items())
    lines = [
        f"To be forgotten for good, in scenario {plan.scenario}:",
        f"  {count(len(plan.ids), 'item')} ({', '.join(plan.examples)}{', …' if len(plan.ids) > len(plan.examples) else ''})",
        f"  in the data set: {labels or 'none'}; in quarantine: {plan.quarantined:,}",
        f"  {count(len(plan.objects), 'object')} of DVC's cache and remotes, in which older data versions, splits and predictions hold them",
        f"  outputs/{plan.scenario}: splits, evaluation, Data Docs and report, which the next run makes anew, and the page of evergreen look",
    ]
    if plan.models:
        lines.append(f"  model versions whose data held them: {', '.join(map(str, plan.models))}; they stay, and are marked")
    if plan.shared_with:
        lines.append(f"  not in: {', '.join(plan.shared_with)}, whose data are the same files; forget them there too")
    lines.append("  The source itself is not changed; what is forgotten is not collected again.")
    return "\n".join(lines)


@dataclass(frozen=True)
class Reinstated:
    """Withdrawn items that are in use again."""

    scenario: str
    items: int

    def __str__(self) -> str:
        return f"In use again: {count(self.items, 'item')} of {self.scenario}; the source no longer withdraws them. Next: evergreen run {self.scenario}"


def reinstate(workspace: Workspace, name: str, asked: Asked) -> Reinstated:
    """Bring withdrawn items back into use. As this is a user's decision, a mirrored source does not withdraw them again.

    Raises:
        WrongUse: no such item is withdrawn.
    """
    with _alone(workspace, name):
        fetch_data(workspace, name)
        folders = batches(workspace, name)
        withdrawn, at = records(folders).withdrawn, datetime.now(UTC).isoformat(timespec="seconds")
        ids = sorted({one.id for one in matches(workspace, name, asked) if one.batch and one.id in withdrawn})
        if not ids:
            raise WrongUse("none of these items is withdrawn", received=asdict(asked), fix="All of them are in use.")
        said = [Withdrawal(id, False, "evergreen reinstate", at, "") for id in ids]
        stage_records(workspace.data(name), len(folders), withdrawals=said)
        add_data(workspace, name)
        push_data(workspace, name)
    return Reinstated(name, len(ids))


@contextlib.contextmanager
def _alone(workspace: Workspace, name: str) -> Iterator[None]:
    with (
        workspace.lock(f"run-{name}"),
        workspace.lock(f"collect-{name}"),
        workspace.lock(f"review-{name}", timeout_seconds=0),  # somebody may have it open all day
    ):
        yield


def _champion(workspace: Workspace, name: str) -> Any:
    from evergreen.registry.models import aliases

    return aliases(workspace, name).get("champion")

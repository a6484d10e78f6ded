"""`evergreen delete`: removes a scenario from this checkout, and reports what is removed and what is kept."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from evergreen.data.versions import dump_pipeline
from evergreen.errors import WrongUse
from evergreen.registry.models import model_name
from evergreen.workspace import Workspace, replace_file
from flows.deploy import declare


@dataclass(frozen=True)
class Removal:
    """What deleting a scenario removes and keeps.

    Attributes:
        name: the scenario's name.
        removes: existing files and folders, relative to the checkout.
        keeps: what is kept, one phrase each.
    """

    name: str
    removes: tuple[str, ...]
    keeps: tuple[str, ...]

    @property
    def announcement(self) -> str:
        """A description of what would happen."""
        return self._in_words("This removes", "and keeps")

    def __str__(self) -> str:
        return self._in_words(f"{self.name} is deleted. Removed", "Kept")

    def _in_words(self, removing: str, keeping: str) -> str:
        removed = "\n".join(f"  • {path}" for path in self.removes)
        kept = "\n".join(f"  • {sentence}" for sentence in self.keeps)
        return f"{removing}:\n{removed}\n{keeping}:\n{kept}"


def plan_removal(workspace: Workspace, name: str) -> Removal:
    """What `remove_scenario` would do.

    Raises:
        WrongUse: there is no such scenario.
    """
    known = sorted(path.stem for path in workspace.scenarios.glob("*.yaml"))
    if name not in known:
        from evergreen.scenario.loading import load_scenario

        load_scenario(workspace.scenarios, name)  # raises the error, with the most similar name
    removes = [path for path in _paths(workspace, name) if path.exists()]
    return Removal(
        name,
        ("its entries in dvc.yaml, dvc.lock and prefect.yaml", *(str(path.relative_to(workspace.root)) for path in removes)),
        (
            f"data/{name}, tracked by data.dvc, and every version of it in DVC's cache and remote",
            f"inbox/{name}, with what was taken in",
            f"the registered model {model_name(name)} with all its versions, and its runs in MLflow",
            f".evergreen/ledger/{name}.jsonl: what it has spent",
            "what was deployed to a Prefect server, until `evergreen deploy` or `evergreen up` runs again",
            f"To undo: bring scenarios/{name}.yaml back (from git, or write it anew) and run: evergreen run {name}",
        ),
    )


def remove_scenario(workspace: Workspace, name: str) -> Removal:
    """Remove a scenario from the checkout; no other scenario is touched.

    Raises:
        WrongUse: there is no such scenario, or it is running.
    """
    removal = plan_removal(workspace, name)
    try:
        with workspace.lock(f"run-{name}", timeout_seconds=0.0), workspace.lock("data"):
            _strike_from_pipeline(workspace, name)
            for path in _paths(workspace, name):  # the scenario's file is last, so that a killed deletion can be repeated
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    except WrongUse as error:
        if error.happened.startswith("the lock"):
            raise WrongUse(f"{name} can't be deleted while it runs: {error.happened}", fix="Wait for it to end.") from None
        raise
    declare(workspace)
    return removal


def _paths(workspace: Workspace, name: str) -> list[Path]:
    return [
        workspace.outputs(name),
        workspace.quarantine(name),
        workspace.staging(name),
        workspace.checkpoints(name),
        workspace.private / "tuning" / name,
        workspace.features(name),
        workspace.review(name),
        workspace.scenarios / f"{name}.yaml",
    ]


def _strike_from_pipeline(workspace: Workspace, name: str) -> None:
    """Remove the scenario from `dvc.yaml`, keeping comments and order, and its stages from `dvc.lock`."""
    from ruamel.yaml import YAML

    path = workspace.root / "dvc.yaml"
    pipeline = YAML().load(path.read_text(encoding="utf-8"))
    lists = [listed for variables in pipeline["vars"] for key, listed in variables.items() if key in ("scenarios", "names")]
    for listed in [listed for listed in lists if name in listed]:
        if isinstance(listed, list):  # written by an earlier version
            listed.remove(name)
        else:
            del listed[name]
        replace_file(path, dump_pipeline(pipeline))
    lock, plain = workspace.root / "dvc.lock", YAML()
    if not lock.exists():
        return
    plain.width = 1000
    recorded = plain.load(lock.read_text(encoding="utf-8"))
    mine = [stage for stage in (recorded or {}).get("stages", {}) if stage.rpartition("@")[2] == name]
    if mine:
        for stage in mine:
            del recorded["stages"][stage]
        buffer = io.BytesIO()
        plain.dump(recorded, buffer)
        replace_file(lock, buffer.getvalue())

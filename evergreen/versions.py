"""Which bytes a stage was made of and made: DVC, in this process.

`data.dvc` at the root says which version of `data/` is meant; `dvc.lock` says from what each stage's outputs were made. One
process at a time works with DVC: the lock `data` of the checkout.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from dvc.repo import Repo

log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class StageStatus:
    """What DVC says of a stage.

    Attributes:
        unchanged: its command, parameters, inputs and outputs are those of the lock.
        outputs: a name for its outputs as the lock has them; empty where it has none.
    """

    unchanged: bool
    outputs: str


def stage_status(workspace: Workspace, stage: str, name: str) -> StageStatus:
    """Whether a DVC stage of a scenario is as its entry in `dvc.lock` says. What DVC can't tell is not unchanged."""
    from dvc.exceptions import DvcException

    with _repo(workspace) as repo:
        try:
            changed = repo.status(targets=[f"{stage}@{name}"])
        except (DvcException, OSError) as error:
            log.debug("DVC on %s of %s: %s", stage, name, error)
            return StageStatus(False, "")
        return StageStatus(not changed, _locked_outputs(workspace, stage, name))


def commit_stage(workspace: Workspace, stage: str, name: str) -> str:
    """Put a stage's outputs into DVC's cache, and what they were made from into `dvc.lock`; returns `StageStatus.outputs`.

    Raises:
        EvergreenError: DVC couldn't.
    """
    with _repo(workspace) as repo, _explained(f"{stage} of {name} could not be committed to dvc.lock"):
        repo.commit(target=f"{stage}@{name}", force=True)
    return _locked_outputs(workspace, stage, name)


def data_version(workspace: Workspace) -> str | None:
    """The version of `data/` that `data.dvc` names: 32 hex digits (the rest of DVC's mark, `.dir`, says nothing); None where
    there is none yet."""
    from ruamel.yaml import YAML

    try:
        document = YAML(typ="safe", pure=True).load((workspace.root / "data.dvc").read_text(encoding="utf-8"))
        return str(document["outs"][0]["md5"]).removesuffix(".dir")
    except (OSError, KeyError, TypeError, IndexError):
        return None


def data_unchanged(workspace: Workspace) -> bool:
    """Whether `data/` is what `data.dvc` says."""
    from dvc.exceptions import DvcException

    if not (workspace.root / "data.dvc").exists():
        return False
    with _repo(workspace) as repo:
        try:
            return not repo.status(targets=["data.dvc"])
        except (DvcException, OSError):
            return False


def add_data(workspace: Workspace) -> str:
    """Make what is in `data/` the version that `data.dvc` names; returns it.

    Raises:
        EvergreenError: DVC couldn't.
    """
    with _repo(workspace) as repo, _explained("the data set could not be put under DVC"):
        repo.add("data")
    version = data_version(workspace)
    assert version is not None  # DVC has just written it
    return version


def push_data(workspace: Workspace) -> str:
    """Copy `data/` to the default remote; returns why that failed, or nothing. A copy can be made any time later."""
    from dvc.exceptions import DvcException

    with _repo(workspace) as repo:
        if not repo.config["core"].get("remote"):
            return "no DVC remote is set up: dvc remote add --default …"
        try:
            repo.push(targets=["data.dvc"])
        except (DvcException, OSError) as error:
            return " ".join(str(error).split()) or type(error).__name__
    return ""


def fetch_data(workspace: Workspace, name: str) -> bool:
    """Bring `data/NAME` as `data.dvc` names it from DVC's cache or remote, where it is missing here.

    Returns:
        Whether it is there now. False where neither has it: as in a fresh clone without a shared remote.
    """
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    if workspace.data(name).exists() or data_version(workspace) is None:
        return workspace.data(name).exists()
    with _repo(workspace) as repo:
        try:
            repo.pull(targets=[f"data/{name}"])
        except (DvcException, DataIndexDirError, OSError) as error:
            log.debug("data/%s is not in the remote: %s", name, error)
    return workspace.data(name).exists()


def fetch_others(workspace: Workspace, name: str) -> bool:
    """Bring all of `data/` that `data.dvc` names and that is missing here, but for `data/NAME`: before a new version is made, so
    that it does not lack what other scenarios have.

    Returns:
        Whether that version's list of files could be read; without it nobody can say what is missing.
    """
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    if data_version(workspace) is None:
        return True
    with _repo(workspace) as repo:
        try:
            fs = repo.dvcfs
            known = [entry["name"].rsplit("/", 1)[-1] for entry in fs.ls("data", detail=True)]
            missing = [f"data/{other}" for other in known if other != name and not workspace.data(other).exists()]
            if missing:
                repo.pull(targets=missing)
        except (DvcException, DataIndexDirError, OSError) as error:
            log.debug("data.dvc can't be read: %s", error)
            return False
    return True


def restore(workspace: Workspace, name: str, data_dvc: bytes, dvc_lock: bytes) -> None:
    """Bring back `data/` and the stages' outputs of a scenario as they were when these two files were kept.

    Raises:
        EvergreenError: cache and remote lack some of it; then all is as before.
    """
    kept = {
        path: path.read_bytes() if path.exists() else None
        for path in (workspace.root / "data.dvc", workspace.root / "dvc.lock")
    }
    lock, old = _read_lock(workspace), _parse_lock(dvc_lock)
    stages = {stage: entry for stage, entry in old.get("stages", {}).items() if stage.endswith(f"@{name}")}
    targets, begun = ["data.dvc", *sorted(stages)], False
    try:
        replace_file(workspace.root / "data.dvc", data_dvc)
        replace_file(workspace.root / "dvc.lock", _dump_lock({"schema": "2.0", "stages": {**lock.get("stages", {}), **stages}}))
        with _repo(workspace) as repo, _explained("the model's data could not be brought back"):
            with contextlib.suppress(Exception):  # the cache may have it all
                repo.fetch(targets=targets)
            # DVC would first remove what is there, and then miss what should come.
            missing = [str(out) for target in targets for stage in repo.stage.collect(target) for out in _missing(stage.outs)]
            if missing:
                raise EvergreenError(
                    "the model's data could not be brought back: neither DVC's cache nor the remote has all of "
                    f"{', '.join(missing)}",
                    fix="Bring the files of the cache (.dvc/cache) or of the remote back. All is as it was.",
                )
            begun = True
            repo.checkout(targets=targets, force=True)
    except BaseException:
        for path, content in kept.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                replace_file(path, content)
        if begun:
            back = [target for target in targets if target == "data.dvc" or target in lock.get("stages", {})]
            with contextlib.suppress(Exception), _repo(workspace) as repo:
                repo.checkout(targets=back, force=True)
        raise


def _missing(outputs: Iterable[Any]) -> list[Any]:
    """Those of DVC's outputs of which its cache lacks some file."""

    def cached(output: Any) -> bool:
        if not output.hash_info or not output.cache.exists(output.hash_info.value):
            return False
        return all(output.cache.exists(used.value) for parts in output.get_used_objs().values() for used in parts)

    return [output for output in outputs if output.use_cache and not cached(output)]


def _locked_outputs(workspace: Workspace, stage: str, name: str) -> str:
    entry = _read_lock(workspace).get("stages", {}).get(f"{stage}@{name}")
    return hashlib.sha256(json.dumps(entry["outs"]).encode()).hexdigest()[:16] if entry else ""


def _read_lock(workspace: Workspace) -> dict[str, Any]:
    try:
        return _parse_lock((workspace.root / "dvc.lock").read_bytes())
    except OSError:
        return {}


def _parse_lock(content: bytes) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(content) or {}


def _dump_lock(lock: dict[str, Any]) -> bytes:
    import io

    from ruamel.yaml import YAML

    yaml, text = YAML(), io.BytesIO()
    yaml.default_flow_style = False
    yaml.dump(lock, text)
    return text.getvalue()


@contextlib.contextmanager
def _repo(workspace: Workspace) -> Iterator[Repo]:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from dvc.ui import ui

    for library in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they would say is in their exceptions
    ui.error_console.quiet = True  # its spinner, which would be drawn over ours
    with workspace.lock("data"):
        try:
            repo = Repo(str(workspace.root))
        except (NotDvcRepoError, SCMError) as error:
            raise EvergreenError(
                f"{workspace.root} is not set up for DVC: {error}", fix="Clone the repository with git, or: git init"
            ) from None
        with repo, contextlib.chdir(workspace.root):  # DVC takes its targets from the current folder
            yield repo


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise EvergreenError(f"{what}: {error}", fix="See what is wrong with: dvc doctor; dvc status") from None

"""Versions of the data and of the stages' outputs, with DVC as a library in this process.

`data.dvc` at the root names the current version of `data/`, and thereby of each scenario's items; `dvc.lock` records from what
each stage's outputs were made. Work on one scenario changes neither the items of another nor its entries in these files. Only
one process at a time works with DVC: the one that holds the checkout's lock `data`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.errors import EvergreenError
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from dvc.repo import Repo

log = logging.getLogger("evergreen")

PIPELINE = Path(__file__).with_name("pipeline.yaml")  # dvc.yaml as shipped

CONFLICTS = {  # files in which git may leave a merge conflict, and how to resolve it
    "data.dvc": "Take their side: git checkout --theirs data.dvc && git add data.dvc. Nothing of yours is lost: it is in data/, and the "
    "next evergreen run of each scenario puts what either side collected into the new version.",
    "dvc.lock": "Take either side: git checkout --theirs dvc.lock && git add dvc.lock. The next evergreen run of each scenario makes "
    "anew what does not fit.",
    "dvc.yaml": "Keep the scenarios of both sides, delete the lines with <<<<<<<, ======= and >>>>>>>, then: git add dvc.yaml",
}


@dataclass(frozen=True)
class StageStatus:
    """The status of a stage according to DVC.

    Attributes:
        unchanged: whether its command, parameters, inputs and outputs are those recorded in `dvc.lock`.
        outputs: a digest of its outputs as recorded in `dvc.lock`; empty if there are none.
    """

    unchanged: bool
    outputs: str


def stage_status(workspace: Workspace, stage: str, name: str) -> StageStatus:
    """Compare a scenario's DVC stage with its entry in `dvc.lock`. If DVC fails, the stage counts as changed."""
    from dvc.exceptions import DvcException

    with _repo(workspace) as repo:
        try:
            changed = repo.status(targets=[f"{stage}@{name}"])
        except (DvcException, OSError) as error:
            log.debug("DVC on %s of %s: %s", stage, name, error)
            return StageStatus(False, "")
        return StageStatus(not changed, _locked_outputs(workspace, stage, name))


def commit_stage(workspace: Workspace, stage: str, name: str, entry: Callable[[str], Mapping[str, Any]]) -> str:
    """Commit a stage's outputs to DVC's cache, and record in `dvc.lock` from what they were made. A scenario that `dvc.yaml`
    does not list yet is added to it.

    Args:
        entry: returns a scenario's entry in `dvc.yaml`.

    Returns:
        `StageStatus.outputs`.

    Raises:
        EvergreenError: DVC failed.
    """
    explained = _explained(f"{stage} of {name} could not be committed to dvc.lock")
    with workspace.lock("data"):
        _list_scenario(workspace, name, entry)
        with _open(workspace) as repo, explained:
            for target in ("dependencies", stage):
                repo.commit(target=f"{target}@{name}", force=True)
    return _locked_outputs(workspace, stage, name)


def _list_scenario(workspace: Workspace, name: str, entry: Callable[[str], Mapping[str, Any]]) -> None:
    """Make sure that `dvc.yaml` lists a scenario; the file's comments and order are preserved.

    It lists the scenarios of which a stage has run, so that `dvc repro` and `dvc metrics show` find everything they need, and a
    copied scenario file only has to be run. Names without an entry in `dvc.lock` or without a scenario file are dropped, as DVC
    would fail on them. The caller holds the lock `data`.
    """
    from ruamel.yaml import YAML

    path, yaml = workspace.root / "dvc.yaml", YAML()
    refuse_conflicts(workspace)
    pipeline = yaml.load(path.read_bytes())
    earlier = _bring_up_to_date(pipeline)
    scenarios, mine = next(variables["scenarios"] for variables in pipeline["vars"] if "scenarios" in variables), entry(name)
    if scenarios.get(name) == mine and not earlier:
        return
    run = {stage.partition("@")[2] for stage in _read_lock(workspace).get("stages", {})}
    kept = {other: scenarios.get(other) for other in (*earlier, *scenarios) if other != name}
    scenarios.clear()
    scenarios[name] = mine  # comes first, since the blank line after the mapping belongs to its last entry
    for other, said in kept.items():
        if other in run and (workspace.scenarios / f"{other}.yaml").exists():
            with contextlib.suppress(EvergreenError):  # an invalid scenario file: the run after its correction adds it
                scenarios[other] = said or entry(other)
    replace_file(path, dump_pipeline(pipeline))
    if name not in (*earlier, *kept):
        log.info("%s is in dvc.yaml now: dvc repro evaluate@%s runs its stages too.", name, name)


def _bring_up_to_date(pipeline: MutableMapping[str, Any]) -> list[str]:
    """Replace the project's stages in a `dvc.yaml` of the earlier format, which had a list `names`; returns these names."""
    from ruamel.yaml import YAML

    earlier = [variables for variables in pipeline["vars"] if "names" in variables]
    if earlier:
        shipped = YAML().load(PIPELINE.read_bytes())
        others = {name: stage for name, stage in pipeline["stages"].items() if name not in shipped["stages"]}
        kept = [variables for variables in pipeline["vars"] if not {"names", "scenarios"} & set(variables)]
        pipeline.update(vars=[*shipped["vars"], *kept], stages=shipped["stages"])
        pipeline["stages"].update(others)
    return [name for variables in earlier for name in variables["names"]]


def dump_pipeline(pipeline: Mapping[str, Any]) -> bytes:
    """The text of `dvc.yaml`."""
    import io

    from ruamel.yaml import YAML

    yaml, text = YAML(), io.BytesIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 1000
    yaml.dump(pipeline, text)
    return text.getvalue()


def data_version(workspace: Workspace, name: str) -> str | None:
    """The version of a scenario's own items that `data.dvc` names: the hash of `data/NAME`, 32 hex digits without DVC's suffix
    `.dir`. Other scenarios' items don't affect it. None if `data.dvc` names none, or if neither the cache nor the remote has
    its list of files."""
    if not (workspace.root / "data.dvc").exists():
        return None
    with _repo(workspace) as repo:
        return _digits(_named(repo, name))


def current_version(workspace: Workspace, name: str) -> str | None:
    """The version that `data.dvc` names, if `data/NAME` has that content and DVC's cache has all of it; else None."""
    if not (workspace.root / "data.dvc").exists() or not workspace.data(name).exists():
        return None
    with _repo(workspace) as repo:
        named = _named(repo, name)
        whole = named is not None and not _not_cached(repo, named) and _on_disk(repo, workspace.data(name)) == named.hash_info
        return _digits(named) if whole else None


def data_unchanged(workspace: Workspace, name: str) -> bool:
    """Whether `data/NAME` has the version that `data.dvc` names, and DVC's cache has all of it."""
    return current_version(workspace, name) is not None


def add_data(workspace: Workspace, name: str) -> str:
    """Add the content of `data/NAME` to DVC, so that `data.dvc` names its version; returns that version. The versions of other
    scenarios in `data.dvc` stay, whether or not their items are on this machine.

    Raises:
        EvergreenError: DVC failed.
    """
    with _repo(workspace) as repo, _explained("the data set could not be put under DVC"):
        return _add(repo, workspace, name)


def push_data(workspace: Workspace, name: str) -> str:
    """Push the version of `data/NAME` to the default remote; returns why that failed, or an empty string. A failed push can be
    repeated at any time."""
    from dvc.exceptions import DvcException

    with _repo(workspace) as repo:
        if not repo.config["core"].get("remote"):
            return "no DVC remote is set up: dvc remote add --default …"
        try:
            out, named = _output(repo), _named(repo, name)
            assert named is not None
            failed = repo.cloud.push({named.hash_info, *_hashes(named)}).failed
            if failed:
                return f"{len(failed):,} files could not be copied"
            # Also push the list of all scenarios' files, although the items of some may not be on this machine.
            remote, whole = repo.cloud.get_remote_odb(command="push"), out.hash_info.value
            remote.add(out.cache.oid_to_path(whole), out.cache.fs, whole)
        except (DvcException, OSError) as error:
            return " ".join(str(error).split()) or type(error).__name__
    return ""


def fetch_data(workspace: Workspace, name: str) -> bool:
    """Fetch the files of `data/NAME` that `data.dvc` names and that are missing here, from DVC's cache or remote: all files in
    a fresh clone, new batches after `git pull`, or the rest after a killed fetch. Existing files stay as they are.

    Returns:
        Whether the scenario has data here now. False if neither the cache nor the remote has any, as in a fresh clone without a
        shared remote.
    """
    from dvc.exceptions import DvcException

    folder = workspace.data(name)
    if not (workspace.root / "data.dvc").exists():
        return folder.exists()
    with _repo(workspace) as repo:
        named = _named(repo, name)
        missing = [key for key, _, _ in named if not folder.joinpath(*key).exists()] if named is not None else []
        if not missing:
            return folder.exists()
        with contextlib.suppress(DvcException, OSError):
            _pull(repo, _hashes(named))
        absent = _not_cached(repo, named)
        if absent:
            if folder.exists():
                log.warning(
                    "data.dvc names %s files of data/%s that are neither here nor in the DVC remote: the version made now is without "
                    "them. The earlier data.dvc is in git.", f"{len(missing):,}", name,
                )  # fmt: skip
            return folder.exists()
        with _laid_out(repo, workspace, name, named) as whole:
            for key in missing:
                target = folder.joinpath(*key)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(whole.joinpath(*key), target)
    return True


def restore(workspace: Workspace, name: str, data_dvc: bytes, dvc_lock: bytes) -> str | None:
    """Restore `data/NAME` and the scenario's stage outputs to the state recorded in these two files. Other scenarios' data,
    their entries in `data.dvc` and `dvc.lock`, and their outputs are not touched.

    A kill loses nothing at any moment: the content of `data/NAME` is in DVC's cache before anything changes.

    Args:
        data_dvc: the content of `data.dvc` at that time; it may name other scenarios' data too.
        dvc_lock: the content of `dvc.lock` at that time.

    Returns:
        The previous version of `data/NAME`, which `restore_data` can restore; None if there was none.

    Raises:
        EvergreenError: some of it is in neither the cache nor the remote; then nothing has changed.
    """
    with workspace.lock("data"):
        if not (workspace.root / "data.dvc").exists():
            replace_file(workspace.root / "data.dvc", data_dvc)
        with _open(workspace) as repo, _explained("the model's data could not be brought back"):
            items = _listed(repo, _whole(data_dvc), name)
            entries = {
                stage: entry for stage, entry in _parse_lock(dvc_lock).get("stages", {}).items() if stage.endswith(f"@{name}")
            }
            outputs = [out for entry in entries.values() for out in entry.get("outs", ())]
            _require(repo, items, outputs, name)
            before = _kept(repo, workspace, name)
        with _outputs_of(workspace, entries):
            _replace_data(workspace, name, items)
    return before


def restore_data(workspace: Workspace, name: str, version: str) -> str | None:
    """Restore a version of `data/NAME` (32 hex digits); the stages' outputs stay, and the next run makes them again.

    Returns and raises the same as `restore`.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    with workspace.lock("data"):
        with _open(workspace) as repo, _explained("the data version could not be brought back"):
            items = _listed(repo, HashInfo("md5", f"{version}.dir"), None)
            _require(repo, items, [], name)
            before = _kept(repo, workspace, name)
        _replace_data(workspace, name, items)
    return before


@dataclass(frozen=True)
class Objects:
    """Objects in DVC's cache and remotes.

    Attributes:
        oids: their ids.
        shared_with: other scenarios whose data contain some of the objects that were found; `oids` leaves these objects out.
    """

    oids: tuple[str, ...]
    shared_with: tuple[str, ...]


def objects_with(workspace: Workspace, name: str, ids: Collection[str]) -> Objects:
    """Find the objects that contain any of these items: parts of any version of `data/NAME`, records, splits and predictions.
    All lists of files in the cache and the remotes are read, which includes versions that nothing refers to any more. Other
    scenarios' objects are left out.

    Raises:
        EvergreenError: a remote could not be listed.
    """
    with _repo(workspace) as repo, _explained("the DVC remote could not be read"):
        cache = repo.cache.local
        lists = {oid for odb in (cache, *_remotes(repo)) for oid in odb.all() if oid.endswith(".dir")}
        _pull_names(repo, lists)
        files = {oid: _files_of(cache, oid) for oid in lists if cache.exists(oid)}
        parts = {
            oid
            for entries in files.values()
            for path, oid in entries.items()
            if re.fullmatch(rf"{re.escape(name)}/[^/]+/(part-\d+\.parquet|splits\.parquet|\w+\.jsonl)", path)
        }
        others = {
            oid: path.partition("/")[0]
            for entries in files.values()
            for path, oid in entries.items()
            if re.fullmatch(r"(?!{})[^/]+/[^/]+/part-\d+\.parquet".replace("{}", re.escape(name) + "/"), path)
        }
        _pull_names(repo, parts)
        found = {oid for oid in parts if holds(Path(cache.oid_to_path(oid)), ids)}
        theirs = {
            str(out.get("md5"))
            for stage, entry in _read_lock(workspace).get("stages", {}).items()
            if not stage.endswith(f"@{name}")
            for out in entry.get("outs", ())
        }
        for oid, entries in files.items():
            tables = {entries[table] for table in ("items.parquet", "predictions.parquet") if table in entries}
            _pull_names(repo, tables)
            if oid not in theirs and any(holds(Path(cache.oid_to_path(one)), ids) for one in tables):
                found |= {oid, *entries.values()}
        kept_by_others = {oid for other in theirs & files.keys() for oid in files[other].values()}
        shared = sorted({others[oid] for oid in found & others.keys()})
        return Objects(tuple(sorted(found - others.keys() - kept_by_others)), tuple(shared))


def delete_objects(workspace: Workspace, oids: Iterable[str]) -> int:
    """Delete objects from DVC's cache and all its remotes; returns how many were deleted.

    Raises:
        EvergreenError: a remote does not answer; the objects deleted until then stay deleted.
    """
    oids, deleted = list(oids), 0
    with _repo(workspace) as repo, _explained("not everything could be deleted from the DVC remote"):
        try:
            for odb in (repo.cache.local, *_remotes(repo)):
                for oid in oids:
                    if odb.exists(oid):
                        odb.delete(oid)
                        deleted += 1
        except OSError as error:
            raise EvergreenError(
                f"not everything could be deleted from the DVC remote: {error}",
                fix="See that it answers, and do the same again.",
            ) from None
    return deleted


def _remotes(repo: Repo) -> list[Any]:
    return [repo.cloud.get_remote_odb(name=name) for name in repo.config["remote"]]


def _pull_names(repo: Repo, oids: Iterable[str]) -> None:
    """Pull objects that the cache lacks from whichever remote has them."""
    from dvc_data.hashfile.hash_info import HashInfo

    for odb in _remotes(repo):
        absent = [HashInfo("md5", oid) for oid in oids if not repo.cache.local.exists(oid) and odb.exists(oid)]
        if absent:
            repo.cloud.pull(absent, odb=odb)


def _files_of(cache: Any, oid: str) -> dict[str, str]:
    """The object ids of a list of files, by path."""
    entries = json.loads(Path(cache.oid_to_path(oid)).read_bytes())
    return {str(entry["relpath"]): str(entry.get("md5")) for entry in entries}


def holds(path: Path, ids: Collection[str]) -> bool:
    """Whether a Parquet file's column `id`, or a text file, contains any of these ids."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.exists():
        return False
    content = path.read_bytes()
    if not content.startswith(b"PAR1"):
        return any(id.encode() in content for id in ids)
    column = pq.read_table(pa.BufferReader(content), columns=["id"])["id"]
    return bool(pc.any(pc.is_in(column, pa.array(ids, pa.string()))).as_py())


def _output(repo: Repo) -> Any:
    """DVC's output `data`, as recorded in `data.dvc`."""
    return repo.stage.load_file("data.dvc")[0].outs[0]


def _named(repo: Repo, name: str) -> Any:
    """The list of files of `data/NAME` that `data.dvc` names (DVC's `Tree`), or None."""
    from dvc.exceptions import DvcException

    try:
        out = _output(repo)
        tree = out.get_dir_cache() if out.hash_info else None
    except (DvcException, IndexError):
        return None
    return tree.get_obj(out.cache, (name,)) if tree is not None else None


def _digits(tree: Any) -> str | None:
    return None if tree is None else str(tree.hash_info.value).removesuffix(".dir")


def _hashes(tree: Any) -> set[Any]:
    return {hash_info for _, _, hash_info in tree}


def _not_cached(repo: Repo, tree: Any) -> list[str]:
    """The files of a list that DVC's cache lacks."""
    return ["/".join(key) for key, _, hash_info in tree if not repo.cache.local.exists(hash_info.value)]


def _on_disk(repo: Repo, folder: Path) -> Any:
    """The hash of the current content of a folder in `data/`."""
    out = _output(repo)
    _, _, found = out._build(
        out.cache, str(folder), out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True, no_progress_bar=True
    )
    return found.hash_info


def _add(repo: Repo, workspace: Workspace, name: str) -> str:
    """Implement `add_data`."""
    from dvc_data.hashfile.tree import Tree

    before = (workspace.root / "data.dvc").exists() and _output(repo).hash_info
    if before and _output(repo).get_dir_cache() is not None:
        repo.add(f"data/{name}")
    else:
        repo.add("data")
        if before and _output(repo).hash_info != before:
            log.warning(
                "data.dvc named version %s, whose list of files is neither here nor in the DVC remote (as on a fresh clone). It holds now "
                "what is in data/; run your other scenarios to have theirs in it too. The earlier data.dvc is in git.",
                before.value.removesuffix(".dir"),
            )
    out, items = _output(repo), _named(repo, name)
    if isinstance(items, Tree):  # so that a version can be requested by its own hash
        _keep_list(out.cache, items)
    if not out.meta.size:  # DVC omits it if files were replaced; the same data must give the same bytes
        files = [Path(out.cache.oid_to_path(hash_info.value)) for _, _, hash_info in out.get_dir_cache()]
        if all(path.exists() for path in files):
            path, size = workspace.root / "data.dvc", sum(path.stat().st_size for path in files)
            text = re.sub(r"(?m)^- md5: .+$", rf"\g<0>\n  size: {size}", path.read_text(encoding="utf-8"), count=1)
            replace_file(path, text.encode())
    version = _digits(items)
    assert version is not None  # DVC has just written it
    return version


def _keep_list(cache: Any, tree: Any) -> None:
    from dvc_data.hashfile.db import add_update_tree

    add_update_tree(cache, tree)


def _pull(repo: Repo, hashes: Iterable[Any]) -> None:
    """Pull objects that the cache lacks from the remote, as far as it has them."""
    absent = [hash_info for hash_info in hashes if not repo.cache.local.exists(hash_info.value)]
    if absent:
        repo.cloud.pull(absent)


def _whole(data_dvc: bytes) -> Any:
    """The hash that a `data.dvc` names."""
    from dvc_data.hashfile.hash_info import HashInfo
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return HashInfo("md5", str(YAML(typ="safe", pure=True).load(data_dvc)["outs"][0]["md5"]))
    except (YAMLError, KeyError, TypeError, IndexError):
        raise EvergreenError("the data.dvc that was kept with the model can't be read", fix="Name another version.") from None


def _listed(repo: Repo, hash_info: Any, name: str | None) -> Any:
    """The list of files with this hash, from the cache or the remote; only those of `data/NAME` if a name is given."""
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.tree import Tree

    cache = repo.cache.local
    with contextlib.suppress(DvcException, OSError):
        _pull(repo, [hash_info])
    if not cache.exists(hash_info.value):
        raise EvergreenError(
            f"the data could not be brought back: neither DVC's cache nor the remote has the list of files {hash_info.value}",
            fix="Bring the files of the cache (.dvc/cache) or of the remote back. All is as it was.",
        )
    tree = Tree.load(cache, hash_info)
    items = tree if name is None else tree.get_obj(cache, (name,))
    if items is None:
        raise EvergreenError(f"that version of the data holds none of scenario {name}", fix="Name another version.")
    return items


def _require(repo: Repo, items: Any, outputs: Iterable[dict[str, Any]], name: str) -> None:
    """Make sure that the cache has these items and stage outputs; pull what it lacks.

    Args:
        outputs: entries of `dvc.lock`.

    Raises:
        EvergreenError: some are neither in the cache nor in the remote.
    """
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    cache = repo.cache.local

    def pull(hashes: Iterable[Any]) -> None:
        with contextlib.suppress(DvcException, OSError):
            _pull(repo, hashes)

    pull(_hashes(items))
    missing = [f"data/{name}"] if _not_cached(repo, items) else []
    for out in outputs:
        hash_info = HashInfo("md5", str(out.get("md5")))
        pull([hash_info])
        whole = cache.exists(hash_info.value)
        if whole and hash_info.isdir:
            tree = Tree.load(cache, hash_info)
            pull(_hashes(tree))
            whole = not _not_cached(repo, tree)
        if not whole:
            missing.append(str(out["path"]))
    if missing:
        raise EvergreenError(
            f"the data could not be brought back: neither DVC's cache nor the remote has all of {', '.join(missing)}",
            fix="Bring the files of the cache (.dvc/cache) or of the remote back; what was forgotten can't be. All is as it was.",
        )


def _kept(repo: Repo, workspace: Workspace, name: str) -> str | None:
    """Make sure that the content of `data/NAME` can be restored; returns its version, or None if there is none."""
    if not workspace.data(name).exists():
        return None
    named = _named(repo, name)
    if named is not None and not _not_cached(repo, named) and _on_disk(repo, workspace.data(name)) == named.hash_info:
        _keep_list(repo.cache.local, named)
        return _digits(named)
    return _add(repo, workspace, name)


@contextlib.contextmanager
def _laid_out(repo: Repo, workspace: Workspace, name: str, items: Any) -> Iterator[Path]:
    """Check out these items from the cache into a temporary folder; what is left in it at the end is removed."""
    out, folder = _output(repo), workspace.private / "incoming" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        out._checkout(str(folder), out.fs, items, out.cache, force=True, state=repo.state)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace_data(workspace: Workspace, name: str, items: Any) -> None:
    """Replace the content of `data/NAME` by these items, and its version in `data.dvc`. If that fails, nothing has changed;
    after a kill, `data/NAME` is the old folder, the new one, or absent (then `fetch_data` fetches it)."""
    folder, old = workspace.data(name), workspace.private / "outgoing" / name
    data_dvc = workspace.root / "data.dvc"
    kept = data_dvc.read_bytes()
    explained = _explained("the data could not be brought back")
    with _open(workspace) as repo, explained, _laid_out(repo, workspace, name, items) as new:
        shutil.rmtree(old, ignore_errors=True)
        old.parent.mkdir(parents=True, exist_ok=True)
        had = folder.exists()
        if had:
            os.rename(folder, old)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(new, folder)
            _add(repo, workspace, name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if had:
                os.rename(old, folder)
            replace_file(data_dvc, kept)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _outputs_of(workspace: Workspace, entries: dict[str, Any]) -> Iterator[None]:
    """Put these entries into `dvc.lock`, and check out their outputs from the cache. If that or the block fails, both are as
    before."""
    path = workspace.root / "dvc.lock"
    kept, lock = path.read_bytes() if path.exists() else None, _read_lock(workspace)
    stages = lock.get("stages", {})
    try:
        if entries:
            replace_file(path, _dump_lock({"schema": "2.0", "stages": {**stages, **entries}}))
            with _open(workspace) as repo, _explained("the stages' outputs could not be brought back"):
                repo.checkout(targets=sorted(entries), force=True)
        yield
    except BaseException:
        if entries:
            if kept is None:
                path.unlink(missing_ok=True)
            else:
                replace_file(path, kept)
            back = [stage for stage in entries if stage in stages]
            with contextlib.suppress(Exception), _open(workspace) as repo:
                repo.checkout(targets=back, force=True)
        raise


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
    """Open the repository while holding the lock `data`."""
    with workspace.lock("data"), _open(workspace) as repo:
        yield repo


@contextlib.contextmanager
def _open(workspace: Workspace) -> Iterator[Repo]:
    """Open the repository in its current state. The caller holds the lock `data`."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from dvc.ui import ui

    for library in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # their exceptions contain what they would log
    ui.error_console.quiet = True  # hides its spinner, which would be drawn over ours
    refuse_conflicts(workspace)
    try:
        repo = Repo(str(workspace.root))
    except (NotDvcRepoError, SCMError) as error:
        raise EvergreenError(
            f"{workspace.root} is not set up for DVC: {error}", fix="Clone the repository with git, or: git init"
        ) from None
    with repo, contextlib.chdir(workspace.root):  # DVC resolves targets relative to the current folder
        yield repo


def refuse_conflicts(workspace: Workspace) -> None:
    """Refuse to work with DVC's files while one of them has a merge conflict.

    Raises:
        EvergreenError: git has left a conflict in one of them; the error says how to resolve it.
    """
    for file, fix in CONFLICTS.items():
        try:
            lines = (workspace.root / file).read_bytes().splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, start=1):
            if line.startswith((b"<<<<<<< ", b">>>>>>> ")):
                raise EvergreenError(f"{file}, line {number}: git has left a merge conflict in it", fix=fix)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise EvergreenError(f"{what}: {error}", fix="See what is wrong with: dvc doctor; dvc status") from None

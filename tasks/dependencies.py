"""dependencies: write what the results of *preprocess*, *train* and *evaluate* depend on, besides the data, to a file per stage
that DVC tracks.

Reads   the source code, the scenario's file.
Writes  `outputs/NAME/dependencies/STAGE.json`, only if something has changed. `code` has a digest for each module that affects
        the result, that is, for the code reachable from the stage's function and from the parts of the scenario's kind
        (`evergreen.code_digest`). `settings` has the scenario's settings that affect the result, including defaults.

This is a separate DVC stage, which always runs and takes only a moment. `Stage` writes the same files before it asks DVC.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.environment import in_utf8
from evergreen.errors import EvergreenError
from evergreen.kinds.base.kind import Kind, kind_of
from evergreen.scenario.kinds import load_kind
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file

if TYPE_CHECKING:
    from evergreen.code_digest import Digests, Sources

# Code that is reachable from the stages but does not affect their results, with the reason.
EXCLUDED = {
    "evergreen.energy": "measures",
    "evergreen.environment": "how the libraries are set up",
    "evergreen.errors": "what is said of a refusal",
    "evergreen.figures": "how numbers are written for people",
    "evergreen.kinds.base.judge:Judge.breakdown": "for people, and in no output that DVC has",
    "evergreen.kinds.base.judge:Judge.texts": "for people",
    "evergreen.kinds.base.kind": "finds the kind, whose parts count",
    "evergreen.kinds.base.metric:Metric.text": "for people",
    "evergreen.planning": "what a run will cost",
    "evergreen.processes": "where a function runs, not what it does",
    "evergreen.progress": "shows how far the work is",
    "evergreen.scenario": "settings count by their values",
    "evergreen.training.callbacks:LogEpochs": "shows",
    "evergreen.training.callbacks:LogToMLflow": "records",
    "evergreen.training.callbacks:ReportProgress": "shows",
    "evergreen.training.spending": "measures",
    "evergreen.training.tracking": "records",
    "evergreen.workspace": "where files are and how they are replaced",
    "tasks.evaluate:measure_serving": "differs from run to run, and is in no output that DVC has",
}
# Callables that take messages for people, and which argument is the message, by position and name; None for all arguments.
MESSAGES = {
    "evergreen.errors": None,
    "evergreen.kinds.base.metric:Metric": (1, "title"),
    "evergreen.media.images:BadImage": None,
    "evergreen.progress": None,
    "evergreen.training.fitting:Diverged": None,
}


@dataclass(frozen=True)
class Depends:
    """What a stage depends on.

    Attributes:
        parts: the attributes of the kind that it uses, and whose methods affect its result.
        sections: the sections of the scenario's settings, or single settings.
    """

    parts: tuple[str, ...]
    sections: tuple[str, ...]


STAGES = {
    "preprocess": Depends(("contract",), ("seed", "preprocess")),
    "train": Depends(("learner",), ("seed", "train")),
    "evaluate": Depends(("judge", "codec"), ("promote.slices", "promote.slice_pattern", "promote.min_slice_items")),
}


def roots(stage: str, kind: Kind) -> list[str]:
    """The definitions that determine a stage's result: its function and the classes of the kind's parts."""
    parts = [getattr(kind, part) for part in STAGES[stage].parts]
    classes = [part if isinstance(part, type) else type(part) for part in parts]
    return [f"tasks.{stage}:{stage}", *(f"{part.__module__}:{part.__qualname__}" for part in classes)]


def sources(kind: Kind, folder: Path | None = None) -> Sources:
    """The packages that contain the stages' code.

    Args:
        folder: the folder that contains them; None for where Python finds each.
    """
    from evergreen.code_digest import Sources

    packages = {root.partition(".")[0] for stage in STAGES for root in roots(stage, kind)}
    return Sources({"evergreen", *packages}, MESSAGES, folder)


def excluded(kind: Kind) -> dict[str, str]:
    """The code that does not affect the results of a kind's stages, with the reason."""
    judge = type(kind.judge)
    return EXCLUDED | {
        kind.scenario_type.__module__: "settings count by their values",
        f"{judge.__module__}:{judge.__qualname__}.breakdown": "for people, and in no output that DVC has",
    }


def digests(kind: Kind, read: Sources) -> dict[str, Digests]:
    """The digests of each stage."""
    from evergreen.code_digest import Digests

    return {stage: Digests(read, roots(stage, kind), excluded(kind)) for stage in STAGES}


def write(workspace: Workspace, name: str) -> None:
    """Write the dependency files of a scenario.

    Raises:
        WrongUse: the scenario's file can't be read.
    """
    file = workspace.scenarios / f"{name}.yaml"
    for stage, text in _texts(workspace, name, file.read_bytes() if file.exists() else b"").items():
        path = workspace.dependencies(name) / f"{stage}.json"
        if not path.exists() or path.read_bytes() != text:
            replace_file(path, text)


@functools.lru_cache(maxsize=1)
def _texts(workspace: Workspace, name: str, content: bytes) -> dict[str, bytes]:
    """The content of the files, by stage. It is cached, since a run asks for it before each stage, and parsing the scenario
    takes longer than everything else.

    Args:
        content: of the scenario's file; part of the cache key.
    """
    scenario = load_scenario(workspace.scenarios, name)  # without settings requested for one run: DVC doesn't know those
    code = _code(workspace, scenario.kind)
    contents = {stage: {"code": code[stage], "settings": _settings(stage, scenario)} for stage in STAGES}
    return {stage: (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode() for stage, value in contents.items()}


def entry(workspace: Workspace, name: str) -> dict[str, Any]:
    """A scenario's entry in `dvc.yaml`.

    Raises:
        WrongUse: the scenario's file can't be read.
    """
    return {"plot": asdict(kind_of(load_scenario(workspace.scenarios, name)).judge.plot)}


def _settings(stage: str, scenario: Scenario) -> dict[str, Any]:
    every = scenario.model_dump(mode="json", by_alias=True)
    further = kind_of(scenario).contract.settings if stage == "preprocess" else ()
    return {
        name: functools.reduce(lambda values, key: values[key], name.split("."), every)
        for name in (*STAGES[stage].sections, *further)
    }


@functools.cache
def _code(workspace: Workspace, kind_name: str) -> dict[str, dict[str, str]]:
    """The digests by stage and module. As computing them takes a fifth of a second, they are stored with the size and
    modification time of the files."""
    kind, path = load_kind(kind_name), workspace.private / "code" / f"{kind_name}.json"
    asked, read = {stage: roots(stage, kind) for stage in STAGES}, sources(kind)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept: dict[str, Any] = json.loads(path.read_bytes())
        if kept["roots"] == asked and kept["files"] == _stamps(read, kept["files"]):
            code: dict[str, dict[str, str]] = kept["code"]
            return code
    code = {stage: found.by_module for stage, found in digests(kind, read).items()}
    files = _stamps(read, {*read.parsed(), "tasks.dependencies", "evergreen.code_digest"})
    replace_file(path, json.dumps({"roots": asked, "files": files, "code": code}).encode())
    return code


def _stamps(read: Sources, modules: Iterable[str]) -> dict[str, list[Any]]:
    """The file, size and modification time of each module."""
    files = {module: str(read.file(module)) for module in modules}
    stats = {module: os.stat(file) for module, file in files.items()}
    return {module: [files[module], stat.st_size, stat.st_mtime_ns] for module, stat in stats.items()}


def main() -> None:
    """The body of `python -m tasks.dependencies NAME`, the command of the DVC stage."""
    if len(sys.argv) != 2:
        print("usage: python -m tasks.dependencies SCENARIO", file=sys.stderr)
        raise SystemExit(2)
    in_utf8()
    try:
        write(Workspace.find(), sys.argv[1])
    except EvergreenError as error:
        print(f"dependencies: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()

"""What each of DVC's stages depends on, against what really runs."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ruamel.yaml import YAML

from evergreen.code_digest import Digests, Sources
from evergreen.data.versions import PIPELINE
from evergreen.kinds.base.kind import Kind
from evergreen.kinds.classify.kind import CLASSIFY
from evergreen.workspace import Workspace
from tasks import dependencies, evaluate, preprocess, train
from tasks.dependencies import EXCLUDED, MESSAGES, STAGES, digests, excluded, sources
from tests.evergreen.data.test_versions import change
from tests.support.readings.kind import READINGS
from tests.support.shipped import ROOT
from tests.tiny import NAME, Tiny

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "preprocess": preprocess.preprocess,
    "train": train.train,
    "evaluate": evaluate.evaluate,
}
# Parts of the kind that a stage calls besides those that decide its result.
BESIDES = {
    "evaluate": (
        "evergreen.kinds.classify.contract",
        "evergreen.data.dataset:iter_images",
    ),  # items to measure predictions with
    "train": ("evergreen.kinds.classify.judge", "evergreen.kinds.classify.pictures"),  # the learning curve, for MLflow
}


@pytest.fixture(scope="module")
def now() -> dict[str, Digests]:
    """The digests of the stages of `classify`."""
    return digests(CLASSIFY, sources(CLASSIFY))


def called(work: Callable[[], Any]) -> set[str]:
    """The project's functions that are called in this process while something is done, but for those that excluded code calls
    and those that run because a module is imported."""
    found: set[str] = set()
    seen: dict[Any, bool] = {}

    def part(frame: FrameType) -> str:
        path = Path(frame.f_code.co_filename).relative_to(ROOT).with_suffix("")
        return f"{'.'.join(path.parts)}:{frame.f_code.co_qualname.partition('.<locals>')[0]}"

    def ours(frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith((f"{ROOT}/evergreen/", f"{ROOT}/tasks/"))

    def callers(frame: FrameType | None) -> Iterator[FrameType]:
        while frame is not None:
            yield frame
            frame = frame.f_back

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code not in seen and ours(frame):
            parts = [part(one) for one in callers(frame) if ours(one)]
            if not any(one.endswith(":<module>") or is_excluded(one) for one in parts):
                seen[frame.f_code] = True
                found.add(parts[0])

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def is_excluded(part: str) -> bool:
    module, _, name = part.partition(":")
    modules = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
    return bool({*modules, part, f"{module}:{name.partition('.')[0]}"} & set(excluded(CLASSIFY))) or name.endswith(
        ("__str__", "__repr__")
    )


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_calls_is_in_its_digest_or_excluded_with_a_reason(
    tiny: Tiny, now: dict[str, Digests], stage: str
) -> None:
    change(tiny.workspace, "train", epochs=1)
    ran = called(lambda: FUNCTIONS[stage](tiny.scenario, tiny.workspace))
    assert f"tasks.{stage}:{stage}" in ran and len(ran) > 20
    missing = {part for part in ran if not part.startswith(BESIDES.get(stage, "\n"))} - set(now[stage].parts)
    assert not missing, f"neither in the digest of {stage} nor in tasks.dependencies.EXCLUDED: {', '.join(sorted(missing))}"


def test_what_runs_in_other_processes_is_in_the_digest_too(now: dict[str, Digests]) -> None:
    assert {
        "evergreen.kinds.classify.decoding:pixels_of",
        "evergreen.media.images:prepare",
        "evergreen.media.resizing:resize",
    } <= set(now["preprocess"].parts)
    assert {"evergreen.models.cnn:Augment.call", "evergreen.models.muon:Muon.update_step"} <= set(now["train"].parts)


def test_only_what_decides_a_result_is_in_its_digest(now: dict[str, Digests]) -> None:
    words = (
        "expectations",
        "thumbnails",
        "mistakes",
        "page",
        "work",
        "breakdown",
        "use",
        "caution",
        "recogniser",
        "__str__",
    )
    for stage in STAGES:
        assert not [part for part in now[stage].parts if part.replace(":", ".").rpartition(".")[2] in words]
    assert not [part for part in now["train"].parts if "kinds.classify.judge" in part or "data.dataset" in part]


def test_what_is_excluded_exists_and_is_reached(now: dict[str, Digests]) -> None:
    met = set().union(*(one.met for one in now.values()))
    assert set(EXCLUDED) <= met <= set(excluded(CLASSIFY))
    read = Sources(["evergreen", "tasks"], {})
    for called_name in MESSAGES:
        module, _, name = called_name.partition(":")
        found = read.module(module)
        assert found and (not name or name in found.definitions), called_name


def test_dvc_yaml_has_the_dependencies_of_every_stage() -> None:
    stages = {name: stage["do"] for name, stage in YAML(typ="safe").load(PIPELINE.read_text())["stages"].items()}
    assert list(stages) == ["dependencies", *STAGES] and stages["dependencies"]["always_changed"] is True
    assert stages["dependencies"]["outs"] == [f"outputs/${{key}}/dependencies/{stage}.json" for stage in STAGES]
    for stage, depends in STAGES.items():
        assert f"outputs/${{key}}/dependencies/{stage}.json" in stages[stage]["deps"]
        [params] = [*stages[stage].get("params", []), {"": ["kind", *depends.sections]}][:1]
        assert [*params.values()] == [["kind", *depends.sections]]
    assert {stage.name for stage in (preprocess.stage, train.stage, evaluate.stage) if stage.in_dvc} == set(STAGES)


def test_a_kind_of_another_package_counts_with_its_modules() -> None:
    found = digests(READINGS, sources(READINGS))
    assert "tests.support.readings.contract:ReadingsContract.prepare" in found["preprocess"].parts
    assert "evergreen.preparation.time_split:assign_by_time" in found["preprocess"].parts
    assert "tests.support.readings.learner:ReadingsLearner.build" in found["train"].parts
    assert "tests.support.readings.judge:ReadingsJudge.measure" in found["evaluate"].parts
    assert not [part for one in found.values() for part in one.parts if "classify" in part]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, to change."""
    folder = tmp_path_factory.mktemp("sources")
    for top in ("evergreen", "tasks"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


CLASSIFY_FILES = "evergreen/kinds/classify"
CHANGES = [
    # Wording: nothing is made anew.
    (f"{CLASSIFY_FILES}/expectations.py", '"given", "have none"', '"there", "lack it"', ""),
    (f"{CLASSIFY_FILES}/contract.py", "Add it to validate.labels.", "Name it in validate.labels.", ""),
    (f"{CLASSIFY_FILES}/contract.py", '"""The data contract of labelled images."""', '"""Images."""\n# A comment.', ""),
    (f"{CLASSIFY_FILES}/judge.py", "It was measured on items", "It has been measured on items", ""),
    (f"{CLASSIFY_FILES}/judge.py", '"macro precision"', '"precision, all labels alike"', ""),
    (f"{CLASSIFY_FILES}/judge.py", '"Quality by label"', '"By label"', ""),
    (f"{CLASSIFY_FILES}/comparison.py", '"accuracy", "accuracy"', '"accuracy", "right"', ""),
    (f"{CLASSIFY_FILES}/thumbnails.py", "def thumbnail", "LARGEST = 3\n\n\ndef thumbnail", ""),
    ("tasks/preprocess.py", '"left out because"', '"not used because"', ""),
    ("tasks/train.py", '"epoch": f"{number}, kept"', '"epoch": f"{number} (kept)"', ""),
    ("tasks/evaluate.py", '"What a prediction takes"', '"Predictions"', ""),
    ("tasks/evaluate.py", "Collect more items, or raise", "Collect more, or raise", ""),
    ("evergreen/training/callbacks.py", "log.info(", "log.warning(", ""),
    (
        "evergreen/preparation/splits.py",
        "from __future__ import annotations\n",
        "from __future__ import annotations\n\n# Why.\n",
        "",
    ),
    # What decides: what depends on it is.
    ("evergreen/preparation/splits.py", "SIMILAR = (0.70,", "SIMILAR = (0.71,", "preprocess"),
    ("evergreen/data/dataset.py", 'pc.coalesce(others, rows["label"])', "others", "preprocess evaluate"),
    ("evergreen/preparation/decoding.py", "CHUNK_BYTES = ", "CHUNK_BYTES = 2 * ", "preprocess"),
    (
        f"{CLASSIFY_FILES}/decoding.py",
        "height, width, channels, sys.maxsize",
        "width, height, channels, sys.maxsize",
        "preprocess",
    ),
    (f"{CLASSIFY_FILES}/learner.py", "steps // 20", "steps // 10", "train"),
    ("evergreen/models/cnn.py", "filters // 2, 8", "filters // 2, 4", "train"),
    ("evergreen/models/muon.py", "KERNEL_MOMENTUM = ", "KERNEL_MOMENTUM = 1 - ", "train"),
    ("evergreen/training/export.py", "verbose=False", "verbose=False, opset_version=18", "train"),
    (f"{CLASSIFY_FILES}/metrics.py", "1e-12", "1e-13", "evaluate"),
    (f"{CLASSIFY_FILES}/pictures.py", "EXAMPLES = ", "EXAMPLES = 1 + ", "evaluate"),
    ("evergreen/serving/runtime.py", "BATCH_ITEMS = ", "BATCH_ITEMS = 2 * ", "evaluate"),
    (f"{CLASSIFY_FILES}/codec.py", "np.empty((len(items), *self.shape)", "np.zeros((len(items), *self.shape)", "evaluate"),
]


@pytest.mark.parametrize(("file", "old", "new", "stages"), CHANGES, ids=[f"{file}:{old[:20]}" for file, old, _, _ in CHANGES])
def test_a_change_is_seen_by_the_stages_whose_result_it_decides(
    now: dict[str, Digests], copied: Path, file: str, old: str, new: str, stages: str
) -> None:
    path = copied / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        then = digests(CLASSIFY, sources(CLASSIFY, copied))
    finally:
        path.write_text(text)
    differing = {stage for stage in STAGES if then[stage].by_module != now[stage].by_module}
    assert differing == set(stages.split())


def written(workspace: Workspace) -> dict[str, str]:
    dependencies.write(workspace, NAME)
    return {stage: (workspace.dependencies(NAME) / f"{stage}.json").read_text() for stage in STAGES}


@pytest.mark.parametrize(
    ("section", "setting", "value", "stages"),
    [
        ("preprocess", "height", 9, {"preprocess"}),
        ("validate", "labels", list("9876543210"), {"preprocess"}),
        ("train", "epochs", 99, {"train"}),
        ("promote", "margin", 0.05, set()),
        ("promote", "slices", ["group"], {"evaluate"}),
        ("evaluate", "latency_items", 17, set()),
    ],
)
def test_a_setting_counts_for_the_stages_that_it_decides(
    workspace: Workspace, section: str, setting: str, value: Any, stages: set[str]
) -> None:
    before = written(workspace)
    change(workspace, section, **{setting: value})
    after = written(workspace)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == stages


def test_a_default_that_is_written_into_the_file_changes_nothing(workspace: Workspace) -> None:
    before = written(workspace)
    change(workspace, "train", mirror=False)
    assert written(workspace) == before


def test_what_is_as_it_was_is_not_written_again(workspace: Workspace) -> None:
    written(workspace)
    times = {path: path.stat().st_mtime_ns for path in workspace.dependencies(NAME).iterdir()}
    written(workspace)
    assert {path: path.stat().st_mtime_ns for path in workspace.dependencies(NAME).iterdir()} == times


def test_digests_are_kept_until_a_file_or_a_root_changes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Kind] = []

    def take(kind: Kind, read: Sources) -> dict[str, Digests]:
        taken.append(kind)
        return digests(kind, read)

    monkeypatch.setattr(dependencies, "digests", take)

    def count() -> int:
        """How often digests have been taken, after another process has asked."""
        dependencies._code.cache_clear()
        dependencies._texts.cache_clear()
        written(workspace)
        return len(taken)

    assert (count(), count()) == (1, 1)
    kept = workspace.private / "code" / "classify.json"
    memory = json.loads(kept.read_text())
    file = ROOT / "evergreen" / "models" / "cnn.py"
    assert memory["files"]["evergreen.models.cnn"] == [str(file), file.stat().st_size, file.stat().st_mtime_ns]
    for part in ("files", "roots"):
        changed = memory | {part: {**memory[part], next(iter(memory[part])): ["/another/checkout", 0, 0]}}
        kept.write_text(json.dumps(changed))
        before = len(taken)
        assert (count(), count()) == (before + 1, before + 1)
    for unreadable in ("", "[]", "{}", "null"):
        kept.write_text(unreadable)
        before = len(taken)
        assert count() == before + 1


def test_a_scenario_that_does_not_exist_is_an_error_of_one_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVERGREEN_ROOT", str(workspace.root))
    for arguments, status, said in ((["nothing"], 2, "dependencies: there is no such scenario"), ([], 2, "usage: ")):
        monkeypatch.setattr(sys, "argv", ["dependencies", *arguments])
        with pytest.raises(SystemExit) as ended:
            dependencies.main()
        assert ended.value.code == status
        assert capsys.readouterr().err.startswith(said)

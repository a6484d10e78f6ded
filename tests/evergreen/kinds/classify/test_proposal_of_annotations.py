"""propose: images with annotations become a scenario that collects what was counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.errors import EvergreenError, WrongUse
from evergreen.proposal.propose import Proposal
from evergreen.workspace import Workspace
from tasks.collect import collect
from tests.evergreen.data.annotations.test_boxes import FORMATS
from tests.evergreen.data.annotations.test_hugging_face import arrow, table
from tests.evergreen.data.sources.test_remote import Memory
from tests.evergreen.kinds.classify.test_proposal import images, propose, scenario_of
from tests.support.annotated import picture, pictures
from tests.support.clips import clip
from tests.support.sources import folder_of, zip_of
from tests.support.web import served

NAMES = [f"photos/{number}.png" for number in range(24)]
TABLE = "file,species,plot,when\n" + "".join(
    f"{Path(name).name},{'oak' if number % 3 else 'ash'},p{number // 4},2026-05-{number + 1:02d}\n"
    for number, name in enumerate(NAMES)
)


def collects(proposal: Proposal, workspace: Workspace) -> int:
    """The number of items that the proposed scenario collects, all of them counted in the proposal."""
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    found = collect(scenario_of(proposal, workspace), workspace)
    assert found.added == sum(proposal.counts.values()) and not found.quarantined
    return found.added


@pytest.mark.parametrize("container", [folder_of, zip_of])
def test_a_manifest_is_found_and_says_which_column_is_what(workspace: Workspace, container: object) -> None:
    source = container(workspace.root / "pictures", {"index.csv": TABLE.encode()} | pictures(NAMES))  # type: ignore[operator]
    proposal = propose("leaves", source, workspace)
    assert proposal.counts == {"ash": 8, "oak": 16} and collects(proposal, workspace) == 24
    assert "annotations:\n    format: manifest\n    file: index.csv\n    path: file\n    label: species\n" in proposal.yaml
    reasons = " ".join(proposal.reasons)
    assert reasons.startswith("2 classes and 24 images, from the manifest index.csv: ash 8, oak 16.")
    assert "path from file, label from species; kept with each image: plot, when" in reasons


def test_what_cannot_be_used_is_counted(workspace: Workspace) -> None:
    more = "99.png,oak,,\n../x.png,oak,,\n0.png,,,\nbroken.png,oak,,\n"
    files = {"index.csv": (TABLE + more).encode(), "photos/broken.png": b"no picture", "photos/new.png": picture(77)}
    reasons = " ".join(propose("leaves", folder_of(workspace.root / "pictures", files | pictures(NAMES)), workspace).reasons)
    assert "1 annotations cannot be used (missing)" in reasons and "1 annotations cannot be used (outside)" in reasons
    assert "1 annotated files are no images that can be used" in reasons and "1 images without a label are skipped" in reasons
    assert "1 images that the annotations do not name are skipped" in reasons


def test_the_level_of_the_labels_takes_the_folders_instead(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"red": 12, "blue": 12})
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    table = "path,label\n" + "".join(f"{name},{'ab'[number % 2]}\n" for number, name in enumerate(names))
    (folder / "labels.csv").write_text(table)
    assert propose("leaves", folder, workspace).counts == {"a": 12, "b": 12}
    assert propose("leaves", folder, workspace, labels_at=1).counts == {"blue": 12, "red": 12}


def test_annotations_with_one_label_are_refused(workspace: Workspace) -> None:
    rows = "".join(f"{name},oak,{number % 2}\n" for number, name in enumerate(NAMES))
    folder = folder_of(workspace.root / "pictures", {"l.csv": f"path,label,site\n{rows}".encode()} | pictures(NAMES))
    with pytest.raises(WrongUse, match="fewer than two labels.*--labels-at"):
        propose("leaves", folder, workspace)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_with_boxes_is_found_and_its_crops_are_counted(workspace: Workspace, format: str) -> None:
    boxes = {f"{number:02d}": [("cat", 1, 2, 9, 9), ("dog", 12, 3, 8 + number % 3, 9)] for number in range(8)}
    files = FORMATS[format][0](boxes) | pictures([f"images/{name}.png" for name in boxes])
    proposal = propose("leaves", folder_of(workspace.root / "pictures", files), workspace)
    assert proposal.counts == {"cat": 8, "dog": 8} and collects(proposal, workspace) == 16
    assert f"format: {format}" in proposal.yaml and "16 crops of boxes, from the" in proposal.reasons[0]


def test_a_data_set_of_hugging_face_is_found(workspace: Workspace) -> None:
    rows = [{"image": {"bytes": picture(number), "path": None}, "label": number % 2} for number in range(24)]
    files = {"dataset/state.json": b"{}", "dataset/data-00000-of-00001.arrow": arrow(table(rows))}
    proposal = propose("leaves", folder_of(workspace.root / "pictures", files), workspace)
    assert proposal.counts == {"cat": 12, "dog": 12} and collects(proposal, workspace) == 24
    assert "annotations:\n    format: hugging_face\n" in proposal.yaml


def test_videos_in_class_folders_become_frames(workspace: Workspace) -> None:
    for number in range(4):
        clip(workspace.root / f"pictures/{'ab'[number % 2]}/{number}.avi", list(range(40 * number, 40 * number + 39)))
    proposal = propose("leaves", workspace.root / "pictures", workspace)
    assert proposal.counts == {"a": 8, "b": 8} and collects(proposal, workspace) == 16
    assert "frames:\n    at: interval\n    every_seconds: 1.0\n" in proposal.yaml
    assert "frames of 4 videos, one for each second" in " ".join(proposal.reasons)


def test_an_archive_on_the_web_is_downloaded_and_named_by_its_address(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_SAMPLES", str(workspace.root / "none"))
    files = {f"{label}/{number}.png": picture(number + 50 * place) for place, label in enumerate("ab") for number in range(12)}
    with served() as web:
        web.files["/set/pets.zip"] = zip_of(workspace.root / "pets.zip", files).read_bytes()
        source = Path(f"{web.address}/set/pets.zip")
        with pytest.raises(EvergreenError, match="private_addresses"):
            propose("leaves", source, workspace)
        proposal = propose("leaves", source, workspace, private_addresses=True)
    assert f"file: pets.zip\n  url: {web.address}/set/pets.zip\n  sha256: " in proposal.yaml
    assert proposal.counts == {"a": 12, "b": 12} and collects(proposal, workspace) == 24
    with pytest.raises(WrongUse, match="given with credentials") as refused:
        propose("leaves2", Path("https://anna:geheim@example.org/a.zip"), workspace)
    assert "geheim" not in str(refused.value)


def test_a_folder_of_a_store_is_named_by_its_address(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory.registered(monkeypatch, {})
    for place, label in enumerate("ab"):
        for number in range(12):
            memory.pipe(f"/pets/{label}/{number}.png", picture(number + 50 * place))
    proposal = propose("leaves", Path("s3://pets"), workspace)
    assert "  remote: s3://pets\n" in proposal.yaml
    assert proposal.counts == {"a": 12, "b": 12} and collects(proposal, workspace) == 24

"""propose: a folder of images becomes a scenario that can be run, with the reasons in plain words."""

from __future__ import annotations

import io
import os
import random
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from evergreen.data.sources.opening import open_source
from evergreen.errors import DataRefused, WrongUse
from evergreen.kinds.classify.settings import PRETRAINED_BELOW_ITEMS, ImageScenario
from evergreen.proposal.propose import Proposal
from evergreen.proposal.propose import propose as propose_of
from evergreen.scenario.loading import parse_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.collect import collect
from tests.evergreen.data.sources.test_idx import compressed, pair
from tests.support.sources import folder_of, tar_of


def propose(name: str, source: Path, workspace: Workspace, **settings: Any) -> Proposal:
    """What is proposed for labelled images."""
    given = {"labels_at": None, "follow_links": False, "ask": None} | settings
    return propose_of(name, source, workspace, ["classify"], **given)


def picture(seed: int, size: tuple[int, int] = (32, 24), mode: str = "RGB", format_name: str = "PNG") -> bytes:
    """A picture that differs for each seed."""
    pixels = random.Random(seed).randbytes(size[0] * size[1] * len(mode))
    file = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(file, format_name)
    return file.getvalue()


def images(folder: Path, counts: dict[str, int], ending: str = ".png", **looks: Any) -> Path:
    """A folder with so many pictures below each of its folders."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{number:03d}{ending}").write_bytes(picture(place * 1000 + number, **looks))
    return folder


def scenario_of(proposal: Proposal, workspace: Workspace) -> Scenario:
    """The scenario as it is when its file is written."""
    path = workspace.scenarios / f"{proposal.name}.yaml"
    path.write_text(proposal.yaml, encoding="utf-8")
    return parse_scenario(path)


def proposed(workspace: Workspace, folder: Path) -> tuple[Scenario, str]:
    """The scenario for a folder, whose pattern takes exactly the images that were counted, and all reasons as one text."""
    proposal = propose("leaves", folder, workspace)
    scenario = scenario_of(proposal, workspace)
    assert scenario.validation.labels == list(proposal.counts)
    assert all("\n" not in reason and reason.endswith(".") for reason in proposal.reasons)
    matches = [re.fullmatch(scenario.collect.pattern, found.name, re.DOTALL) for found in open_source(folder).stream()]
    assert Counter(match["label"] for match in matches if match) == proposal.counts
    return scenario, " ".join(proposal.reasons)


def test_a_proposed_scenario_collects_what_it_counted(workspace: Workspace) -> None:
    (workspace.root / "data.dvc").unlink(missing_ok=True)  # begin without a version of the data set
    folder = images(workspace.root / "pictures", {"oak": 12, "ash": 12, ".cache": 2})
    proposal = propose("leaves", folder, workspace)
    assert collect(scenario_of(proposal, workspace), workspace).added == 24 == sum(proposal.counts.values())


def test_class_folders_become_labels(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 12, "ash": 12, "elm": 12})
    scenario, reasons = proposed(workspace, folder)
    assert scenario.validation.labels == ["ash", "elm", "oak"] and scenario.collect.path == "pictures"
    assert reasons.startswith("3 classes and 36 images, from the folders' names: ash 12, elm 12, oak 12.")
    assert "no splits: 20 % of the items" in reasons


def test_the_reasons_stand_in_the_file_as_comments(workspace: Workspace) -> None:
    proposal = propose("leaves", images(workspace.root / "pictures", {"oak": 12, "ash": 12}), workspace)
    comments = [line.removeprefix("# ") for line in proposal.yaml.splitlines() if line.startswith("#")]
    assert comments == proposal.reasons


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), (32, 32)),
        ((48, 24), (24, 48)),
        ((640, 480), (360, 480)),
        ((1200, 1200), (512, 512)),
        ((250, 250), (224, 224)),
        ((3, 3), (4, 4)),
        ((2000, 8), (4, 128)),
    ],
)
def test_images_of_one_size_give_the_input_its_size_up_to_a_limit(
    workspace: Workspace, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    scenario, reasons = proposed(workspace, images(workspace.root / "pictures", {"oak": 3, "ash": 3}, size=size))
    assert (scenario.preprocess.height, scenario.preprocess.width) == expected
    assert f"the images are {size[0]}×{size[1]}" in reasons


def test_images_of_many_sizes_give_a_square_input_near_the_usual_one(workspace: Workspace) -> None:
    folder = workspace.root / "pictures"
    for number in range(20):
        images(folder, {f"oak/{number}": 1, f"ash/{number}": 1}, size=(40 + number, 50 + 3 * number))
    scenario, reasons = proposed(workspace, folder)
    assert (scenario.preprocess.height, scenario.preprocess.width) == (48, 48)
    assert "sizes vary, with shorter sides from 40 to 59 pixels" in reasons


def test_a_few_odd_sizes_do_not_count(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 30, "ash": 30})
    images(folder / "oak", {"other": 2}, size=(50, 50))
    scenario, reasons = proposed(workspace, folder)
    assert (scenario.preprocess.height, scenario.preprocess.width) == (24, 32) and "97% of the images are 32×24" in reasons


@pytest.mark.parametrize(
    ("items", "size", "model"),
    [
        (40, (60, 48), "auto"),
        (40, (60, 47), "residual"),
        (PRETRAINED_BELOW_ITEMS - 1, (48, 48), "auto"),
        (PRETRAINED_BELOW_ITEMS, (48, 48), "residual"),
    ],
)
def test_for_few_images_that_are_not_tiny_how_to_train_is_chosen_by_comparing(
    workspace: Workspace, items: int, size: tuple[int, int], model: str
) -> None:
    folder = images(workspace.root / "pictures", {"oak": 20, "ash": 20}, size=size)
    for number in range(items - 40):
        os.link(folder / "oak" / "000.png", folder / "oak" / f"again-{number}.png")
    scenario, reasons = proposed(workspace, folder)
    assert isinstance(scenario, ImageScenario) and scenario.train.model == model
    assert ("How to train is chosen by comparing" in reasons) == (model == "auto")
    assert ("80 epochs of the small network" in reasons) == (model == "auto" and items < 2_000)


@pytest.mark.parametrize(
    ("items", "side", "said"),
    [
        (40, 512, "compared at 224, 320 and 512 pixels: details may need the larger ones, at the square of the work. The arrays take 31 MB"),
        (2_000, 320, "compared at 224 and 320 pixels"),
        (4_000, 224, ""),
    ],
)  # fmt: skip
def test_large_images_are_kept_large_where_there_is_time_to_compare_sizes(
    workspace: Workspace, items: int, side: int, said: str
) -> None:
    folder = images(workspace.root / "pictures", {"oak": 20, "ash": 20}, size=(600, 600))
    for number in range(items - 40):
        os.link(folder / "oak" / "000.png", folder / "oak" / f"again-{number}.png")
    scenario, reasons = proposed(workspace, folder)
    assert (scenario.preprocess.height, scenario.preprocess.width) == (side, side)
    assert said in reasons and ("frozen features are compared at" in reasons) == bool(said)


def test_the_input_of_a_small_network_is_smaller(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 20, "ash": 20}, size=(300, 300))
    for number in range(PRETRAINED_BELOW_ITEMS):
        os.link(folder / "oak" / "000.png", folder / "oak" / f"again-{number}.png")
    scenario, _ = proposed(workspace, folder)
    assert (scenario.preprocess.height, scenario.preprocess.width) == (128, 128)


@pytest.mark.parametrize(("mode", "channels", "flip"), [("L", 1, "none"), ("RGB", 3, "horizontal")])
def test_grey_and_colour_are_found_by_the_pixels(workspace: Workspace, mode: str, channels: int, flip: str) -> None:
    scenario, _ = proposed(workspace, images(workspace.root / "pictures", {"oak": 4, "ash": 4}, mode=mode))
    assert scenario.preprocess.channels == channels and scenario.train.flip == flip


def test_grey_images_stored_in_colour_are_grey(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 4, "ash": 4}, mode="L")
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path)
    scenario, reasons = proposed(workspace, folder)
    assert scenario.preprocess.channels == 1 and "Grey: 8 of the 8 images looked at are grey" in reasons


def test_unequal_classes_get_balanced_weights(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 30, "ash": 10})
    scenario, reasons = proposed(workspace, folder)
    assert scenario.train.class_weights == "balanced" and "3.0 times the images of the smallest" in reasons


def test_nearly_equal_classes_get_none(workspace: Workspace) -> None:
    scenario, reasons = proposed(workspace, images(workspace.root / "pictures", {"oak": 20, "ash": 10}))
    assert scenario.train.class_weights == "none" and "No class weights" in reasons


def test_a_tiny_class_is_allowed_and_pointed_out(workspace: Workspace) -> None:
    scenario, reasons = proposed(workspace, images(workspace.root / "pictures", {"oak": 20, "ash": 3}))
    assert scenario.validation.min_items_per_label == 1 and "ash has 3 images only" in reasons


def test_folders_that_name_splits_give_the_splits(workspace: Workspace) -> None:
    folder = images(
        workspace.root / "pictures", {f"{split}/{label}": 5 for split in ("Train", "test") for label in ("oak", "ash")}
    )
    scenario, reasons = proposed(workspace, folder)
    assert scenario.validation.labels == ["ash", "oak"]
    assert "(?P<split>Train|test)/" in scenario.collect.pattern and "The folders Train, test are kept" in reasons


def test_splits_below_the_classes_are_found_too(workspace: Workspace) -> None:
    folder = images(
        workspace.root / "pictures", {f"{label}/{split}": 5 for split in ("train", "val") for label in ("oak", "ash")}
    )
    scenario, _ = proposed(workspace, folder)
    assert scenario.validation.labels == ["ash", "oak"] and "(?P<split>train|val)/" in scenario.collect.pattern


def test_a_common_folder_above_the_classes_and_folders_below_them_do_no_harm(workspace: Workspace) -> None:
    folder = images(
        workspace.root / "pictures", {"my (best) set/oak/2024": 5, "my (best) set/oak/2025": 5, "my (best) set/ash": 5}
    )
    scenario, _ = proposed(workspace, folder)
    assert scenario.validation.labels == ["ash", "oak"]


def test_masks_beside_photographs_are_passed_over(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 6, "ash": 6}, ending=".jpg", format_name="JPEG")
    images(folder, {"oak": 6, "ash": 6})
    scenario, reasons = proposed(workspace, folder)
    assert "12 .png files stand beside photographs of the same name" in reasons
    assert scenario.collect.pattern.endswith(r"\.(?i:jpg)")


def test_what_desktops_and_notebooks_leave_behind_is_passed_over(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 6, "ash": 6, ".cache": 2, "oak/.ipynb_checkpoints": 2})
    (folder / "__MACOSX" / "oak").mkdir(parents=True)
    (folder / "oak" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    for rest in (folder / "oak" / "._000.png", folder / "__MACOSX" / "oak" / "._000.png"):
        rest.write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("text")
    scenario, _ = proposed(workspace, folder)
    assert scenario.validation.labels == ["ash", "oak"]


def test_broken_images_are_counted_but_not_proposed(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 30, "ash": 30})
    (folder / "oak" / "empty.png").touch()
    (folder / "ash" / "text.png").write_text("text")
    proposal = propose("leaves", folder, workspace)
    assert proposal.counts == {"ash": 30, "oak": 30}
    reasons = " ".join(proposal.reasons)
    assert "2 files named as images are none that can be used" in reasons


@pytest.mark.parametrize("labels", [["0", "1"], ["yes", "no"], ["null", "1e3"], ["größer", "日本"], ["a: b", "#c, [d]", "'e'"]])
def test_labels_that_look_like_something_else_stay_text(workspace: Workspace, labels: list[str]) -> None:
    scenario, _ = proposed(workspace, images(workspace.root / "pictures", dict.fromkeys(labels, 3)))
    assert scenario.validation.labels == sorted(labels)


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_archives_are_looked_at_like_folders(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, ending: str
) -> None:
    folder = images(workspace.root / "pictures", {"oak": 6, "ash": 6})
    archive = tmp_path_factory.mktemp("elsewhere") / f"pictures{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*.png")):
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, "pictures")
    scenario, _ = proposed(workspace, archive)
    assert scenario.collect.path == str(archive) and scenario.validation.labels == ["ash", "oak"]


def test_an_archive_of_the_current_folder_is_like_any_other(workspace: Workspace) -> None:
    with tarfile.open(workspace.root / "pictures.tar", "w") as tar:
        tar.add(images(workspace.root / "pictures", {"oak": 6, "ash": 6}), ".")
    scenario, _ = proposed(workspace, workspace.root / "pictures.tar")
    assert scenario.validation.labels == ["ash", "oak"]


def reasons_of(workspace: Workspace, folder: Path, **settings: Any) -> tuple[Proposal, str]:
    proposal = propose("leaves", folder, workspace, **settings)
    return proposal, " ".join(proposal.reasons)


def test_a_class_in_a_format_that_is_not_read_is_named_with_the_way_to_convert_it(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 6, "ash": 6})
    (folder / "elm").mkdir()
    for number in range(30):
        (folder / "elm" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
        (folder / "oak" / f"{number}.nef").write_bytes(bytes(200))
    _, reasons = reasons_of(workspace, folder)
    assert "30 .nef files are not read, in oak: develop them" in reasons
    assert "30 .heic files" in reasons and "elm" in reasons and "magick mogrify" in reasons


def test_a_class_whose_name_begins_with_a_dot_is_named(workspace: Workspace) -> None:
    _, reasons = reasons_of(workspace, images(workspace.root / "pictures", {"C++": 3, "Java": 3, ".NET": 4}))
    assert "4 hidden files" in reasons and "all there is in .NET: if that is a label, rename the folder" in reasons


def test_a_class_that_is_a_link_out_of_the_folder_is_named_and_read_on_request(workspace: Workspace) -> None:
    pool = images(workspace.root / "pool", {"elm": 5}, size=(24, 24))
    folder = images(workspace.root / "pictures", {"oak": 6, "ash": 6})
    (folder / "elm").symlink_to(pool / "elm")
    _, reasons = reasons_of(workspace, folder)
    assert f"elm is a link that leads out of the source, to a folder: {pool}/elm" in reasons and "follow_links: true" in reasons
    proposal, _ = reasons_of(workspace, folder, follow_links=True)
    assert proposal.counts == {"ash": 6, "elm": 5, "oak": 6}
    assert collect(scenario_of(proposal, workspace), workspace).added == 17


def test_what_systems_leave_behind_is_no_class_and_is_counted(workspace: Workspace) -> None:
    proposal, reasons = reasons_of(
        workspace, images(workspace.root / "pictures", {"oak": 6, "ash": 6, "@eaDir": 3, "oak/@eaDir": 2})
    )
    assert proposal.counts == {"ash": 6, "oak": 6} and "5 files that systems leave behind" in reasons
    collected = collect(scenario_of(proposal, workspace), workspace)
    assert (collected.added, collected.skipped) == (12, {"files that systems leave behind (thumbnails and the like)": 5})


def test_names_in_another_encoding_are_read_and_the_scenario_says_which(workspace: Workspace) -> None:
    folder = workspace.root / "pictures"
    for place, label in enumerate(("猫", "狗", "马")):
        path = os.fsencode(folder) + b"/" + label.encode("gbk")
        os.makedirs(path)
        for number in range(4):
            with open(path + b"/%d.png" % number, "wb") as file:
                file.write(picture(place * 100 + number))
    proposal, reasons = reasons_of(workspace, folder)
    assert set(proposal.counts) == {"猫", "狗", "马"} and "gb18030 was assumed" in reasons
    scenario = scenario_of(proposal, workspace)
    assert scenario.collect.encoding == "gb18030" and collect(scenario, workspace).added == 12


def test_labels_that_look_alike_are_one_or_are_named(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"cafe\u0301": 3, "café": 3, "Oak": 3, "oak ": 2, "oak": 4})
    proposal, reasons = reasons_of(workspace, folder)
    assert proposal.counts == {"Oak": 3, "café": 6, "oak": 6}
    assert 'The labels "Oak" and "oak" differ in case, spacing or width only' in reasons and 'rename: {"Oak": oak}' in reasons
    assert collect(scenario_of(proposal, workspace), workspace).added == 15


def test_columns_above_the_labels_become_slices(workspace: Workspace) -> None:
    folder = images(
        workspace.root / "pictures", {f"{site}/{label}": 4 for site in ("north", "south") for label in ("oak", "ash")}
    )
    proposal, _ = reasons_of(workspace, folder)
    scenario = ImageScenario.model_validate(YAML(typ="safe").load(proposal.yaml))
    assert scenario.promote.slice_pattern == "^(?P<site>[^/]+)/[^/]+/" and proposal.counts == {"ash": 8, "oak": 8}
    proposal, _ = reasons_of(workspace, folder, labels_at=1)
    assert proposal.counts == {"north": 8, "south": 8}


def refusal(folder: Path, workspace: Workspace) -> str:
    with pytest.raises(WrongUse) as refused:
        propose("leaves", folder, workspace)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_images_without_class_folders_are_refused(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {".": 5})
    assert "there are no class folders" in refusal(folder, workspace)


@pytest.mark.parametrize("place", ["oak", "deep/oak"])
def test_one_class_only_is_refused(workspace: Workspace, place: str) -> None:
    folder = images(workspace.root / "pictures", {place: 5})
    words = refusal(folder, workspace)
    assert "all in one folder" in words and "a folder of its own, named for the class" in words


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_split_folders_alone_are_no_classes(workspace: Workspace, splits: list[str]) -> None:
    folder = images(workspace.root / "pictures", dict.fromkeys(splits, 5))
    assert "two or more" in refusal(folder, workspace)


def test_one_class_in_two_splits_is_refused(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"train/oak": 5, "test/oak": 5})
    assert "all in one class" in refusal(folder, workspace)


def test_an_empty_folder_is_refused(workspace: Workspace) -> None:
    (workspace.root / "pictures").mkdir()
    assert "there are no images in" in refusal(workspace.root / "pictures", workspace)


def test_a_folder_of_texts_is_refused(workspace: Workspace) -> None:
    (workspace.root / "pictures" / "oak").mkdir(parents=True)
    (workspace.root / "pictures" / "oak" / "a.jpg").write_text("text")
    words = refusal(workspace.root / "pictures", workspace)
    assert (
        "WebP, TIFF and AVIF are understood" in words
        and "1 .jpg files that hold no image are skipped, all there is in oak" in words
    )


def test_a_missing_folder_is_refused(workspace: Workspace) -> None:
    assert "No such file" in refusal(workspace.root / "nowhere", workspace)


def test_a_damaged_archive_is_refused(workspace: Workspace) -> None:
    path = workspace.root / "pictures.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(images(workspace.root / "pictures", {"oak": 6, "ash": 6}), "pictures")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataRefused, match="damaged"):
        propose("leaves", path, workspace)


def test_images_of_very_different_shapes_are_padded_and_the_reasons_say_why(workspace: Workspace) -> None:
    folder = workspace.root / "pictures"
    for number in range(20):
        images(folder, {f"oak/{number}": 1, f"ash/{number}": 1}, size=(60, 30) if number % 2 else (30, 60))
    scenario, reasons = proposed(workspace, folder)
    assert scenario.preprocess.resize == "fit"
    assert "their widths are 0.5 to 2 times their heights" in reasons


@pytest.mark.parametrize("sizes", [[(60, 30)], [(60, 30), (80, 40)], [(60, 50), (50, 60)]])
def test_images_of_similar_shapes_are_stretched_as_before(workspace: Workspace, sizes: list[tuple[int, int]]) -> None:
    folder = workspace.root / "pictures"
    for number in range(12):
        images(folder, {f"oak/{number}": 1, f"ash/{number}": 1}, size=sizes[number % len(sizes)])
    scenario, reasons = proposed(workspace, folder)
    assert scenario.preprocess.resize == "stretch" and "fit" not in reasons


def test_a_few_panoramas_among_many_images_change_nothing(workspace: Workspace) -> None:
    folder = images(workspace.root / "pictures", {"oak": 30, "ash": 30}, size=(32, 32))
    images(folder / "more", {"oak": 1, "ash": 1}, size=(160, 16))
    for name in ("oak", "ash"):
        (folder / "more" / name / "000.png").rename(folder / name / "panorama.png")
    scenario, _ = proposed(workspace, folder)
    assert scenario.preprocess.resize == "stretch"


@pytest.mark.parametrize("packed", ["folder", "archive"])
def test_idx_files_give_a_scenario_with_numbers_for_labels_and_the_sources_own_split(workspace: Workspace, packed: str) -> None:
    random = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for split, items in (("train", 60), ("t10k", 20)):
        labels = np.arange(items, dtype=np.uint8) % 3
        files |= compressed(pair(split, random.integers(0, 256, (items, 14, 12), np.uint8), labels))
    source = workspace.root / "pictures"
    source = folder_of(source, files) if packed == "folder" else tar_of(source, files, "w:gz")
    scenario, reasons = proposed(workspace, source)
    assert scenario.validation.labels == ["0", "1", "2"]
    assert (scenario.preprocess.height, scenario.preprocess.width, scenario.preprocess.channels) == (14, 12, 1)
    assert "The images are in t10k-images-idx3-ubyte.gz, train-images-idx3-ubyte.gz, with labels that are numbers" in reasons
    matches = [re.fullmatch(scenario.collect.pattern, entry.name, re.DOTALL) for entry in open_source(source).stream()]
    assert Counter(match["split"] for match in matches if match) == {"train": 60, "test": 20}

"""layout: which of the folders above labelled images are the labels, in the layouts that people have."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.data.folder_names import split_of
from evergreen.errors import WrongUse
from evergreen.kinds.classify.folder_layout import Layout, understand

PETS = ("cat", "dog")
PLANTS = ("Apple___healthy", "Apple___scab", "Corn___rust")


def crossed(*levels: tuple[str, ...]) -> list[str]:
    """All paths through these levels."""
    paths = [""]
    for level in levels:
        paths = [f"{path}{name}/" for path in paths for name in level]
    return paths


def understood(folders: list[str], labels_at: int | None = None, each: int = 20) -> Layout:
    return understand(Counter({tuple(folder.strip("/").split("/")): each for folder in folders}), labels_at)


def taken(layout: Layout, folders: list[str]) -> dict[str, dict[str, str]]:
    """What the pattern gives for an image in each folder that it takes."""
    found = {folder: re.fullmatch(layout.pattern + r"(?:.*/)?[^/]+", f"{folder.strip('/')}/1.png") for folder in folders}
    return {folder: match.groupdict() for folder, match in found.items() if match}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (crossed(("train", "val", "test"), PETS), {"train", "val", "test"}),
        (crossed(("Training", "Testing"), ("glioma", "notumor")), {"train", "test"}),
        (crossed(("data_train", "data_valid", "data_test"), PETS), {"train", "val", "test"}),
        (crossed(("training_set",), ("training_set",), PETS) + crossed(("test_set",), ("test_set",), PETS), {"train", "test"}),
        (crossed(("seg_train",), ("seg_train",), PETS) + crossed(("seg_test",), ("seg_test",), PETS), {"train", "test"}),
        (crossed(("train", "dev", "test"), PETS), {"train", "val", "test"}),
        (crossed(("train", "eval"), PETS), {"train", "val"}),
        (crossed(("train", "test", "extra"), PETS), {"train", "test"}),
        (crossed(("train2017", "val2017"), PETS), {"train", "val"}),
        (crossed(("archive",), ("TrainSet", "TestSet"), ("0", "1", "2")), {"train", "test"}),
        (crossed(("cat", "dog"), ("train", "val")), {"train", "val"}),
        (crossed(("north", "south"), ("train", "test"), PETS), {"train", "test"}),
    ],
)
def test_folders_that_name_splits_are_splits(folders: list[str], splits: set[str]) -> None:
    layout = understood(folders)
    assert not {"train", "test", "val"} & set(layout.label.counts) and layout.keep_splits and not layout.alternatives
    given = taken(layout, folders)
    assert given.keys() == set(folders) and {split_of(groups["split"]) for groups in given.values()} == splits
    assert {groups["label"] for groups in given.values()} == set(layout.label.counts)


@pytest.mark.parametrize(
    ("above", "column"),
    [
        (("2024", "2025"), "year"),
        (("camera-1", "camera-2"), "camera"),
        (("north", "south"), "site"),
        (("Session_01", "Session_02", "Session_03"), "session"),
        (("2024-05", "2024-06"), "date"),
        (("berlin", "paris"), "folder"),
    ],
)
def test_where_the_same_names_repeat_below_every_folder_those_are_the_labels(above: tuple[str, ...], column: str) -> None:
    folders = crossed(("set",), above, PETS)
    layout = understood(folders)
    assert set(layout.label.counts) == set(PETS) and taken(layout, folders).keys() == set(folders)
    assert layout.slice_pattern
    match = re.search(layout.slice_pattern, f"{folders[-1]}1.png")
    assert match and match.groupdict() == {column: above[-1]}
    assert not re.search(layout.slice_pattern, "cat/1.png")  # as it comes by the inbox


def test_many_folders_above_or_below_the_labels_are_groups() -> None:
    patients = tuple(f"{number}" for number in range(10250, 10290))
    for folders in (crossed(patients, ("0", "1")), crossed(("benign", "malignant"), patients)):
        layout = understood(folders)
        assert set(layout.label.counts) in ({"0", "1"}, {"benign", "malignant"})
        assert {groups["group"] for groups in taken(layout, folders).values()} == set(patients)


def test_of_renderings_of_the_same_pictures_one_is_taken_and_that_is_said() -> None:
    folders = crossed(("raw",), ("color", "grayscale", "segmented"), PLANTS)
    layout = understood(folders)
    assert taken(layout, folders).keys() == set(crossed(("raw",), ("color",), PLANTS))
    reasons = " ".join(layout.reasons)
    assert "color, grayscale, segmented are renderings of the same pictures" in reasons
    assert "120 images in grayscale, segmented, are left out" in reasons
    folders = crossed(PETS, ("images", "masks"))
    assert taken(understood(folders), folders).keys() == set(crossed(PETS, ("images",)))


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([*crossed(("seg_train", "seg_test"), PETS), "seg_pred"], "20 images in seg_pred, unlabelled, are left out"),
        ([*crossed(("train",), PETS), "test"], "20 images in test, which has no class folders, are left out"),
        (
            crossed(("set",), ("train", "test"), PETS) + crossed(("set",), ("set",), ("train", "test"), PETS),
            "80 images in set, which is no split, are left out",
        ),
    ],
)
def test_images_that_belong_to_no_label_are_left_out_and_counted(folders: list[str], words: str) -> None:
    layout = understood(folders)
    assert set(layout.label.counts) == set(PETS) and any(words in reason for reason in layout.reasons)


def test_splits_that_leave_a_label_out_of_train_are_not_kept() -> None:
    folders = ["train/good", "test/good", "test/broken", "test/scratch", "ground_truth/broken", "ground_truth/scratch"]
    layout = understood(folders)
    assert set(layout.label.counts) == {"good", "broken", "scratch"} and not layout.keep_splits
    assert all("split" not in groups for groups in taken(layout, folders).values())
    reasons = " ".join(layout.reasons)
    assert "train has none of broken, scratch" in reasons and "finding anomalies" in reasons and "masks" in reasons


@pytest.mark.parametrize(
    "labels", [("bus", "car", "train"), ("red", "green", "gray"), ("0", "1", "2"), ("class_1", "class_2"), ("left", "right")]
)
def test_labels_that_look_like_something_else_are_labels(labels: tuple[str, ...]) -> None:
    assert set(understood(list(labels)).label.counts) == set(labels)
    assert set(understood(crossed(("train", "test"), labels)).label.counts) == set(labels)


def test_folders_of_cameras_alone_are_the_labels() -> None:
    assert set(understood(["camera-1", "camera-2"]).label.counts) == {"camera-1", "camera-2"}


@pytest.mark.parametrize(
    ("folders", "chosen", "other"),
    [
        (crossed(("red", "blue"), ("circle", "square")), 2, 1),
        (["mammal/cat", "mammal/dog", "bird/owl", "bird/robin"], 1, 2),
    ],
)
def test_where_it_is_in_doubt_that_is_said_and_an_answer_decides(folders: list[str], chosen: int, other: int) -> None:
    layout = understood(folders)
    assert layout.label.number == chosen and [level.number for level in layout.alternatives] == [other]
    assert any(reason.startswith("In doubt: ") and f"--labels-at {other}" in reason for reason in layout.reasons)
    asked = understand(Counter({tuple(folder.strip("/").split("/")): 9 for folder in folders}), ask=lambda _: other)
    assert asked.label.number == understood(folders, other).label.number == other and not asked.alternatives


def test_an_answer_that_is_no_level_is_refused_with_those_that_are() -> None:
    with pytest.raises(WrongUse, match="expected one of 1, 2; got 3"):
        understood(crossed(("a", "b"), PETS), 3)


def test_the_tree_names_each_level_with_its_number_and_meaning() -> None:
    tree = understood(crossed(("set",), ("north", "south"), ("train", "test"), PETS)).tree("160 .png images")
    assert [line.split("└─ ")[1].split("/")[0] for line in tree[:-1]] == ["set", "north, south", "test, train", "cat, dog"]
    assert [re.sub(r".*  level ", "", line) for line in tree[:-1]] == [
        "1",
        "2: column site, for slices",
        "3: splits",
        "4: labels",
    ]
    assert tree[-1].endswith("160 .png images")


names = st.text("abcdefghkmuvz_", min_size=1, max_size=8)


@given(
    st.lists(names, min_size=2, max_size=6, unique=True),
    st.sampled_from([("train", "test"), ("Training", "Validation"), ("data_train", "data_val", "data_test"), ("dev", "train")]),
    st.lists(st.sampled_from(["set", "archive", "my data"]), max_size=2),
    st.sampled_from([(), ("2023", "2024"), ("camera 1", "camera 2")]),
)
def test_any_labels_below_splits_and_columns_are_found(
    labels: list[str], splits: tuple[str, ...], common: list[str], column: tuple[str, ...]
) -> None:
    above = [(name,) for name in common] + ([column] if column else [])
    folders = crossed(*above, splits, tuple(labels))
    given = taken(understood(folders), folders)
    if any(split_of(label) for label in labels):
        return  # such as a label "dev"
    assert {folder: groups["label"] for folder, groups in given.items()} == {f: f.strip("/").split("/")[-1] for f in folders}


@given(st.dictionaries(st.lists(names, max_size=4).map(tuple), st.integers(1, 50), min_size=1, max_size=20))
def test_whatever_the_folders_are_each_image_is_taken_or_accounted_for(paths: dict[tuple[str, ...], int]) -> None:
    try:
        layout = understand(Counter(paths))
    except WrongUse:
        return
    matched = [path for path in paths if re.fullmatch(layout.pattern + r"(?:.*/)?[^/]+", "/".join([*path, "1.png"]))]
    labels = {re.fullmatch(layout.pattern + r"(?:.*/)?[^/]+", "/".join([*path, "1.png"]))["label"] for path in matched}  # type: ignore[index]
    assert labels <= set(layout.label.counts) and len(layout.label.counts) > 1
    assert sum(paths[path] for path in matched) + sum(layout.left_out.values()) <= sum(paths.values())

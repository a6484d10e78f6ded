"""`evergreen explain` and the function behind it: an answer, and a picture of what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.errors import WrongUse
from evergreen.kinds.classify.labelling import _on_picture
from evergreen.media.resizing import resize
from evergreen.serving.explaining import explain
from evergreen.serving.scoring import load
from evergreen.workspace import Workspace
from flows.explain import explain as explain_files
from tests.tiny import NAME, Tiny

EVERY: dict[str, Any] = {"version": "champion", "label": None, "folder": None}


@pytest.fixture
def files(champion: Tiny, tmp_path: Path) -> list[Path]:
    """Two digits of the same file name in different folders."""
    found = []
    for number, image in enumerate(champion.images[:2]):
        file = tmp_path / str(number) / "digit.png"
        file.parent.mkdir()
        file.write_bytes(image)
        found.append(file)
    return found


def pixels(picture: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(picture).convert("RGB")).astype(int)


def test_each_file_gets_the_models_answer_and_a_picture_of_its_own(champion: Tiny, files: list[Path]) -> None:
    found = explain_files(champion.workspace, NAME, files, **EVERY)
    model = load(champion.workspace, NAME)
    assert [one.label for one in found] == [one.label for one in model.predict([file.read_bytes() for file in files])]
    assert [one.picture.name for one in found] == ["digit.heat.png", "digit-1.heat.png"]
    for one in found:
        red, _, blue = np.moveaxis(pixels(one.picture), 2, 0)
        assert ((red - blue) > 30).any(), "no part speaks for the answer"
        assert one.probability == max(one.probabilities.values())


def test_the_function_explains_any_label_of_a_model(champion: Tiny, files: list[Path]) -> None:
    model, image = load(champion.workspace, NAME), files[0].read_bytes()
    answer = explain(model, image)
    other = next(label for label in model.labels if label != answer.label)
    explained = explain(model, image, other)
    assert (explained.label, explained.explained) == (answer.label, other)
    assert explained.picture != answer.picture
    with pytest.raises(WrongUse, match="does not have this label.*got 'zebra'"):
        explain(model, image, "zebra")


@pytest.mark.parametrize("mode", ["stretch", "fit", "crop"])
def test_the_heat_is_where_the_network_saw_it(mode: Any) -> None:
    """A wide picture with a mark; the heat map of the network's square input is hot where the mark came to lie in it."""
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[20:30, 75:85] = 255
    seen = resize(picture, 64, 64, mode)[:, :, 0].astype(np.float32)
    found = _on_picture(seen, (64, 64), mode, picture.shape[:2])
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    middle = np.argwhere(found > found.max() / 2).mean(axis=0)
    assert (20 <= row < 30) and (75 <= column < 85) and np.abs(middle - (24.5, 79.5)).max() < 1
    assert (mode == "crop") == bool((_on_picture(np.ones_like(seen), (64, 64), mode, (60, 120)) == 0).any())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"files": ["nowhere.png"]}, "there is no file .*nowhere.png"),
        ({"files": ["."]}, "is a folder; expected image files"),
        ({"files": ["text.png"]}, "text.png cannot be used"),
        ({"name": "zebra"}, "there is no such scenario"),
        ({"version": "9"}, "has no version 9; expected one of 1"),
        ({"name": "cifar10"}, "there is none yet.*Train one with: evergreen run cifar10"),
    ],
)
def test_what_cannot_be_explained_is_said_with_what_to_do(
    champion: Tiny, files: list[Path], tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    asked = [files[0], *(tmp_path / name for name in given.pop("files", []))]
    options = {"name": NAME, **EVERY, "folder": tmp_path / "maps"} | given
    with pytest.raises(WrongUse, match=reason):
        explain_files(champion.workspace, files=asked, **options)
    assert not (tmp_path / "maps").exists()


def test_without_a_champion_it_says_how_to_get_one(registered: Tiny, tmp_path: Path) -> None:
    (tmp_path / "digit.png").write_bytes(registered.images[0])
    with pytest.raises(WrongUse, match="no version champion.*evergreen promote quickstart --version 1 --force"):
        explain_files(Workspace(registered.root), NAME, [tmp_path / "digit.png"], **EVERY)

"""The explorer of images: near-duplicates, outliers and trivial baselines, and a small data set explored as a whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evergreen.errors import WrongUse
from evergreen.kinds.classify import item_features as features_file
from evergreen.kinds.classify.explorer import _baselines, _conclusion, _duplicates, _outliers
from evergreen.kinds.classify.item_features import compared, item_features, side_of
from evergreen.kinds.classify.label_errors import find_label_errors, out_of_sample
from evergreen.workspace import Workspace
from flows.look import Look, write_look
from tasks.collect import collect
from tests.evergreen.kinds.classify.test_label_errors import ITEMS, items, true_labels
from tests.evergreen.kinds.test_contract import Case, into_the_data_set
from tests.support.classify import EXAMPLE
from tests.support.classify import ITEMS as ITEMS_OF_A_LABEL


def test_conflicts_come_first_then_the_largest_groups() -> None:
    data = items(true_labels(12))
    looks = np.array([0, 0, 2, 3, 3, 3, 6, 7, 8, 6, 10, 11])  # 6 and 9 are of one label
    found = _duplicates(replace(data, looks=looks))
    assert [(len(group.ids), group.conflict) for group in found] == [(3, True), (2, True), (2, False)]
    assert found[2].ids == (data.ids[6], data.ids[9]) and found[2].labels == ("cat", "cat")


def test_the_item_that_is_unlike_all_others_is_the_first_outlier() -> None:
    data = items(true_labels())
    data.features[7] = 30
    found = _outliers(data, compared(data.features), seed=0)
    assert found[0].id == data.ids[7] and found[0].distance > 3
    assert [one.distance for one in found] == sorted((one.distance for one in found), reverse=True)


@pytest.mark.parametrize(
    ("spread", "words"),
    [(5, "solved without looking"), (60, "Much of what a model reaches"), (5000, "trivial properties do not solve")],
    ids=["solved", "largely", "not"],
)
def test_a_set_that_its_colours_solve_is_said_to_be_so(spread: float, words: str) -> None:
    labels, random = true_labels(), np.random.default_rng(0)
    colours = (random.normal(0, spread, (ITEMS, 3)) + 100 * labels[:, None]).astype(np.float32)
    data = replace(items(labels), mean_colours=colours)
    baselines = _baselines(data, np.full((ITEMS, 2), 32, np.float32), out_of_sample(data, seed=0), 0)
    assert [baseline.name for baseline in baselines] == [
        "always the commonest label", "width and height alone", "the mean colour alone", "size and mean colour",
        "features of a pre-trained network",
    ]  # fmt: skip
    assert baselines[0].balanced_accuracy == pytest.approx(1 / 3) and baselines[1].balanced_accuracy < 0.5
    assert words in _conclusion(baselines)


def test_the_images_that_features_are_computed_from_are_smaller_in_larger_sets() -> None:
    assert [side_of((side, side, 3), 500) for side in (12, 128, 600)] == [96, 128, 224]
    assert [side_of((224, 224, 3), count) for count in (19_000, 60_000, 10_000_000)] == [224, 128, 96]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Look]:
    """A checkout with the example's images in its data set, one of them with a wrong label and one under two labels, and the
    page. No model was trained."""
    workspace = Workspace(tmp_path_factory.mktemp("look"))
    EXAMPLE.write(workspace.root / "source")
    (workspace.root / "source/light/000.png").rename(workspace.root / "source/dark/wrong.png")
    workspace.scenarios.mkdir()
    (workspace.scenarios / "brightness.yaml").write_text(json.dumps(EXAMPLE.settings))
    scenario = EXAMPLE.scenario()
    collect(scenario, workspace)
    into_the_data_set(Case(scenario, workspace))
    return workspace, write_look(workspace, "brightness")


@pytest.mark.slow
def test_a_data_set_is_looked_into_before_any_training(looked: tuple[Workspace, Look]) -> None:
    workspace, written = looked
    content, page = written.content, written.path.read_text()
    assert written.path == workspace.outputs("brightness") / "look.html" and '<svg id="map"' in page
    assert content["items"] == 2 * ITEMS_OF_A_LABEL and content["by_label"] == {"dark": 121, "light": 119}
    assert content["suspects"][0]["source"] == "dark/wrong.png" and content["suspects"][0]["suggested"] == "light"
    assert content["tables"]["Width and height"][0]["median"] == "12 px"
    assert [one["new"] for one in content["changes"]] == [240]
    brightness = content["baselines"][2]
    assert brightness["name"] == "the mean brightness alone" and brightness["balanced_accuracy"] > 0.95
    assert any("solved without looking" in sentence for sentence in written.conclusions)


@pytest.mark.slow
def test_features_are_computed_once(looked: tuple[Workspace, Look], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, written = looked
    computed: list[int] = []
    original = features_file._compute
    monkeypatch.setattr(
        features_file,
        "_compute",
        lambda ids, images, chosen, *rest: (computed.append(int(chosen.sum())), original(ids, images, chosen, *rest))[1],
    )
    scenario = EXAMPLE.scenario()
    found = find_label_errors(scenario, workspace)
    assert [one.id for one in found] == [one["id"] for one in written.content["suspects"]] and computed == []
    (file,) = workspace.features(scenario.name).glob("*/*.npz")
    with np.load(file) as stored:
        ids, values = stored["ids"], stored["features"]
    np.savez(file, ids=ids[:-10], features=values[:-10])
    again = item_features(scenario, workspace)
    assert computed == [10] and np.allclose(again.features, values.astype(np.float32), atol=1e-2)
    assert not (workspace.features(scenario.name) / "scratch").exists()


def test_a_scenario_without_items_says_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(WrongUse, match="nothing has been collected for quickstart yet.*evergreen run quickstart"):
        write_look(workspace, "quickstart")

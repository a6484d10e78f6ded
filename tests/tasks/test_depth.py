"""Images of 12 bits through the stages: the range is chosen once, recorded with the data, and goes with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evergreen.data.dataset import batches, staged, table
from evergreen.errors import DataRefused
from evergreen.kinds.classify.codec import range_of
from evergreen.kinds.classify.decoding import pixels_of
from evergreen.kinds.classify.items import recorded_range
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.images import PixelRange
from evergreen.preparation.arrays import facts, open_split
from evergreen.proposal.propose import propose
from evergreen.scenario.loading import load_scenario
from evergreen.serving.scoring import Model
from evergreen.workspace import Workspace
from tasks.collect import Collection, collect
from tasks.preprocess import preprocess


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """A checkout with nothing collected."""
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    return workspace


def stripes(label: str, seed: int, side: int = 16) -> np.ndarray:
    """12 bits: stripes whose direction is the label, faint, about a brightness that says nothing. Their upper 8 of 16 bits are
    one value."""
    chance = np.random.default_rng((seed, label == "across"))
    along = np.arange(side)[None, :] if label == "across" else np.arange(side)[:, None]
    middle = 128 + 256 * chance.integers(2, 14)
    wave = 60 * np.sin(2 * np.pi * along / chance.uniform(4, 7) + chance.uniform(0, 6.3))
    return (middle + wave + chance.normal(0, 12, (side, side))).clip(middle - 120, middle + 120).astype(np.uint16)


def fill(workspace: Workspace, number: int = 30, first: int = 0, extension: str = ".png") -> Path:
    folder = workspace.root / "stripes"
    for label in ("across", "down"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + number):
            (folder / label / f"{seed}{extension}").write_bytes(cv2.imencode(extension, stripes(label, seed))[1].tobytes())
    return folder


def scenario(**given: Any) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "stripes", "kind": "classify", "seed": 1,
            "collect": {"path": "stripes"},
            "validate": {"labels": ["across", "down"]},
            "preprocess": {"height": 16, "width": 16, "channels": 1, "look_alikes": False, **given},
            "train": {},
        }
    )  # fmt: skip


def take_in(workspace: Workspace, **given: Any) -> Collection:
    """Collect, and move the batch into the data set as version does."""
    collection = collect(scenario(**given), workspace)
    for folder in staged(workspace, "stripes"):
        workspace.data("stripes").mkdir(parents=True, exist_ok=True)
        folder.rename(workspace.data("stripes") / folder.name)
    return collection


def recorded(workspace: Workspace) -> PixelRange | None:
    return recorded_range(batches(workspace, "stripes"))


def test_the_first_collection_chooses_the_range_says_so_and_records_it_with_the_data(workspace: Workspace) -> None:
    fill(workspace)
    collection = take_in(workspace)
    found = recorded(workspace)
    assert found is not None and 500 < found.low < 900 and 3_300 < found.high < 3_600
    assert f"Values from {found.low:g} (black) to {found.high:g} (white) are read." in str(collection)
    contrasts = table(batches(workspace, "stripes"), ["contrast"])["contrast"].to_pylist()
    assert np.median(contrasts) == pytest.approx(43 / (found.high - found.low), rel=0.15)


def test_the_range_stays_when_other_values_come_later(workspace: Workspace) -> None:
    fill(workspace)
    take_in(workspace)
    before = recorded(workspace)
    for seed in range(20):
        bright = stripes("down", 1_000 + seed) + 20_000
        (workspace.root / "stripes" / "down" / f"bright-{seed}.png").write_bytes(cv2.imencode(".png", bright)[1].tobytes())
    assert take_in(workspace).added == 20
    assert recorded(workspace) == before and len(list(workspace.data("stripes").glob("*/range.json"))) == 1


def test_training_arrays_and_serving_see_the_same_pixels_whatever_the_format(workspace: Workspace) -> None:
    fill(workspace, 20), fill(workspace, 20, 100, ".tif")
    take_in(workspace)
    preprocess(scenario(), workspace)
    splits = workspace.splits("stripes")
    found = range_of(facts(splits))
    assert found == recorded(workspace)
    rows = table(batches(workspace, "stripes"), ["id", "image"]).to_pylist()
    serving = {row["id"]: pixels_of([row["image"]], (16, 16, 1), [""], range_of({"range": found._asdict()}))[0] for row in rows}  # type: ignore[union-attr]
    import pyarrow.parquet as pq

    for item in pq.read_table(splits / "items.parquet").to_pylist():
        assert np.array_equal(open_split(splits, item["split"])["images"][item["row"]], serving[item["id"]])


def test_the_scenarios_range_is_used_and_recorded_and_may_change_afterwards(workspace: Workspace) -> None:
    fill(workspace)
    asked = {"low": 0, "high": 4095}
    take_in(workspace, range=asked)
    assert recorded(workspace) == PixelRange(0, 4095)
    preprocess(scenario(range={"low": 400, "high": 3800}), workspace)
    assert range_of(facts(workspace.splits("stripes"))) == PixelRange(400, 3800)
    assert recorded(workspace) == PixelRange(0, 4095)  # brightness and contrast of old and new items stay comparable


def test_a_range_that_leaves_no_contrast_is_refused_before_anything_is_taken_in(workspace: Workspace) -> None:
    fill(workspace)
    with pytest.raises(
        DataRefused, match=r"reach \d+ of 256 levels; .* Set preprocess.range: {low: \d+, high: \d+} in"
    ) as refusal:
        collect(scenario(range={"low": 0, "high": 65535}), workspace)
    assert not staged(workspace, "stripes") and "\n" not in str(refusal.value)


def test_a_range_that_leaves_no_contrast_is_refused_when_it_is_set_later(workspace: Workspace) -> None:
    fill(workspace)
    take_in(workspace)
    with pytest.raises(DataRefused, match=r"read with preprocess.range {low: 0, high: 65535} they reach 1\d of 256 levels"):
        preprocess(scenario(range={"low": 0, "high": 65535}), workspace)
    assert not workspace.splits("stripes").exists()


def test_a_data_set_from_before_there_were_ranges_is_read_as_it_was_and_the_refusal_says_what_to_set(
    workspace: Workspace,
) -> None:
    fill(workspace)
    take_in(workspace)
    [record] = workspace.data("stripes").glob("*/range.json")
    record.unlink()
    fill(workspace, 5, 500)
    collection = take_in(workspace)
    assert collection.note == "" and recorded(workspace) is None
    with pytest.raises(
        DataRefused, match=r"read by the upper 8 of their 16 bits .* Set preprocess.range: {low: \d+, high: \d+}"
    ):
        preprocess(scenario(), workspace)
    preprocess(scenario(range={"low": 600, "high": 3500}), workspace)
    assert range_of(facts(workspace.splits("stripes"))) == PixelRange(600, 3500)


def test_images_of_8_bits_among_them_stay_as_they_are_and_are_counted(workspace: Workspace) -> None:
    folder = fill(workspace)
    for seed in range(10):
        grey = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
        (folder / "down" / f"grey-{seed}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    collection = take_in(workspace)
    assert "are read of 60 new items; the other 10 have 8 bits and stay as they are." in str(collection)
    encoded = (folder / "down" / "grey-3.png").read_bytes()
    grey = np.random.default_rng(3).integers(0, 256, (16, 16), np.uint8)
    assert np.array_equal(pixels_of([encoded], (16, 16, 1), [""], recorded(workspace))[0, :, :, 0], grey)


def test_images_of_8_bits_alone_have_no_range_anywhere(workspace: Workspace) -> None:
    folder = fill(workspace)
    for path in folder.glob("*/*.png"):
        path.write_bytes(cv2.imencode(".png", (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 16).astype(np.uint8))[1].tobytes())
    assert take_in(workspace).note == "" and recorded(workspace) is None
    preprocess(scenario(), workspace)
    assert not list(workspace.root.rglob("range.json"))


def test_floating_point_tiffs_are_collected_with_the_range_of_their_values(workspace: Workspace) -> None:
    folder = workspace.root / "stripes"
    for label in ("across", "down"):
        (folder / label).mkdir(parents=True)
        for seed in range(20):
            celsius = (stripes(label, seed) / 100).astype(np.float32)
            (folder / label / f"{seed}.tif").write_bytes(cv2.imencode(".tif", celsius)[1].tobytes())
    collection = take_in(workspace)
    found = recorded(workspace)
    assert collection.added == 40 and found is not None and 5 < found.low < 10
    preprocess(scenario(), workspace)


def test_new_proposes_the_range_that_the_first_collection_would_choose(workspace: Workspace) -> None:
    folder = fill(workspace)
    proposal = propose("lines", folder, workspace, ["classify"], labels_at=None, follow_links=False, ask=None)
    (workspace.scenarios / "lines.yaml").write_text(proposal.yaml)
    proposed = load_scenario(workspace.scenarios, "lines").preprocess.range
    take_in(workspace)
    assert proposed is not None and (proposed.low, proposed.high) == recorded(workspace)
    assert any("more than 8 bits a value: of them values from" in reason for reason in proposal.reasons)


def brightness_meter(folder: Path, settings: dict[str, Any]) -> Model:
    """A model folder whose network says with what probability an image is bright: its mean level / 255."""
    from onnx import TensorProto, helper, save

    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "share"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["dark", "axis"], ["first"]),
        helper.make_node("Unsqueeze", ["bright", "axis"], ["second"]),
        helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("share", TensorProto.FLOAT, [], [1 / 255]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes, "meter",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [None, 16, 16, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])], constants,
    )  # fmt: skip
    folder.mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    (folder / "settings.json").write_text(
        json.dumps({"kind": "classify", "labels": ["dark", "bright"], "shape": [16, 16, 1], **settings})
    )
    return Model.open(folder)


def test_a_model_is_served_with_the_range_that_it_learned_with_and_an_older_one_as_before(tmp_path: Path) -> None:
    image = cv2.imencode(".png", np.full((16, 16), 3_000, np.uint16))[1].tobytes()
    models = {
        "old": brightness_meter(tmp_path / "old", {}),
        "one": brightness_meter(tmp_path / "one", {"range": {"low": 0, "high": 4_000}}),
        "other": brightness_meter(tmp_path / "other", {"range": {"low": 2_000, "high": 3_000}}),
    }
    found = {name: model.predict([image])[0].probabilities["bright"] for name, model in models.items()}
    assert found == pytest.approx({"old": (3_000 >> 8) / 255, "one": 0.75, "other": 1}, abs=1 / 255)


def test_the_range_of_the_splits_goes_into_the_models_settings_and_its_checkpoints_name(workspace: Workspace) -> None:
    from evergreen.training.checkpoint import fingerprint

    fill(workspace)
    take_in(workspace)
    prepared, splits, learner = scenario(), workspace.splits("stripes"), ImageLearner()
    names = set()
    for asked in ({"low": 400, "high": 3_800}, {"low": 500, "high": 3_800}):
        preprocess(scenario(range=asked), workspace)
        assert learner.settings(open_split(splits, "train"))["range"] == asked
        names.add(fingerprint(prepared, splits, open_split(splits, "train"), None))
    (splits / "range.json").unlink()
    names.add(fingerprint(prepared, splits, train := open_split(splits, "train"), None))
    assert "range" not in learner.settings(train) and len(names) == 3

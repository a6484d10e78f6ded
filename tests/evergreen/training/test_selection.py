from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.kinds.base.learner import Candidate
from evergreen.kinds.classify.comparison import ACCURACY
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.kinds.classify.settings import PRETRAINED_BELOW_ITEMS
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.training import selection as selection_file
from evergreen.training.fine_tuning import WarmStart
from evergreen.training.fitting import Diverged, Fitting, TrainingData
from evergreen.training.selection import Compared, Race, Selection, folds_of, lines_of, reasons_of, select, tables_of
from evergreen.workspace import Workspace
from tasks.train import Training, page, train, unchanged, work

FROZEN, SMALL, FINE_TUNED = "last layer on frozen features", "small network from scratch", "fine-tuning"
SETTINGS = {"model": "auto", "filters": 4, "epochs": 2, "batch_size": 32, "learning_rate": 0.1, "shift": 1}


def at(pixels: int) -> str:
    return f"frozen features at {pixels} pixels"


def scenario(side: int = 48, **settings: Any) -> Scenario:
    """The quickstart, which leaves open how to train, on images of `side` pixels."""
    quickstart = load_scenario(Path(__file__).resolve().parents[3] / "scenarios", "quickstart")
    train_settings = type(quickstart.train).model_validate({**SETTINGS, **settings})
    pixels = quickstart.preprocess.model_copy(update={"height": side, "width": side})
    return quickstart.model_copy(update={"train": train_settings, "preprocess": pixels})


def write_splits(workspace: Workspace, train_items: int = 96, val_items: int = 48, enlarged: int = 6) -> None:
    """Scikit-learn's digits as `preprocess` writes them, `enlarged` times as high and wide, in place of photographs; two
    neighbours share a cluster."""
    from sklearn.datasets import load_digits

    digits, folder = load_digits(), workspace.splits("quickstart")
    folder.mkdir(parents=True)
    images, labels = (digits.images * 15).astype(np.uint8)[..., None], digits.target.astype(np.uint8)
    images = images.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    sizes = {"train": train_items, "val": val_items}
    first = 0
    for name, items in sizes.items():
        np.save(folder / f"{name}-images.npy", images[first : first + items])
        np.save(folder / f"{name}-labels.npy", labels[first : first + items])
        first += items
    (folder / "labels.json").write_text(json.dumps([str(label) for label in range(10)]))
    columns = {
        "id": [f"{item:064}" for item in range(first)],
        "label": [str(label) for label in labels[:first]],
        "cluster": pa.array(np.arange(first) // 2 * 2, pa.int32()),
        "split": [name for name, items in sizes.items() for _ in range(items)],
        "row": [row for items in sizes.values() for row in range(items)],
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")


@pytest.fixture
def photographs(workspace: Workspace) -> Workspace:
    write_splits(workspace)
    return workspace


def opened(workspace: Workspace) -> TrainingData:
    return TrainingData.open(workspace.splits("quickstart"))


def by_name(selection: Selection) -> dict[str, Compared]:
    return {one.name: one for one in selection.compared}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Training]:
    """A whole training that chooses how to train, in two folds, in which no candidate is dropped."""
    workspace = Workspace(tmp_path_factory.mktemp("selection"))
    write_splits(workspace)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(selection_file, "FOLDS", 2)
        patched.setattr(selection_file, "DROPPED_BEHIND", 1e9)
        return workspace, train(scenario(), workspace)


@pytest.mark.slow
def test_the_ways_to_train_are_compared_and_the_model_is_of_the_chosen_one(trained: tuple[Workspace, Training]) -> None:
    workspace, training = trained
    assert training.selection
    assert training.selection.folds == 2 and training.selection.metric == "accuracy"
    compared = by_name(training.selection)
    assert list(compared) == [FROZEN, SMALL, FINE_TUNED]
    # Two epochs teach a small network nothing, and the last layer fits digits well.
    assert training.selection.settings == {"model": "efficientnet_lite0", "reduction": 1, "epochs": 1}
    assert str(training).startswith("last layer on frozen features (of 3 that were compared): 1 epoch, ")
    frozen, small = compared[FROZEN], compared[SMALL]
    assert frozen.quality is not None and frozen.quality > 0.8 and (frozen.gain, frozen.worth, frozen.energy_ratio) == (0, 0, 1)
    assert small.quality is not None and small.quality < 0.6 and small.gain < -0.3
    # The best epoch of fine-tuning was its first, the last layer: the same answers for more energy, so it is dropped at once.
    assert [one.items for one in compared.values()] == [96, 96, 48]
    assert small.energy_ratio is not None and small.energy_ratio < 0.5
    for one in compared.values():
        assert one.seconds is not None and one.seconds > 0 and one.energy_wh is not None

    settings = json.loads((workspace.model("quickstart") / "settings.json").read_text())
    assert (settings["train"]["model"], settings["train"]["epochs"]) == ("efficientnet_lite0", 1)
    assert not workspace.checkpoints("quickstart").exists()


@pytest.mark.slow
def test_the_model_is_the_same_as_that_of_a_scenario_which_names_the_chosen_way(
    trained: tuple[Workspace, Training], workspace: Workspace
) -> None:
    write_splits(workspace)
    named = train(scenario(model="efficientnet_lite0", epochs=1), workspace)
    assert named.selection is None and named.history == trained[1].history
    network = "model.onnx"
    assert (workspace.model("quickstart") / network).read_bytes() == (trained[0].model("quickstart") / network).read_bytes()


@pytest.mark.slow
def test_every_way_that_was_tried_is_a_run_in_mlflow_and_the_models_is_the_chosen_ones(
    trained: tuple[Workspace, Training],
) -> None:
    from evergreen.registry.models import connect

    workspace, training = trained
    client = connect(workspace).MlflowClient()
    experiment = client.get_experiment_by_name("evergreen-quickstart")
    runs = client.search_runs([experiment.experiment_id])
    names = sorted(run.info.run_name.split(", ")[1] for run in runs)
    assert names == sorted([FROZEN, SMALL, FINE_TUNED])
    assert all(run.info.status == "FINISHED" for run in runs)
    (chosen,) = (run for run in runs if run.info.run_id == training.run_id)
    assert FROZEN in chosen.info.run_name and chosen.data.params["train.model"] == "efficientnet_lite0"


@pytest.mark.slow
def test_the_page_says_what_each_candidate_gives_and_takes(trained: tuple[Workspace, Training]) -> None:
    workspace, training = trained
    shown = page(scenario(), workspace, training)
    gives, takes = shown.tables["Candidates"], shown.tables["What they take"]
    assert (
        [row["candidate"] for row in gives] == [row["candidate"] for row in takes] == [f"{FROZEN}, chosen", SMALL, FINE_TUNED]
    )
    first, small, _ = gives
    assert str(first["accuracy on val"]).startswith(("8", "9"))
    assert str(small["gain"]).startswith("-") and str(small["worth"]).endswith("points")
    assert str(takes[1]["a prediction's energy"]).endswith("times")
    for table in (gives, takes):  # else a row is cut off on Prefect's page
        widths = [max(len(name), *(len(str(row[name])) for row in table)) + 3 for name in table[0]]
        assert sum(widths) <= 105
    assert "small network from scratch (model: residual, reduction: 1, epochs: 2): " in shown.texts[""]
    assert "chosen, on 96 val items." in shown.texts[""]


@pytest.mark.slow
def test_a_larger_size_is_chosen_where_it_tells_more(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits 96 pixels high, seen as 48 and as 96 pixels: the larger ones are read better."""
    from evergreen.kinds.classify import learner, settings

    for module, name, value in ((settings, "PRETRAINED_SIDE", 48), (learner, "PRETRAINED_SIDE", 48), (learner, "MOST_TO_SMALL", 0),
                                (learner, "MOST_TO_FINE_TUNE", 0), (selection_file, "FOLDS", 2)):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    write_splits(workspace, enlarged=12)
    training = train(scenario(side=96), workspace)
    assert training.selection
    compared = by_name(training.selection)
    smaller, larger = compared[FROZEN], compared[at(96)]
    assert smaller.settings["reduction"] == 2 and larger.settings["reduction"] == 1
    assert larger.energy_ratio is not None and 2 < larger.energy_ratio < 4
    assert larger.worth is not None and larger.worth == pytest.approx(larger.gain - 0.001 * 2 * np.log2(larger.energy_ratio))
    named = {"model": "efficientnet_lite0", "reduction": training.selection.settings["reduction"], "epochs": 1}
    write_splits(again := Workspace(workspace.root / "again"), enlarged=12)
    assert train(scenario(side=96, **named), again).history == training.history


@pytest.fixture
def two_small(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose images are tiny, for which two small networks are compared, and neither is dropped."""
    write_splits(workspace, enlarged=1)
    ways = (Candidate("usual", {"model": "plain", "epochs": 1}), Candidate("residual", {"model": "residual", "epochs": 1}))
    monkeypatch.setattr(ImageLearner, "candidates", lambda self, one, items: ways if one.train.model == "auto" else ())
    monkeypatch.setattr(selection_file, "DROPPED_BEHIND", 1e9)
    return workspace


@pytest.mark.slow
def test_a_comparison_that_was_interrupted_goes_on_and_ends_the_same(
    two_small: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Workspace(tmp_path / "undisturbed")
    write_splits(undisturbed, enlarged=1)
    whole = train(scenario(side=8), undisturbed)
    run, names = Fitting.run, []

    def interrupted_in_the_fourth(self: Fitting, name: str, callbacks: Any) -> None:
        names.append(name)
        if len(names) == 4:
            raise KeyboardInterrupt
        run(self, name, callbacks)

    monkeypatch.setattr(Fitting, "run", interrupted_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(scenario(side=8), two_small)
    resumed = train(scenario(side=8), two_small)
    folds = [f"{name}{fold}" for fold in ("", ", fold 2 of 3", ", fold 3 of 3") for name in ("usual", "residual")]
    assert names == [*folds[:4], *folds[3:], "train"]
    assert resumed.selection and whole.selection and resumed.selection.folds == 3
    assert [one.items for one in resumed.selection.compared] == [144, 144]
    measured = {"seconds": None, "energy_wh": None}  # differ from run to run
    for one, other in zip(resumed.selection.compared, whole.selection.compared, strict=True):
        assert dataclasses.replace(one, **measured) == dataclasses.replace(other, **measured)
    assert resumed.history == whole.history


@pytest.mark.slow
def test_the_training_is_unchanged_as_long_as_the_scenario_leaves_open_the_same(trained: tuple[Workspace, Training]) -> None:
    workspace, training = trained
    assert unchanged(scenario(), workspace, "any", training)
    assert not unchanged(scenario(epochs=3), workspace, "any", training)
    assert not unchanged(scenario(model="efficientnet_lite0", epochs=1), workspace, "any", training)


@pytest.mark.slow
def test_the_cost_of_a_comparison_is_kept_for_the_next_estimate_of_one(trained: tuple[Workspace, Training]) -> None:
    amount, kind = work(scenario(), trained[1])
    assert amount == 96 * 2 and kind.startswith("auto of 4 filters on 48×48×1")


@pytest.mark.slow
def test_where_only_one_way_suits_nothing_is_compared(workspace: Workspace) -> None:
    write_splits(workspace, enlarged=1)
    training = train(scenario(side=8), workspace)
    assert training.selection and training.selection.folds == 0 and len(training.history) == 2
    assert str(training).startswith("small network from scratch (nothing to compare it with): 2 epochs, ")
    assert by_name(training.selection)[FROZEN].left_out == "it needs images of at least 48 pixels"
    assert "left out, it needs images of at least 48 pixels" in page(scenario(side=8), workspace, training).texts[""]


def test_without_validation_items_the_first_way_is_taken(workspace: Workspace) -> None:
    write_splits(workspace, val_items=0)
    found = select(scenario(), workspace, opened(workspace))
    assert (found.chosen, found.folds) == (0, 0)
    assert found.compared[1].left_out == "there are no validation items to judge it on"


@pytest.mark.slow
def test_a_way_whose_training_diverges_is_left_out(two_small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from evergreen.training.callbacks import StopOnDivergence

    stop = StopOnDivergence.on_epoch_end

    def diverge(self: StopOnDivergence, epoch: int, logs: Any = None) -> None:
        if self.model.name in diverging:
            self.stop("diverged")
        stop(self, epoch, logs)

    monkeypatch.setattr(StopOnDivergence, "on_epoch_end", diverge)
    diverging = ["plain"]
    found = select(scenario(side=8), two_small, opened(two_small))
    assert by_name(found)["usual"].left_out == "its training diverged" and by_name(found)["usual"].quality is None
    assert found.compared[found.chosen].name == "residual"
    diverging = ["plain", "residual"]
    with pytest.raises(Diverged):
        select(scenario(side=8, label_smoothing=0.0), two_small, opened(two_small))


@pytest.mark.slow
def test_where_the_budget_is_spent_the_comparison_ends_with_what_it_has(two_small: Workspace) -> None:
    training = train(scenario(side=8, max_seconds=0.001), two_small)
    assert training.selection and training.selection.folds == 1 and training.stopped == "seconds"
    assert (two_small.model("quickstart") / "model.onnx").exists()


def candidates(items: int, side: int = 64, **settings: Any) -> dict[str, str]:
    """Why each way to train is left out, by name."""
    from evergreen.kinds.base.kind import kind_of

    one = scenario(side, **settings)
    return {candidate.name: candidate.left_out for candidate in kind_of(one).learner.candidates(one, items)}


@pytest.mark.parametrize(
    ("items", "side", "epochs", "tried"),
    [
        (500, 64, 80, [FROZEN, SMALL, FINE_TUNED]),
        (500, 47, 80, [SMALL]),  # too small for a pre-trained network
        (PRETRAINED_BELOW_ITEMS, 64, 20, [SMALL]),  # enough to learn from
        (490, 224, 80, [FROZEN, SMALL, FINE_TUNED]),
        (300, 268, 80, [FROZEN, SMALL, FINE_TUNED]),  # hardly larger than the photographs that the network knows
        (490, 300, 80, [FROZEN, at(300), SMALL, FINE_TUNED]),
        (490, 448, 80, [FROZEN, at(320), at(448), SMALL, FINE_TUNED]),
        (1_400, 512, 1, [FROZEN, at(320), SMALL]),  # at 512 pixels they would see more than 300 megapixels
        (500, 224, 80, [FROZEN, SMALL]),  # four epochs of fine-tuning see more than 100 megapixels
        (4_000, 128, 30, [FROZEN, SMALL]),
        (4_000, 224, 80, [FROZEN]),
        (500, 64, 1, [FROZEN, SMALL]),  # no epoch is left for fine-tuning
        (PRETRAINED_BELOW_ITEMS, 1_000, 1_000, [SMALL]),  # where nothing else suits, a long training is
    ],
)
def test_size_and_number_of_the_images_say_which_ways_are_tried(items: int, side: int, epochs: int, tried: list[str]) -> None:
    found = candidates(items, side, epochs=epochs)
    assert [name for name, left_out in found.items() if not left_out] == tried


def test_features_are_compared_at_several_sizes_from_the_same_arrays() -> None:
    from evergreen.kinds.base.kind import kind_of

    one = scenario(512)
    found = {each.name: each.settings["reduction"] for each in kind_of(one).learner.candidates(one, 100)}
    assert found == {FROZEN: 2.29, at(320): 1.6, at(512): 1, SMALL: 9, FINE_TUNED: 2.29}


@pytest.mark.parametrize(("side", "reduction"), [(47, 1), (64, 1), (111, 1), (112, 2), (160, 2), (224, 4), (512, 9)])
def test_a_small_network_averages_large_images_down(side: int, reduction: int) -> None:
    from evergreen.kinds.base.kind import kind_of

    one = scenario(side)
    (small,) = (candidate for candidate in kind_of(one).learner.candidates(one, 10) if candidate.name == SMALL)
    assert small.settings == {"model": "residual", "reduction": reduction, "epochs": 2}


def test_a_warm_start_takes_what_is_left_open_from_the_champion() -> None:
    from evergreen.kinds.base.kind import kind_of

    one, learner = scenario(side=224), kind_of(scenario()).learner
    shape, labels = [224, 224, 1], list(one.validation.labels)
    for chosen in ({"model": "residual", "reduction": 4, "epochs": 80}, {"model": "efficientnet_lite0", "epochs": 1}):
        settings = {"shape": shape, "labels": labels, "train": one.with_train(chosen).train.model_dump()}
        assert learner.different_networks(one, settings) == []
        start = WarmStart(1, "0", 0.5, 0.1, learner.open_settings(one, settings))
        begun = start.of(one)
        assert begun.train.model == chosen["model"] and begun.train.epochs == max(1, round(chosen["epochs"] * 0.5))
        assert begun.train.reduction == chosen.get("reduction", 1) and learner.candidates(begun, 100) == ()
    named = scenario(side=224, model="residual")
    of_before = {"shape": shape, "labels": labels, "train": {"model": "residual", "filters": 4, "mirror": False}}
    assert learner.different_networks(named, of_before) == [] and learner.open_settings(named, of_before) == {}
    assert learner.different_networks(scenario(side=224, model="residual", reduction=2), of_before) == ["reduction"]


def test_tiles_are_compared_with_the_whole_image_unless_that_takes_too_long() -> None:
    from evergreen.kinds.base.kind import kind_of

    tiles = {"side": 224, "overlap": 112, "join": "max"}
    one, learner = scenario(side=448, tiles=tiles), kind_of(scenario()).learner
    candidates = {each.name: each for each in learner.candidates(one, 100)}
    seen = {name: one.with_train(each.settings) for name, each in candidates.items()}
    assert [name for name, of in seen.items() if of.train.tiles] == ["frozen features in tiles"]
    assert "in tiles of 224 that overlap by 112, joined by max" in learner.prediction_work(seen["frozen features in tiles"])
    many = {each.name: each.left_out for each in learner.candidates(one, 2_000)}
    assert "more than the 600 that take minutes" in many["frozen features in tiles"]
    shape, labels = [448, 448, 1], list(one.validation.labels)
    for name in seen:
        settings = {"shape": shape, "labels": labels, "train": seen[name].train.model_dump(mode="json")}
        assert learner.different_networks(one, settings) == []
        begun = WarmStart(1, "0", 0.5, 0.1, learner.open_settings(one, settings)).of(one)
        assert begun.train.tiles == seen[name].train.tiles


def test_only_a_pretrained_network_sees_several_resolutions() -> None:
    from evergreen.kinds.base.kind import kind_of

    one, learner = scenario(side=224, resolutions=(1, 0.7)), kind_of(scenario()).learner
    seen = {each.name: one.with_train(each.settings).train.resolutions for each in learner.candidates(one, 100)}
    assert seen == {FROZEN: (1, 0.7), SMALL: (1,), FINE_TUNED: (1, 0.7)}
    assert "at 1, 0.7 of its size" in learner.prediction_work(one)
    shape, labels = [224, 224, 1], list(one.validation.labels)
    for candidate in learner.candidates(one, 100):
        trained = one.with_train(candidate.settings).train.model_dump(mode="json")
        settings = {"shape": shape, "labels": labels, "train": trained}
        assert learner.different_networks(one, settings) == []
        begun = WarmStart(1, "0", 0.5, 0.1, learner.open_settings(one, settings)).of(one)
        assert begun.train.resolutions == seen[candidate.name]
    of_before = {
        "shape": shape,
        "labels": labels,
        "train": {"model": "efficientnet_lite0", "filters": 4, "mirror": False, "epochs": 1},
    }
    assert learner.different_networks(one, of_before) == ["resolutions"]


def test_a_scenario_that_names_its_network_leaves_nothing_open() -> None:
    assert candidates(500, model="residual") == {} == candidates(500, model="efficientnet_lite0")


def test_folds_are_for_small_validation_splits() -> None:
    assert (folds_of(0), folds_of(499), folds_of(500)) == (3, 3, 1)


# The choice, by answers that are given


class Answered(Race):
    """A comparison on one fold, in which the candidates answer a given number of the validation items rightly. The second
    predicts for a quarter of the energy."""

    RATIOS = (1.0, 0.25, 1.0)

    def __init__(self, workspace: Workspace, right: tuple[int, int, int], **settings: Any) -> None:
        from evergreen.kinds.base.kind import kind_of

        one = scenario(**settings)
        data = opened(workspace)
        super().__init__(one, workspace, data, kind_of(one).learner.candidates(one, len(data.train)))
        self.val_items = [self._without_inputs(data.val)]
        labels = np.array(data.val["labels"], int)
        for index, count in enumerate(right):
            self.answers[index] = [np.where(np.arange(len(labels)) < count, labels, (labels + 1) % 10)]

    def _energy_ratio(self, index: int, first: int) -> float:
        return self.RATIOS[index]

    def result(self) -> Selection:
        self._weigh()
        return self._conclude()


@pytest.fixture
def many(workspace: Workspace) -> Workspace:
    write_splits(workspace, 96, 1_000, enlarged=1)
    return workspace


def test_a_way_that_is_clearly_better_is_chosen_though_it_takes_more_energy(many: Workspace) -> None:
    found = Answered(many, (900, 900, 960)).result()
    assert found.compared[found.chosen].name == FINE_TUNED
    best = by_name(found)[FINE_TUNED]
    assert best.gain == pytest.approx(0.06) and best.quality == pytest.approx(0.96)
    # Two epochs, of which one only predicts: 1/3 + 1 epochs of gradient steps, four times the 1/3 of the first way.
    assert best.worth == pytest.approx(0.06 - 0.001 * 2)
    assert best.standard_error == pytest.approx(np.sqrt(0.06 * 0.94 / 1_000), rel=0.1)


def test_a_way_that_answers_the_same_for_more_energy_is_left_out_for_that_reason(many: Workspace) -> None:
    found = Answered(many, (900, 900, 900)).result()
    assert by_name(found)[FINE_TUNED].left_out == "every answer is that of the first, for more energy than the best"


def test_a_way_that_is_better_by_no_more_than_chance_is_not_chosen(many: Workspace) -> None:
    found = Answered(many, (900, 850, 902)).result()
    assert found.compared[found.chosen].name == FROZEN
    assert by_name(found)[SMALL].left_out == "behind the best by more than two standard errors"


def test_among_ways_that_are_as_good_the_one_with_the_least_energy_is_chosen(many: Workspace) -> None:
    found = Answered(many, (900, 900, 900)).result()
    assert found.compared[found.chosen].name == SMALL  # a quarter for a prediction outweighs its training
    worths = [one.worth for one in found.compared]
    # Training takes 2 epochs against 1/3, with a quarter of the energy each; a prediction a quarter.
    assert worths == pytest.approx([0, -0.001 * (np.log2(6) - 2 - 2), -0.001 * 2])


def test_the_scenarios_own_exchange_rate_counts(many: Workspace) -> None:
    race = Answered(many, (900, 700, 960))
    race.scenario = race.scenario.model_copy(
        update={"promote": race.scenario.promote.model_copy(update={"gain_per_doubling": 0.05})}
    )
    found = race.result()
    assert found.compared[found.chosen].name == FROZEN and by_name(found)[FINE_TUNED].worth == pytest.approx(0.06 - 0.1)


def test_what_was_not_tried_is_named_with_the_reason() -> None:
    one = Compared(
        "one",
        {"model": "residual", "epochs": 3},
        quality=0.9,
        items=100,
        seconds=61,
        energy_wh=0.5,
        energy_ratio=1.0,
        worth=0.0,
    )
    other = Compared("other", {"model": "plain"}, left_out="it takes too long")
    found = Selection({}, (one, other), 0, 1, "accuracy")
    assert lines_of(found, ACCURACY) == ["one: 90 % on val, 1 min 1 s, 0.50 Wh, chosen", "other: left out: it takes too long"]
    gives, takes = tables_of(found, ACCURACY).values()
    assert [row["candidate"] for row in (*gives, *takes)] == ["one, chosen"] * 2 and takes[0]["training"] == "1 min 1 s"
    assert reasons_of(found) == [
        "one (model: residual, epochs: 3): chosen, on 100 val items.",
        "other (model: plain): left out, it takes too long.",
    ]


def test_the_chosen_training_is_found_by_its_checkpoint(photographs: Workspace) -> None:
    from evergreen.training.selection import checkpoint_of

    one, data = scenario(), opened(photographs)
    chosen = [Compared(name, {"model": model, "epochs": 1}) for name, model in (("a", "residual"), ("b", "efficientnet_lite0"))]
    paths = {checkpoint_of(one, photographs, data, Selection({}, tuple(chosen), index, 1, "accuracy")).path for index in (0, 1)}
    assert len(paths) == 2

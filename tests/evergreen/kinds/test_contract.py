"""What every kind promises, tried with a small example of each that is installed (docs/kinds.md says how to add one's own)."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from evergreen.data.dataset import Withdrawal, batches, records, stage_records, staged, table
from evergreen.evaluation.gate import decide
from evergreen.kinds.base.judge import Evaluated
from evergreen.kinds.base.kind import Kind, kind_of
from evergreen.kinds.base.split import Split
from evergreen.preparation.arrays import network_inputs, one_or_named, open_split
from evergreen.scenario.kinds import installed_kinds
from evergreen.scenario.settings import Scenario
from evergreen.serving.scoring import Model
from evergreen.training.export import compare, export
from evergreen.training.fitting import DIVERGED
from evergreen.workspace import Workspace
from tasks.collect import collect
from tasks.evaluate import test_ids as ids_of_test
from tasks.preprocess import preprocess
from tests.support.kinds import examples, tiny_kind_installed
from tests.support.shipped import ROOT

EXAMPLES = examples()
TYPES = {"string": str, "double": float, "long": int, "boolean": bool}  # of MLflow's columns
STEPS = 30

slow = pytest.mark.slow  # builds a network


@dataclass(frozen=True)
class Case:
    """An example whose source was collected and prepared."""

    scenario: Scenario
    workspace: Workspace

    @property
    def kind(self) -> Kind:
        return kind_of(self.scenario)

    @property
    def folders(self) -> list[Path]:
        return batches(self.workspace, self.scenario.name)

    @cached_property
    def train(self) -> Split:
        return open_split(self.workspace.splits(self.scenario.name), "train")

    @cached_property
    def test(self) -> Split:
        return open_split(self.workspace.splits(self.scenario.name), "test")

    def rows(self) -> list[dict[str, Any]]:
        """Of `items.parquet`, as it is now."""
        found: list[dict[str, Any]] = pq.read_table(self.workspace.splits(self.scenario.name) / "items.parquet").to_pylist()
        return found

    def settings(self) -> dict[str, Any]:
        """A model's `settings.json`, once it was written and read."""
        own = self.kind.learner.settings(self.train)
        found: dict[str, Any] = json.loads(
            json.dumps({"kind": self.scenario.kind, **own, "train": self.scenario.train.model_dump(mode="json")})
        )
        return found


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with tiny_kind_installed():
        example = EXAMPLES[request.param]
        case = Case(example.scenario(), Workspace(tmp_path_factory.mktemp(request.param)))
        example.write(case.workspace.root / "source")
        collect(case.scenario, case.workspace)
        into_the_data_set(case)
        preprocess(case.scenario, case.workspace)
        yield case


def into_the_data_set(case: Case) -> None:
    """Move what was staged."""
    for batch in staged(case.workspace, case.scenario.name):
        target = case.workspace.data(case.scenario.name) / batch.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(batch, target)


@dataclass(frozen=True)
class Trained:
    """A network that has learned for some steps, the losses, and its outputs for the test split; `first`: of another network
    that has learned nothing."""

    network: Any
    losses: list[float]
    outputs: dict[str, np.ndarray]
    first: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def trained(case: Case) -> Trained:
    from evergreen.environment import import_tensorflow

    import_tensorflow()
    import keras

    learner, batch_size = case.kind.learner, case.scenario.train.batch_size
    keras.utils.set_random_seed(case.scenario.seed)
    network = learner.build(case.scenario, case.train, steps=STEPS)
    inputs, name = network_inputs(case.test, learner), learner.outputs[0]
    first = {name: np.asarray(network(inputs, training=False))}
    losses, random = [], np.random.default_rng(0)
    for _ in range(STEPS):
        rows = random.permutation(len(case.train))[:batch_size]
        some = Split("train", {array: values[rows] for array, values in case.train.arrays.items()}, case.train.facts)
        losses.append(float(network.train_on_batch(network_inputs(some, learner), learner.targets(case.train, rows))[0]))
    return Trained(network, losses, {name: np.asarray(network(inputs, training=False))}, first)


def test_every_installed_kind_has_an_example() -> None:
    with tiny_kind_installed():
        assert set(installed_kinds()) == set(EXAMPLES)


# The scenario


def test_the_settings_say_which_kind_they_are_of_and_survive_being_written(case: Case) -> None:
    written = case.scenario.model_dump(mode="json", by_alias=True)
    assert written["kind"] == case.kind.name and type(case.scenario) is case.kind.scenario_type
    assert case.kind.scenario_type.model_validate(json.loads(json.dumps(written))) == case.scenario
    for name in case.kind.contract.settings:
        section, _, key = name.partition(".")
        assert key in written[section]


def test_each_part_is_a_class_at_the_top_level_of_a_module(case: Case) -> None:
    kind = case.kind
    for part in (type(kind.contract), kind.codec, type(kind.learner), type(kind.judge)):
        assert getattr(inspect.getmodule(part), part.__name__) is part


# The contract


def test_an_item_is_in_the_data_set_once_under_its_id(case: Case) -> None:
    rows = table(case.folders, ["id", "source"]).to_pylist()
    assert rows and len({row["id"] for row in rows}) == len(rows)
    assert all(len(bytes.fromhex(row["id"])) == 32 and row["source"] for row in rows)


def test_a_second_collection_finds_nothing_new(case: Case) -> None:
    again = collect(case.scenario, case.workspace)
    assert (again.added, again.gone, again.relabelled, again.conflicts, again.batch) == (0, 0, 0, 0, None)
    assert again.known == again.seen == len(table(case.folders, ["id"]))


def test_an_expectation_says_in_words_what_it_expects(case: Case) -> None:
    medians = dict.fromkeys(case.kind.contract.properties, 1.0)
    for accepted in ({}, medians):
        suite = case.kind.contract.expectations(case.scenario, accepted)
        assert suite and len({one.description for one in suite}) == len(suite)
        assert all({"about", "expected", "unit"} <= one.meta.keys() for one in suite)


def test_every_item_has_a_split_or_a_reason_why_not(case: Case) -> None:
    rows = case.rows()
    assert len(rows) == len(table(case.folders, ["id"]))
    assert all((row["split"] is None) != (row["left_out"] is None) for row in rows)
    assert {row["split"] for row in rows} - {None} == {"train", "val", "test"}


def test_the_same_items_are_prepared_in_the_same_way(case: Case, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in case.workspace.splits(case.scenario.name).iterdir()}

    before = content()
    preprocess(case.scenario, case.workspace)
    assert content() == before


def test_a_withdrawn_item_changes_the_split_of_no_other(case: Case) -> None:
    before = case.rows()
    gone = {next(row["id"] for row in before if row["split"] == split) for split in ("train", "test")}
    said = [Withdrawal(id, True, "test", "2026-01-01T00:00:00+00:00", "") for id in sorted(gone)]
    name = stage_records(case.workspace.data(case.scenario.name), len(case.folders), withdrawals=said)
    assert name is not None and records(case.folders).withdrawn == gone
    try:
        preprocess(case.scenario, case.workspace)
        after = case.rows()
    finally:
        batch = case.workspace.data(case.scenario.name) / name
        for file in batch.iterdir():
            file.unlink()
        batch.rmdir()
        preprocess(case.scenario, case.workspace)
    assert {row["id"]: (row["split"], row["left_out"]) for row in after} == {
        row["id"]: (None, "withdrawn") if row["id"] in gone else (row["split"], row["left_out"]) for row in before
    }


def test_a_correction_that_repeats_a_label_changes_nothing(case: Case) -> None:
    for label in set(map(str, table(case.folders, ["label"])["label"].to_pylist()[:20])):
        assert case.kind.contract.corrected(case.scenario, label) == label


# The codec


def test_items_are_encoded_as_they_were_prepared(case: Case) -> None:
    ids = ids_of_test(case.workspace, case.scenario.name)
    items = dict(case.kind.contract.items(case.scenario, case.folders, ids))
    encoded = case.kind.codec(case.settings()).encode([items[id] for id in ids])
    assert set(encoded) == set(case.kind.learner.inputs)
    for name, values in encoded.items():
        np.testing.assert_array_equal(values, case.test[name])
        assert values.dtype == case.test[name].dtype


def test_a_table_of_items_gives_the_items(case: Case) -> None:
    ids = ids_of_test(case.workspace, case.scenario.name)[:3]
    items, codec = (
        [item for _, item in case.kind.contract.items(case.scenario, case.folders, ids)],
        case.kind.codec(case.settings()),
    )
    rows = {name: [item if len(codec.inputs) == 1 else item[name] for item in items] for name in codec.inputs}
    assert codec.items(rows) == items


def test_properties_of_items_are_those_that_were_collected(case: Case) -> None:
    contract = case.kind.contract
    ids = ids_of_test(case.workspace, case.scenario.name)
    items = [item for _, item in contract.items(case.scenario, case.folders, ids)]
    measured = contract.measure(items, case.kind.codec(case.settings()), case.folders)
    assert measured.shape == (len(items), len(contract.properties)) and measured.dtype == np.float32
    assert np.isfinite(measured).all()


def test_the_codec_imports_nothing_that_only_training_or_mlflow_needs(case: Case) -> None:
    large = ("tensorflow", "keras", "mlflow", "pydantic", "pandas", "evergreen.scenario", "evergreen.workspace")
    code = f"import sys, {case.kind.codec.__module__}; print([name for name in {large} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@slow
def test_predictions_make_a_table_with_the_columns_that_are_announced(case: Case, trained: Trained) -> None:
    codec = case.kind.codec(case.settings())
    made, columns = codec.table(trained.outputs), codec.columns()
    assert list(made) == list(columns)
    assert len({len(values) for values in made.values()}) == 1
    for name, values in made.items():
        assert all(isinstance(value, TYPES[columns[name]]) for value in values)
    assert len(codec.predictions(trained.outputs)) == len(case.test) == len(codec.answers(trained.outputs[codec.outputs[0]]))


# The learner


@slow
def test_the_loss_decreases_and_is_never_far_from_guessing(case: Case, trained: Trained) -> None:
    guessing = case.kind.learner.loss_of_guessing(case.train)
    assert np.isfinite(trained.losses).all() and max(trained.losses) < DIVERGED * guessing
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:5])


@slow
def test_random_items_fit_the_network(case: Case, trained: Trained) -> None:
    learner = case.kind.learner
    split = learner.random_split(case.scenario, 16, np.random.default_rng(0))
    network = learner.build(case.scenario, split, steps=1)
    assert np.isfinite(network.train_on_batch(network_inputs(split, learner), learner.targets(split, np.arange(16)))[0])
    for name in learner.inputs:
        assert split[name].shape[1:] == case.train[name].shape[1:] and split[name].dtype == case.train[name].dtype


def test_what_is_tuned_are_settings_of_train_that_the_scenario_allows(case: Case) -> None:
    settings = case.scenario.train.model_dump()
    for one in case.kind.learner.search_space(case.scenario, case.train):
        assert one.name in settings and one.low <= one.high
        for value in (one.low, one.high):
            typed = int(value) if one.step is not None else value
            assert getattr(type(case.scenario.train).model_validate(settings | {one.name: typed}), one.name) == typed


def test_weights_fit_the_network_of_the_same_settings(case: Case) -> None:
    assert case.kind.learner.different_networks(case.scenario, case.settings()) == []


@slow
def test_the_exported_network_gives_what_the_trained_one_gives(case: Case, trained: Trained, tmp_path: Path) -> None:
    from evergreen.serving.embedding import EmbeddingModel

    export(trained.network, tmp_path, case.kind.learner)
    (tmp_path / "settings.json").write_text(json.dumps(case.settings()))
    assert compare(tmp_path, case.test, case.kind.learner) < case.kind.learner.largest_difference
    model = Model.open(tmp_path)
    ids = ids_of_test(case.workspace, case.scenario.name)[:5]
    items = dict(case.kind.contract.items(case.scenario, case.folders, ids))
    for name, values in model.outputs([items[id] for id in ids]).items():
        np.testing.assert_allclose(values, trained.outputs[name][:5], atol=case.kind.learner.largest_difference)
    embeddings, _ = EmbeddingModel.open(tmp_path).embed(case.test.arrays)
    assert embeddings.shape[0] == len(case.test) and np.isfinite(embeddings).all()


# The judge


@slow
def test_figures_lie_within_their_intervals(case: Case, trained: Trained) -> None:
    judge = case.kind.judge
    measured = judge.measure(case.test, trained.outputs)
    assert judge.headline(case.scenario) in judge.metrics
    for metric in (*judge.metrics, *judge.details):
        low, high = measured.get(f"{metric.key}_low"), measured.get(f"{metric.key}_high")
        assert np.isfinite(measured[metric.key])
        if low is not None and high is not None:
            assert low <= measured[metric.key] <= high
    texts = judge.texts({**measured, "test_items": len(case.test)}, judge.metrics)
    assert all(metric.unit in texts[metric.title] for metric in judge.metrics)


@slow
def test_the_order_of_the_items_does_not_matter(case: Case, trained: Trained) -> None:
    order = np.random.default_rng(1).permutation(len(case.test))
    shuffled = Split("test", {name: values[order] for name, values in case.test.arrays.items()}, case.test.facts)
    outputs = {name: values[order] for name, values in trained.outputs.items()}
    assert case.kind.judge.measure(shuffled, outputs) == pytest.approx(case.kind.judge.measure(case.test, trained.outputs))


@slow
def test_a_comparison_in_which_each_unit_counts_once_gives_the_measured_figures(case: Case, trained: Trained) -> None:
    judge, settings = case.kind.judge, case.settings()
    champion, challenger = (judge.predictions(one, settings, case.test.facts) for one in (trained.first, trained.outputs))
    compared = judge.compare(case.scenario, case.test, champion, challenger)
    values = [float(one[0]) for one in compared.values(compared.counts[None])]
    key = judge.headline(case.scenario).key
    assert values == pytest.approx([judge.measure(case.test, one)[key] for one in (trained.first, trained.outputs)])
    assert compared.metric == judge.headline(case.scenario)
    assert int(compared.counts.sum()) == compared.units and not (compared.gained & compared.lost).any()
    assert compared.blocks is None or set(compared.blocks) == set(range(int(compared.blocks.max()) + 1))
    inside = np.arange(compared.units) % 2 == 0
    assert compared.within(inside).units == inside.sum()


@slow
def test_the_gate_prefers_what_has_learned_and_no_model_to_itself(case: Case, trained: Trained) -> None:
    judge, settings = case.kind.judge, case.settings()
    worse, better = (judge.predictions(one, settings, case.test.facts) for one in (trained.first, trained.outputs))
    seed, promote = case.scenario.seed, case.scenario.promote
    for champion, challenger, promoted in ((worse, better, True), (better, worse, False), (better, better, False)):
        verdict = decide(judge.compare(case.scenario, case.test, champion, challenger), promote, None, seed=seed)
        assert verdict.promote is promoted, verdict.reason
        assert (verdict.gain > 0) is promoted


def test_a_gain_is_positive_where_the_challenger_is_better(case: Case) -> None:
    for metric in case.kind.judge.metrics:
        worse, better = (0.5, 0.75) if metric.higher_is_better else (0.75, 0.5)
        assert metric.gain(worse, better) > 0 > metric.gain(better, worse)


@slow
def test_the_baseline_is_compared_on_the_same_items(case: Case, trained: Trained) -> None:
    judge = case.kind.judge
    predicted = judge.predictions(trained.outputs, case.settings(), case.test.facts)
    baseline = judge.baseline(case.scenario, case.test, predicted, case.train)
    assert baseline.comparison.units == len(case.test) and baseline.name and baseline.words
    # After so few steps a judge that also compares with strong baselines may rightly object, in words.
    assert all(baseline.failures)


@slow
def test_answers_on_the_test_split_are_as_good_as_was_measured(case: Case, trained: Trained) -> None:
    judge, contract, codec = case.kind.judge, case.kind.contract, case.kind.codec(case.settings())
    labels = {row["id"]: row["label"] for row in case.rows()}
    ids = ids_of_test(case.workspace, case.scenario.name)
    known = contract.labels(case.scenario, [labels[id] for id in ids], {"labels": codec.categories})
    counted = judge.tally(codec.answers(trained.outputs[codec.outputs[0]]), known)
    measured = {**judge.measure(case.test, trained.outputs), "test_items": len(case.test)}
    assert counted == pytest.approx(judge.recorded_tally(measured), rel=1e-5) and counted["items"] == len(ids)
    worse, words = judge.worse(counted, counted, 0.01)
    assert not worse and words


class KerasNetwork:
    """The network that was trained, before it is exported."""

    def __init__(self, case: Case, trained: Trained) -> None:
        self.learner, self.network, self.codec = case.kind.learner, trained.network, case.kind.codec(case.settings())

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = [arrays[name] for name in self.learner.inputs]
        return {self.learner.outputs[0]: np.asarray(self.network(one_or_named(self.learner.inputs, inputs)))}

    def further(self, output: str, arrays: Mapping[str, np.ndarray]) -> None:
        return None


@slow
def test_the_files_of_an_evaluation_are_those_that_are_named(case: Case, trained: Trained, tmp_path: Path) -> None:
    judge, ids = case.kind.judge, ids_of_test(case.workspace, case.scenario.name)

    model = KerasNetwork(case, trained)
    judge.write(Evaluated(case.test, ids, ["a source"] * len(ids), trained.outputs, case.settings(), model), tmp_path)
    rows = pq.read_table(tmp_path / "predictions.parquet")
    assert rows["id"].to_pylist() == ids and "source" in rows.column_names
    made = {file.name for file in tmp_path.iterdir()}
    assert {*judge.pictures, *judge.tables} - {"learning_curve.png"} <= made
    first, *rest = judge.plotted(case.test, trained.outputs).splitlines()
    assert {judge.plot.x, judge.plot.y} <= set(first.split(",")) and len(rest) == len(ids)
    assert judge.use(case.settings()) and judge.caution

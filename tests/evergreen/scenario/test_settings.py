"""A scenario's mistakes name the file, the line, the key, and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import WrongUse
from evergreen.scenario.loading import load_scenario, parse_scenario
from evergreen.scenario.settings import Retraining, Scenario
from tests.support.shipped import shipped

GOOD = """\
name: mine
kind: classify
seed: 1
collect:
  path: images
validate:
  labels: [cat, dog]
preprocess:
  height: 32
  width: 32
  channels: 3
train:
  epochs: 2
"""


def parse(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return parse_scenario(path)


@pytest.mark.parametrize("path", sorted((shipped() / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_loads(path: Path) -> None:
    assert parse_scenario(path).name == path.stem


def test_a_good_scenario_is_read_as_it_stands(tmp_path: Path) -> None:
    scenario = parse(tmp_path, GOOD)
    assert (scenario.preprocess.height, scenario.train.epochs, scenario.validation.labels) == (32, 2, ["cat", "dog"])


@pytest.mark.parametrize(
    ("wrong", "right", "line", "key", "hint"),
    [
        ("heigth: 32", "height: 32", 9, "preprocess.heigth", "allowed are channels, group, height"),
        ("epochs: many", "epochs: 2", 13, "train.epochs", "valid integer"),
        ("epochs: 0", "epochs: 2", 13, "train.epochs", "greater than or equal to 1"),
        ("epochs: 2\n  mirror: true", "epochs: 2", 12, "train", "mirror needs flip"),
        ("epochs: 2\n  answers: {unlike: 0}", "epochs: 2", 14, "train.answers.unlike", "greater than 0"),
        (
            "epochs: 2\n  answers: {thresholds: {cat: {}}}",
            "epochs: 2",
            14,
            "train.answers.thresholds.cat",
            "exactly one of recall",
        ),
        (
            "epochs: 2\n  answers: {thresholds: {cat: {recall: 1}}}",
            "epochs: 2",
            14,
            "train.answers.thresholds.cat.recall",
            "less than 1",
        ),
        ("channels: 2", "channels: 3", 11, "preprocess.channels", "1 or 3"),
        ("labels: [cat]", "labels: [cat, dog]", 7, "validate.labels", "at least 2"),
        ("labels: [cat, cat]", "labels: [cat, dog]", 7, "validate.labels", "twice"),
        ("seed: -1", "seed: 1", 3, "seed", "greater than or equal to 0"),
        ("kind: detect", "kind: classify", 2, "kind", "classify"),
        ("seed: 1\nretraining: {cron: daily}", "seed: 1", 4, "retraining.cron", "five fields"),
        ("seed: 1\nretraining: {cron: 61 3 * * *}", "seed: 1", 4, "retraining.cron", "not a cron expression"),
        ("seed: 1\nretraining: {cron: 0 0 30 2 *}", "seed: 1", 4, "retraining.cron", "never comes"),
        ("seed: 1\nretraining: {timezone: Mars/Base}", "seed: 1", 4, "retraining.timezone", "Europe/Berlin"),
        ("seed: 1\nretraining: {timezone: Europe}", "seed: 1", 4, "retraining.timezone", "Europe/Berlin"),
        ("seed: 1\npromote: {slice_pattern: '(['}", "seed: 1", 4, "promote.slice_pattern", "not a regular expression"),
        ("seed: 1\npromote: {slice_pattern: site}", "seed: 1", 4, "promote.slice_pattern", "named group"),
        ("seed: 1\npromote: {slice_pattern: '(?P<label>.)'}", "seed: 1", 4, "promote.slice_pattern", "a column already"),
        ("seed: 1\nretraining: {start_from: here}", "seed: 1", 4, "retraining.start_from", "'champion' or 'scratch'"),
        ("seed: 1\nretraining: {fine_tune_epochs: 0}", "seed: 1", 4, "retraining.fine_tune_epochs", "greater than 0"),
        ("seed: 1\npool: tpu", "seed: 1", 4, "pool", "'cpu' or 'gpu'"),
        ("path: [images]", "path: images", 5, "collect.path", "string"),
        ("path: images\n  builtin: digits", "path: images", 4, "collect", "exactly one of builtin, path, remote, sql and file"),
        ("path: images\n  pattern: '(['", "path: images", 6, "collect.pattern", "regular expression"),
        ("path: images\n  max_bad: 1.5", "path: images", 6, "collect.max_bad", "less than or equal to 1"),
    ],
)
def test_a_mistake_names_file_line_key_and_what_is_allowed(
    tmp_path: Path, wrong: str, right: str, line: int, key: str, hint: str
) -> None:
    with pytest.raises(WrongUse) as caught:
        parse(tmp_path, GOOD.replace(right, wrong))
    text = str(caught.value)
    assert f"mine.yaml, line {line}: {key}: " in text
    assert hint in text
    assert caught.value.exit_status == 2


def test_a_pretrained_network_takes_no_tiny_images(tmp_path: Path) -> None:
    pretrained = GOOD + "  model: efficientnet_lite0\n"
    with pytest.raises(WrongUse, match=r"mine\.yaml.*at least 48 pixels, got 32: raise preprocess\.height and width"):
        parse(tmp_path, pretrained.replace("width: 32", "width: 48"))
    assert parse(tmp_path, pretrained.replace(": 32", ": 48")).train.epochs == 2
    with pytest.raises(WrongUse, match=r"mine\.yaml.*at least 48 pixels, got 34: lower train\.reduction"):
        parse(tmp_path, pretrained.replace(": 32", ": 48") + "  reduction: 1.4\n")
    with pytest.raises(WrongUse, match=r"mine\.yaml.*at least 48 pixels, got 24: .*raise the lowest of train\.resolutions"):
        parse(tmp_path, pretrained.replace(": 32", ": 48") + "  resolutions: [1, 0.5]\n")


@pytest.mark.parametrize(
    ("side", "settings", "why"),
    [
        (48, "model: auto", "distil needs to know which network is taught, and model is auto: choose efficientnet_lite0_small"),
        (
            48,
            "model: efficientnet_lite0",
            "distil teaches a smaller network, and model is efficientnet_lite0, the one that teaches",
        ),
        (48, "model: efficientnet_lite0_small, epochs: 1", "distil needs epochs: 2 or more, .*got 1"),
        (48, "model: residual, loss: focal", "distil needs loss: cross_entropy; .*got focal"),
        (32, "model: residual", "train.distil: the network that teaches needs images of at least 48 pixels, got 32: raise"),
    ],
)
def test_what_cannot_be_taught_is_refused(tmp_path: Path, side: int, settings: str, why: str) -> None:
    text = GOOD.replace(": 32", f": {side}")
    given = dict(one.split(": ") for one in settings.split(", "))
    text = text.replace("  epochs: 2\n", "") + "".join(
        f"  {name}: {value}\n" for name, value in {"epochs": "2", **given}.items()
    )
    with pytest.raises(WrongUse, match=why):
        parse(tmp_path, text + "  distil: true\n")
    good = GOOD.replace(": 32", ": 48") + "  model: efficientnet_lite0_small\n  distil: true\n"
    assert parse(tmp_path, good).train.distil


@pytest.mark.parametrize(
    ("side", "tiles", "why"),
    [
        (96, "{side: 64, overlap: 49}", r"overlap must be at most three quarters of side \(48\), got 49"),
        (96, "{side: 32, overlap: 0}", "tiles.side: .*greater than or equal to 48"),
        (96, "{side: 128, overlap: 0}", "a side of 128 pixels needs images at least as large, got 96×96"),
        (96, "{side: 64, overlap: 0, join: sum}", "tiles.join"),
        (1024, "{side: 64, overlap: 16}", "cut into 441 tiles, more than 100: raise side, or lower overlap"),
        (96, "{side: 64}", "tiles.overlap"),
    ],
)
def test_tiles_are_large_enough_and_not_too_many(tmp_path: Path, side: int, tiles: str, why: str) -> None:
    pretrained = (GOOD + "  model: efficientnet_lite0\n").replace(": 32", f": {side}")
    with pytest.raises(WrongUse, match=why):
        parse(tmp_path, f"{pretrained}  tiles: {tiles}\n")
    assert parse(tmp_path, f"{pretrained}  tiles: {{side: {side // 2}, overlap: 0}}\n").train.tiles.join == "max"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("[1, 1]", "names a resolution twice"),
        ("[]", "at least 1"),
        ("[0.4]", "greater than or equal to 0.5"),
        ("[1, 0.7]", "resolutions needs a pre-trained network, and model is residual"),
    ],
)
def test_resolutions_are_different_and_of_a_pretrained_network(tmp_path: Path, wrong: str, why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        parse(tmp_path, GOOD + f"  resolutions: {wrong}\n")


def test_a_reduction_leaves_something_of_the_image(tmp_path: Path) -> None:
    assert parse(tmp_path, GOOD + "  reduction: 8\n").train.reduction == 8
    assert [repr(parse(tmp_path, f"{GOOD}  reduction: {value}\n").train.reduction) for value in ("1.40", "2.0")] == ["1.4", "2"]
    with pytest.raises(WrongUse, match=r"mine\.yaml.*reduction: 9 leaves 3 of 32 pixels, and networks need 4: lower it"):
        parse(tmp_path, GOOD + "  reduction: 9\n")


def test_settings_that_have_no_effect_are_not_stored_with_a_model(tmp_path: Path) -> None:
    small = parse(tmp_path, GOOD).train.model_dump()
    assert not {"reduction", "fine_tuning_rate"} & set(small)
    reduced = parse(tmp_path, GOOD + "  reduction: 2\n").train.model_dump()
    assert list(reduced)[:4] == ["model", "filters", "reduction", "precision"]
    assert "answers" not in small and "answers" not in parse(tmp_path, GOOD + "  answers: {}\n").train.model_dump(mode="json")
    assert "fine_tuning_rate" in parse(tmp_path, GOOD + "  model: auto\n").train.model_dump()


def test_rules_for_answers_are_of_the_scenarios_labels(tmp_path: Path) -> None:
    rules = GOOD + '  answers: {unknown_below: 0.6, thresholds: {" cat ": {recall: 0.9}}}\n'
    train = parse(tmp_path, rules).train
    assert (
        type(train).model_validate(train.model_dump(mode="json")) == train
        and "cat" in train.model_dump()["answers"]["thresholds"]
    )
    with pytest.raises(WrongUse, match=r"mine\.yaml.*train\.answers\.thresholds: cow is no label; expected one of cat, dog"):
        parse(tmp_path, rules.replace(" cat ", "cow"))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"preprocess\.height.*train\.epochs"):
        parse(tmp_path, GOOD.replace("height: 32", "height: 1").replace("epochs: 2", "epochs: 0"))


def test_a_file_that_is_not_yaml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"mine\.yaml, line \d+: not YAML"):
        parse(tmp_path, GOOD + "\ttrain: [")


@pytest.mark.parametrize(
    "label", ["001", "1e5", "null", "on", "no", "2024-01-01", "0x10", "0o17", "1:30", "1_000", "~", "true", ".inf"]
)
def test_labels_and_the_keys_of_rename_stay_as_they_are_written(tmp_path: Path, label: str) -> None:
    text = GOOD.replace("labels: [cat, dog]", f"labels: [{label}, dog]")
    text = text.replace("path: images", f"path: images\n  rename: {{{label}: dog, cat: {label}}}")
    scenario = parse(tmp_path, text)
    assert scenario.validation.labels == [label, "dog"] and scenario.collect.rename == {label: "dog", "cat": label}


def test_numbers_switches_and_nothing_are_still_what_yaml_says(tmp_path: Path) -> None:
    text = GOOD.replace("epochs: 2", "epochs: 0x2\n  mirror: false\n  patience: null\n  max_wh: 1e-1").replace(
        "path: images", "path: images\n  url: null"
    )
    scenario = parse(tmp_path, text)
    train = scenario.train
    assert (train.epochs, train.mirror, train.patience, train.max_wh, scenario.collect.url) == (2, False, None, 0.1, None)


def test_anchors_and_merged_keys_are_read(tmp_path: Path) -> None:
    text = GOOD.replace("seed: 1", "seed: 1\nprice: &own {currency: EUR, per_kwh: 1}") + "machine: {embodied_kgco2e: &one 5}\n"
    scenario = parse(
        tmp_path, text.replace("machine: {", "budget: {run: {<<: {wh: 7}, gco2e: *one}}\nmachine: {").replace("*one", "3")
    )
    assert (scenario.budget.run.wh, scenario.budget.run.gco2e) == (7, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2", "line 4: not YAML: the key seed is there twice"),
        ("seed: &a [*a]", "not YAML|refers to itself|seed"),
    ],
)
def test_a_key_twice_and_a_reference_to_itself_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        parse(tmp_path, GOOD.replace("seed: 1", text))


def test_labels_have_one_form_of_unicode_and_no_space_around_them(tmp_path: Path) -> None:
    scenario = parse(tmp_path, GOOD.replace("[cat, dog]", '["cafe\u0301", " dog "]'))
    assert scenario.validation.labels == ["café", "dog"]


def test_an_encoding_that_is_not_one_of_file_names_is_refused(tmp_path: Path) -> None:
    for wrong in ("utf-16", "latin-99", "utf-7", "rot13"):
        with pytest.raises(WrongUse, match="no encoding of file names"):
            parse(tmp_path, GOOD.replace("path: images", f"path: images\n  encoding: {wrong}"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(WrongUse, match="holds no scenario"):
        parse(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(WrongUse, match="UTF-8"):
        parse_scenario(path)


def test_the_name_must_be_the_files(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="line 1: name must be the file's"):
        parse(tmp_path, GOOD.replace("name: mine", "name: yours"))


@pytest.mark.parametrize("name", ["nowhere", "../quickstart", "", "a/b", "QUICKSTART", "x" * 300])
def test_an_unknown_scenario_lists_the_known_ones(name: str) -> None:
    with pytest.raises(WrongUse, match="agriculture, cifar10, inspection, medical, quickstart, retail, security, traffic"):
        load_scenario(shipped() / "scenarios", name)


@pytest.mark.parametrize(
    "cron",
    ["0 3 LW * *", "0 3 * * 5L", "0 3 L * *", "0 3 * * 1#2", "0 3 * * R", "H 3 * * *", "*/0 * * * *", "15 3 * * MON-FRI"],
)
def test_a_cron_is_right_where_prefect_takes_it(cron: str) -> None:
    """Else one scenario would pass here, and stop the deployment of all."""
    from prefect.client.schemas.schedules import CronSchedule

    def takes(kind: Any) -> bool:
        try:
            kind(cron=cron, timezone="Europe/Berlin")
        except ValueError:
            return False
        return True

    assert takes(Retraining) == takes(CronSchedule)


def test_credentials_in_a_scenario_are_refused_and_not_shown(tmp_path: Path) -> None:
    for key, address in (("url", "https://anna:geheim-word@example.org/a.zip"), ("remote", "s3://key:geheim-word@pets/raw")):
        with pytest.raises(WrongUse, match=f"collect.{key}: holds credentials.*{key[0]}.*:") as refused:
            parse(tmp_path, GOOD.replace("path: images", f"{key}: {address}"))
        assert "geheim-word" not in str(refused.value)

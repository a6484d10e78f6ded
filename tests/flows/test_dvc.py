"""DVC and the flow are two ways to the same work: the same functions, the same lock."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.flows.conftest import Checkout, clone
from tests.support.shipped import DATA_DVC

pytestmark = pytest.mark.slow

DIGITS = "1c132afff89641736bd49754a8de2e23"  # the hash of data/quickstart, as README.md shows it


@pytest.fixture
def checkout(checkout: Checkout) -> Checkout:
    return replace(checkout, hands_over=True)


def lock(checkout: Checkout, stage: str) -> Any:
    return YAML(typ="safe").load((checkout.root / "dvc.lock").read_text())["stages"][f"{stage}@quickstart"]


def test_the_committed_data_dvc_is_reproduced_bit_by_bit(trained: tuple[Checkout, Any]) -> None:
    assert (trained[0].root / "data.dvc").read_text() == DATA_DVC


def test_the_built_in_data_have_the_same_version_on_every_machine(trained: tuple[Checkout, Any]) -> None:
    assert trained[1]["data_version"] == DIGITS


def test_dvc_finds_nothing_to_do_after_a_run(trained: tuple[Checkout, Any]) -> None:
    done = trained[0].run(
        "dvc", "status", "evaluate@quickstart", "train@quickstart", "preprocess@quickstart", "data.dvc", "--json"
    )
    assert done.status == 0, done.err
    assert done.json == {}
    assert trained[0].run("dvc", "status", "--json").json == {"dependencies@quickstart": ["always changed"]}


def test_dvc_repro_makes_anew_what_a_change_decides_and_nothing_after_a_rewording(checkout: Checkout) -> None:
    def ran() -> list[str]:
        """The stages that `dvc repro` has run."""
        done = checkout.run("dvc", "repro", "evaluate@quickstart")
        assert done.status == 0, done.err
        return re.findall(r"Running stage '(\w+)@quickstart'", done.out)

    def change(file: str, old: str, new: str) -> None:
        path = checkout.root / "evergreen" / "kinds" / "classify" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    before = (checkout.root / "dvc.lock").read_bytes()
    assert ran() == ["dependencies"]
    change("judge.py", "It was measured on items", "It has been measured on items")
    change("expectations.py", '"given", "have none"', '"there", "lack it"')
    change("contract.py", "class ImageContract", "# Said here.\nclass ImageContract")
    assert ran() == ["dependencies"]
    assert (checkout.root / "dvc.lock").read_bytes() == before
    change("metrics.py", "1e-12", "1e-11")
    assert ran() == ["dependencies", "evaluate"]


def test_dvc_repro_in_another_clone_leaves_the_same_lock(trained: tuple[Checkout, Any], tmp_path: Path) -> None:
    other = replace(clone(tmp_path / "other"), hands_over=True)
    collect = "; ".join(
        [
            "from evergreen.environment import configure; from evergreen.workspace import Workspace",
            "from evergreen.scenario.loading import load_scenario; from tasks import collect, validate, version",
            "w = Workspace.find(); configure(w); s = load_scenario(w.scenarios, 'quickstart')",
            "c = collect.stage.perform(s, w).result; validate.stage.perform(s, w, c); version.stage.perform(s, w, c)",
        ]
    )
    assert other.run("python", "-c", collect).status == 0
    done = other.run("dvc", "repro", "evaluate@quickstart")
    assert done.status == 0, done.err
    for stage in ("preprocess", "train", "evaluate"):
        assert lock(other, stage) == lock(trained[0], stage)
    # And the flow agrees that there is nothing left to do up to there.
    states = {name: stage["state"] for name, stage in other.evergreen("run", "--json").json["stages"].items()}
    assert {states[stage] for stage in ("collect", "version", "preprocess", "train", "evaluate")} == {"unchanged"}
    assert states["register"] == "ran"


def test_metrics_and_plots_are_shown(trained: tuple[Checkout, Any]) -> None:
    shown = trained[0].run("dvc", "metrics", "show", "--json")
    assert shown.status == 0, shown.err
    assert str(trained[1]["metrics"]["accuracy"])[:6] in json.dumps(shown.json)
    plots = trained[0].run("dvc", "plots", "show", "outputs/quickstart/plots/confusion.csv")
    assert plots.status == 0, plots.err
    assert (trained[0].root / "dvc_plots" / "index.html").exists()
    assert "dvc_plots" not in trained[0].run("git", "status", "--porcelain").out


def test_an_experiment_changes_a_setting_and_is_listed(checkout: Checkout) -> None:
    who = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (("add", "-A"), ("commit", "-qm", "trained")):
        assert checkout.run("git", *command, **who).status == 0
    done = checkout.run(
        "dvc", "exp", "run", "-n", "shorter", "-S", "scenarios/quickstart.yaml:train.epochs=1", "evaluate@quickstart", **who
    )
    assert done.status == 0, done.err
    listed = checkout.run("dvc", "exp", "show", "--json", **who)
    assert "shorter" in listed.out
    assert "epochs: 1\n" in (checkout.root / "scenarios" / "quickstart.yaml").read_text()

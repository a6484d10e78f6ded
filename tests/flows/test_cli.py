"""The `evergreen` command as people and scripts use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Checkout

pytestmark = pytest.mark.slow

STAGES = ["collect", "validate", "version", "preprocess", "train", "evaluate", "register", "promote"]


def test_help_lists_every_command_and_the_exit_statuses(trained: tuple[Checkout, Any]) -> None:
    done = trained[0].evergreen("--help")
    assert done.status == 0
    for word in (
        "run",
        "new",
        "up",
        "retrain",
        "tune",
        "deploy",
        "report",
        "promote",
        "rollback",
        "checkout",
        "doctor",
        "Exit status",
        "3 data refused",
    ):
        assert word in done.out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("run", "nowhere"), "there is no such scenario"),
        (("run", "../quickstart"), "there is no such scenario"),
        (("walk",), "No such command"),
        (("run", "--fast"), "No such option"),
        (("checkout", "quickstart"), "quickstart@champion"),
        (("checkout", "quickstart@77"), "77"),
        (("promote", "quickstart", "--version", "77"), "77"),
        (("rollback", "quickstart"), "previous"),
        (("forget", "quickstart"), "--id"),
        (("forget", "quickstart", "--source", "digits/0/*"), "--yes"),
        (("new", "mine", "--images", "nowhere"), "nowhere"),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_clear_line(
    trained: tuple[Checkout, Any], arguments: tuple[str, ...], hint: str
) -> None:
    done = trained[0].evergreen(*arguments)
    assert done.status == 2, done.err
    assert hint in done.err
    assert "Traceback" not in done.err


def test_an_error_is_json_too_where_json_is_asked(trained: tuple[Checkout, Any]) -> None:
    done = trained[0].evergreen("run", "nowhere", "--json")
    assert done.status == 2
    assert done.json["exit_status"] == 2
    assert "no such scenario" in done.json["error"]


def test_a_traceback_is_shown_with_debug_only(trained: tuple[Checkout, Any]) -> None:
    assert "Traceback" in trained[0].evergreen("run", "nowhere", "--debug").err


def test_a_run_prints_the_promised_object(trained: tuple[Checkout, Any]) -> None:
    summary = trained[1]
    assert {"scenario", "run_id", "model_version", "promoted", "reason", "data_version", "metrics", "energy_wh"} <= set(summary)
    assert {"accuracy", "precision_macro", "recall_macro", "f1_macro"} <= set(summary["metrics"])
    assert summary["metrics"]["accuracy"] > 0.97
    assert summary["promoted"] is True
    assert list(summary["stages"]) == STAGES
    assert all(stage["state"] == "ran" and stage["seconds"] > 0 for stage in summary["stages"].values())
    assert summary["energy_wh"] > 0 and summary["carbon_gco2e"] > 0 and summary["energy_methods"]


def test_people_get_a_table_and_where_to_look(checkout: Checkout) -> None:
    done = checkout.evergreen("run")
    assert done.status == 0, done.err
    for word in ("accuracy", "energy", "Wh", "gCO2e", "data version", "model version", "data-docs", "evergreen up"):
        assert word in done.out


def test_a_second_run_with_nothing_changed_does_nothing_and_says_so(checkout: Checkout, trained: tuple[Checkout, Any]) -> None:
    done = checkout.evergreen("run", "--json")
    assert done.status == 0, done.err
    assert [stage["state"] for stage in done.json["stages"].values()] == ["unchanged"] * 8
    assert done.json["model_version"] == trained[1]["model_version"]
    assert "Nothing has changed" in checkout.evergreen("run").out


def test_a_prefect_that_is_away_makes_no_failure_of_a_run_in_which_nothing_was_to_do(checkout: Checkout) -> None:
    done = checkout.evergreen("run", "--json", PREFECT_API_URL="http://127.0.0.1:9/api")  # nothing answers at the discard port
    assert done.status == 0, done.err
    assert {stage["state"] for stage in done.json["stages"].values()} == {"unchanged"}
    assert "could not be shown on Prefect's page" in done.err


def test_a_model_that_is_no_better_stays_challenger_and_what_was_done_can_be_undone(checkout: Checkout) -> None:
    kept = [checkout.root / "outputs" / "quickstart" / name for name in ("metrics.json", "model/model.onnx")]
    before = [path.read_bytes() for path in kept]
    checkout.change("quickstart", "epochs: ", "epochs: 1 # ")
    done = checkout.evergreen("run", "--must-promote", "--json")
    assert done.status == 4, done.err
    assert "not promoted" in done.err
    summary = json.loads(done.out.splitlines()[0])
    assert summary["promoted"] is False and summary["model_version"] == 2
    assert summary["stages"]["collect"]["state"] == summary["stages"]["preprocess"]["state"] == "unchanged"
    assert summary["stages"]["train"]["state"] == "ran"
    assert summary["estimate"]["seconds"] > 0 and "the last one like it on this machine" in summary["estimate"]["basis"]
    assert [path.read_bytes() for path in kept] != before

    promoted = checkout.evergreen("promote", "quickstart", "--version", "2", "--force", "--json")
    assert promoted.json["promoted"] and promoted.json["champion"] == 2
    rolled = checkout.evergreen("rollback", "quickstart", "--json")
    assert rolled.json["champion"] == 1 and rolled.json["previous"] == 2
    again = checkout.evergreen("checkout", "quickstart@champion", "--json")
    assert again.status == 0, again.err
    assert again.json["model_version"] == 1
    assert [path.read_bytes() for path in kept] == before


def test_an_estimate_says_what_a_run_would_take_and_runs_nothing(checkout: Checkout) -> None:
    checkout.change("quickstart", "seed: ", "price: {currency: EUR, per_machine_hour: 3.6}\nseed: ")
    before = {path: path.stat().st_mtime_ns for path in checkout.root.rglob("*") if path.is_file() and ".pyc" not in path.name}
    done = checkout.evergreen("run", "--estimate", "--json")
    assert done.status == 0, done.err
    reported = done.json
    assert (
        reported["seconds_least"] < reported["seconds"] < reported["seconds_most"]
        and reported["energy_wh"] > 0
        and reported["carbon_gco2e"] > 0
    )
    assert reported["money"] == pytest.approx(reported["seconds"] / 1000) and reported["currency"] == "EUR"
    assert set(reported["stages"]) == {
        "collect",
        "validate",
        "version",
        "preprocess",
        "train",
        "evaluate",
        "register",
        "promote",
    }
    after = {path: path.stat().st_mtime_ns for path in checkout.root.rglob("*") if path.is_file() and ".pyc" not in path.name}
    assert after == before
    table = checkout.evergreen("run", "--estimate")
    assert "If every stage has to run" in table.out and "EUR" in table.out


def test_data_that_fails_validation_ends_with_status_3_and_changes_nothing(checkout: Checkout) -> None:
    before = {name: (checkout.root / name).read_bytes() for name in ("data.dvc", "dvc.lock")}
    checkout.change("quickstart", "min_items_per_label: 100", "min_items_per_label: 10000")
    done = checkout.evergreen("run", "--json")
    assert done.status == 3, done.err
    assert "10,000" in done.json["error"]
    assert {name: (checkout.root / name).read_bytes() for name in before} == before


def test_the_report_of_all_scenarios_in_use_is_written_and_its_figures_printed(checkout: Checkout) -> None:
    assert (checkout.root / "outputs/quickstart/report.html").exists()  # the run has written its own
    done = checkout.evergreen("report", "--json")
    assert done.status == 0, done.err
    assert done.json["file"] == str(checkout.root / "outputs/report.html") and Path(done.json["file"]).exists()
    found = done.json["scenarios"]["quickstart"]
    assert found["champion"] == 1 and "Nothing has been retrained yet" in found["answer"]
    assert found["versions"][0]["energy_wh"] > 0 and sum(found["data"][0]["items"].values()) == 1797
    assert checkout.evergreen("report", "nowhere").status == 2


def test_doctor_finds_nothing_broken_in_a_working_checkout(trained: tuple[Checkout, Any]) -> None:
    done = trained[0].evergreen("doctor", "--json")
    assert done.status == 0, done.out + done.err
    assert "broken" not in {finding["state"] for finding in done.json["findings"]}


def test_doctor_names_a_broken_scenario(checkout: Checkout) -> None:
    checkout.change("quickstart", "kind: classify", "kind: guess")
    done = checkout.evergreen("doctor")
    assert done.status == 1
    assert "line" in done.out and "kind" in done.out


def test_ones_own_images_take_two_commands(checkout: Checkout, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 180)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(60):
            image = np.clip(random.normal(level, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), image)
    done = checkout.evergreen("new", "lamps", "--images", str(tmp_path / "images"))
    assert done.status == 0, done.err
    assert "dark" in done.out and "60" in done.out
    checkout.change("lamps", "epochs:", "epochs: 2 #")
    summary = checkout.evergreen("run", "lamps", "--json")
    assert summary.status == 0, summary.err
    assert summary.json["scenario"] == "lamps"
    # The other scenario is as it was, and its data's version too, though data.dvc names more now.
    quickstart = checkout.evergreen("run", "--json").json
    assert {s["state"] for s in quickstart["stages"].values()} == {"unchanged"}
    # A checkout of one leaves the other alone, and DVC has nothing to do for either.
    back = checkout.evergreen("checkout", "quickstart@1", "--json")
    assert back.json["data_version"] == quickstart["data_version"] != summary.json["data_version"]
    again = checkout.evergreen("run", "lamps", "--json").json
    assert {s["state"] for s in again["stages"].values()} == {"unchanged"}
    assert again["data_version"] == summary.json["data_version"]
    # A third scenario, whose file was copied and which was never run, is in nobody's way.
    text = (checkout.root / "scenarios/quickstart.yaml").read_text().replace("name: quickstart", "name: copied")
    (checkout.root / "scenarios/copied.yaml").write_text(text)
    for command in (("dvc", "repro"), ("dvc", "metrics", "show")):
        done = checkout.run(*command)
        assert done.status == 0, done.err


@pytest.mark.slow
def test_tune_tells_what_was_tried_and_writes_only_when_asked(checkout: Checkout) -> None:
    before = (checkout.root / "scenarios" / "quickstart.yaml").read_bytes()
    done = checkout.evergreen("tune", "quickstart", "--budget-wh", "10", "--trials", "2", "--json")
    assert done.status == 0, done.err
    assert done.json["scenario"] == "quickstart" and done.json["applied"] is False
    assert [one["state"] for one in done.json["trials"]] == ["finished", "finished"]
    assert (checkout.root / "outputs/quickstart/tuning/front.png").exists()
    assert (checkout.root / "scenarios" / "quickstart.yaml").read_bytes() == before
    shown = checkout.evergreen("tune", "quickstart", "--budget-wh", "10", "--trials", "2", "--apply")
    assert shown.status == 0 and "the best of 2 finished trials" in shown.out and "front.png" in shown.out
    written = (checkout.root / "scenarios" / "quickstart.yaml").read_bytes() != before
    assert written == ("Written into" in shown.out)
    none = checkout.evergreen("tune", "quickstart", "--budget-wh", "0")
    assert none.status == 2 and "budget-wh" in none.err

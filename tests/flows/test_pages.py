"""What people see in Prefect's and MLflow's pages while `evergreen up` runs, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Up, start_up

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def run_summary(up: Up) -> Any:
    """A run of the scenario with a changed setting, while the servers are up."""
    up.checkout.change("quickstart", "epochs: ", "epochs: 3 # ")
    done = up.checkout.evergreen("run", "--json")
    assert done.status == 0 and "View run" not in done.out + done.err, done.err
    return done.json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no Chromium: install Debian's package chromium to see the pages tested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def shows(page: Any, address: str, *texts: str) -> None:
    """Open the page and wait until every text is seen on it. With EVERGREEN_PICTURES set, keep a picture there."""
    page.goto(address)
    for text in texts:
        page.get_by_text(text, exact=False).first.wait_for(state="visible")
    pictures = os.environ.get("EVERGREEN_PICTURES")
    if pictures:
        page.wait_for_timeout(2000)
        name = "".join(c if c.isalnum() else "-" for c in address.split("/", 3)[-1])[:60]
        page.screenshot(path=str(Path(pictures) / f"{name}.png"))


def flow_run_id(up: Up, state: str = "Completed") -> str:
    """The latest training's that ended in a state of this name; retrainings wait for their hour, which lies ahead."""
    question = {
        "sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flows": {"name": {"any_": ["training"]}},
        "flow_runs": {"state": {"name": {"any_": [state]}}},
    }  # fmt: skip
    return str(up.ask("flow_runs/filter", question)[0]["id"])


def test_prefect_shows_the_run_with_its_stages_as_tasks(up: Up, run_summary: Any, page: Any) -> None:
    shows(page, f"{up.prefect_url}/runs", "training-quickstart")
    page.goto(f"{up.prefect_url}/runs/flow-run/{flow_run_id(up)}")
    page.get_by_text("Task Runs", exact=True).last.click()  # a tab in the address is forgotten if the page loads slowly
    for stage in ("collect", "preprocess", "train", "promote"):
        page.get_by_text(stage, exact=True).last.wait_for(state="visible")


def test_prefect_shows_a_run_in_which_nothing_changed_with_its_stages(up: Up, run_summary: Any) -> None:
    done = up.checkout.evergreen("run", "--json")
    assert {stage["state"] for stage in done.json["stages"].values()} == {"unchanged"}
    run = flow_run_id(up, "Unchanged")
    tasks = up.ask("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}})
    assert {task["name"] for task in tasks} == set(run_summary["stages"])
    assert {task["state"]["name"] for task in tasks} == {"Unchanged"}


def test_prefect_offers_a_deployment_for_every_scenario(up: Up, page: Any) -> None:
    shows(page, f"{up.prefect_url}/deployments", "quickstart", "cifar10", "inspection")


def opens(page: Any, link: str, text: str) -> None:
    """Click a link of Prefect's page, which opens a tab, and wait until the text is seen there."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=link).first.click()
    opened.value.get_by_text(text).first.wait_for(state="visible")
    opened.value.close()


def test_a_runs_page_has_its_summary_whose_links_open(up: Up, run_summary: Any, page: Any) -> None:
    page.goto(f"{up.prefect_url}/runs/flow-run/{flow_run_id(up)}")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.get_by_role("link", name="quickstart-summary").first.click()
    for text in (f"Version {run_summary['model_version']} was", "What each stage took", "1,000 predictions"):
        page.get_by_text(text).first.wait_for(state="visible")
    opens(page, "Report: was retraining worth it?", "Version 1")
    opens(page, "Data Docs", "accepted")
    opens(page, "All pages and pictures", "Confusion matrix")


def test_the_artifacts_page_shows_the_pictures_of_the_run(up: Up, run_summary: Any, page: Any) -> None:
    shows(page, f"{up.prefect_url}/artifacts", "quickstart-evaluate", "quickstart-promote")
    picture = up.ask("artifacts/quickstart-confusion-matrix/latest")["data"]
    assert picture.startswith(f"{up.pages_url}/quickstart/pictures/")
    page.goto(f"{up.prefect_url}/artifacts/artifact/{artifacts(up)['quickstart-confusion-matrix']['id']}")
    shown = page.locator(f"img[src='{picture}']")
    shown.wait_for(state="visible")
    page.wait_for_function("picture => picture.naturalWidth > 300", arg=shown.element_handle())


def artifacts(up: Up) -> dict[str, Any]:
    """Those of the latest training, by their keys."""
    question = {"artifacts": {"flow_run_id": {"any_": [flow_run_id(up)]}}, "limit": 100}
    return {artifact["key"]: artifact for artifact in up.ask("artifacts/filter", question)}


def test_no_artifact_holds_a_dead_link_or_a_figure_with_more_digits_than_anybody_reads(up: Up, run_summary: Any) -> None:
    found = artifacts(up)
    stages = {f"quickstart-{stage}" for stage in run_summary["stages"]}
    assert stages | {"quickstart-summary", "quickstart-learning-curve"} <= set(found)
    for artifact in found.values():
        text = re.sub(r"https?://[^)\s]*|[0-9a-f]{32}", "", f"{artifact['description']} {artifact['data']}")
        assert "file:" not in text and not re.search(r"\d\.\d{6}|\de-\d", text), artifact["key"]


def test_mlflow_shows_the_run_and_its_metrics(up: Up, run_summary: Any, page: Any) -> None:
    import mlflow

    run = mlflow.MlflowClient(up.mlflow_url).get_run(run_summary["run_id"])
    address = f"{up.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    shows(page, address, "accuracy", "energy_wh")


def test_mlflows_bare_address_opens_on_model_training_with_no_assistant(up: Up, run_summary: Any, page: Any) -> None:
    shows(page, up.mlflow_url, "Model registry", "evergreen-quickstart")
    assert page.url.endswith("#/experiments?workflowType=machine_learning")
    assert page.evaluate("localStorage.getItem('mlflow.workflowType_v1')") == '"machine_learning"'
    assert page.evaluate("localStorage.getItem('mlflow.assistant.panelOpen_v1')") in (None, "false")


def test_mlflows_charts_of_a_run_begin_with_quality(up: Up, run_summary: Any, page: Any) -> None:
    import mlflow

    run = mlflow.MlflowClient(up.mlflow_url).get_run(run_summary["run_id"])
    address = f"{up.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/model-metrics"
    shows(page, f"{address}?workflowType=machine_learning", "test_accuracy")
    page.wait_for_function("document.body.innerText.includes('stage/')")
    sections = page.inner_text("body").partition("Artifacts")[2]
    assert 0 <= sections.index("quality") < sections.index("stage/")


def test_mlflow_shows_the_registered_model_and_its_champion(up: Up, run_summary: Any, page: Any) -> None:
    shows(page, f"{up.mlflow_url}/#/models/evergreen-quickstart", "champion", "Version")


def test_a_run_started_from_the_deployment_is_done_by_the_worker_and_has_our_log(up: Up, run_summary: Any, page: Any) -> None:
    done = up.checkout.run(
        "prefect", "deployment", "run", "training/quickstart", "--watch", "--param", "epochs=2", PREFECT_API_URL=f"{up.prefect_url}/api",
        timeout=300,
    )  # fmt: skip
    assert done.status == 0, done.out + done.err
    assert "Completed" in done.out
    run = flow_run_id(up)
    logs = up.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    lines = [line["message"] for line in logs if line["name"] == "evergreen"]
    for line in (*run_summary["stages"], "epoch 1/2", "epoch 2/2", "estimated"):  # as on the command line
        assert any(one.startswith(line) for one in lines), lines
    summary = artifacts(up)["quickstart-summary"]["data"]
    assert "train.epochs 2" in summary  # what was requested for this run is on its page
    opened_form(page, up)


def opened_form(page: Any, up: Up) -> None:
    """What a person may set is on the form of the deployment, in words, and nothing else."""
    for flow, fields in (("training", ("scenario", "force", "epochs")), ("retraining", ("scenario", "force", "start"))):
        deployment = up.ask(f"deployments/name/{flow}/quickstart")
        assert set(deployment["parameter_openapi_schema"]["properties"]) == set(fields)
        shows(page, f"{up.prefect_url}/deployments/deployment/{deployment['id']}/run", *fields, "which scenario")


def test_a_taken_port_is_named_with_the_way_out(up: Up) -> None:
    port = up.prefect_url.rsplit(":", 1)[1]
    other = up.checkout.copy(up.checkout.root.parent / "second")
    (other.root / ".evergreen" / "up.json").unlink()
    done = other.evergreen("up", "--prefect-port", port)
    assert done.status == 2
    assert f"port {port}" in done.err and "--prefect-port" in done.err


def test_a_second_up_of_the_same_checkout_names_the_first(up: Up) -> None:
    done = up.checkout.evergreen("up")
    assert done.status == 2
    assert up.prefect_url in done.err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_running_however_up_is_ended(checkout: Any, how: signal.Signals) -> None:
    import psutil

    from tests.flows.conftest import free_port

    running = start_up(checkout, free_port(), free_port())
    family = running.process.children(recursive=True)
    assert len(family) >= 3
    running.process.send_signal(how)
    running.process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=60)
    for process in alive:
        process.kill()
    assert alive == []

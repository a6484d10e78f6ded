"""`prefect.yaml` says of every scenario what its file says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from evergreen.errors import WrongUse
from evergreen.workspace import Workspace
from flows.deploy import ENTRYPOINTS, declare, deploy
from flows.scenarios import add_scenario
from tests.evergreen.scenario.test_settings import GOOD
from tests.support.shipped import ROOT, SCENARIOS, shipped


def deployments(workspace: Workspace) -> dict[tuple[str, str], Any]:
    """What the file declares, by flow and name."""
    declared = YAML(typ="safe").load((workspace.root / "prefect.yaml").read_text())["deployments"]
    flows = {entrypoint: flow for flow, entrypoint in ENTRYPOINTS.items()}
    return {(flows.get(entry["entrypoint"], entry["entrypoint"]), entry["name"]): entry for entry in declared}


def test_the_shipped_file_is_in_step_with_the_shipped_scenarios(workspace: Workspace) -> None:
    shutil.copy(shipped() / "prefect.yaml", workspace.root)
    assert declare(workspace) == []
    assert (workspace.root / "prefect.yaml").read_bytes() == (shipped() / "prefect.yaml").read_bytes()


def test_prefect_reads_it_and_it_names_no_place_of_one_machine() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    text = (shipped() / "prefect.yaml").read_text()
    read = PrefectYamlModel.model_validate(YAML(typ="safe").load(text))
    assert len(read.deployments) == 2 * len(SCENARIOS)
    assert str(Path.home()) not in text and str(ROOT) not in text


def test_each_scenario_is_trained_on_demand_and_retrained_by_its_own_cron(workspace: Workspace) -> None:
    (workspace.scenarios / "mine.yaml").write_text(
        GOOD + "pool: gpu\nretraining:\n  cron: 5 4 * * MON\n  timezone: Asia/Tokyo\n"
    )
    declare(workspace)
    declared = deployments(workspace)
    names = {path.stem for path in workspace.scenarios.glob("*.yaml")}
    assert set(declared) == {(flow, name) for flow in ENTRYPOINTS for name in names}
    assert declared["training", "mine"]["schedules"] == []
    assert declared["retraining", "mine"]["schedules"] == [{"slug": "cron", "cron": "5 4 * * MON", "timezone": "Asia/Tokyo"}]
    for entry in declared.values():
        assert entry["parameters"] == {"scenario": entry["name"]} and entry["description"] and entry["tags"]
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert entry["work_pool"]["work_queue_name"] == entry["name"]
    assert declared["training", "mine"]["work_pool"]["name"] == "gpu"


def test_a_new_scenario_is_declared_with_it_and_deployments_of_ones_own_stay(workspace: Workspace) -> None:
    (workspace.root / "dvc.yaml").write_text("vars:\n  - scenarios:\n      quickstart: {}\nstages: {}\n")
    own = {"name": "report", "entrypoint": "mine.py:report", "work_pool": {"name": "cpu"}}
    with open(workspace.root / "prefect.yaml", "w") as file:
        YAML(typ="safe").dump({"name": "evergreen", "deployments": [own]}, file)
    add_scenario(workspace, "mine", GOOD)
    declared = deployments(workspace)
    assert declared["mine.py:report", "report"] == own
    assert ("training", "mine") in declared and ("retraining", "mine") in declared
    assert declare(workspace) == []  # once is enough


def test_a_file_that_holds_no_scenario_is_reported_and_the_others_are_declared(workspace: Workspace) -> None:
    (workspace.scenarios / "broken.yaml").write_text("name: broken\nseed: many\n")
    reported = declare(workspace)
    assert any("broken.yaml" in sentence for sentence in reported)
    assert ("training", "quickstart") in deployments(workspace) and ("training", "broken") not in deployments(workspace)


@pytest.mark.parametrize("left", ["deployments: [", "- 1", "deployments: {a: 1}"])
def test_a_prefect_yaml_that_cannot_be_read_is_not_overwritten(workspace: Workspace, left: str) -> None:
    (workspace.root / "prefect.yaml").write_text(left)
    with pytest.raises(WrongUse, match="prefect.yaml"):
        declare(workspace)
    assert (workspace.root / "prefect.yaml").read_text() == left


def test_without_a_server_there_is_nothing_to_deploy_to(workspace: Workspace) -> None:
    with pytest.raises(WrongUse, match="evergreen up"):
        deploy(workspace)

"""The form of a deployment on Prefect's page and the command's options are the same choices."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema

from flows import cli
from flows.retraining import retraining
from flows.training import training


@pytest.mark.parametrize(("flow", "command"), [(training, cli.run), (retraining, cli.retrain)], ids=["run", "retrain"])
def test_every_choice_of_the_form_is_described_and_an_option_with_the_same_default(flow: Any, command: Any) -> None:
    fields = parameter_schema(flow).properties
    options = inspect.signature(command).parameters
    for name, field in fields.items():
        assert len(field["description"]) > 20 and name in options
        assert name == "scenario" or field.get("default") == options[name].default, name


def test_the_form_offers_what_a_person_would_set_and_nothing_of_the_projects_own() -> None:
    assert set(parameter_schema(training).properties) == {"scenario", "force", "epochs"}
    assert set(parameter_schema(retraining).properties) == {"scenario", "force", "start"}
    assert parameter_schema(retraining).properties["start"]["enum"] == ["scenario", "champion", "scratch"]

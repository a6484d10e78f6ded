"""The settings of scenarios that predict a dated number by those before it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evergreen.scenario.settings import Preprocess, Promote, Scenario, Train, Validate


class ReadingsValidate(Validate):
    """What the readings must be."""

    lowest: float = Field(-90.0, description="°C, at least")
    highest: float = Field(60.0, description="°C, at most")


class ReadingsPreprocess(Preprocess):
    """What a reading is predicted by."""

    history: Annotated[int, Field(ge=1, le=100)] = Field(4, description="readings before it")


class ReadingsTrain(Train):
    """The network."""

    units: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="of the hidden layer")


class ReadingsPromote(Promote):
    """What a new model must be to become the champion."""

    item_columns: ClassVar[frozenset[str]] = frozenset({"label", "source"})

    metric: Literal["mean_absolute_error"] = "mean_absolute_error"
    margin: Annotated[float, Field(gt=0, le=0.5)] = Field(0.01, description="fraction of the champion's error")


class ReadingsScenario(Scenario):
    """Predicts each reading by those before it."""

    kind: Literal["readings"]
    validation: ReadingsValidate = Field(default_factory=lambda: ReadingsValidate.model_validate({}), alias="validate")
    preprocess: ReadingsPreprocess
    train: ReadingsTrain
    promote: ReadingsPromote = Field(default_factory=lambda: ReadingsPromote.model_validate({}))

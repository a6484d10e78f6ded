"""The settings of scenarios that predict a dated number by those before it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from evergreen.scenario.settings import Preprocess, Promote, Scenario, Train


class ReadingsPreprocess(Preprocess):
    history: Annotated[int, Field(ge=1, le=100)] = Field(4, description="numbers before it that a number is predicted by")


class ReadingsTrain(Train):
    units: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="of the hidden layer")


class ReadingsPromote(Promote):
    item_columns: ClassVar[frozenset[str]] = frozenset({"label", "group", "source"})

    metric: Literal["mean_absolute_error"] = "mean_absolute_error"
    margin: Annotated[float, Field(gt=0, le=0.5)] = Field(0.01, description="fraction of the champion's error")


class ReadingsScenario(Scenario):
    kind: Literal["readings"]
    preprocess: ReadingsPreprocess
    train: ReadingsTrain
    promote: ReadingsPromote = Field(default_factory=lambda: ReadingsPromote.model_validate({}))

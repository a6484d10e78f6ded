"""The settings of scenarios that forecast series: numbers at regular times, in the columns of tables."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from evergreen.scenario.settings import Collect, Preprocess, Promote, Scenario, Share, Train, Validate, known_timezone

LOW, HIGH = 0.1, 0.9  # the quantiles between which the interval of 80 % lies
NETWORKS = ("gru", "lstm", "simple_rnn")
Seconds = Annotated[int, Field(ge=1, le=31 * 86_400)]


class ForecastCollect(Collect):
    """Where the tables are, how they are written, and what their columns mean."""

    time: str = Field(description="the column of the times")
    values: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="the columns of the numbers to forecast, each a series"
    )
    series: str | None = Field(
        None, description="the column that names the series, in a table of several below each other; null: there is none"
    )
    known: tuple[str, ...] = Field(
        (), description="columns of numbers that are known in advance for the times that are forecast, such as a public holiday"
    )
    time_format: str | None = Field(
        None, description="of the times, such as %d/%m/%Y %H:%M (Python's strptime); null: ISO 8601"
    )
    timezone: Annotated[str | None, AfterValidator(lambda value: value if value is None else known_timezone(value))] = Field(
        None,
        description="IANA name of the zone of times without an offset, and of the calendar; null: they are taken as they are written, without "
        "clock changes",
    )
    pattern: str | None = Field(
        None, description="regular expression for the names of the files that are read; null: all tables"
    )
    split_pattern: str | None = Field(
        None,
        description="regular expression searched in a file's name; its first group is the split (train, val, test) of its rows",
    )
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="between the columns of CSV files; null: as found in the file"
    )
    decimal: Literal[".", ","] | None = Field(None, description="the decimal sign in text; null: as found in the file")
    text_encoding: str | None = Field(
        None, description="of text without a byte-order mark, such as cp1252; null: UTF-8, else cp1252"
    )

    @field_validator("pattern", "split_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from None
        return value

    @field_validator("split_pattern")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        if value is not None and re.compile(value).groups < 1:
            raise ValueError("must have a group in parentheses")
        return value

    @model_validator(mode="after")
    def _each_column_once(self) -> ForecastCollect:
        named = [self.time, *self.values, *([self.series] if self.series else []), *self.known]
        if len(set(named)) < len(named):
            raise ValueError("a column has several uses: time, series, values and known must all differ")
        return self


class ForecastValidate(Validate):
    """What the series must be. Times are compared with the step of the series (`preprocess.step_seconds`)."""

    lowest: float | None = Field(None, description="value, at least; null: any")
    highest: float | None = Field(None, description="value, at most; null: any")
    max_missing_share: Share = Field(
        0.2, description="steps without a reading, between the first and the last reading of a series"
    )
    max_gap_steps: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the longest gap between two readings of a series, in steps; null: any"
    )
    max_irregular_share: Share = Field(
        0.05, description="readings whose time is off the grid by more than preprocess.tolerance"
    )
    max_stuck_steps: Annotated[int, Field(ge=2)] = Field(
        144, description="readings in a row with exactly the same value, at most: a sensor that is stuck repeats its last one"
    )
    min_readings: Annotated[int, Field(ge=1)] = Field(200, description="of a series")


class ForecastPreprocess(Preprocess):
    """What is forecast, from what, and how irregular times are treated."""

    step_seconds: Seconds | None = Field(None, description="between two readings; null: the commonest difference")
    tolerance: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.1,
        description="fraction of a step by which a time may be off the grid, and is moved to it; other readings are left out",
    )
    history: Annotated[int, Field(ge=1, le=512)] = Field(12, description="readings that a forecast is made from")
    horizons: Annotated[tuple[int, ...], Field(min_length=1, max_length=64)] = Field(
        (1,), description="steps after the last reading that are forecast, increasing; the first decides which model is better"
    )
    quantiles: Annotated[tuple[float, ...], Field(min_length=2, max_length=32)] = Field(
        (LOW, 0.5, HIGH), description=f"of the distribution that is forecast, increasing; with {LOW} and {HIGH}"
    )
    max_fill_steps: Annotated[int, Field(ge=0, le=512)] = Field(
        0,
        description="missing readings in a row, in the history, that are filled with the one before; with more there is no forecast",
    )
    across_gaps: bool = Field(
        False,
        description="the history is of the readings before, however long ago they were. false: of the steps before",
    )
    smoothing: Annotated[int, Field(ge=1, le=1001)] = Field(
        1, description="steps over which the mean of the time of day is averaged; an odd number"
    )

    @field_validator("horizons")
    @classmethod
    def _increase(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] < 1 or any(later <= earlier for earlier, later in zip(value, value[1:], strict=False)):
            raise ValueError("must be increasing, from 1 up")
        return value

    @field_validator("quantiles")
    @classmethod
    def _have_an_interval(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in zip(value, value[1:], strict=False)):
            raise ValueError("must be increasing")
        if not 0 < value[0] < value[-1] < 1 or not {LOW, HIGH} <= set(value):
            raise ValueError(
                f"must lie between 0 and 1, and have {LOW} and {HIGH} among them, the ends of the interval of 80 %"
            )
        return value

    @field_validator("smoothing")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the average is centred")
        return value


class ForecastTrain(Train):
    """The network and its training."""

    model: Literal["gru", "lstm", "simple_rnn", "linear"] = Field(
        "gru",
        description="the recurrent layer; linear: a linear model of the same inputs, fitted in closed form, with epochs: 1",
    )
    over: Literal["last", "linear"] = Field(
        "linear", description="the network learns what is left over: the last value, or a linear forecast"
    )
    units: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="of the recurrent and the hidden layer")
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.003
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


class ForecastPromote(Promote):
    """What a new model must be to become the champion."""

    item_columns: ClassVar[frozenset[str]] = frozenset({"label", "series", "source", "collected_at"})

    metric: Literal["mae", "rmse"] = Field("mae", description="by which a challenger must be better, at the first horizon")
    margin: Annotated[float, Field(gt=0, le=0.5)] = Field(0.01, description="fraction of the champion's error")


class ForecastScenario(Scenario):
    """Forecasts series."""

    kind: Literal["forecast"]
    collect: ForecastCollect
    validation: ForecastValidate = Field(default_factory=lambda: ForecastValidate.model_validate({}), alias="validate")
    preprocess: ForecastPreprocess = Field(default_factory=lambda: ForecastPreprocess.model_validate({}))
    train: ForecastTrain
    promote: ForecastPromote = Field(default_factory=lambda: ForecastPromote.model_validate({}))

"""The kind for series: forecasts with intervals, by recurrent networks or a linear model."""

from __future__ import annotations

from evergreen.kinds.base.kind import Kind
from evergreen.kinds.forecast.codec import ForecastCodec
from evergreen.kinds.forecast.contract import ForecastContract
from evergreen.kinds.forecast.judge import ForecastJudge
from evergreen.kinds.forecast.learner import ForecastLearner
from evergreen.kinds.forecast.settings import ForecastScenario

FORECAST = Kind("forecast", ForecastScenario, ForecastContract(), ForecastCodec, ForecastLearner(), ForecastJudge())

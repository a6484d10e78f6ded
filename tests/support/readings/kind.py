"""The tiny kind: a dated number an item, split by time, the lower its mean error the better."""

from __future__ import annotations

from evergreen.kinds.base.kind import Kind
from tests.support.readings.codec import ReadingsCodec
from tests.support.readings.contract import ReadingsContract
from tests.support.readings.judge import ReadingsJudge
from tests.support.readings.learner import ReadingsLearner
from tests.support.readings.settings import ReadingsScenario

READINGS = Kind("readings", ReadingsScenario, ReadingsContract(), ReadingsCodec, ReadingsLearner(), ReadingsJudge())

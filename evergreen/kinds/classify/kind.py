"""The kind `classify`: one label per image."""

from __future__ import annotations

from evergreen.kinds.base.kind import Kind
from evergreen.kinds.classify.codec import ImageCodec
from evergreen.kinds.classify.contract import ImageContract
from evergreen.kinds.classify.explorer import ImageExplorer
from evergreen.kinds.classify.judge import ImageJudge
from evergreen.kinds.classify.labelling import ImageLabelling
from evergreen.kinds.classify.learner import ImageLearner
from evergreen.kinds.classify.settings import ImageScenario

CLASSIFY = Kind(
    "classify", ImageScenario, ImageContract(), ImageCodec, ImageLearner(), ImageJudge(), ImageExplorer(), ImageLabelling()
)

from __future__ import annotations

from evergreen.scenario.settings import Train
from evergreen.training.precision import training_policy


def test_full_precision_is_kept_where_it_is_asked() -> None:
    assert training_policy(Train(precision="full")) == "float32"
    assert training_policy(Train(precision="mixed")).startswith("mixed_")

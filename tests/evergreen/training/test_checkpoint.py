"""The checkpoint: what is written is read again, or nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evergreen.training.checkpoint import Checkpoint, TrainingState


def test_a_checkpoint_that_is_damaged_is_not_gone_on_from(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "key")
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(4)]
    checkpoint.write(TrainingState(history=[{"loss": 0.1}], best_epoch=1), weights, weights[:1])
    found = checkpoint.read()
    assert found and found.state.history == [{"loss": 0.1}]
    assert [array.tolist() for array in found.variables] == [weights[0].tolist(), 4.0] and len(found.best_weights) == 1
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-100])
    assert checkpoint.read() is None


def test_a_checkpoint_of_other_settings_is_swept_away(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "old").write(TrainingState(), [], [])
    Checkpoint(tmp_path, "new").write(TrainingState(), [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["new"]

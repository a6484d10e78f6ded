"""How far the energy ratio of two networks of one architecture is from 1: measured one after the other, as the gate once did,
and in turn.

Run: python -m bench.energy_ratio [--json] [--times 15]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.trained import image_scenario
from evergreen.evaluation.energy_ratio import energy_ratio, measured
from evergreen.serving.scoring import Model
from evergreen.workspace import Workspace
from tasks.evaluate import measure_serving
from tasks.promote import predict_one

ITEMS = 200


def networks(folder: Path) -> list[Path]:
    """Two networks of the quickstart's architecture with other weights, each in a folder."""
    import keras

    from evergreen.kinds.classify.learner import ImageLearner
    from evergreen.training.export import export

    scenario, learner, made = image_scenario(Workspace.find().scenarios, "quickstart"), ImageLearner(), []
    split = learner.random_split(scenario, 1, np.random.default_rng(0))
    settings = {"kind": scenario.kind, **learner.settings(split)}
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        keras.backend.clear_session(free_memory=False)
        (folder / str(seed)).mkdir()
        export(learner.build(scenario, split, steps=1), folder / str(seed), learner)
        (folder / str(seed) / "settings.json").write_text(json.dumps(settings))
        made.append(folder / str(seed))
    return made


def digits() -> list[bytes]:
    import cv2
    from sklearn.datasets import load_digits

    return [cv2.imencode(".png", (image * 15).astype(np.uint8))[1].tobytes() for image in load_digits().images[:ITEMS]]


def main() -> None:
    from evergreen.environment import import_tensorflow

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=15)
    arguments = parser.parse_args()
    import_tensorflow()
    images, rows = digits(), []
    with tempfile.TemporaryDirectory() as scratch:
        folders = networks(Path(scratch))
        models = [Model.open(folder) for folder in folders]
        turns = [partial(predict_one, model, cycle(images)) for model in models]
        for _ in range(arguments.times):
            alone = [measure_serving(model, images).energy_wh_per_1000 for model in models]
            in_turn = measured(turns)
            assert in_turn is not None and alone[0] and alone[1]
            rows.append(
                {"one_after_the_other": alone[1] / alone[0], "in_turn": in_turn.ratio, "low": in_turn.low, "high": in_turn.high}
            )
        decided = energy_ratio([folder / "model.onnx" for folder in folders], turns)
    assert decided is not None
    if arguments.json:
        print(json.dumps({"rows": rows, "gate": decided.ratio}))
        return
    print("| one after the other | in turn (95 %) |\n|---|---|")
    for row in rows:
        print(f"| {row['one_after_the_other']:.2f} | {row['in_turn']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |")
    for name in ("one_after_the_other", "in_turn"):
        print(f"{name}: {min(row[name] for row in rows):.2f} to {max(row[name] for row in rows):.2f}")
    print(f"1 is in the interval {sum(row['low'] <= 1 <= row['high'] for row in rows)} times of {len(rows)}.")
    print(f"The gate: {decided}.")


if __name__ == "__main__":
    main()

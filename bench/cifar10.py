"""CIFAR-10 on this machine's processor: what the shipped network reaches in the time that the usual network (three convolutions
of 32, 64 and 128 channels with pooling, a dense layer of 128, batches of 32, Adam) needs for 10 epochs at 32×32; and what the
shipped scenario reaches, beside the published figures of the usual recipe. The test split is the source's own; settings were
compared on val.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report import Row, report
from bench.trained import prepared, trained
from evergreen.preparation.arrays import open_split
from evergreen.workspace import Workspace

FAST = {"epochs": 5, "filters": 24, "batch_size": 384, "shift": 2, "erase": 0}
USUAL_EPOCHS = 10
PUBLISHED = {"accuracy": 0.902, "recall_macro": 0.886, "f1_macro": 0.893}


def usual(workspace: Workspace) -> tuple[float, float]:
    """Seconds of `fit`, and test accuracy."""
    import keras
    from keras import layers

    train, test = (open_split(workspace.splits("cifar10"), name) for name in ("train", "test"))
    keras.utils.set_random_seed(7)
    blocks = [
        layer for filters in (32, 64, 128) for layer in (layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D())
    ]
    head = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), *blocks, *head])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = np.array(train["images"]), np.array(train["labels"])
    started = time.perf_counter()
    model.fit(images, labels, batch_size=32, epochs=USUAL_EPOCHS, verbose=0)
    spent = time.perf_counter() - started
    predicted = model.predict(np.array(test["images"]), batch_size=500, verbose=0).argmax(axis=1)
    return spent, float((predicted == test["labels"]).mean())


def rows() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepared("cifar10", Path(folder))
        before, accuracy = usual(workspace)
        fast_spent, fast = trained("cifar10", workspace, **FAST)
        spent = (before + usual(workspace)[0]) / 2  # once on either side: machines have moods
        full_spent, full = trained("cifar10", workspace)
    reached = ", ".join(f"{name.removesuffix('_macro')} {full[name]:.1%}" for name in PUBLISHED)
    published = ", ".join(f"{name.removesuffix('_macro')} {value:.1%}" for name, value in PUBLISHED.items())
    return [
        Row(
            "CIFAR-10: test accuracy in the usual network's time for 10 epochs",
            f"{fast['accuracy']:.1%} in {fast_spent:.0f} s ({FAST['epochs']} epochs of {FAST['filters']} filters)",
            f"{accuracy:.1%} in {spent:.0f} s",
            f"{fast['accuracy']:.1%}",
            "84 %",
            fast["accuracy"] >= 0.84 and fast_spent <= spent,
        ),
        Row(
            "CIFAR-10: test quality within 30 min",
            f"{reached} in {full_spent / 60:.0f} min",
            f"published, of the usual recipe: {published}",
            reached,
            "all three higher",
            full_spent <= 1800 and all(full[name] > value for name, value in PUBLISHED.items()),
        ),
    ]


if __name__ == "__main__":
    report(rows, __doc__ or "")

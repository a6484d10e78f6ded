"""The precision and the devices with which a network is trained on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.scenario.settings import Train

if TYPE_CHECKING:
    import tensorflow as tf

FULL = "float32"


def training_policy(settings: Train) -> str:
    """The name of the Keras dtype policy: mixed if the settings request it, or if they leave it open and the processor has
    16-bit arithmetic."""
    import tensorflow as tf

    if settings.precision == "full":
        return FULL
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        newest = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        if settings.precision == "mixed" or newest >= (7, 0):
            return "mixed_bfloat16" if newest >= (8, 0) else "mixed_float16"
        return FULL
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        if settings.precision == "mixed" or "avx512_bf16" in flags or "amx_bf16" in flags:
            return "mixed_bfloat16"
    return "mixed_bfloat16" if settings.precision == "mixed" else FULL


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set the Keras dtype policy of networks that are built within the block."""
    import keras

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def devices() -> tf.distribute.Strategy:
    """The strategy over this machine's devices: all GPUs if there are several, else the one device."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy() if len(tf.config.list_physical_devices("GPU")) > 1 else tf.distribute.get_strategy()

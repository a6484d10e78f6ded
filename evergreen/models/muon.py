"""Muon for convolutions: a small network needs about half the epochs of SGD (see docs/architecture.md).

Keras's own `keras.optimizers.Muon` leaves everything but matrices, so every convolution's kernel, to AdamW. As `cnn`, this file
imports Keras at its top: import it late.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# The quintic whose iteration brings singular values near 1 fastest, and how often it is applied (Jordan et al.,
# "Muon: an optimizer for hidden layers in neural networks", 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3
KERNEL_MOMENTUM = 0.6


@keras.saving.register_keras_serializable("evergreen")
class Muon(keras.optimizers.SGD):
    """Nesterov SGD in which every convolution kernel, float32 `(height, width, in, out)`, makes an orthogonal step.

    Taken as a matrix of outputs by inputs, a kernel's momentum is replaced by the nearest matrix whose singular values are all
    alike, so that no direction waits for the gradient to find it; and the kernel keeps its norm, which says
    nothing where a normalization follows, and holds the scale of what comes out where none does. `kernel_rate` times the schedule is by what part of its norm a kernel moves in a step.
    Everything else (biases, normalizations, dense layers) is learned by Nesterov SGD.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        kernel_rate: float = 0.25,
        momentum: float = 0.9,
        nesterov: bool = True,
        **settings: Any,
    ) -> None:
        """
        Raises:
            ValueError: `momentum`, of what is no kernel, is 0; kernels need a place for theirs.
        """
        if not momentum:
            raise ValueError(f"Muon needs momentum. Expected 0 < momentum < 1. Received: momentum={momentum}")
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **settings)
        self.kernel_rate = kernel_rate

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self.momentums[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(momentum, KERNEL_MOMENTUM * momentum + gradient)
        step = orthogonal(ops.reshape(gradient + KERNEL_MOMENTUM * momentum, (-1, variable.shape[-1])))
        rate = ops.cast(learning_rate, variable.dtype) * self.kernel_rate
        norm = _norm(variable)
        moved = variable - rate * norm / _norm(step) * ops.reshape(step, variable.shape)
        self.assign(variable, moved * (norm / _norm(moved)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_rate": self.kernel_rate}


def orthogonal(matrix: Any) -> Any:
    """The matrix with singular values that are all near 1, by Newton and Schulz's iteration: float `(rows, columns)` to the same."""
    rows, columns = matrix.shape
    x = ops.transpose(matrix) if rows > columns else matrix  # the smaller side's square is cheaper
    x = x / _norm(x)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return ops.transpose(x) if rows > columns else x


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values))) + 1e-7

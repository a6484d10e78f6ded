"""Muon for convolutions: a small network needs about half the epochs of SGD (measured in bench/README.md).

Keras's own `keras.optimizers.Muon` leaves everything except matrices, and so every convolution's kernel, to AdamW. Like `cnn`,
this module imports Keras at its top: import it late.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# The coefficients of the quintic whose iteration brings singular values near 1 fastest, and the number of iterations (Jordan et
# al., "Muon: an optimizer for hidden layers in neural networks", 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3
KERNEL_MOMENTUM = 0.6


@keras.saving.register_keras_serializable("evergreen")
class Muon(keras.optimizers.SGD):
    """Nesterov SGD with orthogonalized steps for convolution kernels, float32 `(height, width, in, out)`.

    A kernel's momentum, as a matrix of outputs by inputs, is replaced by the nearest matrix whose singular values are all
    equal, so that directions with small gradients move as fast as the others. The kernel keeps its norm, which has no effect if
    a normalization follows, and otherwise keeps the scale of the outputs. In a step, a kernel moves by `kernel_rate` times the
    learning rate, as a fraction of its norm. All other variables (biases, normalizations, dense layers) are trained by Nesterov
    SGD.
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
            ValueError: `momentum`, which applies to all other variables, is 0; kernels need the momentum variables too.
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
    """Bring all singular values of a matrix near 1 by Newton-Schulz iteration: float `(rows, columns)` to the same."""
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

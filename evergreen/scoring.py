"""The former place of `evergreen.serving.scoring`: models that were registered from here import it by this name."""

from evergreen.serving.scoring import Model, Prediction, load

__all__ = ["Model", "Prediction", "load"]

"""The former name of `evergreen.serving.scoring`, which the scripts of models registered by earlier versions import."""

from evergreen.serving.scoring import Model, load

__all__ = ["Model", "load"]

"""On which parts of an item a model's answer rests.

model = load(Workspace.find(), "quickstart")
Path("map.png").write_bytes(explain(model, Path("digit.png").read_bytes()).picture)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evergreen.errors import WrongUse
from evergreen.kinds.base.labelling import part_of
from evergreen.scenario.kinds import load_kind
from evergreen.serving.scoring import Model

PICTURE_SIDE = 1024  # pixels, at most


@dataclass(frozen=True)
class Explanation:
    """A model's answer for an item, and why.

    Attributes:
        label: the answer; the most probable label if the model does not know.
        probability: of this label, 0 to 1.
        probabilities: of all labels.
        unknown: why the model does not know, in one word; empty if it answers.
        explained: the label that the picture is about.
        picture: the item as a PNG, on which the parts that speak for `explained` are red, and those against it blue.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    unknown: str
    explained: str
    picture: bytes


def explain(model: Model, item: Any, label: str | None = None) -> Explanation:
    """Explain a model's answer.

    Args:
        item: as `Model.predict` takes it, such as an encoded image.
        label: the label to explain; by default the answer.

    Raises:
        WrongUse: the model's kind has no explanations, or the model does not have this label.
        BadItem: the network cannot take the item.
    """
    part = part_of(load_kind(model.codec.settings["kind"]))
    if label is not None and label not in model.labels:
        raise WrongUse("the model does not have this label", expected=f"one of {', '.join(model.labels)}", received=label)
    outputs = model.outputs([item])
    probabilities = part.probabilities(model.codec, outputs[model.codec.outputs[0]][0])
    answer = part.answer(model.codec, outputs)
    explained = label or answer.label
    picture = part.overlaid(item, part.heat_map(model, item, explained), PICTURE_SIDE)
    return Explanation(answer.label, probabilities[answer.label], probabilities, answer.unknown, explained, picture.content)

"""Proposals for a source: the sections of a scenario, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.errors import WrongUse


class SourceDoesNotFit(WrongUse):
    """The source holds no items of the kind."""


@dataclass(frozen=True)
class Question:
    """A question to the user, for a source that can be understood in several ways.

    Attributes:
        text: an introduction to the choices.
        prompt: the question itself.
        choices: the options by the number that selects them.
        default: the number of the likeliest option.
    """

    text: str
    prompt: str
    choices: Mapping[int, str]
    default: int


Ask = Callable[[Question], int]  # a question's answer: one of its choices


@dataclass(frozen=True)
class Sections:
    """What a kind proposes for a source.

    Attributes:
        collect: the settings of this section except the path of the source.
        others: the settings of other sections by the section's name, in the order of the file.
        reasons: sentences that say what was chosen and why.
        counts: the number of items of each label; empty if items have no labels.
        tree: lines that show how the source was understood.
    """

    collect: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]]
    reasons: Sequence[str]
    counts: Mapping[str, int]
    tree: Sequence[str]

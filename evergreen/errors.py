"""The errors that users see. Each is one line: what happened, what was expected, what was received, how to fix it.

EvergreenError        exit status 1
├── Unreachable       1   an external service does not answer; a later attempt may succeed
├── WrongUse          2   the command or the scenario is wrong
├── DataRefused       3   the data did not pass validation, or too much of it was bad
└── NotPromoted       4   `--must-promote` was given and the champion stayed
"""

from __future__ import annotations

import copyreg
from typing import Any


class EvergreenError(Exception):
    """An error that the user can act on. Its text is a single line."""

    exit_status = 1

    def __init__(self, happened: str, *, expected: str = "", received: object = None, fix: str = "") -> None:
        """
        Args:
            happened: what went wrong, as a clause without a final period.
            expected: what would have been right.
            received: the value that was received; its repr is shown, shortened.
            fix: what to do now, as an imperative sentence.
        """
        self.happened, self.expected, self.received, self.fix = happened, expected, received, fix
        parts = [happened]
        if expected:
            parts.append(f"expected {expected}")
        if received is not None:
            parts.append(f"got {_shorten(repr(received))}")
        line = "; ".join(part.rstrip(".") for part in parts) + "."
        super().__init__(" ".join(f"{line} {fix}".split()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the text when unpickled, instead of composing a new one from it."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class Unreachable(EvergreenError):
    """An external service does not answer; a later attempt may succeed."""


class WrongUse(EvergreenError):
    """The command or the scenario is wrong."""

    exit_status = 2


class DataRefused(EvergreenError):
    """The data did not pass validation, or too much of it was bad."""

    exit_status = 3


class NotPromoted(EvergreenError):
    """`--must-promote` was given and the champion stayed."""

    exit_status = 4


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class BadItem(Exception):
    """A refused item.

    Attributes:
        reason: a category for counting: one or two words, joined by a hyphen.
        detail: an explanation for people: one clause.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(self) -> tuple[type[BadItem], tuple[str, str]]:
        return type(self), (self.reason, self.detail)

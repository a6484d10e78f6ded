"""How the command line speaks to people: messages that end at the terminal's edge, and consoles for tables."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 120  # columns: longer lines are hard to read


def console(out: IO[str]) -> Console:
    """For tables and text: in colour where `out` is a terminal and NO_COLOR isn't set, and never wider than it. What looks like markup (a
    label may be called "[bold]") is shown as it stands."""
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False)


def wrapped(text: str, out: IO[str], indent: str = "  ") -> str:
    """The text in lines that fit the terminal, broken between words; as it is where `out` is a file. What has no space in it (a path, an
    address) stays whole, so that it can be copied."""
    if not out.isatty():
        return text
    from rich.console import Console

    width = min(Console(file=out).width, WIDEST)
    return "\n".join(
        textwrap.fill(line, width - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


class Messages(logging.Handler):
    """Log messages on the standard error of the moment: a progress bar that is shown puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record to standard error, wrapped to the terminal."""
        try:
            print(wrapped(self.format(record), sys.stderr), file=sys.stderr, flush=True)
        except BrokenPipeError:  # nobody reads it any more
            pass
        except Exception:  # noqa: BLE001 (what logging.Handler.emit does itself)
            self.handleError(record)

"""Terminal output of the command line: messages wrapped to the terminal's width, and consoles for tables."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 120  # columns: longer lines are hard to read


def console(out: IO[str]) -> Console:
    """A console for tables and text: in colour if `out` is a terminal and NO_COLOR isn't set, and never wider than the
    terminal. Text that looks like markup (a label may be called "[bold]") is shown literally."""
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False)


def wrapped(text: str, out: IO[str], indent: str = "  ") -> str:
    """Wrap text to the terminal's width, between words; if `out` is not a terminal, the text is unchanged. Words without spaces
    (paths, URLs) are never broken, so that they can be copied."""
    if not out.isatty():
        return text
    from rich.console import Console

    width = min(Console(file=out).width, WIDEST)
    return "\n".join(
        textwrap.fill(line, width - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


class Messages(logging.Handler):
    """Prints log messages to the current `sys.stderr`, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record to standard error, wrapped to the terminal."""
        try:
            print(wrapped(self.format(record), sys.stderr), file=sys.stderr, flush=True)
        except BrokenPipeError:  # the reader has closed the pipe
            pass
        except Exception:  # noqa: BLE001 (as logging's own handlers do)
            self.handleError(record)

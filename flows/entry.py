"""The entry point of the installed `evergreen` command. It imports nothing slow, so that Ctrl-C is handled from the very
start."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from flows.cli import main as run
    except KeyboardInterrupt:
        from evergreen.stopping import STOPPED

        print(f"evergreen: {STOPPED}", file=sys.stderr)
        sys.exit(130)
    run()

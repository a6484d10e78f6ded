"""What the installed `evergreen` command runs first: it imports nothing that takes time, so that Ctrl-C has its answer from the first moment."""

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

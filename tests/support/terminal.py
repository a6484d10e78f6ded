"""Commands in a terminal of their own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


def in_a_terminal(
    command: list[str], columns: int, environment: dict[str, str], folder: Path | None = None, typed: str = ""
) -> tuple[int, str]:
    """Run a command in a pseudo-terminal of so many columns.

    Args:
        typed: sent to it at once, as if somebody had typed it.

    Returns:
        Its exit status, and all that it wrote, control sequences included.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in environment.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        command, cwd=folder, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env=kept | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | {k: v for k, v in environment.items() if k == "NO_COLOR"},
    )  # fmt: skip
    os.close(follower)
    os.write(leader, typed.encode())
    written = b""
    while True:
        try:
            some = os.read(leader, 65536)
        except OSError:  # the terminal is closed: the process has ended
            break
        if not some:
            break
        written += some
    os.close(leader)
    return process.wait(), written.decode()


def lines(text: str) -> list[str]:
    """What stood on the terminal's lines, also those that were overwritten."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip()]


def too_wide(text: str, columns: int) -> list[str]:
    """The lines that the terminal had to break. One that can't be broken (an address, a path) may be as long as it is."""
    return [line for line in lines(text) if len(line) > columns and len(max(line.split(), key=len)) + 20 < columns]

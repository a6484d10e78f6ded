"""Both ends of the socket by which a command is handed over (`tests.support.prepared`)."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence

MESSAGE_BYTES = 2**20
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(
    address: str, module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str], streams: Sequence[int]
) -> tuple[socket.socket, int]:
    """Let the prepared process run `python -m MODULE ARGUMENTS` in a folder.

    Args:
        address: of its socket.
        streams: file descriptors of the command's standard input, output and error.

    Returns:
        The connection, on which the exit status comes, and the command's process id. Closing the connection kills the command.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    connection.connect(address)
    request = {"module": module, "arguments": [*arguments], "folder": folder, "environment": {**environment}}
    socket.send_fds(connection, [json.dumps(request).encode()], [*streams])
    return connection, int(connection.recv(64))


def run(address: str, module: str, arguments: Sequence[str]) -> None:
    """In the place of this process: it ends when the command does, and as the command does."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    connection, child = ask(address, module, arguments, os.getcwd(), os.environ, (0, 1, 2))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    status = int(connection.recv(64) or b"-9")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status in PASSED_ON else None
        os.kill(os.getpid(), -status)
    os._exit(status)

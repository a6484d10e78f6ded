"""A PostgreSQL server of Debian's packages, on loopback, with a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "planted-password-4711"
ACCOUNT = "nobody"  # PostgreSQL does not run as root


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        folder: of its data.
        programs: the folder of PostgreSQL's programs.
    """

    port: int
    folder: Path
    programs: Path

    @property
    def environment(self) -> dict[str, str]:
        """What gives access to it."""
        return {"PGUSER": "anna", "PGPASSWORD": PASSWORD}

    def execute(self, statements: str) -> None:
        """Run statements of SQL."""
        command = [
            self.programs / "psql",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-d",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        subprocess.run(command, input=statements, text=True, check=True, env=os.environ | self.environment)

    def stop(self) -> None:
        """End it at once, with all its connections."""
        _run([self.programs / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop"])


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server while the block runs; the test is skipped where PostgreSQL is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
    if not versions or (os.getuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("PostgreSQL is not installed")
    programs = versions[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="evergreen-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, ACCOUNT)
        _run(
            [
                programs / "initdb",
                "-D",
                folder / "data",
                "-U",
                "anna",
                "-A",
                "scram-sha-256",
                f"--pwfile={folder / 'password'}",
                "-E",
                "UTF8",
                "--locale=C",
            ]
        )
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        _run([programs / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-o", options, "start"])
        server = Postgres(port, folder, programs)
        try:
            yield server
        finally:
            if (folder / "data/postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[Path | str]) -> None:
    as_account = ["runuser", "-u", ACCOUNT, "--"] if os.getuid() == 0 else []
    subprocess.run([*as_account, *map(str, command)], check=True, stdout=subprocess.DEVNULL, cwd="/")

"""A real PostgreSQL server on loopback, with a data directory of its own that is gone afterwards.

The binaries of Debian's package ``postgresql`` do, or any others in PATH. The server refuses to run as root, so root
runs it as the package's user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "mop"
#: Has what must be written otherwise in a URL, so that nothing that shows one can be right by chance.
PASSWORD = "hunter2/geheim%"
QUOTED = "hunter2%2Fgeheim%25"


class Postgres:
    """One server; `url` makes a database on it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def _run(self, program: str, *arguments: str) -> None:
        command = [*_as_user(), str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def make(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        data = str(self.folder / "data")
        how = ["-A", "scram-sha-256", "-U", USER, "--pwfile", str(self.folder / "password"), "--no-sync"]
        self._run("initdb", "-D", data, "-E", "UTF8", "--locale=C", *how)

    def start(self) -> None:
        given = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", "30", "-D", str(self.folder / "data"), "-l", log, "-o", given)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-t", "30", "-D", str(self.folder / "data"), "-m", mode)

    def address(self, database: str, password: str = QUOTED) -> str:
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        import psycopg

        given = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": database}
        with psycopg.connect(**given, autocommit=True) as connection:  # type: ignore[arg-type]
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def url(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"mop_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)


@contextmanager
def serving() -> Iterator[Postgres]:
    """Yield a running server, or skip the test and say why there is none."""
    pytest.importorskip("psycopg", reason="the driver is missing: pip install 'mop[distributed]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    if os.geteuid() == 0 and not _as_user():
        pytest.skip("PostgreSQL doesn't run as root, and there is no user postgres or no setpriv to run it as")
    # Short, and where another user may go.
    folder = Path(tempfile.mkdtemp(prefix="mop-pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        server = Postgres(folder, programs)
        server.make()
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Return the folder of the newest server that is installed."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: float(place.parent.name), reverse=True)
    found = shutil.which("pg_ctl")
    places += [Path(found).parent] if found else []
    return next((place for place in places if all((place / one).exists() for one in ("initdb", "pg_ctl"))), None)


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        return []
    program = shutil.which("setpriv")
    return [program, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if program else []


def wait_until(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)

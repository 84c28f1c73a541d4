"""Database: opens the file or URL behind a ledger, and says in words what is wrong with it. Knows nothing of calls.

SQLite by default, in WAL mode with ``synchronous=NORMAL``: what is committed survives the death of the process
(``kill -9`` included); a power cut may lose the last commits, never the file. A new file appears under its name only
when it is whole, so a file without content is never one that was being made: it is one that was cut off.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from mop.errors import LedgerError, LedgerUnavailable
from mop.lm import log_end, migrations, server
from mop.lm.tables import SCHEMA

#: A SQLite file is longer than its header.
HEADER_BYTES = 100
#: Seconds to wait for another process that is writing.
BUSY_SECONDS = 30
#: Seconds that a server may be gone in the middle of a run, and the first and longest pause between attempts.
OUTAGE_SECONDS, PAUSE, LONGEST_PAUSE = 60.0, 0.05, 2.0

Result = TypeVar("Result")

#: The SQLite files that this process has open, and how often.
_open_files: Counter[str] = Counter()
_open_lock = threading.Lock()


class Database:
    """One open database. Safe to use from several threads.

    Args:
        url: Where it is.
        name: What error messages call it.
        new: Make the tables if they aren't there; otherwise it has to be a ledger already.
        memory: It lives in memory, and all threads share one connection.

    Raises:
        LedgerError: It cannot be opened, is not a ledger, is damaged, or is of a newer version.
    """

    def __init__(self, url: sa.URL, name: str, *, new: bool, memory: bool = False) -> None:
        self.name = name
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._lock = threading.Lock()
        #: Other processes may open it as well.
        self.is_shared = not memory
        # It is for the in-memory ledger, whose threads share one connection. It costs nothing with a file, because
        # SQLite lets one writer in at a time anyway; a server takes many at once.
        self._turn = self._lock if self.is_sqlite else nullcontext()
        #: The whole URL, password and all: for processes that open it as well, never for a message.
        self.url = url.render_as_string(hide_password=False)
        self._secrets = tuple(server.secrets_of(url))
        options: dict[str, Any] = {"poolclass": StaticPool} if memory else {}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": BUSY_SECONDS, **({"check_same_thread": False} if memory else {})}
        elif url.get_driver_name() == "psycopg":
            options |= {"connect_args": server.connect_options(), "isolation_level": "READ COMMITTED"}
        try:
            self._engine = sa.create_engine(url, **options)
        except (ImportError, sa.exc.ArgumentError) as error:
            raise LedgerError(
                f"The ledger {name!r} cannot be opened: {error}. Install its driver: pip install 'mop[distributed]'."
            ) from error
        self._file = str(Path(url.database).resolve()) if self.is_sqlite and url.database else None
        _count(self._file, 1)
        sa.event.listen(self._engine, "connect", self._prepare_sqlite if self.is_sqlite else server.prepare)
        try:
            with self.transaction(write=False) as connection:
                current = migrations.version_of(connection) == str(SCHEMA)
            if not current:
                with self.transaction(write=True) as connection:
                    (migrations.prepare if new else migrations.upgrade)(connection, name)
        except BaseException:
            self.close()
            raise

    @classmethod
    def at_file(cls, file: Path) -> Database:
        """Open the SQLite file, which is made with its folder if it isn't there. Raises as the class does."""
        wal = file.with_name(f"{file.name}-wal")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # In this order: a file that another process is making has its name before it has a log.
            lost = wal.exists() and wal.stat().st_size > 0 and not file.exists()
            there = file.exists()
            empty = file.is_file() and file.stat().st_size < HEADER_BYTES
        except (OSError, ValueError) as error:
            raise LedgerError(
                f"The folder of the ledger {str(file)!r} cannot be made or read ({error}); give another."
            ) from error
        if lost:
            raise LedgerError(
                f"The ledger {str(file)!r} is gone, but its log {wal.name} is there. Put the file back, or run "
                f"`mop ledger repair {file}`, which saves what the log holds."
            )
        if empty:
            raise LedgerError(
                f"The ledger {str(file)!r} holds next to nothing: it was cut off, or never was one. Restore it from a "
                f"copy, run `mop ledger repair {file}` if {wal.name} is there, or delete it to begin a new one."
            )
        if not there:
            _make(file)
        elif not cls.is_open_here(file) and log_end.is_cut(file):
            raise LedgerError(
                f"The log {wal.name} of the ledger {str(file)!r} was cut off: replies that were recorded are not in it "
                f"any more. `mop ledger repair {file}` saves what is left; those that are lost are paid for again."
            )
        return cls(_file_url(file), str(file), new=False)

    @classmethod
    def is_open_here(cls, file: Path) -> bool:
        """Return whether this process has the SQLite file open."""
        with _open_lock:
            return _open_files[str(file.resolve())] > 0

    @classmethod
    def in_memory(cls) -> Database:
        """Open a database that is gone when it is closed."""
        return cls(sa.URL.create("sqlite"), ":memory:", new=True, memory=True)

    @classmethod
    def at_url(cls, url: str) -> Database:
        """Open the database at an SQLAlchemy URL. Raises as the class does."""
        made = server.read_url(url)
        if made.get_backend_name() == "sqlite":
            return cls.at_file(Path(made.database)) if made.database else cls.in_memory()
        return cls(made, server.shown(made), new=True)

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        """Open a transaction, commit it at the end, and turn the database's errors into `LedgerError`.

        Raises:
            LedgerUnavailable: The server is gone for now.
            LedgerError: Anything else.
        """
        try:
            with self._turn, self._engine.begin() as connection:
                if self.is_sqlite:
                    # Said here, because the driver begins one only at the first INSERT: not at a SELECT, whose
                    # transaction could then not become a writer's, and not at a change of the tables.
                    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
        except sa.exc.DBAPIError as error:
            gone = not self.is_sqlite and server.is_outage(error)
            said = " ".join(str(error.orig).split())
            for secret in self._secrets:
                said = said.replace(secret, "***")
            raise (LedgerUnavailable if gone else LedgerError)(explain(said, self.name)) from error
        except sa.exc.TimeoutError as error:  # all connections of this process wait for a server that doesn't answer
            raise LedgerUnavailable(explain(" ".join(str(error).split()), self.name)) from error

    def run(self, work: Callable[[sa.Connection], Result], *, write: bool) -> Result:
        """Return what ``work`` returns in a transaction; while a server is gone, try again for `OUTAGE_SECONDS`.

        A connection that is lost at the end leaves open whether the transaction was committed. So ``work`` has to be
        such that doing it twice is the same as doing it once.

        Raises:
            LedgerUnavailable: The server stayed away.
            LedgerError: Anything else.
        """
        deadline, pause = time.monotonic() + OUTAGE_SECONDS, PAUSE
        while True:
            try:
                with self.transaction(write=write) as connection:
                    return work(connection)
            except LedgerUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def now(self) -> sa.ColumnElement[float]:
        """Return the expression for the database's own clock, in seconds since 1970."""
        if self.is_sqlite:
            return (sa.func.julianday("now") - 2440587.5) * 86400.0
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def vacuum(self) -> None:
        """Rewrite the file without what was deleted. Raises LedgerError."""
        if self.is_sqlite:
            try:
                with self._lock, self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM")
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            except sa.exc.DBAPIError as error:
                raise LedgerError(explain(str(error.orig), self.name)) from error

    def insert_or_update(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """Return the statement that inserts rows, and gives the ``changed`` columns of those that are there the new
        values.
        """
        make: Any = sqlite.insert if self.is_sqlite else postgresql.insert
        statement = make(table)
        values = {name: statement.excluded[name] for name in changed}
        changing: sa.Insert = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values)
        return changing

    def insert_or_ignore(self, table: sa.Table) -> sa.Insert:
        """Return the statement that inserts rows, leaving those alone whose key is there already."""
        if self.is_sqlite:
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_new(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert the rows whose key isn't there, and return how many these were."""
        statement = self.insert_or_ignore(table)
        if self.is_sqlite:
            return int(connection.execute(statement, rows).rowcount)
        # A server's driver doesn't count the rows of a statement with many.
        return len(connection.execute(statement.returning(*table.primary_key), rows).all())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._engine.dispose()
            _count(self._file, -1)
            self._file = None

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `transaction` says so
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                return
            except connection.Error as error:
                # Turning WAL on doesn't wait for other processes by itself, so it is asked again here.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise LedgerError(explain(str(error), self.name)) from error
                time.sleep(0.02)


def _count(file: str | None, change: int) -> None:
    if file is not None:
        with _open_lock:
            _open_files[file] += change


def _file_url(file: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(file))


def _make(file: Path) -> None:
    """Make a new ledger under another name, and give it its own when it is whole; a process that was first wins."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        Database(_file_url(temporary), str(file), new=True).close()
        sync(temporary)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not file.exists():
                temporary.rename(file)
        sync(file.parent)
    except OSError as error:
        raise LedgerError(f"The ledger {str(file)!r} cannot be made ({error}); give another file.") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable. Raises OSError."""
    if os.name != "posix" and path.is_dir():
        return  # elsewhere a folder cannot be opened, and its names are durable by themselves
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain(problem: str, name: str) -> str:
    """Return the database's ``problem`` with what to do about it."""
    if "not a database" in problem:
        advice = (
            "It is not a SQLite file, or its beginning is damaged: give another path, or, if it was a ledger, run "
            f"`mop ledger repair {name}`."
        )
    elif "malformed" in problem:
        advice = (
            f"The file is damaged. `mop ledger repair {name}` saves every row that can be read into a new file and "
            "keeps the damaged one beside it; or restore it from a copy."
        )
    elif "unable to open" in problem or "readonly" in problem:
        advice = "The file or its folder cannot be written: give a path to a writable folder."
    elif "locked" in problem:
        advice = f"Another process has been writing for over {BUSY_SECONDS} s: let it finish, then run this again."
    elif "full" in problem or "disk I/O error" in problem:
        advice = "The disk is full or failing: make room, then run this again; what was recorded before is kept."
    elif any(words in problem for words in ("no such column", "has no column", "no such table", "does not exist")):
        advice = "It has tables of another program, or isn't there: give another path or database."
    elif "permission denied" in problem or "authentication failed" in problem or "no password supplied" in problem:
        advice = "Check the user and password in the URL, and that the user may make tables in the database."
    else:
        advice = "Check the path or URL, and that the database can be reached and written."
    return f"The ledger {name!r} cannot be used ({problem}). {advice}"

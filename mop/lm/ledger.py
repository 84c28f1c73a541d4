"""Ledger: the durable record of every model call, and of text vectors. Knows nothing of endpoints or budgets.

It is the cache, the resume and the bill: a reply is committed here before it is used. SQLite by default, in
WAL mode with ``synchronous=NORMAL``: what is committed survives the death of the process (``kill -9``
included); a power cut may lose the last commits, never the file. Several processes may use one file. The
statements are SQLAlchemy Core, and only `_insert_or_ignore` and `_prepare_sqlite` know the database's kind,
so that a PostgreSQL URL works too.

Rows hold text, numbers and float32 vectors as plain little-endian bytes: nothing that is executed when read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateTable

from mop.errors import LedgerError, SettingsError
from mop.lm.request import Reply, Request, Usage
from mop.lm.tables import CALLS, EMBEDDINGS, META, SCHEMA, metadata

#: Keys per SELECT; SQLite allows 32,766 parameters, older builds 999.
CHUNK = 500
#: Seconds to wait for another process that is writing.
BUSY_SECONDS = 30

_reply_columns = [
    CALLS.c[name]
    for name in (
        "key",
        "text",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "finish_reason",
        "seconds",
    )
]


@dataclass(frozen=True, slots=True)
class Total:
    """Sum over calls: how many, their tokens, and the seconds that the endpoint took for them."""

    calls: int
    usage: Usage
    seconds: float


class Ledger:
    """The record in one file (or at one SQLAlchemy URL). Safe to use from several threads and processes.

    Args:
        path: A SQLite file, which is made with its folder if it isn't there, or a URL such as
            ``postgresql+psycopg://host/database``.

    Raises:
        LedgerError: The file cannot be opened, is not a ledger, is damaged, or is of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        if isinstance(path, str) and "://" in path:
            self._open(sa.make_url(path))
            return
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The folder of the ledger {str(file)!r} cannot be made ({error.strerror}); give another."
            ) from error
        self._open(sa.URL.create("sqlite", database=str(file)), timeout=BUSY_SECONDS)

    @classmethod
    def in_memory(cls) -> Ledger:
        """Return a ledger that is gone when it is closed."""
        ledger = cls.__new__(cls)
        ledger._open(sa.URL.create("sqlite"), memory=True, check_same_thread=False)
        return ledger

    def _open(self, url: sa.URL, *, memory: bool = False, **connect_args: Any) -> None:
        self._name = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
        self._lock = threading.Lock()
        try:
            self._engine = sa.create_engine(
                url, connect_args=connect_args, **({"poolclass": StaticPool} if memory else {})
            )
        except (ImportError, sa.exc.ArgumentError) as error:
            raise LedgerError(f"The ledger {self._name!r} cannot be opened: {error}. Install its driver.") from error
        if url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", self._prepare_sqlite)
        with self._transaction() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
            connection.execute(self._insert_or_ignore(META), [{"name": "schema", "value": str(SCHEMA)}])
            version = connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
        if version != str(SCHEMA):
            raise LedgerError(
                f"The ledger {self._name!r} has schema version {version}, this mop writes version {SCHEMA}. "
                "Upgrade mop, or give another ledger file."
            )

    def __repr__(self) -> str:
        return f"Ledger({self._name or ':memory:'!r})"

    def get_many(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Return the recorded replies among ``keys``, by key.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        with self._transaction() as connection:
            return self._select(connection, keys)

    def put_many(self, calls: Sequence[tuple[Request, Reply]]) -> list[Reply]:
        """Record replies in one transaction, and return the replies that the ledger now has for these
        requests.

        What is recorded stays: if another process recorded the same key first, its reply is the one returned.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        if not calls:
            return []
        now = time.time()
        rows = [_row(request, reply, now) for request, reply in calls]
        with self._transaction() as connection:
            written = connection.execute(self._insert_or_ignore(CALLS), rows).rowcount
            if written == len(rows):
                return [reply for _, reply in calls]
            recorded = self._select(connection, [reply.key for _, reply in calls])
        return [recorded[reply.key] for _, reply in calls]

    def totals(self, by: Sequence[str] = ("role", "model")) -> dict[tuple[str, ...], Total]:
        """Return the sums over all calls, grouped by ``by`` (any of ``"role"``, ``"model"``), sorted by
        group.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        if not set(by) <= {"role", "model"}:
            raise SettingsError(f"Totals were asked by {tuple(by)!r}; give any of 'role', 'model'.")
        groups = [CALLS.c[name] for name in by]
        numbers = ("prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
        sums = [sa.func.coalesce(sa.func.sum(CALLS.c[name]), 0) for name in numbers]
        query = sa.select(sa.func.count(), *sums, *groups).select_from(CALLS).group_by(*groups).order_by(*groups)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return {
            tuple(str(name) for name in row[5:]): Total(
                int(row[0]), Usage(int(row[1]), int(row[2]), int(row[3])), float(row[4])
            )
            for row in rows
        }

    def get_vectors(self, encoder: str, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the recorded vectors of ``encoder`` among ``keys``; one float32 array of shape (dim,) each.

        Raises:
            LedgerError: The ledger cannot be read, or a vector in it is damaged.
        """
        found: dict[str, NDArray[np.float32]] = {}
        columns = (EMBEDDINGS.c.key, EMBEDDINGS.c.dim, EMBEDDINGS.c.vector)
        with self._transaction() as connection:
            for chunk in _chunks(keys):
                chosen = (EMBEDDINGS.c.encoder == encoder) & EMBEDDINGS.c.key.in_(chunk)
                for key, dim, vector in connection.execute(sa.select(*columns).where(chosen)):
                    if len(vector) != 4 * dim:
                        raise LedgerError(
                            f"The vector {key} in the ledger {self._name!r} has {len(vector)} bytes instead "
                            f"of {4 * dim}; restore the file from a copy or start a new ledger."
                        )
                    found[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        return found

    def put_vectors(self, encoder: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Record vectors of shape (dim,) by key, in one transaction; keys that are there already stay as they
        are.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        rows = []
        for key, vector in vectors.items():
            data = np.ascontiguousarray(vector, dtype="<f4")
            rows.append({"encoder": encoder, "key": key, "dim": data.size, "vector": data.tobytes()})
        if rows:
            with self._transaction() as connection:
                connection.execute(self._insert_or_ignore(EMBEDDINGS), rows)

    def close(self) -> None:
        """Close all connections; an in-memory ledger forgets everything."""
        with self._lock:
            self._engine.dispose()

    def _select(self, connection: sa.Connection, keys: Sequence[str]) -> dict[str, Reply]:
        found: dict[str, Reply] = {}
        for chunk in _chunks(keys):
            query = sa.select(*_reply_columns).where(CALLS.c.key.in_(chunk))
            for key, text, prompt, cached, completion, reason, seconds in connection.execute(query):
                usage = Usage(prompt, cached, completion)
                found[key] = Reply(text, usage, reason, key, from_ledger=True, seconds=seconds)
        return found

    def _insert_or_ignore(self, table: sa.Table) -> sa.Insert:
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                return
            except connection.Error as error:
                # Turning WAL on doesn't wait for other processes by itself, so it is asked again here.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise LedgerError(_advice(str(error), self._name or ":memory:")) from error
                time.sleep(0.02)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction, commit it at the end, and turn the database's errors into `LedgerError`."""
        try:
            # The lock is for the in-memory ledger, whose threads share one connection; it costs nothing
            # elsewhere, because SQLite lets one writer in at a time anyway.
            with self._lock, self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise LedgerError(_advice(str(error.orig), self._name or ":memory:")) from error


def _row(request: Request, reply: Reply, now: float) -> dict[str, Any]:
    return {
        "key": reply.key,
        "model": request.model,
        "role": request.role,
        "request": request.canonical(),
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.usage.prompt_tokens,
        "cached_tokens": reply.usage.cached_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "seconds": reply.seconds,
        "created_at": now,
    }


def _chunks(keys: Sequence[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(keys))
    for start in range(0, len(distinct), CHUNK):
        yield distinct[start : start + CHUNK]


def _advice(problem: str, name: str) -> str:
    if "not a database" in problem:
        advice = "It is not a SQLite file: give another path, or move the file away."
    elif "malformed" in problem:
        advice = "The file is damaged: restore it from a copy, or move it away and start a new ledger."
    elif "unable to open" in problem or "readonly" in problem:
        advice = "The file or its folder cannot be written: give a path to a writable folder."
    elif "locked" in problem:
        advice = f"Another process has been writing for over {BUSY_SECONDS} s: let it finish, then run this again."
    elif "full" in problem:
        advice = "The disk is full: make room, then run this again."
    elif "no such column" in problem or "has no column" in problem:
        advice = "The file has tables of another program: give another path."
    else:
        advice = "Check the path or URL, and that the database can be reached and written."
    return f"The ledger {name!r} cannot be used ({problem}). {advice}"

"""Ledger: the durable record of every model call, and of text vectors. Knows nothing of endpoints or budgets.

It is the cache, the resume and the bill: a reply is committed here before it is used. The tables are those of
`mop.lm.tables`, the file behind them is `mop.lm.database`'s matter; several processes may use one.

Rows hold text, numbers and float32 vectors as plain little-endian bytes: nothing that is executed when read. Each has
a checksum, so that a damaged reply is an error and not an answer.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mop.errors import LedgerError, SettingsError
from mop.lm.caps import Account
from mop.lm.database import Database
from mop.lm.leases import Leases
from mop.lm.request import Reply, Request, Usage
from mop.lm.tables import CALLS, EMBEDDINGS, call_crc
from mop.lm.workers import Worker

#: Keys per SELECT; SQLite allows 32,766 parameters, older builds 999.
CHUNK = 500
#: What `Ledger.totals` can group by.
GROUPS = ("role", "model", "day", "run")

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
        "crc",
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
        url = isinstance(path, str) and "://" in path
        self._open(Database.at_url(str(path)) if url else Database.at_file(Path(path)))

    @classmethod
    def in_memory(cls) -> Ledger:
        """Return a ledger that is gone when it is closed."""
        ledger = cls.__new__(cls)
        ledger._open(Database.in_memory())
        return ledger

    def _open(self, database: Database) -> None:
        self.database = database
        #: This process among those that use the ledger, and the calls that it has leased; nobody shares a ledger in
        #: memory.
        self.worker = Worker(database)
        self.leases = Leases(database, self.worker, self._select) if database.is_shared else None

    def __repr__(self) -> str:
        return f"Ledger({self.name!r})"

    @property
    def name(self) -> str:
        """The file or URL, without a password."""
        return self.database.name

    def get_many(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Return the recorded replies among ``keys``, by key.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        return self.database.run(lambda connection: self._select(connection, keys), write=False)

    def put_many(
        self, calls: Sequence[tuple[Request, Reply]], run: str | None = None, account: Account | None = None
    ) -> list[Reply]:
        """Record replies in one transaction, and return the replies that the ledger now has for these
        requests.

        What is recorded stays: if another process recorded the same key first, its reply is the one returned.
        ``run`` names the run that paid, for the bill. The same transaction ends the leases on the calls, and has
        ``account`` count them.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        if not calls:
            return []
        now = time.time()
        # In one order, so that two processes that record the same calls don't wait for each other in a circle.
        rows = sorted((_row(request, reply, now, run) for request, reply in calls), key=lambda row: str(row["key"]))
        keys = [reply.key for _, reply in calls]

        def put(connection: sa.Connection) -> list[Reply]:
            written = self.database.insert_new(connection, CALLS, rows)
            recorded = {} if written == len(rows) else self._select(connection, keys)
            replies = [_first(reply, recorded.get(reply.key)) for _, reply in calls]
            if account is not None:
                account.settle_in(connection, [(one, reply) for (one, _), reply in zip(calls, replies, strict=True)])
            if self.leases is not None:
                self.leases.end(connection, keys)
            return replies

        replies = self.database.run(put, write=True)
        if self.leases is not None:
            self.leases.ended(keys)
        if account is not None:
            account.settled(calls)
        return replies

    def totals(self, by: Sequence[str] = ("role", "model")) -> dict[tuple[str, ...], Total]:
        """Return the sums over all calls, grouped by ``by`` (any of `GROUPS`), sorted by group.

        A day is a date in UTC; the run is empty where it isn't known.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        if not set(by) <= set(GROUPS):
            raise SettingsError(f"Totals were asked by {tuple(by)!r}; give any of {', '.join(GROUPS)}.")
        groups = [self._day() if name == "day" else CALLS.c[name] for name in by]
        numbers = ("prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
        sums = [sa.func.coalesce(sa.func.sum(CALLS.c[name]), 0) for name in numbers]
        query = sa.select(sa.func.count(), *sums, *groups).select_from(CALLS).group_by(*groups)
        rows = self.database.run(lambda connection: connection.execute(query).all(), write=False)
        totals = {
            tuple(_shown(name, value) for name, value in zip(by, row[5:], strict=True)): Total(
                int(row[0]), Usage(int(row[1]), int(row[2]), int(row[3])), float(row[4])
            )
            for row in rows
        }
        return dict(sorted(totals.items()))

    def get_vectors(self, encoder: str, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the recorded vectors of ``encoder`` among ``keys``; one float32 array of shape (dim,) each.

        Raises:
            LedgerError: The ledger cannot be read, or a vector in it is damaged.
        """
        columns = (EMBEDDINGS.c.key, EMBEDDINGS.c.dim, EMBEDDINGS.c.vector, EMBEDDINGS.c.crc)

        def get(connection: sa.Connection) -> dict[str, NDArray[np.float32]]:
            found: dict[str, NDArray[np.float32]] = {}
            for chunk in _chunks(keys):
                chosen = (EMBEDDINGS.c.encoder == _short(encoder)) & EMBEDDINGS.c.key.in_(chunk)
                for key, dim, vector, crc in connection.execute(sa.select(*columns).where(chosen)):
                    if len(vector) != 4 * dim or crc not in (None, zlib.crc32(vector)):
                        raise LedgerError(
                            f"The vector {key} in the ledger {self.name!r} is damaged ({len(vector)} bytes of "
                            f"{4 * dim}). Run `mop ledger repair {self.name}`; the vector is then made again."
                        )
                    found[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
            return found

        return self.database.run(get, write=False)

    def put_vectors(self, encoder: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Record vectors of shape (dim,) by key, in one transaction; keys that are there already stay as they
        are.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        rows = []
        for key, vector in vectors.items():
            data = np.ascontiguousarray(vector, dtype="<f4")
            content = data.tobytes()
            rows.append(
                {
                    "encoder": _short(encoder),
                    "key": key,
                    "dim": data.size,
                    "vector": content,
                    "crc": zlib.crc32(content),
                }
            )
        rows.sort(key=lambda row: str(row["key"]))
        if rows:
            insert = self.database.insert_or_ignore(EMBEDDINGS)
            self.database.run(lambda connection: connection.execute(insert, rows), write=True)

    def close(self) -> None:
        """Give up the leases and close all connections; an in-memory ledger forgets everything."""
        self.worker.close()
        self.database.close()

    def _select(self, connection: sa.Connection, keys: Sequence[str]) -> dict[str, Reply]:
        found: dict[str, Reply] = {}
        for chunk in _chunks(keys):
            query = sa.select(*_reply_columns).where(CALLS.c.key.in_(chunk))
            for key, text, prompt, cached, completion, reason, seconds, crc in connection.execute(query):
                if crc is not None and crc != call_crc(key, text, reason, prompt, cached, completion):
                    raise LedgerError(
                        f"The reply {key} in the ledger {self.name!r} isn't what was written: the file is damaged. "
                        f"Run `mop ledger repair {self.name}`, which drops it; the call is then made again."
                    )
                usage = Usage(prompt, cached, completion)
                found[key] = Reply(text, usage, reason, key, from_ledger=True, seconds=seconds)
        return found

    def _day(self) -> sa.ColumnElement[int]:
        days = CALLS.c.created_at / 86400
        # A cast cuts the fraction off in SQLite and rounds it elsewhere.
        return sa.cast(days if self.database.is_sqlite else sa.func.floor(days), sa.Integer)


def _shown(group: str, value: object) -> str:
    if group == "day" and isinstance(value, int):
        return datetime.fromtimestamp(value * 86400, UTC).date().isoformat()
    return "" if value is None else str(value)


def _row(request: Request, reply: Reply, now: float, run: str | None) -> dict[str, Any]:
    usage = reply.usage
    numbers = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return {
        "key": reply.key,
        "model": request.model,
        "role": request.role,
        "request": request.canonical(),
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "seconds": reply.seconds,
        "created_at": now,
        "run": run,
        "crc": call_crc(reply.key, reply.text, reply.finish_reason, *numbers),
    }


def _first(reply: Reply, recorded: Reply | None) -> Reply:
    """Return the reply that is on record; it may be this very one, written by an attempt whose end was not heard of."""
    if recorded is None or replace(recorded, from_ledger=False) == reply:
        return reply
    return recorded


def _short(encoder: str) -> str:
    """Return the encoder's name as the table has it: a server takes no longer ones."""
    return encoder if len(encoder) <= 255 else f"sha256:{hashlib.sha256(encoder.encode()).hexdigest()}"


def _chunks(keys: Sequence[str]) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(keys))
    for start in range(0, len(distinct), CHUNK):
        yield distinct[start : start + CHUNK]

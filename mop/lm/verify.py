"""Verify: whether a ledger is what was written. Changes no row.

Opening a ledger whose last writer was killed takes that writer's log into the file, as every other use of it would; so
the log's checksums are looked at first. A log whose very last commit is damaged together with its mark of being one
cannot be told from a commit that was never completed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from mop.errors import LedgerError
from mop.lm.database import Database
from mop.lm.migrations import version_of
from mop.lm.pages import broken_log
from mop.lm.tables import CALLS, EMBEDDINGS, call_crc

#: Problems of one kind that are listed one by one.
LISTED = 20
#: Rows read at a time.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Verification:
    """What a ledger holds, and everything that is wrong with it in words; version 0 where it cannot be read."""

    calls: int
    vectors: int
    version: int
    problems: tuple[str, ...]


def verify(ledger: Path | Database) -> Verification:
    """Check the file's structure, every key and every checksum; the problems are empty if all is well.

    Raises:
        LedgerError: There is no ledger at that path.
    """
    if isinstance(ledger, Database):
        return _verify(ledger)
    if not ledger.exists() and not ledger.with_name(f"{ledger.name}-wal").exists():
        raise LedgerError(f"There is no ledger {str(ledger)!r}; give the path of one.")
    if broken_log(_settled(ledger.with_name(f"{ledger.name}-wal"))):
        # It isn't opened: that would drop the rest of the log for good.
        problem = f"log: {ledger.name}-wal is damaged, and what comes after the damage isn't in the ledger"
        return Verification(0, 0, 0, (problem,))
    try:
        database = Database.at_file(ledger)
    except LedgerError as error:
        return Verification(0, 0, 0, (str(error),))
    try:
        return _verify(database)
    finally:
        database.close()


def _settled(log: Path) -> bytes:
    """Return the content of a log as it is between two writes of a process that uses it; empty if it never rests."""
    try:
        content = log.read_bytes()
        for _ in range(10):
            before, content = content, log.read_bytes()
            if content == before:
                return content
    except OSError:
        pass  # none, or none any more; what else is wrong is told when the ledger is opened
    return b""


def _verify(database: Database) -> Verification:
    problems: list[str] = []
    counts = {CALLS: 0, EMBEDDINGS: 0}
    version = 0
    try:
        with database.transaction(write=False) as connection:
            version = int(version_of(connection) or 0)
            if database.is_sqlite:
                found = connection.exec_driver_sql(f"PRAGMA integrity_check({LISTED})").scalars().all()
                problems += [f"structure: {problem}" for problem in found if problem != "ok"]
            for table, check in ((CALLS, _wrong_calls), (EMBEDDINGS, _wrong_vectors)):
                wrong = []
                for problem in check(connection):
                    counts[table] += 1
                    if problem:
                        wrong.append(problem)
                problems += wrong[:LISTED]
                if len(wrong) > LISTED:
                    problems.append(f"… and {len(wrong) - LISTED} more rows of {table.name}")
    except LedgerError as error:
        problems.append(str(error))
    return Verification(counts[CALLS], counts[EMBEDDINGS], version, tuple(problems))


def _wrong_calls(connection: sa.Connection) -> Iterator[str]:
    """Yield what is wrong with each call, or nothing, in words."""
    names = ("key", "request", "text", "finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens", "crc")
    result = connection.execution_options(yield_per=BATCH).execute(sa.select(*(CALLS.c[name] for name in names)))
    for key, request, text, reason, prompt, cached, completion, crc in result:
        if hashlib.sha256(request.encode()).hexdigest() != key:
            yield f"call {key}: its request isn't the one that the key stands for"
        elif crc is not None and crc != call_crc(key, text, reason, prompt, cached, completion):
            yield f"call {key}: its reply isn't the one that was written"
        else:
            yield ""


def _wrong_vectors(connection: sa.Connection) -> Iterator[str]:
    """Yield what is wrong with each vector, or nothing, in words."""
    columns = (EMBEDDINGS.c.key, EMBEDDINGS.c.dim, EMBEDDINGS.c.vector, EMBEDDINGS.c.crc)
    for key, dim, vector, crc in connection.execution_options(yield_per=BATCH).execute(sa.select(*columns)):
        right = len(vector) == 4 * dim and crc in (None, zlib.crc32(vector))
        yield "" if right else f"vector {key}: its numbers aren't those that were written"

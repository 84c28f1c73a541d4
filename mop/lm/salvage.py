"""Salvage: makes a whole ledger of a damaged one, row by row, and keeps the damaged one. Knows nothing of endpoints.

A row is believed only if its key is the SHA-256 of its request and its checksum, where it has one, is right.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import tempfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mop.errors import LedgerError
from mop.lm import log_end, pages
from mop.lm.database import Database, sync
from mop.lm.tables import CALLS, EMBEDDINGS, SCHEMA, call_crc
from mop.lm.verify import Verification, verify

#: Rows in one INSERT of the new ledger.
BATCH = 500
_CALL = tuple(column.name for column in CALLS.columns)
_VECTOR = tuple(column.name for column in EMBEDDINGS.columns)
#: Columns that version 1 had; what was added since may be absent in a row.
_CALL_1, _VECTOR_1 = len(_CALL) - 2, len(_VECTOR) - 1
_TEXTS = {"key", "model", "role", "request", "text", "finish_reason"}
_COUNTS = {"prompt_tokens", "cached_tokens", "completion_tokens"}
#: Where SQLite keeps the locks of those who have a file open: PENDING, RESERVED and SHARED.
_LOCKS = (0x40000000, 512)


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did: rows in the ledger now, rows that could be decoded but not believed, and where the damaged
    file is (its log, if that was all there was; None if nothing had to be repaired).
    """

    calls: int
    vectors: int
    dropped: int
    damaged: Path | None


def repair(file: Path) -> Repair:
    """Replace a damaged ledger by a new one with every row that can be read; the damaged one gets another name.

    A ledger that is whole is left alone. Nothing else may have the ledger open meanwhile.

    Raises:
        LedgerError: There is no such file, somebody uses it, no row of it can be read (the file then stays as it is),
            or the new one cannot be written.
    """
    log = _beside(file, "-wal")
    try:
        if not file.exists() and not log.exists():
            raise LedgerError(f"There is no ledger {str(file)!r}; give the path of one.")
        if file.is_dir():
            raise LedgerError(f"{str(file)!r} is a folder; give the path of a ledger.")
        if file.exists():
            _refuse_if_used(file)
        content = file.read_bytes() if file.exists() else b""
        left = log.read_bytes() if log.exists() else b""
        cut = not Database.is_open_here(file) and log_end.is_cut(file)
        report = _verified_copy(file, content, left)
        if not report.problems and not cut:
            return Repair(report.calls, report.vectors, 0, None)
        return _replace(file, content, left)
    except OSError as error:
        raise LedgerError(f"The ledger {str(file)!r} cannot be repaired ({error}). Nothing was lost.") from error


def _verified_copy(file: Path, content: bytes, log: bytes) -> Verification:
    """Verify a copy: opening the ledger itself would take its log into it, which may be what is damaged."""
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        copy = Path(folder) / file.name
        if file.exists():
            copy.write_bytes(content)
        if _beside(file, "-wal").exists():
            _beside(copy, "-wal").write_bytes(log)
        return verify(copy)


def _replace(file: Path, content: bytes, log: bytes) -> Repair:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        calls, vectors, dropped = _save(temporary, content, log, str(file))
        if not calls and not vectors:
            raise LedgerError(
                f"No row of the ledger {str(file)!r} could be read, so it was left as it is. Restore it from a copy; "
                "or move it away, and the next run begins a new one and pays again."
            )
        sync(temporary)
        damaged = _free_name(file)
        # The damaged file keeps its name until the new one takes it, so that no moment finds an empty ledger. The log
        # goes first: SQLite would apply it to whatever file has the name.
        kept = damaged if file.exists() else _beside(damaged, "-wal")
        if file.exists():
            _link(file, damaged)
        if _beside(file, "-wal").exists():
            _beside(file, "-wal").rename(_beside(damaged, "-wal"))
        _beside(file, "-shm").unlink(missing_ok=True)
        temporary.replace(file)
        sync(file.parent)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            _beside(temporary, suffix).unlink(missing_ok=True)
    return Repair(calls, vectors, dropped, kept)


def _save(target: Path, content: bytes, log: bytes, name: str) -> tuple[int, int, int]:
    """Write every row that can be believed to a new ledger; return calls, vectors and rows not believed."""
    dropped = 0
    batches: dict[sa.Table, list[dict[str, Any]]] = {CALLS: [], EMBEDDINGS: []}
    database = Database(sa.URL.create("sqlite", database=str(target)), name, new=True)
    try:

        def flush(table: sa.Table) -> None:
            if batches[table]:
                with database.transaction(write=True) as connection:
                    connection.execute(database.insert_or_ignore(table), batches[table])
                batches[table].clear()

        for row in pages.rows(content, log):
            match row:
                case ("schema", str() as version) if version.isdigit() and int(version) > SCHEMA:
                    raise LedgerError(f"The ledger {name!r} has schema version {version}: upgrade mop to repair it.")
            table = _table_of(row)
            if table is None:
                continue
            believed = _call(row) if table is CALLS else _vector(row)
            if believed is None:
                dropped += 1
                continue
            batches[table].append(believed)
            if len(batches[table]) == BATCH:
                flush(table)
        for table in batches:
            flush(table)
        with database.transaction(write=False) as connection:
            counts = [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in batches]
    finally:
        database.close()
    return counts[0], counts[1], dropped


def _table_of(row: pages.Row) -> sa.Table | None:
    if _CALL_1 <= len(row) <= len(_CALL):
        return CALLS
    # The rows that describe the tables are as long as a vector's.
    return EMBEDDINGS if _VECTOR_1 <= len(row) <= len(_VECTOR) and isinstance(row[3], bytes) else None


def _call(row: pages.Row) -> dict[str, Any] | None:
    values: dict[str, Any] = dict.fromkeys(_CALL) | dict(zip(_CALL, row, strict=False))
    typed = (
        all(isinstance(values[name], str) for name in _TEXTS)
        and all(isinstance(values[name], int) for name in _COUNTS)
        and all(
            isinstance(values[name], int | float) and math.isfinite(values[name]) for name in ("seconds", "created_at")
        )
        and isinstance(values["run"], str | None)
    )
    if not typed or hashlib.sha256(values["request"].encode()).hexdigest() != values["key"]:
        return None
    numbers = (values["prompt_tokens"], values["cached_tokens"], values["completion_tokens"])
    crc = call_crc(values["key"], values["text"], values["finish_reason"], *numbers)
    if values["crc"] not in (None, crc):
        return None
    return {**values, "crc": crc}


def _vector(row: pages.Row) -> dict[str, Any] | None:
    values: dict[str, Any] = dict.fromkeys(_VECTOR) | dict(zip(_VECTOR, row, strict=False))
    content = values["vector"]
    typed = isinstance(values["encoder"], str) and isinstance(values["key"], str) and isinstance(content, bytes)
    if not typed or not isinstance(values["dim"], int) or len(content) != 4 * values["dim"]:
        return None
    crc = zlib.crc32(content)
    return {**values, "crc": crc} if values["crc"] in (None, crc) else None


def _refuse_if_used(file: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not POSIX: the renaming fails there if the file is in use
        return
    with open(file, "r+b") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKS[1], _LOCKS[0])
        except OSError as error:
            raise LedgerError(
                f"The ledger {str(file)!r} is in use by another process; end it, then repair the ledger."
            ) from error


def _free_name(file: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name, number = file.with_name(f"{file.name}.damaged-{stamp}"), 1
    while name.exists() or _beside(name, "-wal").exists():
        number += 1
        name = file.with_name(f"{file.name}.damaged-{stamp}-{number}")
    return name


def _link(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except OSError:  # a file system without links
        file.rename(other)


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)

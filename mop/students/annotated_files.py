"""Annotated files: conversations with their roles as JSON lines, and those set aside beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mop.errors import DataError
from mop.students.annotation import Annotated


def rejects_path(out: Path) -> Path:
    """Return the file beside ``out`` for what was set aside."""
    base = out.with_suffix("") if out.suffix == ".jsonl" else out
    return Path(f"{base}.rejects.jsonl")


def require_writable(out: Path, source: Path) -> None:
    """Raise DataError now, not after the calls, if ``out`` can't be written or would replace the source."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise DataError(f"{out} is a folder, or its folder isn't there or can't be written. Name another --out.")
    if out.exists() and source.exists() and out.samefile(source):
        raise DataError(f"{out} is the file to annotate, and would be replaced. Name another --out.")


def write_annotated(out: Path, done: Annotated) -> None:
    """Write both files, each whole or not at all. Raises DataError if one can't be written."""
    _replace(
        rejects_path(out),
        (
            {"line": row.line, "question": row.question, "role": role, "reason": reason}
            for row, role, reason in done.refused
        ),
    )
    _replace(out, ({"messages": [dict(one) for one in row.messages], "role": row.role} for row in done.rows))


def _replace(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f"{path} can't be written: {error.strerror or error}. The replies are in the ledger."
        ) from error

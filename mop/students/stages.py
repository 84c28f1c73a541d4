"""Stages: the JSON-lines files of a pipeline, one row for each piece of work. Knows nothing of what the work is.

A row's ``id`` is the hash of all that determines it. So a stage that was stopped, or whose settings or inputs have
changed since, does exactly the work whose rows aren't there, and a person can read a file, or take rows out to have
them made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mop.errors import DataError, SettingsError

Row = dict[str, Any]
#: Makes the rows of some pieces of work, in their order.
Make = Callable[[Sequence[Row]], Awaitable[Sequence[Row]]]

#: Pieces of work between two writes.
CHUNK = 16


def row_id(stage: str, given: Mapping[str, Any]) -> str:
    """Return what names a row: 16 hex digits of the hash of the stage and of all that determines the row."""
    text = json.dumps([stage, given], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def run_stage(
    path: Path,
    work: Sequence[Mapping[str, Any]],
    make: Make,
    *,
    chunk: int = CHUNK,
    progress: Callable[[str, int, int], None] | None = None,
    finished: bool = False,
) -> list[Row]:
    """Return the rows of ``path`` for all pieces of ``work``, having made those that weren't there.

    Args:
        path: The stage's file. Rows are added as they are made; at the end it holds exactly those of ``work``.
        work: What determines each row; it is in the row too.
        make: Gets pieces of work and returns what comes of each.
        chunk: Pieces that are made, then written, at a time.
        progress: Told the stage's name, how many rows are there, and how many there will be.
        finished: What the rows were made for is there, so that none of them may be dropped for others.

    Raises:
        SettingsError: Rows of a finished run would be dropped.
        DataError: The file can't be read or written, or a row of it isn't JSON.
    """
    stage = path.stem
    ids = [row_id(stage, piece) for piece in work]
    known = read_rows(path)
    if finished and (lost := len(known.keys() - set(ids))):
        raise SettingsError(
            f"{path.parent.parent} holds a finished run of other personas or settings: {lost} of the {len(known)} rows "
            f"in {path.name} would be dropped. Give its own, or name another folder."
        )
    missing = [place for place, name in enumerate(ids) if name not in known]
    missing = list({ids[place]: place for place in missing}.values())
    told = progress or (lambda _stage, _done, _all: None)
    told(stage, len(ids) - len(missing), len(ids))
    for start in range(0, len(missing), chunk):
        places = missing[start : start + chunk]
        made = await make([dict(work[place]) for place in places])
        fresh = [{"id": ids[place], **work[place], **row} for place, row in zip(places, made, strict=True)]
        _append(path, fresh)
        known |= {row["id"]: row for row in fresh}
        told(stage, len(ids) - len(missing) + start + len(places), len(ids))
    rows = [known[name] for name in ids]
    unique = list({row["id"]: row for row in rows}.values())
    if list(read_rows(path)) != [row["id"] for row in unique]:
        write_rows(path, unique)
    return rows


def read_rows(path: Path) -> dict[str, Row]:
    """Return the rows of a stage's file by id; none if it isn't there. A last line that was cut off is left out.

    Raises DataError if the file can't be read, or another line isn't a row.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    lines = content.split(b"\n")
    whole = lines[:-1]  # what follows the last line break is a line that was being written when the process died
    rows: dict[str, Row] = {}
    for number, line in enumerate(whole, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row["id"])] = row
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number} isn't a row with an id ({error}). Mend or delete the line; its row is made "
                "again."
            ) from None
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file by these rows, at once. Raises DataError if it can't be written."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(_line(row) for row in rows), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error


def _append(path: Path, rows: Sequence[Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    # A line that was cut off is no row: what follows must not run into it.
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write("".join(_line(row) for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"

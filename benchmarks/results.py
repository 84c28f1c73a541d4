"""Results: one JSON line for each cell that ended, finished or failed, in a file that several processes may append to.

A process that is killed while it writes leaves half a line at most; it is cut off by the next one that appends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from mop.errors import DataError


class Results:
    """The result file; it is made with its folder when the first line is added."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = FileLock(f"{self.path}.lock")

    def size(self) -> int:
        """Return the size of the file in bytes, 0 if it isn't there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the finished cells by key. Raises DataError for a line that isn't a result.

        The last line counts only if it is whole, with its newline or without.
        """
        return {key: record for key, record in self._last().items() if "failed" not in record}

    def all(self) -> list[dict[str, Any]]:
        """Return the finished cells and the failed ones that no later run has finished, each with its last failure."""
        return list(self._last().values())

    def _last(self) -> dict[str, dict[str, Any]]:
        """Return one line for each cell: the first that is finished, or else the last failure."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}.") from error
        found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(_lines(content), start=1):
            try:
                record = json.loads(line)
                known = found.get(record["cell"])
                if known is None or "failed" in known:
                    found[record["cell"]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}, line {number} is no result of the grid ({type(error).__name__}: {error}). "
                    "Remove the line, or name another file."
                ) from error
        return found

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one finished cell, unless it is there; it is on disk when this returns."""
        self._append(record)

    def add_failed(self, record: Mapping[str, Any]) -> None:
        """Append one failed cell, with ``failed`` saying why, unless it is finished; the next run tries it again."""
        self._append(record)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if record["cell"] in self.read():
                return
            with self.path.open("ab") as file:
                whole = _whole(self.path.read_bytes())
                file.truncate(len(whole))
                file.write(line if whole[-1:] in (b"", b"\n") else b"\n" + line)
                file.flush()
                os.fsync(file.fileno())


def _lines(content: bytes) -> list[bytes]:
    lines = _whole(content).split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _whole(content: bytes) -> bytes:
    """Return the content without half a line at its end; an editor may have taken the newline off a whole one."""
    end = content.rfind(b"\n") + 1
    try:
        json.loads(content[end:])
    except ValueError:
        return content[:end]
    return content

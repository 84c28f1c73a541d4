"""Log end: whether commits are missing at the end of a SQLite log. Knows nothing of tables; changes no file.

SQLite takes a log that was cut off for one whose last commits were never made, and drops them without a word. The
index that it keeps beside the log (``-shm``, https://www.sqlite.org/walformat.html#the_wal_index_file_format) outlives
a killed process and says how long the log was.
"""

from __future__ import annotations

import struct
from pathlib import Path

#: Version, change counter, whether it is in use, page size, frames, salt; twice, then the frames taken into the file.
_HEADER = struct.Struct("=I4xIBxHI4x8x8s8x")
_VERSION = 3007000
_LOG_HEADER, _FRAME_HEADER = 32, 24


def is_cut(file: Path) -> bool:
    """Return whether the log of the database ``file`` is known to have lost commits.

    Not to be called by a process that has the database open: closing the index would drop its locks on it.
    """
    log, index = file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
    try:
        before = _read(index)
        size = log.stat().st_size if log.exists() else 0
        salt = _read(log)[16:24] if size >= _LOG_HEADER else None
        # Whoever makes a log shorter says so in the index first.
        if before != _read(index) or len(before) < 100 or before[:48] != before[48:96]:
            return False
    except OSError:
        return False  # no index: it was closed well, or was copied without it
    version, _, in_use, page, frames, of_index = _HEADER.unpack(before[:48])
    taken = int(struct.unpack("=I", before[96:100])[0])
    if version != _VERSION or not in_use or salt not in (None, of_index):
        return False
    there = max(0, size - _LOG_HEADER) // (_FRAME_HEADER + (page if page > 1 else 65536))
    return bool(frames > max(there, taken))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(100)

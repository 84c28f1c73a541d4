"""Files that grow part by part and survive an interruption: each finished part is written down in a journal.

Knows offsets, sizes and hashes. Knows nothing of where bytes come from, nor of models.

A part is a byte range of a file. ``write`` puts it at its offset, makes it durable and only then notes it in
``parts.jsonl``, so that a process killed anywhere goes on with the missing parts. Parts may arrive in any
order and from several threads.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mop.errors import WeightsError

_BLOCK = 1 << 20
_JOURNAL = "parts.jsonl"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Readable(Protocol):
    """Anything that gives bytes; the empty string means the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, at least one unless the stream is at its end."""
        ...


class WeightFile(BaseModel):
    """One file of a model: its path inside the model's folder, its size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\\" in value or not path.parts:
            raise ValueError("a file's path must stay inside the model's folder")
        return value


class DiskFull(WeightsError):
    """No room for the weights; another source would not help."""


class Assembly:
    """The files of one model while they are being fetched into ``folder``.

    Args:
        folder: where the files and the journal live; made if absent. Parts noted there by an earlier process
            are hashed again and kept if they are what they were.
        files: what has to be assembled.
        report: called with the number of bytes that are in place, never from two threads at once.
    """

    def __init__(self, folder: Path, files: Iterable[WeightFile], report: Callable[[int], None] | None = None) -> None:
        self.folder = folder
        self.files = {file.path: file for file in files}
        self._report = report
        self._lock = threading.RLock()
        self._parts: dict[tuple[str, int, int], str] = {}
        self._flying: dict[tuple[str, int, int], int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()
        self.progress()

    def has(self, path: str, offset: int, size: int) -> bool:
        """Whether this range of the file is already in place."""
        with self._lock:
            return (path, offset, size) in self._parts

    def write(self, path: str, offset: int, size: int, stream: Readable) -> None:
        """Copy exactly ``size`` bytes of ``stream`` to ``offset`` of the file and note the part as finished.

        Raises:
            WeightsError: the stream is shorter or longer than ``size``.
            DiskFull: the disk is.
        """
        target = self.folder / path
        digest = hashlib.sha256()
        done = 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # "ab" makes the file without truncating it; "r+b" then writes anywhere in it.
            with open(target, "ab"), open(target, "r+b") as sink:
                sink.seek(offset)
                while block := stream.read(min(_BLOCK, size - done) or 1):
                    done += len(block)
                    if done > size:
                        raise WeightsError(f"{path}: the source holds more than the {size} bytes expected.")
                    sink.write(block)
                    digest.update(block)
                    self.progress((path, offset, size), done)
                sink.flush()
                os.fsync(sink.fileno())
            if done != size:
                raise WeightsError(f"{path}: the source ended after {done} of {size} bytes.")
            self._note((path, offset, size), digest.hexdigest())
        except OSError as error:
            if error.errno in _FULL:
                raise self.full() from error
            raise
        finally:
            self.progress((path, offset, size), 0)

    def progress(self, part: tuple[str, int, int] | None = None, done: int = 0) -> None:
        """Report the bytes in place; ``done`` of them belong to ``part``, which is on its way.

        A part never goes back while it is on its way, though it may pass from downloading to extracting.
        Zero forgets it.
        """
        with self._lock:
            if part is not None:
                self._flying[part] = max(min(done, part[2]), self._flying.get(part, 0)) if done else 0
            flying = sum(size for key, size in self._flying.items() if key not in self._parts)
            if self._report is not None:
                self._report(sum(size for _, _, size in self._parts) + flying)

    def finish(self) -> None:
        """Check every file's SHA-256 and drop the journal.

        Raises:
            WeightsError: a file is not what it should be. All parts are removed, so that a later attempt
                starts afresh; the message has both hashes.
        """
        for file in self.files.values():
            actual = hash_file(self.folder / file.path)
            if actual != file.sha256:
                shutil.rmtree(self.folder)
                raise WeightsError(
                    f"{file.path}: the bytes fetched have SHA-256 {actual}, expected {file.sha256}. The file "
                    "was removed; do not use this source until its owner explains the change."
                )
        (self.folder / _JOURNAL).unlink(missing_ok=True)

    def require_room(self, slack: int) -> None:
        """Raise ``DiskFull`` unless the missing bytes and ``slack`` more fit on the disk."""
        if shutil.disk_usage(self.folder).free < self._missing() + slack:
            raise self.full(slack)

    def full(self, slack: int = 0) -> DiskFull:
        """Return the error that says how much room is wanted where."""
        needed = (self._missing() + slack) / 1e6
        return DiskFull(
            f"The disk that holds {self.folder} is full: about {needed:.0f} MB more are needed. Free some "
            "space, or point MOP_CACHE at a larger disk, and run the same command again: it goes on where "
            "it was."
        )

    def _missing(self) -> int:
        have = sum(size for _, _, size in self._parts)
        return max(0, sum(file.size for file in self.files.values()) - have)

    def _note(self, part: tuple[str, int, int], digest: str) -> None:
        path, offset, size = part
        line = json.dumps({"file": path, "offset": offset, "size": size, "sha256": digest})
        with self._lock, open(self.folder / _JOURNAL, "a", encoding="utf-8") as journal:
            # The leading newline keeps this line whole if a crash tore the one before it.
            journal.write(f"\n{line}")
            journal.flush()
            os.fsync(journal.fileno())
            self._parts[part] = digest

    def _recover(self) -> None:
        journal = self.folder / _JOURNAL
        if not journal.exists():
            return
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                note = json.loads(line)
                part = (str(note["file"]), int(note["offset"]), int(note["size"]))
                digest = str(note["sha256"])
            except (ValueError, KeyError, TypeError):
                continue  # a blank or torn line: that part is fetched again
            path = self.folder / part[0]
            if part[0] in self.files and path.is_file() and hash_file(path, part[1], part[2]) == digest:
                self._parts[part] = digest


def hash_file(path: Path, offset: int = 0, size: int | None = None) -> str:
    """Return the hexadecimal SHA-256 of ``size`` bytes of the file from ``offset`` (default: all of it)."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        left = size if size is not None else os.fstat(file.fileno()).st_size - offset
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()

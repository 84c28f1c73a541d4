"""Pages: the rows that can still be read in the bytes of a damaged SQLite file. Knows nothing of what they mean.

SQLite refuses a file whose tree of pages is broken, though most rows may be whole. This reads no tree: it takes every
page that looks like a leaf of a table, in the file and in its write-ahead log, and every row on it that can be decoded
(https://www.sqlite.org/fileformat2.html). What it gives must be checked: a page may be stale, or damaged in the middle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

Value = str | int | float | bytes | None
Row = tuple[Value, ...]

_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_LEAF = 13
_SIZES = {size: size for size in (512, 1024, 2048, 4096, 8192, 16384, 32768)} | {1: 65536, 65536: 65536}
#: A row larger than this isn't one: a prompt and an answer take kilobytes.
_LARGEST = 1 << 28
_UNREADABLE = (IndexError, ValueError, struct.error)


@dataclass(frozen=True)
class _File:
    content: bytes
    log: dict[int, bytes]
    size: int
    usable: int

    def page(self, number: int) -> bytes:
        """Return a page, counted from 1, in its latest version."""
        if number < 1:
            raise IndexError(number)
        found = self.log.get(number) or self.content[(number - 1) * self.size : number * self.size]
        if not found:
            raise IndexError(number)
        return found


def rows(content: bytes, log: bytes = b"") -> Iterator[Row]:
    """Yield every row that can be decoded from a file's ``content`` and its write-ahead ``log``."""
    size = _page_size(content, log)
    reserved = content[20] if content.startswith(_MAGIC) and len(content) > 20 else 0
    frames = list(_frames(log, size))
    file = _File(content, dict(frames), size, size - reserved)
    for number in range(1, -(-len(content) // size) + 1):
        yield from _rows_of(content[(number - 1) * size : number * size], 100 if number == 1 else 0, file)
    for number, page in frames:
        yield from _rows_of(page, 100 if number == 1 else 0, file)


def broken_log(log: bytes) -> bool:
    """Return whether a write-ahead ``log`` is damaged before its end, where SQLite would pass over the rest in silence.

    SQLite stops at the first frame whose checksum is wrong. After that one, only a commit of the same age tells damage
    from the leftovers of an older log or from a transaction that was never completed.
    """
    if len(log) <= 32:
        return False
    size = _SIZES.get(int.from_bytes(log[8:12], "big"))
    if int.from_bytes(log[:4], "big") not in _LOG_MAGIC or size is None:
        return True
    order = ">" if log[3] & 1 else "<"
    sums = _checksum(log[:24], (0, 0), order)
    if struct.pack(">2I", *sums) != log[24:32]:
        return True
    salts, right = log[16:24], True
    for start in range(32, len(log) - 24 - size + 1, 24 + size):
        frame = log[start : start + 24 + size]
        if right:
            sums = _checksum(frame[24:], _checksum(frame[:8], sums, order), order)
            right = frame[8:16] == salts and struct.pack(">2I", *sums) == frame[16:24]
        if not right and frame[8:16] == salts and frame[4:8] != bytes(4):
            return True
    return False


def _checksum(content: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    for one, two in struct.iter_unpack(f"{order}2I", content):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def _page_size(content: bytes, log: bytes) -> int:
    if content.startswith(_MAGIC) and len(content) > 18:
        size = _SIZES.get(int.from_bytes(content[16:18], "big"))
        if size is not None:
            return size
    if len(log) > 12 and int.from_bytes(log[:4], "big") in _LOG_MAGIC:
        size = _SIZES.get(int.from_bytes(log[8:12], "big"))
        if size is not None:
            return size
    return 4096


def _frames(log: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for start in range(32, len(log) - 24, 24 + size):
        yield int.from_bytes(log[start : start + 4], "big"), log[start + 24 : start + 24 + size]


def _rows_of(page: bytes, start: int, file: _File) -> Iterator[Row]:
    if len(page) < start + 8 or page[start] != _LEAF:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for place in range(start + 8, min(start + 8 + 2 * count, len(page) - 1), 2):
        cell = int.from_bytes(page[place : place + 2], "big")
        try:
            row = _decode(_payload(page, cell, file))
        except _UNREADABLE:
            continue
        yield row


def _payload(page: bytes, cell: int, file: _File) -> bytes:
    length, cell = _varint(page, cell)
    _, cell = _varint(page, cell)
    most = file.usable - 35
    if length <= most:
        return _exactly(page[cell : cell + length], length)
    if length > _LARGEST:
        raise ValueError(length)
    least = (file.usable - 12) * 32 // 255 - 23
    local = least + (length - least) % (file.usable - 4)
    local = local if local <= most else least
    parts = [_exactly(page[cell : cell + local], local)]
    left = length - local
    following = int.from_bytes(_exactly(page[cell + local : cell + local + 4], 4), "big")
    while left > 0:
        overflow = file.page(following)
        part = _exactly(overflow[4 : 4 + min(left, file.usable - 4)], min(left, file.usable - 4))
        parts.append(part)
        left -= len(part)
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _exactly(part: bytes, length: int) -> bytes:
    if len(part) != length:
        raise ValueError("cut off")
    return part


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(8):
        byte = data[place + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + count + 1
    return value << 8 | data[place + 8], place + 9


def _decode(payload: bytes) -> Row:
    end, place = _varint(payload, 0)
    kinds = []
    while place < end:
        kind, place = _varint(payload, place)
        kinds.append(kind)
    values = []
    for kind in kinds:
        value, place = _value(payload, place, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, place: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, place
    if kind in (8, 9):
        return kind - 8, place
    length = (0, 1, 2, 3, 4, 6, 8, 8)[kind] if kind < 8 else (kind - 12) // 2
    if kind in (10, 11):
        raise ValueError(kind)
    part = _exactly(payload[place : place + length], length)
    place += length
    if kind < 7:
        return int.from_bytes(part, "big", signed=True), place
    if kind == 7:
        return float(struct.unpack(">d", part)[0]), place
    return (part if kind % 2 == 0 else part.decode()), place

"""Examples from a file or from standard input. Knows where bytes come from, not how they are read.

One JSON line:

    {"input": "hot", "output": ["cold", "chilly"], "split": "train"}

The same in CSV, several accepted answers as a JSON list in one cell:

    input,output,split
    hot,"[""cold"", ""chilly""]",train
"""

from __future__ import annotations

import difflib
import gzip
import os
import sys
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, get_args

from mop.data.formats import Format, parse
from mop.data.rows import Columns, to_examples
from mop.data.table import Table, shown
from mop.errors import DataError, SettingsError
from mop.examples import Example

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_GZIP_MARK = b"\x1f\x8b"


def read_examples(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    input_column: str = "input",
    output_column: str = "output",
    split_column: str | None = None,
    format: Format | None = None,
    empty: bool = False,
) -> list[Example]:
    """Read labelled examples; either all of them can be used, or none is returned.

    The format follows from the suffix: ``.jsonl``, ``.ndjson`` or ``.json`` (one object per line), ``.csv``,
    ``.tsv`` (quoted like CSV), ``.parquet``. Text formats are UTF-8, with or without byte order mark, and may
    be gzipped (``.gz``). An answer is text, a number or a boolean (kept as spelled in the file), or a list of
    accepted answers, of which the first is the one that demos show; in CSV and TSV a list is a cell with a
    JSON list of strings, and any other cell is one answer as it stands.

    Args:
        source: a path, ``"-"`` for standard input, or a file open for reading bytes.
        input_column: the column (JSON key) that holds the input.
        output_column: the column that holds the answer or answers.
        split_column: the column that says ``train``, ``validation`` (or ``valid``, ``val``, ``dev``) or
            ``test``; a blank there leaves the example unassigned. By default a column called ``split`` is
            used if there is one.
        format: overrides the suffix. Standard input and files without a name are ``jsonl`` by default.
        empty: an answer may be an empty text, as one that a system gave may be.

    Raises:
        BadRows: some rows cannot be used; the message lists the first 20, ``problems`` has all of them.
        DataError: the file is missing, unreadable or empty, or lacks a column.
        SettingsError: the format is not known, or needs a package that is not installed.
    """
    table = read_table(source, {input_column, output_column, split_column or "split"}, format=format)
    return to_examples(table, Columns(input_column, output_column, split_column, empty))


def read_table(
    source: str | os.PathLike[str] | BinaryIO, wanted: Collection[str], *, format: Format | None = None
) -> Table:
    """Read rows, whatever they mean; of Parquet only the values of the ``wanted`` columns.

    Sources and formats are those of `read_examples`. Raises DataError and SettingsError as it does.
    """
    content, origin, name = _load(source)
    chosen = _format(format, name, origin)
    if chosen != "parquet" and content.startswith(_GZIP_MARK):
        content = _unzipped(content, origin)
    if not content.strip():
        raise DataError(f"{origin} is empty; expected at least one example as {chosen}")
    return parse(content, chosen, origin, wanted)


def _load(source: str | os.PathLike[str] | BinaryIO) -> tuple[bytes, str, str | None]:
    """Return the bytes, the source's name for messages, and its file name where the suffix decides."""
    if not isinstance(source, (str, os.PathLike)):
        return _load_stream(source)
    if source == "-":
        return sys.stdin.buffer.read(), "standard input", None
    path = Path(os.fsdecode(source))
    origin = shown(str(path), 200)
    if path.is_dir():
        raise DataError(f"{origin} is a folder; give one file of examples in it")
    try:
        return path.read_bytes(), origin, path.name
    except FileNotFoundError as error:
        raise DataError(f"there is no file {origin}{_similar_file(path)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"the file {origin} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _load_stream(stream: BinaryIO) -> tuple[bytes, str, str | None]:
    if not callable(getattr(stream, "read", None)):
        raise SettingsError(
            f'examples are read from a path, "-" or a file opened with mode "rb"; got {type(stream).__name__}'
        )
    name = getattr(stream, "name", None)
    known = name if isinstance(name, str) and _suffix(name) in _SUFFIXES else None
    origin = shown(name, 200) if isinstance(name, str) else "the given file"
    try:
        content = stream.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{origin} cannot be read: {error}") from error
    if not isinstance(content, bytes):
        raise SettingsError(f'{origin} gives {type(content).__name__}, not bytes; open it with mode "rb"')
    return content, origin, known


def _format(format: Format | None, name: str | None, origin: str) -> Format:
    if format is not None:
        if format not in get_args(Format):
            raise SettingsError(f"format {shown(format)} is not known; expected jsonl, csv, tsv or parquet")
        return format
    if name is None:
        return "jsonl"
    suffix = _suffix(name)
    if suffix not in _SUFFIXES:
        raise SettingsError(
            f"the format of {origin} does not follow from its name; expected one of {', '.join(_SUFFIXES)} "
            "(text also with .gz), or name it with --format (format= in Python)"
        )
    return _SUFFIXES[suffix]


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _unzipped(content: bytes, origin: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{origin} is damaged: its gzip data cannot be unpacked ({error})") from error


def _similar_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except (OSError, ValueError):
        return "; check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {shown(close[0])}?" if close else "; check the path"

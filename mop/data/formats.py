"""The bytes of a file to a Table, per format: JSON lines, CSV, TSV, Parquet. Knows no examples and no paths.

What is wrong with one row is kept in that row, so that a caller can report all bad rows at once; only what
makes the whole file unreadable is raised here.
"""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Collection, Iterator
from typing import Literal, NoReturn

from mop.data.table import NumberText, Row, Table, shown
from mop.errors import DataError, SettingsError

Format = Literal["jsonl", "csv", "tsv", "parquet"]

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# What surrogateescape makes of a byte that isn't UTF-8; real UTF-8 can never decode to these.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
# csv keeps its cell limit (131,072 characters) per process; documents as inputs can be longer than that.
_CSV_LIMIT_LOCK = threading.Lock()


def parse(content: bytes, format: Format, origin: str, wanted: Collection[str]) -> Table:
    """Return the rows of ``content``; of Parquet, stored by column, only the values of ``wanted`` columns.

    Raises:
        DataError: nothing in the file can be read as ``format``, or there is not a single row in it.
        SettingsError: Parquet, but pyarrow is not installed.
    """
    if format == "parquet":
        table = _parquet(content, origin, wanted)
    elif content.startswith(_UTF16_MARKS):
        raise DataError(f"{origin} is UTF-16 text; save it as UTF-8 and try again")
    elif format == "jsonl":
        table = _json_lines(content.removeprefix(b"\xef\xbb\xbf"), origin)
    else:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
        table = _delimited(text, "," if format == "csv" else "\t", origin)
    if not table.rows:
        raise DataError(f"{origin} has no examples in it; expected at least one row of {format}")
    return table


def _json_lines(content: bytes, origin: str) -> Table:
    if content.lstrip().startswith(b"[") and _is_json_array(content):
        raise DataError(
            f"{origin} is one JSON array; expected JSON lines, one object per line. "
            "Convert it with: jq -c '.[]' FILE > FILE.jsonl"
        )
    columns: dict[str, None] = {}
    rows = []
    for position, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            row = _json_row(position, line)
            columns.update(dict.fromkeys(row.values))
            rows.append(row)
    return Table(origin, "line", tuple(columns), tuple(rows))


def _json_row(position: int, line: bytes) -> Row:
    try:
        value = _load_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(
            position,
            problem=f"not UTF-8 (byte 0x{line[error.start]:02x}, number {error.start + 1} of the line)",
        )
    except json.JSONDecodeError as error:
        return Row(position, problem=f"malformed JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Row(position, problem=f"malformed JSON: {error}")
    if not isinstance(value, dict):
        return Row(position, problem=f"expected a JSON object, got {shown(line.decode().strip(), 40)}")
    return Row(position, value)


def _load_json(text: str) -> object:
    return json.loads(text, parse_int=NumberText, parse_float=NumberText, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _is_json_array(content: bytes) -> bool:
    try:
        return isinstance(_load_json(content.decode("utf-8")), list) and b"{" in content
    except (ValueError, RecursionError):
        return False


def _delimited(text: str, delimiter: str, origin: str) -> Table:
    records = _records(text, delimiter)
    first = next(records, None)
    if first is None:
        return Table(origin, "line", (), ())
    position, header = first
    if isinstance(header, str):
        raise DataError(f"the header of {origin} (line {position}) cannot be read: {header}")
    columns = tuple(name.strip() for name in header)
    rows = tuple(_delimited_row(position, cells, columns) for position, cells in records)
    return Table(origin, "line", columns, rows, lists_in_cells=True)


def _delimited_row(position: int, cells: list[str] | str, columns: tuple[str, ...]) -> Row:
    if isinstance(cells, str):
        return Row(position, problem=cells)
    if any(_ESCAPED_BYTE.search(cell) for cell in cells):
        return Row(position, problem="not UTF-8")
    if len(cells) != len(columns):
        few_or_many = "few" if len(cells) < len(columns) else "many"
        problem = f"too {few_or_many} cells: {len(cells)}, but the header has {len(columns)}"
        return Row(position, problem=problem)
    return Row(position, dict(zip(columns, cells, strict=True)))


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line on which each record starts, and its cells or the reason why it cannot be read."""
    with _CSV_LIMIT_LOCK:
        usual_limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            found: list[tuple[int, list[str] | str]] = []
            while True:
                start = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    found.append((start, f"the quotes do not match ({error}); write a quote inside a cell twice"))
                    continue
                if cells:
                    found.append((start, cells))
        finally:
            csv.field_size_limit(usual_limit)
    yield from found


def _parquet(content: bytes, origin: str, wanted: Collection[str]) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingsError(
            f'{origin} is Parquet, which needs pyarrow. Install it with: pip install "mop[parquet]"'
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names = tuple(file.schema_arrow.names)
        table = file.read(columns=[name for name in names if name in wanted])
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"{origin} cannot be read as Parquet: {reason}") from error
    # By place, not by name: a name may be repeated, and "a" also selects a column called "a.b".
    read = [(name, table.column(at)) for at, name in enumerate(table.column_names) if name in wanted]
    rows = []
    for position in range(1, table.num_rows + 1):
        try:
            values = {name: column[position - 1].as_py() for name, column in read}
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            rows.append(Row(position, problem=f"a value cannot be read: {error}"))
        else:
            rows.append(Row(position, values))
    return Table(origin, "row", names, tuple(rows))

"""Examples from what Python users hold them in: pairs, dicts, data frames, paths. Knows no file format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from mop.data.reading import read_examples
from mop.data.rows import Columns, to_examples
from mop.data.table import Row, Table, shown
from mop.errors import DataError
from mop.examples import Example

_EXPECTED = "an Example, a dict, or an (input, output) pair"


def coerce_examples(
    data: Any,
    *,
    input_column: str = "input",
    output_column: str = "output",
    split_column: str | None = None,
) -> list[Example]:
    """Return ``data`` as a list of examples, checked by the same rules as a file.

    Args:
        data: an iterable that mixes at will `Example`, ``{"input": …, "output": …}`` and ``(input, output)``,
            where an output is one answer or a list of accepted answers; or a data frame (pandas, Polars); or
            a path or open file, read by `read_examples`.
        input_column: the key or column that holds the input.
        output_column: the key or column that holds the answer or answers.
        split_column: the key or column that holds the split; by default ``split``, if there is one.

    Raises:
        BadRows: some items cannot be used; ``problems`` has all of them, by index from 0.
        DataError: there are no items, or ``data`` is nothing of the above.
    """
    if isinstance(data, (str, os.PathLike)) or callable(getattr(data, "read", None)):
        return read_examples(data, input_column=input_column, output_column=output_column, split_column=split_column)
    columns = Columns(input_column, output_column, split_column)
    names, records = _frame_records(data) or ((), _items(data))
    rows = tuple(_row(index, item, columns) for index, item in enumerate(records))
    if not rows:
        raise DataError(f"there are no examples in the given {type(data).__name__}; expected at least one")
    names = names or tuple(dict.fromkeys(name for row in rows for name in row.values))
    return to_examples(Table("the given examples", "item", names, rows), columns)


def _frame_records(data: Any) -> tuple[tuple[str, ...], Iterable[object]] | None:
    """Return column names and rows of a data frame, told by its methods so that none has to be imported."""
    if isinstance(data, Mapping) or not hasattr(data, "columns"):
        return None
    names = tuple(str(name) for name in data.columns)
    if callable(getattr(data, "to_dicts", None)):  # Polars
        return names, data.to_dicts()
    if callable(getattr(data, "to_dict", None)):  # pandas
        return names, data.to_dict(orient="records")
    return None


def _items(data: Any) -> Iterable[object]:
    if isinstance(data, (Mapping, bytes, Example)) or not isinstance(data, Iterable):
        raise DataError(
            f"got one {type(data).__name__} where examples were expected; give a list of them, "
            f"each {_EXPECTED}, or a data frame, or a path"
        )
    return data


def _row(index: int, item: object, columns: Columns) -> Row:
    if isinstance(item, Mapping):
        return Row(index, {str(name): value for name, value in item.items()})
    if isinstance(item, Example):
        values = {columns.input: item.input, columns.output: item.outputs}
        return Row(index, values if item.split is None else {**values, columns.split or "split": item.split})
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return Row(index, {columns.input: item[0], columns.output: item[1]})
    size = f" of length {len(item)}" if isinstance(item, (tuple, list)) else ""
    given = shown(item, 30) if isinstance(item, str) else f"{type(item).__name__}{size}"
    return Row(index, problem=f"expected {_EXPECTED}, got {given}")

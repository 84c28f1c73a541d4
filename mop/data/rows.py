"""Rows to examples, with every bad row reported at once. Knows nothing of file formats.

What a row has to hold: an input (text that isn't blank), one or more answers (text, or a number or boolean
turned to text, or a list of those), and, where there is a split column, a known split or nothing.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from mop.data.table import NumberText, Table, shown
from mop.errors import BadRows, DataError, RowProblem
from mop.examples import Example

#: How many bad rows a message lists; ``BadRows.problems`` has them all.
LISTED = 20

_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# What other tools call these columns: used only to suggest, never to guess.
_OTHER_NAMES = {
    "input": ("inputs", "text", "question", "query", "prompt", "sentence", "instruction", "message"),
    "output": ("outputs", "answer", "answers", "label", "target", "targets", "completion", "response"),
}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns to read; ``split=None`` means: a column called ``split``, if there is one.

    ``empty``: an answer may be an empty text, as one that a system gave may be; else it is a bad row.
    """

    input: str = "input"
    output: str = "output"
    split: str | None = None
    empty: bool = False


def to_examples(table: Table, columns: Columns) -> list[Example]:
    """Return one example per row of ``table``.

    Raises:
        DataError: a column is missing from the whole table, or its name stands twice in the header.
        BadRows: at least one row cannot be used; lists them all.
    """
    _check_columns(table, columns)
    split_column = columns.split or ("split" if "split" in table.columns else None)
    examples: list[Example] = []
    problems: list[RowProblem] = []
    for row in table.rows:
        reasons = [row.problem] if row.problem else []
        if not reasons:
            text = _input(row.values, columns.input, reasons)
            if not (columns.empty and _is_blank(row.values.get(columns.output))):
                outputs = _outputs(row.values, columns.output, table.lists_in_cells, reasons)
            else:
                outputs = ("",)
            split = _split(row.values, split_column, reasons)
        if reasons:
            problems.append(RowProblem(row.position, "; ".join(reasons), table.unit))
        else:
            examples.append(Example(text, outputs, split))
    if problems:
        raise bad_rows(problems, table.origin, len(table.rows))
    return examples


def bad_rows(problems: Iterable[RowProblem], origin: str, rows: int) -> BadRows:
    """Return the error that reports ``problems`` among the ``rows`` rows of ``origin``."""
    found = tuple(problems)
    lines = [f"{len(found)} of the {rows} rows of {origin} cannot be used:"]
    lines += [f"  {problem}" for problem in found[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"  … and {len(found) - LISTED} more")
    lines.append(
        "Correct or remove them and try again. Each row needs an input and at least one answer, in UTF-8; "
        "a split, where given, is train, validation or test."
    )
    return BadRows("\n".join(lines), found)


def _check_columns(table: Table, columns: Columns) -> None:
    if not table.columns:  # not one row could be read, and the rows' own problems say why
        return
    wanted = {"input": columns.input, "output": columns.output}
    if columns.split is not None:
        wanted["split"] = columns.split
    repeated = [name for name in dict.fromkeys(wanted.values()) if table.columns.count(name) > 1]
    if repeated:
        raise DataError(
            f"{table.origin} has more than one column called {_listed(repeated)}; rename all but one of them"
        )
    missing = {role: name for role, name in wanted.items() if name not in table.columns}
    if missing:
        there = f"{table.origin} has no column {_listed(missing.values())}; "
        there += f"its columns are {_listed(table.columns)}."
        raise DataError(" ".join([there, *(_advice(role, name, table) for role, name in missing.items())]))


def _advice(role: str, name: str, table: Table) -> str:
    """Say with which option the right column is named, and which one it may be."""
    by_folded = {column.casefold(): column for column in reversed(table.columns)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    usual = [other for other in (role, *_OTHER_NAMES.get(role, ())) if other in by_folded]
    advice = f"Name the right one with --{role}-column ({role}_column= in Python)"
    if close or usual:
        return f"{advice}; closest: {shown(by_folded[(close or usual)[0]])}."
    if table.lists_in_cells and len(table.columns) == 1 and (mark := re.search(r"[;|\t,]", table.columns[0])):
        return f"{advice}; or is {mark.group()!r} the separator? Then save it with commas (.csv) or tabs (.tsv)."
    return f"{advice}."


def _listed(names: Iterable[str]) -> str:
    listed = [shown(name, 40) for name in names]
    more = [f"and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
    return ", ".join(listed[:LISTED] + more)


def _input(values: Mapping[str, object], column: str, reasons: list[str]) -> str:
    if column not in values:
        reasons.append(f"no column {shown(column)}")
        return ""
    value = _plain(values[column])
    if value is None or (isinstance(value, str) and not value.strip()):
        reasons.append("the input is empty")
    elif not isinstance(value, str) or isinstance(value, NumberText):
        reasons.append(f"the input has the wrong type: expected text, got {_kind(value)}")
    else:
        reasons += _unusable_characters("the input", value)
        return value
    return ""


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _outputs(values: Mapping[str, object], column: str, lists_in_cells: bool, reasons: list[str]) -> tuple[str, ...]:
    if column not in values:
        reasons.append(f"no column {shown(column)}")
        return ()
    value = _plain(values[column])
    if lists_in_cells and isinstance(value, str):
        value = _list_in_cell(value)
    several = isinstance(value, (list, tuple))
    answers = [_plain(answer) for answer in value] if isinstance(value, (list, tuple)) else [value]
    if not any(_answer_text(answer) is None or _answer_text(answer) for answer in answers):
        reasons.append("no answer")
        return ()
    outputs: dict[str, None] = {}
    for number, answer in enumerate(answers, start=1):
        name = f"answer {number}" if several else "the answer"
        text = _answer_text(answer)
        if text is None:
            reasons.append(f"{name} has the wrong type: expected text or a number, got {_kind(answer)}")
        elif not text:
            reasons.append(f"{name} is empty")
        else:
            reasons += _unusable_characters(name, text)
            outputs[text] = None
    return tuple(outputs)


def _answer_text(answer: object) -> str | None:
    """Return the answer as text, ``""`` where there is none, None where its type has no spelling."""
    if answer is None:
        return ""
    if isinstance(answer, bool):
        return "true" if answer else "false"
    if isinstance(answer, str):
        return str(answer) if answer.strip() else ""
    if isinstance(answer, (int, float, Decimal)):
        return str(answer)
    return None


def _list_in_cell(cell: str) -> object:
    if not cell.lstrip().startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else cell


def _split(values: Mapping[str, object], column: str | None, reasons: list[str]) -> str | None:
    value = _plain(values.get(column)) if column is not None else None
    if value is None or value == "":
        return None
    split = _SPLITS.get(value.strip().casefold()) if isinstance(value, str) else None
    if split is None:
        given = shown(value) if isinstance(value, str) else _kind(value)
        reasons.append(f"unknown split {given}; expected train, validation (or valid, val, dev) or test")
    return split


def _plain(value: object) -> object:
    """Return a NumPy value as its Python counterpart, and None for the ways in which tables say "missing"."""
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (NumberText, int, float, Decimal)):
        return f"the number {shown(str(value), 30)}"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    return "nothing" if value is None else type(value).__name__


def _unusable_characters(name: str, text: str) -> list[str]:
    if _SURROGATE.search(text):
        return [f"{name} is not valid Unicode (half of a surrogate pair, such as \\ud83d alone)"]
    if "\x00" in text:
        return [f"{name} has a NUL character"]
    return []

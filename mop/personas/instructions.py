"""Instructions: what identities and answers are to be written for, read from a file. Knows no models.

One JSON line, as other tools have them; the context, if there is one, is put after the instruction:

    {"instruction": "Sum up the text.", "context": "Corals live …"}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mop.data.formats import Format
from mop.data.reading import read_table
from mop.errors import BadRows, DataError, RowProblem

if TYPE_CHECKING:
    from mop.data.table import Row, Table

#: Names of the column of instructions, the first one that is there.
COLUMNS = ("instruction", "input", "prompt", "question")
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction and its line (row) in the file."""

    line: int
    text: str


def read_instructions(
    source: str, *, column: str | None = None, context: str | None = None, format: Format | None = None
) -> list[Instruction]:
    """Return the instructions of a file (JSONL, CSV, TSV, Parquet) or of standard input (``-``).

    Args:
        source: The file.
        column: Column of the instruction; None takes the first of instruction, input, prompt, question.
        context: Column of a text that belongs to the instruction; rows may leave it empty.
        format: Format, if it doesn't follow from the name.

    Raises:
        BadRows: Rows cannot be used; all are listed.
        DataError: The file is missing, empty, or lacks the column.
    """
    table = read_table(source, {*COLUMNS, *(name for name in (column, context) if name)}, format=format)
    found = column or next((name for name in COLUMNS if name in table.columns), None)
    for name, option in ((found, "--instruction-column"), (context or found, "--context-column")):
        if table.columns and name not in table.columns:
            there = ", ".join(map(repr, table.columns[:_LISTED]))
            raise DataError(f"{table.origin} has no column {name or COLUMNS[0]!r}; it has {there}. Name one: {option}.")
    instructions, problems = [], []
    for row in table.rows:
        try:
            instructions.append(Instruction(row.position, _text(row, found or COLUMNS[0], context)))
        except ValueError as error:
            problems.append(RowProblem(row.position, str(error), table.unit))
    if problems:
        raise BadRows(_listed(table, problems), tuple(problems))
    return instructions


def _text(row: Row, column: str, context: str | None) -> str:
    if row.problem:
        raise ValueError(row.problem)
    instruction = row.values.get(column)
    more = row.values.get(context) if context else None
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError(f"no instruction in {column!r}")
    if more is not None and not isinstance(more, str):
        raise ValueError(f"the context in {context!r} isn't text")
    text = instruction.strip() if not more or not more.strip() else f"{instruction.strip()}\n\n{more.strip()}"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the instruction holds half of a surrogate pair") from None
    return text


def _listed(table: Table, problems: list[RowProblem]) -> str:
    lines = [f"{len(problems)} of the {len(table.rows)} rows of {table.origin} cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"  … and {len(problems) - _LISTED} more")
    return "\n".join([*lines, "Each row needs an instruction: text that isn't blank."])

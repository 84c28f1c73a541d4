"""Table: rows as a source gave them, before anyone asked whether they are examples.

What every file format and every Python container is turned into. Knows nothing of examples, and of files
only the name to use in messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class NumberText(str):
    """A number spelled as it stood in the file, so that ``0.10`` as an answer stays ``0.10``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its place, and its values by column, or the reason why there are none."""

    position: int
    values: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one source.

    ``origin`` names the source in messages, ``unit`` is what a row's position counts (``line``, ``row``,
    ``item``), ``columns`` are all column names met, in order, repeated where a header repeats them.
    ``lists_in_cells`` says that cells are plain text, where several answers are written as a JSON list.
    """

    origin: str
    unit: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lists_in_cells: bool = False


def shown(text: str, limit: int = 60) -> str:
    """Return ``text`` quoted for a message: control characters escaped, at most ``limit`` characters."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")

"""Quoting: keeps tables in a text the same as what a command prints, with the command next to them.

A quoted table stands between two comments, of which the first names the command:

    <!-- python -m benchmarks report benchmarks/results/grid.jsonl --table pairs -->
    | method | against | …
    <!-- end of table -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from mop.errors import DataError

END = "<!-- end of table -->"
_QUOTE = re.compile(
    r"(?P<begin>^<!-- python -m benchmarks (?P<command>[^\n]*?) -->\n)(?P<table>.*?)(?P<end>^" + re.escape(END) + "$)",
    re.DOTALL | re.MULTILINE,
)


def quoted(text: str, made_by: Callable[[list[str]], str]) -> str:
    """Return ``text`` with every quoted table as ``made_by`` makes it from the words of its command.

    Raises DataError for a table that doesn't end, or that names a command that makes no table.
    """

    def fresh(match: re.Match[str]) -> str:
        words = shlex.split(match["command"])
        # Only a report: a text doesn't get to run anything else.
        if words[:1] != ["report"] or "--table" not in words or "--out" in words:
            raise DataError(f"{match['command']!r} makes no table; expected `report RESULTS --table KIND`.")
        return f"{match['begin']}{made_by(words)}{match['end']}"

    made = _QUOTE.sub(fresh, text)
    begun = len(re.findall(r"^<!-- python -m benchmarks ", text, re.MULTILINE))
    if begun != len(_QUOTE.findall(text)):
        raise DataError(f"A table that begins with a command doesn't end; every one needs a line {END}.")
    return made


def quote_in(path: Path, made_by: Callable[[list[str]], str], *, write: bool) -> bool:
    """Bring the tables in a file up to date, if ``write``; return whether they were other ones before."""
    try:
        text = path.read_text(encoding="utf-8")
        made = quoted(text, made_by)
        if write and made != text:
            path.write_text(made, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be brought up to date: {error}") from error
    return made != text

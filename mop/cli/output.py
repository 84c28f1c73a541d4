"""Output: results go to standard output, everything else to standard error. Knows nothing of what is said.

With ``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TextIO

from rich.console import Console

from mop.cli.words import clean

#: Width of tables in a file or pipe, where nothing wraps.
FILE_WIDTH = 120


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `mop.cli.main`, which ends every command in the same way."""
        raise BrokenPipeError


def make_console(stream: TextIO) -> Console:
    """Return a console on ``stream`` that prints texts as they are: no markup, no emoji codes."""
    terminal = stream.isatty()
    width = None if terminal else FILE_WIDTH
    return _Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


class Output:
    """Where one command speaks. ``warnings`` are also part of the JSON document."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.err = make_console(sys.stderr)
        self.warnings: list[str] = []

    @property
    def live(self) -> bool:
        """Whether progress can be drawn in place."""
        return self.err.is_terminal and not self.err.is_dumb_terminal and not self.quiet

    def note(self, text: str) -> None:
        """Say something that is good to know, unless ``--quiet``."""
        if not self.quiet:
            self.err.print(clean(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something that may make the result worthless; ``--quiet`` doesn't silence it."""
        self.warnings.append(text)
        self.err.print(f"warning: {clean(text)}", soft_wrap=True, style="yellow")

    def result(self, document: Mapping[str, Any], draw: Callable[[Console], None]) -> None:
        """Give the result: as JSON, or as ``draw`` shows it to people."""
        if self.as_json:
            write_json({**document, "warnings": self.warnings} if self.warnings else document)
        else:
            draw(make_console(sys.stdout))


def write_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))


def say(console: Console, text: str = "", style: str | None = None) -> None:
    """Print a text that the terminal may wrap, but that stays one line in a file."""
    console.print(clean(text), style=style, soft_wrap=not console.is_terminal)

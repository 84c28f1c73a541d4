"""The command line: ``mop``. Parses, reports errors with an exit code, and leaves the work to the commands.

Exit codes: 0 done; 2 an option or setting; 3 the data; 4 the model; 5 the budget; 6 the ledger; 7 the mixture file;
8 the Dask cluster; 1 anything else, and mixtures in which `mop diff` finds a difference; 130 interrupted; 141 nobody
reads standard output any more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mop.errors import MopError

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` is that of the process by default."""
    from cyclopts import CycloptsError

    from mop.cli.app import app
    from mop.cli.output import write_json
    from mop.errors import MopError, SettingsError

    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        message = f"{' '.join(str(error).split())} See `mop{_command(tokens)} --help`."
        return _report(SettingsError(message), tokens)
    except MopError as error:
        return _report(error, tokens)
    except KeyboardInterrupt as interruption:
        said = str(interruption) or "Interrupted."
        print(said, file=sys.stderr)
        if "--json" in tokens:
            try:
                write_json({"error": {"type": "Interrupted", "message": said}})
                sys.stdout.flush()
            except BrokenPipeError:  # Ctrl-C ends whoever reads the pipe as well
                _nobody_reads()
        return INTERRUPTED
    except BrokenPipeError:
        _nobody_reads()
        return BROKEN_PIPE
    return code if isinstance(code, int) else 0


def _nobody_reads() -> None:
    # What is still buffered must not raise again when the interpreter closes the stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: MopError, tokens: Sequence[str]) -> int:
    from dataclasses import asdict

    from mop.cli.output import write_json
    from mop.cli.words import clean
    from mop.errors import BadRows, DamagedLedger

    if "--json" in tokens:
        details: dict[str, object] = {}
        if isinstance(error, BadRows):
            details["problems"] = [asdict(problem) for problem in error.problems]
        elif isinstance(error, DamagedLedger):
            details["problems"] = list(error.problems)
        write_json({"error": {"type": type(error).__name__, "message": str(error), **details}})
    print(f"error: {clean(str(error))}", file=sys.stderr)
    return error.exit_code


def _command(tokens: Sequence[str]) -> str:
    from mop.cli.app import app

    return f" {tokens[0]}" if tokens and tokens[0] in app else ""

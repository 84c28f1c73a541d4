"""``mop ledger``: what the record of model calls holds, and its upkeep."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import OutputOptions
from mop.cli.output import Output, say
from mop.cli.tables import new_table
from mop.cli.words import UNKNOWN, clean, money, plural, size
from mop.connect import default_ledger_path
from mop.errors import DamagedLedger, LedgerError, SettingsError

if TYPE_CHECKING:
    from mop.bill import Line
    from mop.lm.ledger import Ledger
    from mop.lm.upkeep import Choice

Group = Literal["role", "model", "day", "run"]
Role = Literal["propose", "execute", "judge"]
Where = Annotated[str | None, Parameter(name=["--ledger"])]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
_NO_SPEECH = OutputOptions()
_GROUPS: tuple[Group, ...] = ("role", "model")


def stats(
    ledger: Where = None,
    *,
    by: Annotated[tuple[Group, ...], Parameter(negative=(), consume_multiple=True)] = _GROUPS,
    prices: Path | None = None,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Count the calls, their tokens and what they cost.

    Args:
        ledger: The ledger [default: MOP_LEDGER, or the one in your data folder].
        by: What to group by: role, model, day (UTC), run; several may be given.
        prices: Your own price file; its entries go before the built-in ones.
    """
    from mop.bill import bill, whole
    from mop.lm.prices import Prices

    with _opened(ledger) as book:
        lines = bill(book, by, Prices(prices))
        name = book.name
    total = whole(lines)
    document = {"ledger": name, "by": list(by), "groups": [_line(by, one) for one in lines]}
    total_document = _line((), total) if total else {"calls": 0, "usd": 0.0}

    def draw(console: Console) -> None:
        if not lines:
            say(console, f"{name} has no calls.")
            return
        table = new_table()
        for group in by:
            table.add_column(group, overflow="fold")
        for title in ("calls", "prompt\ntokens", "of them\ncached", "completion\ntokens", "seconds", "USD"):
            table.add_column(title, justify="right", no_wrap=True)
        for one in (*lines, *([total] if total else [])):
            usage = one.total.usage
            cells = (
                [clean(value) or UNKNOWN for value in one.group]
                if one.group or not by
                else ["all", *[""] * (len(by) - 1)]
            )
            numbers = (one.total.calls, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
            seconds = f"{one.total.seconds:,.0f}"
            style = None if one in lines else "bold"
            table.add_row(*cells, *(f"{number:,}" for number in numbers), seconds, money(one.usd), style=style)
        console.print(table)
        say(console, f"\n{name}", style="dim")
        if any(one.usd is None for one in lines):
            say(console, f"{UNKNOWN} under USD: the price isn't known; add it with --prices FILE.", style="dim")

    speech.open().result({**document, "total": total_document}, draw)


def export(
    ledger: Where = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    model: str | None = None,
    role: Role | None = None,
    run: str | None = None,
    older_than: str | None = None,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Write the calls as JSON lines, oldest first: request, reply, tokens, time.

    Standard output gets the lines, unless --out names a file; with --json and --out it gets a summary.

    Args:
        ledger: The ledger [default: MOP_LEDGER, or the one in your data folder].
        out: The file to write; one that is there stays whole until the new one is.
        model: Only calls of this model.
        role: Only calls of this role.
        run: Only calls that this run paid for.
        older_than: Only calls older than this: 90d, 12h, 2w.
    """
    from mop.lm.upkeep import export as exported

    choice = _choice(model, role, run, older_than)
    output = speech.open()
    with _opened(ledger) as book:
        lines = (json.dumps(call, ensure_ascii=False) + "\n" for call in exported(book, choice))
        if out is None:
            for line in lines:
                sys.stdout.write(line)
            return
        count = _write(out, lines)
    output.result({"path": str(out), "calls": count}, lambda console: say(console, f"{out}: {plural(count, 'call')}"))


def prune(
    ledger: Where = None,
    *,
    older_than: str | None = None,
    model: str | None = None,
    role: Role | None = None,
    run: str | None = None,
    dry_run: Flag = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), show_default=False)] = False,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Delete calls for good; a run that needs one of them pays for it again.

    Args:
        ledger: The ledger [default: MOP_LEDGER, or the one in your data folder].
        older_than: Calls older than this: 90d, 12h, 2w.
        model: Calls of this model.
        role: Calls of this role.
        run: Calls that this run paid for.
        dry_run: Say what would be deleted, and delete nothing.
        yes: Do not ask.
    """
    from mop.bill import cost
    from mop.lm.prices import Prices
    from mop.lm.upkeep import Choice, count
    from mop.lm.upkeep import prune as pruned

    choice = _choice(model, role, run, older_than)
    if choice == Choice():
        raise SettingsError("Say what to prune: --older-than, --model, --role or --run; to drop all, delete the file.")
    output = speech.open()
    with _opened(ledger) as book:
        found = count(book, choice)
        calls = sum(number for number, _ in found.values())
        costs = [cost(usage, name, Prices()) for name, (_, usage) in found.items()]
        known = [usd for usd in costs if usd is not None]
        usd = sum(known) if len(known) == len(costs) else None
        what = f"{plural(calls, 'call')}" + (f" that cost {money(usd)}" if usd else "")
        if calls and not dry_run and not yes:
            _ask(f"Delete {what} from {book.name}?", output)
        gone = 0 if dry_run or not calls else pruned(book, choice)
        name = book.name
    document = {"ledger": name, "calls": calls, "usd": usd, "deleted": gone, "dry_run": dry_run}
    words = f"{what} would be deleted from {name}." if dry_run else f"{plural(gone, 'call')} deleted from {name}."
    output.result(document, lambda console: say(console, words))


def verify(ledger: Where = None, *, speech: OutputOptions = _NO_SPEECH) -> None:
    """Check that every row is what was written: the file's structure, every key, every checksum.

    Args:
        ledger: The ledger [default: MOP_LEDGER, or the one in your data folder].
    """
    from mop.lm.verify import verify as verified

    path, url = _located(ledger)
    if url is None:
        report, name = verified(path), str(path)
    else:
        with _opened(ledger) as book:
            report, name = verified(book.database), book.name
    if report.problems:
        lines = "\n".join(f"  {problem}" for problem in report.problems)
        raise DamagedLedger(
            f"The ledger {name!r} is damaged:\n{lines}\nRun `mop ledger repair {name}` to save what can be read.",
            report.problems,
        )
    document = {"ledger": name, "version": report.version, "calls": report.calls, "vectors": report.vectors}
    whole = f"{name}: {plural(report.calls, 'call')} and {plural(report.vectors, 'vector')}, all as they were written."
    speech.open().result({**document, "problems": []}, lambda console: say(console, whole))


def repair(ledger: Where = None, *, speech: OutputOptions = _NO_SPEECH) -> None:
    """Save every row of a damaged ledger that can be read into a new file; the damaged one is kept beside it.

    End every run that uses the ledger first. A ledger that is whole is left alone.

    Args:
        ledger: The ledger [default: MOP_LEDGER, or the one in your data folder].
    """
    from mop.lm.salvage import repair as repaired

    path, url = _located(ledger)
    if url is not None:
        from mop.lm.server import read_url, shown

        raise SettingsError(
            f"Only a file can be repaired; {shown(read_url(url))} is a server's matter: restore its backup."
        )
    done = repaired(path)
    document = {
        "ledger": str(path),
        "calls": done.calls,
        "vectors": done.vectors,
        "dropped": done.dropped,
        "damaged": None if done.damaged is None else str(done.damaged),
    }

    def draw(console: Console) -> None:
        if done.damaged is None:
            say(console, f"{path} is whole: {plural(done.calls, 'call')}. Nothing was changed.")
            return
        saved = f"{plural(done.calls, 'call')} and {plural(done.vectors, 'vector')}"
        say(console, f"{path}: {saved} saved, {done.dropped:,} found that cannot be believed.")
        say(console, f"The damaged file is now {done.damaged} ({size(done.damaged.stat().st_size)}).")
        say(console, "Calls that were lost are made again by the runs that need them.", style="dim")

    speech.open().result(document, draw)


def _located(ledger: str | None) -> tuple[Path, str | None]:
    """Return the ledger's path, or its URL beside a path that means nothing."""
    where = str(default_ledger_path()) if ledger is None else ledger
    return Path(where), where if "://" in where else None


@contextmanager
def _opened(ledger: str | None) -> Iterator[Ledger]:
    """Yield a ledger that is there; unlike a run's, this one isn't made."""
    from mop.lm.ledger import Ledger as Opened

    path, url = _located(ledger)
    if url is None and not path.exists() and not path.with_name(f"{path.name}-wal").exists():
        raise LedgerError(f"There is no ledger {str(path)!r}; give the path of one.")
    book = Opened(path if url is None else url)
    try:
        yield book
    finally:
        book.close()


def _choice(model: str | None, role: str | None, run: str | None, older_than: str | None) -> Choice:
    from mop.lm.upkeep import Choice, read_age

    return Choice(model, role, run, None if older_than is None else read_age(older_than))


def _line(by: tuple[str, ...], line: Line) -> dict[str, Any]:
    usage = line.total.usage
    return {
        **{name: value or None for name, value in zip(by, line.group, strict=True)},
        "calls": line.total.calls,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "seconds": line.total.seconds,
        "usd": line.usd,
    }


def _write(target: Path, lines: Iterator[str]) -> int:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    count = 0
    try:
        try:
            with temporary.open("x", encoding="utf-8") as file:
                for line in lines:
                    file.write(line)
                    count += 1
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(
            f"The calls cannot be written to {target} ({error}); make room or name another file."
        ) from error
    return count


def _ask(question: str, output: Output) -> None:
    if not sys.stdin.isatty():
        raise SettingsError(f"{question} Nobody can be asked here; give --yes to go on, or --dry-run to look.")
    output.err.print(f"{question} [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SettingsError("Nothing was deleted.")

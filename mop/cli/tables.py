"""Tables: scores, regions and routes as people read them. Knows nothing of where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mop.cli.output import say
from mop.cli.words import UNKNOWN, clean, money, shorten, signed
from mop.evaluation import SystemScore
from mop.mixture import Expert, Mixture, Route
from mop.prompts import Prompt

#: Columns from which tables show everything.
WIDE = 100


def new_table() -> Table:
    """Return an empty table in the style of all tables."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="bold", show_edge=False)


def scores_table(systems: Sequence[SystemScore], search_calls: Mapping[str, int] | None = None) -> Table:
    """Return a row for each system. With ``search_calls`` (by name) these replace what queries cost in money."""
    table = new_table()
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("95 %\ninterval", justify="right", no_wrap=True)
    if search_calls is not None:
        table.add_column("search\ncalls", justify="right")
    else:
        table.add_column("calls", justify="right")
    table.add_column("prompt\ntokens", justify="right")
    table.add_column("fresh\ntokens", justify="right")
    table.add_column("seconds", justify="right")
    if search_calls is None:
        table.add_column("$ / 1,000", justify="right")
        table.add_column("without\ncaching", justify="right")
    for system in systems:
        calls = system.calls if search_calls is None else search_calls[system.name]
        cells = [
            clean(system.name),
            f"{system.accuracy:.3f}",
            f"{system.interval.low:.2f}–{system.interval.high:.2f}",
            f"{calls:,}",
            f"{system.prompt_tokens:,.0f}",
            f"{system.fresh_tokens:,.0f}",
            f"{system.seconds:.2f}",
        ]
        if search_calls is None:
            cells += [money(system.usd_per_1000), money(system.usd_per_1000_uncached)]
        table.add_row(*cells, style="bold" if system.name == "mixture" else None)
    return table


#: What the columns of `scores_table` mean.
SCORES_LEGEND = "Tokens and seconds are per query; fresh tokens are prompt tokens that no prefix cache served."


def regions_table(mixture: Mixture, width: int) -> Table:
    """Return a row for each region of ``mixture``, with what fits into ``width`` columns."""
    wide = width >= WIDE
    table = new_table()
    table.add_column("#", justify="right")
    table.add_column("size", justify="right")
    table.add_column("val.", justify="right")
    table.add_column("words", no_wrap=True, overflow="ellipsis", ratio=3, min_width=10)
    table.add_column("instruction", no_wrap=True, overflow="ellipsis", ratio=2, min_width=8)
    if wide:
        table.add_column("demos", justify="right")
    table.add_column("score", justify="right")
    table.add_column("gain", justify="right")
    if wide:
        table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column("", width=1)
    table.expand = True
    # The published method never compares its experts with one prompt.
    compared = any(expert.generalist_score is not None for expert in mixture.experts)
    for number, expert in enumerate(mixture.experts):
        table.add_row(
            str(number),
            f"{expert.size:,}",
            f"{expert.validation:,}",
            words(expert),
            shorten(instruction(expert.prompt), 200),
            *([str(len(expert.prompt.demos))] if wide else []),
            UNKNOWN if expert.score is None else f"{expert.score:.2f}",
            signed(expert.gain) if compared else UNKNOWN,
            *([f"{signed(expert.gain_low)} {signed(expert.gain_high)}" if compared else UNKNOWN] if wide else []),
            "↩" if expert.fallback else "",
            style="dim" if expert.fallback else None,
        )
    return table


#: What the columns of `regions_table` mean.
REGIONS_LEGEND = (
    "size and val.: training and validation examples. gain: over the generalist on these validation examples, "
    "shrunk toward the gain of all regions. ↩: no gain shown, the generalist answers."
)


def routes_table(mixture: Mixture, routed: Sequence[tuple[str, Route]], width: int) -> Table:
    """Return a row for each routed query, with what fits into ``width`` columns."""
    wide = width >= WIDE
    table = new_table()
    table.add_column("query", overflow="ellipsis", ratio=3, no_wrap=True)
    table.add_column("expert", justify="right")
    table.add_column("words", overflow="ellipsis", ratio=2, no_wrap=True)
    if wide:
        table.add_column("distance", justify="right")
    table.add_column("margin", justify="right")
    table.add_column("answers")
    table.expand = True
    for query, route in routed:
        table.add_row(
            shorten(query, 200),
            str(route.expert),
            words(mixture.experts[route.expert]),
            *([f"{route.distance:.3f}"] if wide else []),
            margin(route),
            f"generalist: {route.reason}" if route.fallback else "expert",
        )
    return table


def margin(route: Route) -> str:
    """Return a route's margin; there is none where there is one region."""
    return f"{route.margin:.3f}" if route.margin < float("inf") else UNKNOWN


def words(expert: Expert) -> str:
    """Return the words that mark a region."""
    return clean(", ".join(expert.words)) or UNKNOWN


def instruction(prompt: Prompt) -> str:
    """Return the first paragraph of an instruction; a list of answers may follow it."""
    return clean(prompt.instruction.strip().split("\n", 1)[0])


def print_prompt(console: Console, prompt: Prompt) -> None:
    """Print a prompt whole, message by message, with a place for the query."""
    for role, content in prompt.messages("<query>"):
        console.print(Text(role, style="bold cyan"))
        say(console, content)
        console.print()

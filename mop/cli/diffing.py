"""``mop diff``: what changed between two mixture files. Needs neither encoder nor model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mop.artifact import load
from mop.cli.options import OutputOptions
from mop.cli.output import say
from mop.cli.tables import new_table, words
from mop.cli.words import UNKNOWN, clean, plural, shorten
from mop.comparison import Comparison, ExpertChange, PromptChange, compare
from mop.errors import ArtifactError, SettingsError
from mop.mixture import Mixture
from mop.prompts import Demo

#: Exit code for mixtures that differ, as of diff(1); trouble is 2.
DIFFERENT = 1
_WIDTH = 160
_DEMOS = 5
_NO_SPEECH = OutputOptions()


def diff(before: Path, after: Path, /, *, speech: OutputOptions = _NO_SPEECH) -> int:
    """Say what changed between two mixtures. Exit code: 0 nothing, 1 something, 2 trouble.

    Args:
        before: A mixture file.
        after: The mixture file to compare with it.
    """
    output = speech.open()
    try:
        first, second = load(before), load(after)
    except ArtifactError as error:
        raise SettingsError(str(error)) from error
    found = compare(first, second)
    document = {"before": str(before), "after": str(after), **found.to_dict()}
    output.result(document, lambda console: draw_comparison(console, found, first, second))
    return DIFFERENT if found else 0


def draw_comparison(console: Console, found: Comparison, before: Mixture, after: Mixture) -> None:
    """Print what changed, most important first."""
    if not found:
        say(console, "No difference.", style="bold")
        return
    changed = [one for one in found.experts if one]
    counts = [
        f"{len(found.experts) - len(changed)} the same",
        f"{len(changed)} changed",
        f"{len(found.added)} added",
        f"{len(found.removed)} removed",
    ]
    say(console, f"Experts: {', '.join(counts)}.", style="bold")
    for change in changed:
        _draw_expert(console, change, after)
    for sign, style, numbers, mixture in (("-", "red", found.removed, before), ("+", "green", found.added, after)):
        for number in numbers:
            expert = mixture.experts[number]
            shown = f"{plural(len(expert.prompt.demos), 'demo')}, {shorten(expert.prompt.instruction, 80)}"
            _line(console, sign, f"expert {number} ({words(expert)}): {shown}", style)
    if found.generalist:
        say(console, "Generalist", style="bold")
        _draw_prompt(console, found.generalist)
    if any(found.retrieval):
        gained, lost = found.retrieval
        say(console, f"Demos to retrieve: {gained:,} added, {lost:,} removed.", style="bold")
    if found.vectors:
        say(console, f"Vectors and numbers that differ: {', '.join(found.vectors)}.", style="bold")
    if found.settings:
        table = new_table()
        for name in ("", "before", "after"):
            table.add_column(name, overflow="fold")
        for name, (old, new) in found.settings.items():
            table.add_row(clean(name), _value(old), _value(new))
        console.print(table)


def _draw_expert(console: Console, change: ExpertChange, after: Mixture) -> None:
    number = f"{change.before}" if change.before == change.after else f"{change.before} → {change.after}"
    moved = f", centroid moved by {change.moved:.3g}" if change.moved else ""
    say(console, f"expert {number} ({words(after.experts[change.after])}){moved}", style="bold cyan")
    for name, (old, new) in change.figures.items():
        say(console, f"    {name}: {_value(old)} → {_value(new)}")
    _draw_prompt(console, change.prompt)


def _draw_prompt(console: Console, change: PromptChange) -> None:
    if change.instruction is not None:
        _line(console, "-", shorten(change.instruction[0], _WIDTH), "red")
        _line(console, "+", shorten(change.instruction[1], _WIDTH), "green")
    if change.layout is not None:
        say(console, f"    layout: {change.layout[0]} → {change.layout[1]}")
    for sign, style, demos in (("-", "red", change.removed), ("+", "green", change.added)):
        for demo in demos[:_DEMOS]:
            _line(console, sign, f"demo {_demo(demo)}", style)
        if len(demos) > _DEMOS:
            _line(console, sign, f"… and {len(demos) - _DEMOS} more", style)
    if change.reordered:
        say(console, "    the same demos in another order")


def _line(console: Console, sign: str, text: str, style: str) -> None:
    console.print(Text(f"  {sign} {clean(text)}", style=style), soft_wrap=not console.is_terminal)


def _demo(demo: Demo) -> str:
    return f"{shorten(demo.input, 80)!r} → {shorten(demo.output, 40)!r}"


def _value(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.3g}" if isinstance(value, float) else shorten(str(value), _WIDTH // 3)

"""``mop quickstart``: draws what `mop.quickstart` does and finds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from mop.cli.fetching import fetch
from mop.cli.learning import require_writable, validated
from mop.cli.options import QuickstartOptions, RunOptions
from mop.cli.output import Output, say
from mop.cli.progress import CallProgress, SearchProgress
from mop.cli.words import duration, plural, verdict
from mop.search.learning import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mop.lm.caps import Caps
    from mop.optimization import Run
    from mop.quickstart import Quickstart

_NO_SEARCH = QuickstartOptions()
_NO_RUN = RunOptions()


def quickstart(
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    search: QuickstartOptions = _NO_SEARCH,
    run: RunOptions = _NO_RUN,
) -> None:
    """Learn a mixture on the bundled help-desk messages and compare it with the best single prompt.

    Fetches the default models on first use. The budget is shared: half for the single prompt, half for the mixture.
    A second run answers from the ledger.

    Args:
        out: The mixture file [default: helpdesk.mop].
    """
    from mop.cli.running import opened_ledger, wait_for
    from mop.quickstart import OUT, aquickstart, quickstart_settings

    output = run.open()
    target = out if out is not None else OUT
    settings = quickstart_settings(search.settings(run))
    require_writable(target)
    with opened_ledger(run.ledger) as ledger:
        result = wait_for(aquickstart(settings, out=target, ledger=ledger, watcher=_Screen(output)), output)
    output.result(result.to_dict(), lambda console: _draw(console, result))


class _Screen:
    """Draws the parts of the quick start as they go on."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def fetch(self, id: str) -> None:
        """Fetch a model with a progress bar."""
        fetch(id, self._output)

    def search(self, title: str, budget: Caps, used: Run) -> AbstractContextManager[Listener]:
        """Show a search."""
        return SearchProgress(title, budget, used, self._output)

    @contextmanager
    def scoring(self, calls: int) -> Iterator[Callable[[str], None]]:
        """Show the scoring."""
        with CallProgress("scoring the test messages", calls, self._output) as progress:
            yield progress.reply


def _draw(console: Console, result: Quickstart) -> None:
    from mop.cli.tables import REGIONS_LEGEND, SCORES_LEGEND, regions_table, routes_table, scores_table
    from mop.quickstart import MIXTURE, QUERIES, SINGLE, ZERO_SHOT

    by_name = {system.name: system for system in result.evaluation.systems}
    calls = {name: run.spend.calls for name, run in result.searches.items()}
    examples = len(by_name[MIXTURE].scores)
    console.print()
    say(console, f"{plural(examples, 'test message')} that no search has seen", style="bold")
    console.print()
    console.print(scores_table([by_name[name] for name in (ZERO_SHOT, SINGLE, MIXTURE)], calls))
    console.print()
    say(console, verdict(result.evaluation.difference(MIXTURE, SINGLE), "mixture", "best single prompt"), style="bold")
    say(console, f"{SCORES_LEGEND} One search found both the single prompt and the instruction.", style="dim")
    console.print()
    for sentence in validated(result.mixture):
        say(console, sentence)
    if len(result.mixture) > 1:
        console.print()
        console.print(regions_table(result.mixture, console.width))
        console.print()
        say(console, REGIONS_LEGEND, style="dim")
    console.print()
    console.print(routes_table(result.mixture, result.routed, console.width))
    console.print()
    say(console, f"The mixture is in {result.path}. Try next:", style="bold")
    say(console, f'  mop ask {result.path} "{QUERIES[0]}"')
    say(console, f"  mop show {result.path} --expert {result.routed[0][1].expert}")
    say(console, "  mop optimize YOUR.jsonl")
    parts = " · ".join(f"{part} {duration(took)}" for part, took in result.seconds.items() if part != "all")
    say(console, f"\nTook {duration(result.seconds['all'])}: {parts}", style="dim")

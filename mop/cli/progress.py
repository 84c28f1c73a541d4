"""Progress: one panel in place on a terminal, plain lines elsewhere, always on standard error.

It looks at counters that the work keeps anyway, so the work doesn't wait for it. Knows nothing of what is searched.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mop.cli.output import Output
from mop.cli.words import duration, money, plural
from mop.lm.caps import Caps
from mop.optimization import Run

if TYPE_CHECKING:
    from mop.lm.client import ModelClient

#: Seconds between two looks at the counters.
_LOOK = 0.25
#: Seconds over which the speed is measured that the remaining time follows from.
_WINDOW = 60.0
#: Plain lines come at every new stage and at every tenth of the way.
_LINES = 10


@dataclass(frozen=True)
class State:
    """How far the work is: ``share`` from 0 to 1, the ``calls`` that moved it, those ``sent``, ``done`` in words.

    Calls that the ledger answered aren't sent, and take no time.
    """

    share: float
    calls: int
    sent: int
    done: str
    details: tuple[str, ...] = ()


class Progress:
    """Shows the state that ``look`` returns while it is used as a context manager.

    On a terminal the panel disappears at the end and one line stays, as elsewhere.
    """

    def __init__(self, title: str, look: Callable[[], State], output: Output) -> None:
        self._title = title
        self._look = look
        self._output = output
        self._stage = ""
        self._started = time.monotonic()
        self._samples: deque[tuple[float, State]] = deque()
        self._lock = threading.Lock()
        self._lines_said = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="mop-progress", daemon=True)
        self._live: Live | None = None

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._stage = name
        if self._live is None:
            self._say(self._sample())

    def __enter__(self) -> Self:
        if self._output.live:
            self._live = Live(
                get_renderable=self._panel,
                console=self._output.err,
                refresh_per_second=1 / _LOOK,
                transient=True,
            )
            self._live.start()
        elif not self._output.quiet:
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()
        elif self._watcher.ident is not None:
            self._watcher.join()
        if kind is None:
            state = self._look()
            parts = (state.done, *state.details, duration(time.monotonic() - self._started))
            self._output.note(f"{self._title}: {' · '.join(parts)}")

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            state = self._sample()
            if int(state.share * _LINES) > self._lines_said:
                self._lines_said = int(state.share * _LINES)
                if state.share < 1:
                    self._say(state)

    def _say(self, state: State) -> None:
        parts = (self._stage, state.done, *state.details, self._left(state))
        self._output.note(f"{self._title}: {' · '.join(part for part in parts if part)}")

    def _sample(self) -> State:
        state, now = self._look(), time.monotonic()
        with self._lock:
            self._samples.append((now, state))
            while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
                self._samples.popleft()
        return state

    def _left(self, state: State) -> str:
        """Return the time left in words, from the speed of late; what the ledger answered says nothing of it."""
        with self._lock:
            working = [sample for sample in self._samples if sample[1].sent > 0]
        if len(working) < 2 or state.share >= 1:
            return ""
        (began, first), (now, last) = working[0], working[-1]
        if last.sent - first.sent < 3 or last.share <= first.share:
            return ""
        # Calls to come may all have to be sent, so the speed is that of sent ones.
        part_sent = min(1.0, (last.sent - first.sent) / max(1, last.calls - first.calls))
        seconds = (1 - state.share) * (now - began) / ((last.share - first.share) * part_sent)
        return "a few seconds left" if seconds < 10 else f"about {duration(5 * round(seconds / 5))} left"

    def _panel(self) -> RenderableType:
        state = self._sample()
        top = Table.grid(padding=(0, 2), expand=True)
        top.add_column(ratio=1)
        top.add_column(no_wrap=True)
        top.add_column(no_wrap=True, justify="right")
        top.add_row(ProgressBar(total=1, completed=state.share), Text(state.done), Text(self._left(state), style="dim"))
        lines: list[RenderableType] = [Text(self._stage or "starting"), top]
        if state.details:
            lines.append(Text(" · ".join(state.details), style="dim"))
        return Panel(Group(*lines), title=f"[bold]{self._title}[/]", title_align="left", border_style="cyan")


class SearchProgress(Progress):
    """Progress of a search: listens to its stages and best scores, and looks at its budget and traffic."""

    def __init__(self, title: str, budget: Caps, used: Run, output: Output) -> None:
        super().__init__(title, self._state, output)
        self._budget = budget
        self._used = used
        self._best: float | None = None

    def best(self, score: float) -> None:
        """The best validation score so far."""
        self._best = score

    def _state(self) -> State:
        spent, traffic = self._budget.spent, list(self._used.traffic)
        sent = sum(one.sent for one in traffic)
        from_ledger = sum(one.from_ledger for one in traffic)
        budget = self._budget
        pairs = ((spent.calls, budget.calls), (spent.tokens, budget.tokens), (spent.usd or 0.0, budget.usd))
        shares = [used / cap for used, cap in pairs if cap]
        done = (
            plural(spent.calls, "call") if budget.calls is None else f"{spent.calls:,} / {plural(budget.calls, 'call')}"
        )
        details = []
        if spent.calls:
            tokens = plural(spent.tokens, "token")
            details.append(f"{sent:,} sent, {from_ledger:,} from the ledger")
            details.append(tokens if budget.tokens is None else f"{spent.tokens:,} / {plural(budget.tokens, 'token')}")
        if spent.usd:
            details.append(money(spent.usd) + (f" / {money(budget.usd)}" if budget.usd else ""))
        if self._best is not None:
            details.append(f"best score {self._best:.2f}")
        return State(min(1.0, max(shares, default=0.0)), spent.calls, sent, done, tuple(details))


class CallProgress(Progress):
    """Progress of a known number of calls, such as those of an evaluation.

    ``clients`` are those that send them: what their ledger answers says nothing of the time left. Without them all
    calls count as sent.
    """

    def __init__(self, title: str, total: int, output: Output, *clients: ModelClient | None) -> None:
        super().__init__(title, self._state, output)
        self._total = total
        self._traffic = list({id(one): one.traffic for one in clients if one is not None}.values())
        self._done = 0

    def reply(self, name: str) -> None:
        """A reply came; ``name`` is what was asked."""
        self._done += 1
        if name != self._stage:
            self.stage(name)

    def _state(self) -> State:
        total = max(self._total, self._done, 1)  # what is asked for again wasn't foreseen
        sent = sum(one.sent for one in self._traffic) if self._traffic else self._done
        return State(self._done / total, self._done, sent, f"{self._done:,} / {plural(total, 'answer')}")

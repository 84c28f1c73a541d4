"""Fetching: pulls model weights with a progress bar. Knows nothing of where they come from."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mop.cli.output import Output
from mop.cli.words import size
from mop.lm.weights import list_models
from mop.lm.weights import pull as pull_weights

#: Plain lines come at every fifth of the way.
_LINES = 5


def fetch(id: str, output: Output) -> Path:
    """Pull a model unless it is here, and show how far it is. Raises what `mop.lm.weights.pull` raises."""
    if any(status.present for status in list_models() if status.id == id):
        return pull_weights(id)
    if not output.live:
        lines = _Lines(output)
        return pull_weights(id, lines)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=output.err, expand=True) as bar:
        task = bar.add_task(id.rpartition("/")[2], total=None)
        return pull_weights(id, lambda _id, done, total: bar.update(task, completed=done, total=total))


class _Lines:
    """Says a line at every fifth of the way."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said = -1

    def __call__(self, id: str, done: int, total: int) -> None:
        if (reached := done * _LINES // total) > self._said:
            self._said = reached
            self._output.note(f"fetching {id}: {size(done)} of {size(total)}")

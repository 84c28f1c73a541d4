"""``mop models``: the model weights on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from mop.cli.fetching import fetch
from mop.cli.options import OutputOptions
from mop.cli.output import say
from mop.cli.tables import new_table
from mop.cli.words import size
from mop.lm import weights

_NO_SPEECH = OutputOptions()


def list_(*, speech: OutputOptions = _NO_SPEECH) -> None:
    """List the models that can be fetched, and which are here."""
    found = weights.list_models()

    def draw(console: Console) -> None:
        table = new_table()
        table.add_column("model", no_wrap=True)
        table.add_column("kind")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("licence", no_wrap=True)
        table.add_column("here")
        for status in found:
            table.add_row(status.id, status.kind, size(status.size), status.licence, "yes" if status.present else "no")
        console.print(table)
        say(console, f"\nKept in {weights.cache_dir()} (MOP_CACHE)", style="dim")

    rows = [
        {
            "id": status.id,
            "kind": status.kind,
            "bytes": status.size,
            "licence": status.licence,
            "present": status.present,
            "path": str(status.path),
        }
        for status in found
    ]
    speech.open().result({"models": rows}, draw)


def pull(*ids: str, speech: OutputOptions = _NO_SPEECH) -> None:
    """Fetch models: resumable, and checked by their hashes.

    Args:
        ids: Models [default: the default chat model and the default encoder].
    """
    output = speech.open()
    chosen = ids or (weights.DEFAULT_CHAT, weights.DEFAULT_ENCODER)
    paths = {id: fetch(id, output) for id in chosen}
    output.result({"models": [{"id": id, "path": str(path)} for id, path in paths.items()]}, lambda c: _paths(c, paths))


def path(
    model: str,
    /,
    *,
    verify: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Print where a model is.

    Args:
        model: A model's name.
        verify: Hash its files again.
    """
    found = weights.model_path(model, verify=verify)
    speech.open().result({"id": model, "path": str(found)}, lambda _console: print(found))


def remove(*ids: Annotated[str, Parameter(required=True)], speech: OutputOptions = _NO_SPEECH) -> None:
    """Remove models from this machine.

    Args:
        ids: Models.
    """
    freed = {id: weights.remove(id) for id in ids}

    def draw(console: Console) -> None:
        for id, count in freed.items():
            say(console, f"{id}: {size(count)} freed" if count else f"{id} was not here")

    speech.open().result({"models": [{"id": id, "freed": count} for id, count in freed.items()]}, draw)


def _paths(console: Console, paths: dict[str, Path]) -> None:
    for id, where in paths.items():
        say(console, f"{id}: {where}")

"""``mop route`` and ``mop ask``: send queries to the experts of a mixture file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import ModelOptions, OutputOptions, ReplayOptions
from mop.cli.output import say
from mop.cli.running import connect_to, load_mixture, opened_ledger, standard_input_lines, wait_for
from mop.cli.tables import margin, routes_table, words
from mop.cli.words import clean
from mop.errors import DataError, SettingsError
from mop.mixture import Mixture, Route, checked_queries
from mop.own_personas import the_one

Queries = Annotated[str, Parameter(allow_leading_hyphen=True)]
_NO_MODEL = ModelOptions()
_NO_RUN = ReplayOptions()


def route(
    mixture: Path,
    /,
    *queries: Queries,
    ledger: Annotated[Path | None, Parameter(group="General")] = None,
    speech: OutputOptions | None = None,
) -> None:
    """Say which expert each query goes to, and by how much. No model is called.

    Args:
        mixture: The mixture file.
        queries: Queries, or - for one per line of standard input.
        ledger: File that keeps the queries' vectors.
    """
    output = (speech or OutputOptions()).open()
    texts = _texts(queries)
    with opened_ledger(ledger) as book:
        loaded = load_mixture(mixture, book)
        routes = loaded.route(texts)
    rows = [_row(loaded, text, one) for text, one in zip(texts, routes, strict=True)]
    pairs = list(zip(texts, routes, strict=True))
    output.result({"routes": rows}, lambda console: console.print(routes_table(loaded, pairs, console.width)))


def ask(
    mixture: Path,
    /,
    *queries: Queries,
    persona: str | None = None,
    options: ModelOptions = _NO_MODEL,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Route and answer each query: one model call each, unless the ledger has the answer.

    Standard output gets the answers in the order of the queries.

    Args:
        mixture: The mixture file.
        queries: Queries, or - for one per line of standard input.
        persona: Text or @FILE: who is to answer, told to every expert in place of a persona that it learned. Demos and
            the length of answers stay as they were learned.
    """

    output = run.open()
    texts = _texts(queries)
    if persona is not None:
        the_one(persona)  # before anything is loaded
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        loaded = load_mixture(mixture, ledger, replay=run.replay)
        client = connect_to(loaded, options, run, ledger, f"ask {mixture.name}"[:64])
        routes = loaded.route(texts)
        answers = wait_for(loaded.answer_routed(texts, routes, client, persona=persona), output)
    documents = [
        {**_row(loaded, text, one), "answer": answer.text, "usage": asdict(answer.usage)}
        for text, one, answer in zip(texts, routes, answers, strict=True)
    ]

    def draw(console: Console) -> None:
        for one, answer in zip(routes, answers, strict=True):
            # A program may want the very text; a terminal must not be steered by it.
            print(clean(answer.text) if console.is_terminal else answer.text, flush=True)
            who = f"generalist, {one.reason}" if one.fallback else f"expert {one.expert}"
            usage = answer.usage
            if not output.quiet:
                say(
                    output.err,
                    f"  {who} ({words(loaded.experts[one.expert])}), margin {margin(one)}, "
                    f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached)",
                    style="dim",
                )

    output.result({"model": client.model, "answers": documents}, draw)


def _texts(queries: Sequence[str]) -> list[str]:
    """Return the queries, with the lines of standard input in place of a ``-``."""
    options = [query for query in queries if query.startswith("--") and " " not in query]
    if options:
        raise SettingsError(
            f"There is no option {options[0]}; --help lists the options. A query that looks like an option "
            "can be given on standard input, with - in its place."
        )
    if queries.count("-") > 1:
        raise SettingsError("Standard input can be read once; give one -.")
    texts = [text for query in queries for text in (standard_input_lines() if query == "-" else [query])]
    if not texts:
        hint = "standard input has none" if "-" in queries else "give queries, or - to read them from standard input"
        raise DataError(f"There is no query: {hint}.")
    return checked_queries(texts)


def _row(mixture: Mixture, query: str, one: Route) -> dict[str, Any]:
    return {
        "query": query,
        "expert": one.expert,
        "distance": one.distance,
        "margin": one.margin if one.margin < float("inf") else None,
        "fallback": bool(one.fallback),
        "reason": one.reason,
        "words": list(mixture.experts[one.expert].words),
        "retrieved": [asdict(demo) for demo in one.retrieved],
    }

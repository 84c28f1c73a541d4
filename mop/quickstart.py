"""Quick start: learns the help desk's mixture and its best single prompt, and scores both on the untouched test.

Prints nothing; a `Watcher` hears how it goes on, and `Quickstart` holds what came out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mop.connect import connect, is_local, open_ledger
from mop.datasets import HELPDESK_INSTRUCTION, helpdesk
from mop.embeddings.encoders import CachedEncoder
from mop.errors import SettingsError
from mop.evaluation import Evaluation, aevaluate, single_prompter
from mop.lm.weights import catalogue, pull
from mop.mixture import Mixture, Route
from mop.optimization import Run, aoptimize, make_budget
from mop.prompts import Prompt
from mop.search.learning import Listener, Silence
from mop.settings import Settings

if TYPE_CHECKING:
    from mop.examples import Splits
    from mop.lm.caps import Caps
    from mop.lm.ledger import Ledger

#: What the quick start sets where neither an option nor the environment nor a file does. The budget is for both
#: searches together, half of it for each.
DEFAULTS: Mapping[str, Any] = {
    "budget": 400,
    "max_demos": 16,
    "prompt_tokens": 350,
    "refit": False,
    "instruction": HELPDESK_INSTRUCTION,
}
#: Where the mixture is saved.
OUT = Path("helpdesk.mop")
#: Messages that stand in no split.
QUERIES = (
    "my badge won't open the garage since this morning",
    "can somebody tell me how many days off I have left this year?",
    "Teams freezes every time I share my screen",
)
ZERO_SHOT, SINGLE, MIXTURE = "zero-shot, best instruction", "best single prompt", "mixture"


class Watcher(Protocol):
    """Hears how the quick start goes on."""

    def fetch(self, id: str) -> None:
        """Fetch a model that may not be here."""

    def search(self, title: str, budget: Caps, used: Run) -> AbstractContextManager[Listener]:
        """Watch a search."""

    def scoring(self, calls: int) -> AbstractContextManager[Callable[[str], None]]:
        """Watch the scoring; the function hears the system's name at every one of ``calls`` replies."""


class Unwatched:
    """The watcher that nobody looks at."""

    def fetch(self, id: str) -> None:
        """Fetch the model."""
        pull(id)

    def search(self, title: str, budget: Caps, used: Run) -> AbstractContextManager[Listener]:  # noqa: ARG002
        """Watch nothing."""
        return nullcontext(Silence())

    def scoring(self, calls: int) -> AbstractContextManager[Callable[[str], None]]:  # noqa: ARG002
        """Watch nothing."""
        return nullcontext(lambda _name: None)


@dataclass(frozen=True)
class Quickstart:
    """What came out.

    ``evaluation`` scores `MIXTURE`, `SINGLE` and `ZERO_SHOT` on the same test examples. ``searches`` says what each
    search used, by system; the zero-shot prompt is a find of the single prompt's search. ``seconds`` is by part.
    """

    evaluation: Evaluation
    single: Mixture
    mixture: Mixture
    searches: Mapping[str, Run]
    routed: tuple[tuple[str, Route], ...]
    path: Path
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the prompts as plain data."""
        return {
            "artifact": str(self.path),
            **self.evaluation.to_dict(),
            "search_calls": {name: run.spend.calls for name, run in self.searches.items()},
            "sent": {name: run.sent for name, run in self.searches.items()},
            "experts": len(self.mixture),
            "kept": self.mixture.kept,
            "routed": [
                {"query": query, "expert": r.expert, "margin": r.margin, "fallback": bool(r.fallback)}
                for query, r in self.routed
            ],
            "seconds": dict(self.seconds),
        }


def quickstart_settings(settings: Settings) -> Settings:
    """Return ``settings`` with the quick start's own defaults for all that nobody set.

    Raises SettingsError if the budget is too odd to be halved.
    """
    given = settings.model_fields_set
    # Someone who caps tokens or money means that cap and not the quick start's number of calls.
    capped = {"budget", "tokens", "usd"} & given
    defaults = {
        name: value for name, value in DEFAULTS.items() if name not in given and not (name == "budget" and capped)
    }
    filled = settings.model_copy(update=defaults)
    if filled.budget is not None and filled.budget < 2:
        raise SettingsError(f"The budget is {filled.budget}; the quick start divides it between two searches.")
    return filled


def halved(settings: Settings) -> Settings:
    """Return the settings of one of the two searches, with half of each cap."""
    caps = {
        "budget": None if settings.budget is None else settings.budget // 2,
        "tokens": None if settings.tokens is None else settings.tokens // 2,
        "usd": None if settings.usd is None else settings.usd / 2,
    }
    return settings.model_copy(update=caps)


async def aquickstart(
    settings: Settings,
    *,
    out: Path = OUT,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    watcher: Watcher | None = None,
    splits: Splits | None = None,
) -> Quickstart:
    """Fetch the models, search twice with half of the budget each, score on the test, and save the mixture.

    ``settings`` come from `quickstart_settings`; ``splits`` are the help desk's messages by default. Raises
    WeightsError, BudgetExceeded, ModelError, ArtifactError and the like.
    """
    import asyncio

    watcher = watcher or Unwatched()
    splits = splits or helpdesk()
    clock = _Clock()
    for id in _models(settings):
        await asyncio.to_thread(watcher.fetch, id)
    clock.lap("models")
    book = open_ledger(ledger)
    searches: dict[str, Run] = {}

    async def search(name: str, title: str, chosen: Settings) -> Mixture:
        budget, used = await asyncio.to_thread(make_budget, chosen, book, splits), Run()
        with watcher.search(title, budget, used) as listener:
            found = await aoptimize(splits, chosen, ledger=book, listener=listener, used=used, budget=budget)
        searches[name] = used
        clock.lap(name)
        return found

    try:
        half = halved(settings)
        single = await search(SINGLE, "learning the best single prompt", half.model_copy(update={"experts": 1}))
        mixture = await search(MIXTURE, "learning the mixture", half)
        mixture.save(out)
        # Queries that were encoded before come from the ledger, without loading the encoder.
        mixture.with_known_encoder(CachedEncoder(mixture.encoder, book))
        client = connect(settings.model, ledger=book, base_url=settings.base_url, concurrency=settings.concurrency)
        against = {
            SINGLE: single_prompter(single.generalist),
            ZERO_SHOT: single_prompter(Prompt(str(single.report["zero_shot"]))),
        }
        try:
            with watcher.scoring((1 + len(against)) * len(splits.test)) as on_reply:
                evaluation = await aevaluate(
                    mixture, splits.test, client, against=against, on_reply=on_reply, generalist=False
                )
        finally:
            await client.aclose()
        clock.lap("test")
        routes = await asyncio.to_thread(mixture.route, list(QUERIES))
        clock.lap("routing")
    finally:
        if book is not ledger:
            book.close()
    searches[ZERO_SHOT] = replace(searches[SINGLE])
    return Quickstart(
        evaluation, single, mixture, searches, tuple(zip(QUERIES, routes, strict=True)), out, clock.seconds
    )


def _models(settings: Settings) -> list[str]:
    """Return the catalogue's models that the settings name and that run on this machine."""
    names = [settings.encoder]
    for model, url in ((settings.model, settings.base_url), (settings.proposer, settings.proposer_url)):
        if model is not None and is_local(model) and not (url or settings.base_url):
            names.insert(0, model)
    return [name for name in dict.fromkeys(names) if name in catalogue()]


class _Clock:
    """Seconds by part, and in all."""

    def __init__(self) -> None:
        self._last = self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """Book the time since the last lap on ``part``."""
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self.seconds["all"] = now - self._start
        self._last = now

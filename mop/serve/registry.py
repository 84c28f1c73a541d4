"""Registry: the mixtures that a server answers with, by name. Knows nothing of files or HTTP.

A mixture may be replaced at any time; requests under way keep the one that they began with.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mop.drift import DriftMonitor
from mop.errors import MopError, SettingsError
from mop.mixture import Mixture, Route
from mop.prompts import Prompt
from mop.serve.batching import EncodeBatcher
from mop.serve.problems import Problem
from mop.serve.prompting import Style
from mop.serve.upstream import Upstream

#: Distances computed at once above which routing leaves the event loop: some milliseconds.
_MANY = 200_000
#: Why the generalist answers a query without text.
NO_TEXT = "no text"


@dataclass(frozen=True, slots=True)
class Decision:
    """Which prompt answers a query. ``route`` is None for a query without text, such as a lone image."""

    prompt: Prompt
    route: Route | None

    @property
    def generalist(self) -> bool:
        """Whether the generalist answers."""
        return self.route is None or self.route.fallback

    @property
    def reason(self) -> str | None:
        """Why the generalist answers, in words; None where an expert does."""
        return NO_TEXT if self.route is None else self.route.reason

    @property
    def document(self) -> dict[str, Any]:
        """The decision as /v1/route gives it; a margin is null where there is one expert only."""
        if self.route is None:
            return {"expert": None, "distance": None, "margin": None, "generalist": True, "reason": self.reason}
        margin = self.route.margin
        return {
            "expert": self.route.expert,
            "distance": self.route.distance,
            "margin": margin if margin < float("inf") else None,
            "generalist": self.route.fallback,
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class Served:
    """A mixture under a name, with what answers for it.

    ``version`` tells contents of one name apart; ``created`` is in seconds since 1970.
    """

    name: str
    mixture: Mixture
    batcher: EncodeBatcher
    upstream: Upstream
    style: Style
    version: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def drift(self) -> DriftMonitor | None:
        """Watches the traffic of this version; None for a mixture that doesn't know what to expect."""
        return None if self.mixture.reference is None else DriftMonitor(self.mixture.reference)

    def answered(self, decisions: Sequence[Decision]) -> None:
        """Take note of queries that are answered."""
        for decision in decisions:
            if self.drift is not None and decision.route is not None:
                self.drift.observe(decision.route.expert, decision.route.distance)

    async def decide(self, queries: Sequence[str]) -> list[Decision]:
        """Return the decision for each query; one without text goes to the generalist.

        Raises Problem if the texts cannot be encoded.
        """
        texts = [query for query in queries if query.strip()]
        routes = iter(await self._routes(texts) if texts else [])
        decisions = []
        for query in queries:
            route = next(routes) if query.strip() else None
            prompt = self.mixture.generalist if route is None else self.mixture.prompt_of(route)
            decisions.append(Decision(prompt, route))
        return decisions

    async def _routes(self, texts: Sequence[str]) -> list[Route]:
        try:
            vectors = await self.batcher.encode(texts)
        except Problem:
            raise
        except MopError as error:
            raise Problem(502, "encoder_failed", "The encoder cannot encode the query; try again.") from error
        if len(texts) * len(self.mixture) > _MANY:
            return await asyncio.to_thread(self.mixture.route_vectors, vectors)
        return self.mixture.route_vectors(vectors)


class Registry:
    """The mixtures by name. ``stale`` says of a name why its newest file isn't the one that answers."""

    def __init__(self, served: Iterable[Served]) -> None:
        self._served: dict[str, Served] = {}
        for one in served:
            if one.name in self._served:
                raise SettingsError(f"Two mixtures are called {one.name!r}; give one another name: NAME=FILE.")
            self._served[one.name] = one
        if not self._served:
            raise SettingsError("There is no mixture to serve; give at least one.")
        self.stale: dict[str, str] = {}

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def find(self, name: str | None) -> Served:
        """Return the mixture of this name; the only one if there is no name.

        The name of the upstream's model stands for the mixture if one mixture only is served with it, so that an
        application needs no change but its base URL. Raises Problem (404, or 400 without a name).
        """
        if name is None:
            if len(self._served) == 1:
                return next(iter(self._served.values()))
            raise Problem(400, "invalid_value", f"Name a model: {self._names()}.", param="model")
        found = self._served.get(name)
        if found is not None:
            return found
        behind = [one for one in self._served.values() if one.style.model == name]
        if len(behind) == 1:
            return behind[0]
        close = difflib.get_close_matches(name[:200], self._served, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise Problem(
            404,
            "model_not_found",
            f"There is no mixture {name[:200]!r}.{hint} There are: {self._names()}.",
            param="model",
        )

    def replace(self, served: Served) -> None:
        """Answer with ``served`` under its name from now on."""
        self._served[served.name] = served
        self.stale.pop(served.name, None)

    def _names(self) -> str:
        return ", ".join(list(self._served)[:20])

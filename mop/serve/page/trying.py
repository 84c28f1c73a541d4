"""Trying: what would become of a query: where it lands, why, and everything that would be sent. Sends nothing.

The decision is the one that answers real requests, and the body is made by the same code.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.prompts import Demo, Prompt
from mop.serve.page.reasons import departure, who_answers
from mop.serve.page.view import View
from mop.serve.parsing import parse_chat
from mop.serve.prompting import chat_body
from mop.serve.registry import Served
from mop.views.view import words_of

#: Most demos of a prompt that are compared with a query.
_MOST_COMPARED = 128


class Trying:
    """Explains queries; keeps the vectors of prompts' demos once they have been compared with."""

    def __init__(self) -> None:
        self._vectors: WeakKeyDictionary[Served, dict[Prompt, Vectors]] = WeakKeyDictionary()

    async def explain(self, view: View, query: str) -> dict[str, Any]:
        """Return the explanation of a query with text, in plain values.

        Raises Problem if it cannot be encoded.
        """
        served, mixture = view.served, view.mixture
        [decision], encoded = await asyncio.gather(served.decide([query]), served.batcher.encode([query]))
        assert decision.route is not None  # the query has text
        vector = project(encoded, mixture.projection)
        distances = Regions(mixture.centroids).distances(vector)[0]
        here = decision.route.expert
        others = [int(number) for number in np.argsort(distances, kind="stable")[:2] if number != here]
        picture = await asyncio.to_thread(lambda: view.picture)
        chat = {"model": served.name, "messages": [{"role": "user", "content": query}]}
        body = json.loads(chat_body(parse_chat(json.dumps(chat).encode()), decision.prompt, served.style))
        return {
            "mixture": served.name,
            "version": served.version,
            "query": query,
            "decision": decision.document,
            "region": _region(view, here, distances),
            "answers": who_answers(mixture, decision.route, vector),
            "departure": departure(mixture, decision.route, distances),
            "second": _region(view, others[0], distances) if others else None,
            "point": picture.point(vector, mixture.centroids) if picture else None,
            "nearest_demo": await self._nearest_demo(served, decision.prompt, vector),
            "messages": body.pop("messages"),
            "parameters": body,
        }

    async def _nearest_demo(self, served: Served, prompt: Prompt, vector: Vectors) -> dict[str, Any] | None:
        """Return the demo of the prompt that is nearest to the query, if it shows any."""
        own, prefix = prompt.demos[:_MOST_COMPARED], prompt.prefix
        known = self._vectors.setdefault(served, {})
        if own and prefix not in known:
            known[prefix] = await _encoded(served, own)
        candidates = [*own, *prompt.retrieved]
        if not candidates:
            return None
        vectors = [known[prefix]] if own else []
        if prompt.retrieved:
            vectors.append(await _encoded(served, prompt.retrieved))
        distances = Regions(np.vstack(vectors)).distances(vector)[0]
        nearest = int(distances.argmin())
        demo = candidates[nearest]
        return {
            "input": demo.input,
            "output": demo.output,
            "distance": float(distances[nearest]),
            "retrieved": demo in prompt.retrieved,
        }


async def _encoded(served: Served, demos: tuple[Demo, ...]) -> Vectors:
    vectors = await served.batcher.encode([demo.input or " " for demo in demos])
    return project(vectors, served.mixture.projection)


def _region(view: View, number: int, distances: Vectors) -> dict[str, Any]:
    expert = view.mixture.experts[number]
    return {"expert": number, "words": words_of(expert, 4), "distance": float(distances[number])}

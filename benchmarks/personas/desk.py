"""Desk: asks the models of a run, writes identities, and says how far it is. Knows no arms, parts or scores."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from mop.embeddings.encoders import Encoder
from mop.judge import Judge
from mop.lm.client import ModelClient
from mop.lm.request import Reply, Request, Usage
from mop.personas import chosen, write_identities
from mop.prompts import Message

#: Times that an identity is asked for. Two more than usual: what has none is left out of every arm.
ATTEMPTS = 5

Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Desk:
    """The models of a run: one that answers and writes identities, a judge, and an encoder that checks identities."""

    client: ModelClient
    judge: Judge
    encoder: Encoder
    seed: int = 0

    async def answers(
        self, what: str, chats: Sequence[Chat], max_tokens: int, stop: tuple[str, ...] = ()
    ) -> list[Reply]:
        """Return the greedy reply to each chat, asked in this order: chats with one beginning belong together."""
        requests = [Request(self.client.model, chat, max_tokens=max_tokens, stop=stop) for chat in chats]
        replies = await self.client.complete_many(requests)
        self.say(what, f"{len(replies)} answers")
        return replies

    async def identities(self, what: str, asked: Sequence[str]) -> tuple[dict[int, str], dict[str, str]]:
        """Return the identity for each request by its place, and why the others have none, by request."""
        found = await write_identities(self.client, self.encoder, asked, chosen(), seed=self.seed, attempts=ATTEMPTS)
        self.say(what, f"{len(found.accepted)} of {len(asked)} identities")
        texts = {place: one.text for place, one in found.accepted.items()}
        return texts, {asked[place]: one.reason for place, one in found.refused.items()}

    def say(self, what: str, done: str) -> None:
        """Tell on standard error what is done."""
        print(f"{time.strftime('%H:%M:%S')} {what}: {done}", file=sys.stderr, flush=True)


def cost(replies: Iterable[Reply]) -> dict[str, Any]:
    """Return the calls and tokens of replies, each call once."""
    distinct = list({reply.key: reply for reply in replies}.values())
    usage = reduce(lambda total, reply: total + reply.usage, distinct, Usage())
    return {
        "calls": len(distinct),
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    }

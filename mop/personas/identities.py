"""Identities: one for each instruction, written by a model, checked, and asked for again within bounds. Knows no files.

The work goes in rounds over all instructions that still have none, in their order, so that what is accepted depends on
the replies alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mop.data.normal_form import normal_form
from mop.lm.request import Reply
from mop.personas.checking import Nearness, nearness, repeats, text_problem
from mop.personas.exemplars import FAR, Exemplar
from mop.personas.writing import identity_request, read_identity

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder
    from mop.lm.client import ModelClient

#: Times that an identity is asked for before its instruction is given up.
ATTEMPTS = 3

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """An accepted identity: its text, how near it is, and the number of the attempt (from 0)."""

    text: str
    nearness: Nearness
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """An identity that was refused for good: the last text and why."""

    text: str
    reason: str


@dataclass(slots=True)
class Identities:
    """What was written: by the place of the instruction. ``first_problems`` counts why first replies were refused."""

    accepted: dict[int, Identity] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)
    first_problems: Counter[str] = field(default_factory=Counter)


async def write_identities(
    client: ModelClient,
    encoder: Encoder,
    instructions: Sequence[str],
    exemplars: Sequence[Exemplar],
    *,
    seed: int = 0,
    attempts: int = ATTEMPTS,
    told: Told = lambda _: None,
) -> Identities:
    """Write an identity for each instruction.

    Args:
        client: Client of the model that writes.
        encoder: Measures how near an identity is to its instruction.
        instructions: The instructions, no two alike.
        exemplars: What is shown.
        seed: Seed of repeated attempts and of the instructions to compare with.
        attempts: Times that an identity is asked for, at most.
        told: Is told "identities" at every reply.

    Raises:
        BudgetExceeded, ModelError, LedgerError: As `mop.lm.client.ModelClient.complete_many` does.
    """
    found = Identities()
    vectors = await asyncio.to_thread(encoder.encode, list(instructions))
    more = await asyncio.to_thread(encoder.encode, list(FAR))
    taken: set[str] = set()
    pending: dict[int, Refused] = {place: Refused("", "") for place in range(len(instructions))}
    for attempt in range(attempts):
        if not pending:
            break
        places = list(pending)
        requests = [
            identity_request(
                client.model,
                instructions[place],
                exemplars,
                attempt=attempt,
                problem=pending[place].reason,
                seed=seed,
            )
            for place in places
        ]

        def tell(_place: int, _reply: Reply) -> None:
            told("identities")

        replies = await client.complete_many(requests, tell)
        texts = dict(zip(places, (read_identity(reply.text) for reply in replies), strict=True))
        cut_off = {place for place, reply in zip(places, replies, strict=True) if reply.finish_reason == "length"}
        problems = {
            place: "cut off" if place in cut_off else text_problem(text, instructions[place], exemplars)
            for place, text in texts.items()
        }
        sound = [place for place in places if problems[place] is None]
        encoded = await asyncio.to_thread(encoder.encode, [texts[place] for place in sound])
        near = nearness(dict(zip(sound, encoded, strict=True)), vectors, more, seed)
        for place in places:
            problem = problems[place]
            if problem is None and repeats(texts[place], taken):
                problem = "same as another instruction's"
            elif problem is None and not near[place].near:
                problem = "no nearer to its own request than to others"
            if problem is None:
                taken.add(normal_form(texts[place]))
                found.accepted[place] = Identity(texts[place], near[place], attempt)
                del pending[place]
            else:
                pending[place] = Refused(texts[place], problem)
                if not attempt:
                    found.first_problems[problem] += 1
    found.refused = pending
    found.accepted = dict(sorted(found.accepted.items()))
    return found

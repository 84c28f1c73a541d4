"""Annotation: for each conversation who had best answer, written by a model that sees a few examples of it.

Or one role for each region of a mixture, and nobody where the region had no gain: there the bare question did as well.
A role is kept if it is nearer to its own question than to others; whether roles fit on the whole is measured against
roles dealt out anew. All calls go through a client, so that a stopped annotation goes on from its ledger. Knows no
files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mop.lm.request import Reply, Request
from mop.prompts import Message
from mop.seeds import stream
from mop.stats import PairedDifference, paired_difference
from mop.students.conversations import Conversation

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder, Vectors
    from mop.lm.client import ModelClient
    from mop.mixture import Mixture

#: Times that a role is asked for before its conversation is set aside.
ATTEMPTS = 3
#: Other questions that a role is compared with.
OTHERS = 8
_MOST_WORDS = 40
#: Words from which on a question that stands in its role is no coincidence.
_REPEATED = 3
#: Questions of a region that its role is written for.
_SHOWN = 6
_TEMPERATURE = 0.8

_TASK = (
    "Say who would answer the user's message best. Write one line that begins with a or an and names a kind of person "
    "together with the experience that counts here, at most 30 words. Write no name, no greeting and no answer."
)
_REGION_TASK = "These messages are of one kind. Say who would answer all of them best:"
#: What the model is shown: messages of different fields, and roles in the form that is wanted.
_SHOTS = (
    (
        "My sourdough spreads flat in the oven although it rose well. What went wrong?",
        "a baker who has taught sourdough for years and can tell from a loaf what happened to the dough",
    ),
    (
        "Show that the square root of 2 is not a fraction.",
        "a mathematician who writes short and complete proofs for first-year students",
    ),
    (
        "Two lines about rain in October, please.",
        "a poet who works with few words and plain pictures from everyday life",
    ),
    (
        "I committed to the wrong branch. How do I move the commit without losing it?",
        "a software engineer who helps colleagues out of trouble with version control every day",
    ),
)


@dataclass(frozen=True)
class Fit:
    """How near roles are to their own questions and to others', as mean cosines, and the paired difference.

    ``own`` and ``shuffled`` are over ``count`` roles; ``nearer`` is the share that is nearer to its own question.
    """

    count: int
    own: float
    shuffled: float
    nearer: float
    difference: PairedDifference

    @property
    def fits(self) -> bool:
        """Whether roles fit their questions better than shuffled ones do, with 95 % confidence."""
        return self.difference.low > 0


@dataclass
class Annotated:
    """Conversations with their roles, those set aside by the reason, and how well the roles fit (None: too few)."""

    rows: list[Conversation] = field(default_factory=list)
    refused: list[tuple[Conversation, str, str]] = field(default_factory=list)
    fit: Fit | None = None


def role_request(model: str, question: str, attempt: int = 0) -> Request:
    """Return the request for who had best answer ``question``; later attempts are sampled."""
    messages: list[Message] = [("system", _TASK)]
    for shown, role in _SHOTS:
        messages += [("user", shown), ("assistant", role)]
    messages.append(("user", question))
    return Request(
        model,
        tuple(messages),
        temperature=_TEMPERATURE if attempt else 0.0,
        max_tokens=80,
        stop=("\n",),
        sample=attempt,
        role="propose",
    )


def read_role(text: str) -> str:
    """Return a reply as a role: one line, without quotation marks, full stop or words that lead up to it."""
    line = next((line for line in text.strip().splitlines() if line.strip()), "")
    line = re.sub(r"^(role|answer)\s*:\s*", "", line.strip(), flags=re.IGNORECASE).strip(" \"'“”*`")
    line = re.sub(r"^(you are|i am|i'm)\s+(?=(an?|the)\b)", "", line, flags=re.IGNORECASE)
    line = line.rstrip(" .!")
    return line[:1].lower() + line[1:] if re.match(r"(An?|The)\b", line) else line


def role_problem(role: str, question: str) -> str | None:
    """Return why a text isn't a role for a question, or None."""
    if not re.match(r"(an?|the)\s\w", role):
        return "it doesn't begin with a or an"
    if len(role.split()) > _MOST_WORDS:
        return f"it has more than {_MOST_WORDS} words"
    if len(role.split()) < 3:
        return "it says nothing of the person's experience"
    if any(mark in role for mark in "[]{}<>|"):
        return "it holds brackets"
    if role in {shown for _, shown in _SHOTS}:
        return "it is copied from an example"
    # A question of a word or two may well stand in a role that fits it.
    if len(question.split()) >= _REPEATED and question.strip().lower() in role.lower():
        return "it repeats the question"
    return None


async def annotate(
    rows: Sequence[Conversation],
    client: ModelClient,
    encoder: Encoder,
    *,
    seed: int = 0,
    attempts: int = ATTEMPTS,
    told: Callable[[str], None] = lambda _: None,
) -> Annotated:
    """Write a role for each conversation.

    Args:
        rows: The conversations.
        client: Client of the model that writes.
        encoder: Measures whether a role is nearer to its own question than to others.
        seed: Seed of the questions that it is compared with.
        attempts: Times that a role is asked for, at most.
        told: Told at the first reply for each conversation.

    Raises:
        ModelError, LedgerError: As `mop.lm.client.ModelClient.complete_many` does.
    """
    questions = [row.question for row in rows]
    vectors = await asyncio.to_thread(encoder.encode, questions)
    accepted: dict[int, str] = {}
    pending: dict[int, tuple[str, str]] = dict.fromkeys(range(len(rows)), ("", ""))

    def tell(_place: int, _reply: Reply) -> None:
        told("roles")

    for attempt in range(attempts):
        places = list(pending)
        if not places:
            break
        requests = [role_request(client.model, questions[place], attempt) for place in places]
        # Progress counts conversations; those that are asked about again have been counted.
        replies = await client.complete_many(requests, tell if attempt == 0 else None)
        roles = {place: read_role(reply.text) for place, reply in zip(places, replies, strict=True)}
        sound = {place: role for place, role in roles.items() if role_problem(role, questions[place]) is None}
        written = await asyncio.to_thread(encoder.encode, list(sound.values())) if sound else None
        nearest: set[int] = set()
        if written is not None:
            own, other = _nearness(written, list(sound), vectors, seed)
            nearest = {place for place, near, far in zip(sound, own, other, strict=True) if near > far}
        for place, role in roles.items():
            problem = role_problem(role, questions[place])
            if problem is None and place not in nearest:
                problem = "it is no nearer to its own question than to others"
            if problem is None:
                accepted[place] = role
                del pending[place]
            else:
                pending[place] = (role, problem)
    done = Annotated()
    done.rows = [replace(rows[place], role=accepted[place], annotated=True) for place in sorted(accepted)]
    done.refused = [(rows[place], role, problem) for place, (role, problem) in sorted(pending.items())]
    done.fit = await asyncio.to_thread(fit, done.rows, encoder, seed)
    return done


async def annotate_by_region(
    rows: Sequence[Conversation],
    client: ModelClient,
    mixture: Mixture,
    *,
    seed: int = 0,
    told: Callable[[str], None] = lambda _: None,
) -> Annotated:
    """Give each conversation the role of the mixture's region that its question falls into; nobody if none had a gain.

    The roles are written for the regions that are met, from their demos; the mixture's encoder measures the fit.
    """
    routes = await asyncio.to_thread(mixture.route, [row.question for row in rows])
    met = sorted({route.expert for route in routes if not route.fallback})
    requests = [role_request(client.model, _region_text(mixture, number)) for number in met]

    def tell(_place: int, _reply: Reply) -> None:
        told("roles")

    replies = await client.complete_many(requests, tell)
    roles = {number: read_role(reply.text) for number, reply in zip(met, replies, strict=True)}
    problems = {number: role_problem(role, "") for number, role in roles.items()}
    done = Annotated()
    for row, route in zip(rows, routes, strict=True):
        problem = None if route.fallback else problems[route.expert]
        if problem is None:
            role = None if route.fallback else roles[route.expert]
            done.rows.append(replace(row, role=role, annotated=True))
        else:
            done.refused.append((row, roles[route.expert], f"region {route.expert}: {problem}"))
    done.fit = await asyncio.to_thread(fit, done.rows, mixture.encoder, seed)
    return done


def fit(rows: Sequence[Conversation], encoder: Encoder, seed: int = 0) -> Fit | None:
    """Return how well roles fit their questions, against the questions of conversations with other roles.

    None if fewer than two different roles are there to compare.
    """
    named = [row for row in rows if row.role is not None]
    return fit_of([row.role or "" for row in named], [row.question for row in named], encoder, seed)


def fit_of(roles: Sequence[str], questions: Sequence[str], encoder: Encoder, seed: int = 0) -> Fit | None:
    """Return how well each role fits its question; see `fit`."""
    if len(set(roles)) < 2:
        return None
    written, asked = encoder.encode(list(roles)), encoder.encode(list(questions))
    own, other = _nearness(written, range(len(roles)), asked, seed, roles)
    return Fit(
        len(roles),
        float(own.mean()),
        float(other.mean()),
        float((own > other).mean()),
        paired_difference(own, other),
    )


def _nearness(
    roles: Vectors,
    places: Sequence[int],
    questions: Vectors,
    seed: int,
    names: Sequence[str] | None = None,
) -> tuple[Vectors, Vectors]:
    """Return each role's cosine to the question at its place, and its mean cosine to some others drawn for it.

    Others are those at other places or, if roles have ``names``, of other names.
    """
    kinds = np.unique(list(names), return_inverse=True)[1] if names is not None else np.arange(len(questions))
    own = np.array([role @ questions[place] for role, place in zip(roles, places, strict=True)], dtype=np.float32)
    others = []
    for role, place in zip(roles, places, strict=True):
        # Made anew for each: to keep all of them takes the square of their number.
        pool = np.flatnonzero(kinds != kinds[place])
        drawn: list[int] = stream(seed, "shuffled roles", place).permutation(pool)[:OTHERS].tolist()
        # Alone there is nothing to compare with: anything above no similarity at all will do.
        others.append(float((questions[drawn] @ role).mean()) if drawn else 0.0)
    return own, np.array(others, dtype=np.float32)


def _region_text(mixture: Mixture, number: int) -> str:
    shown = [demo.input for demo in mixture.experts[number].prompt.demos[:_SHOWN]]
    if not shown:
        return mixture.experts[number].prompt.instruction
    return "\n".join([_REGION_TASK, *(f"- {' '.join(text.split())[:300]}" for text in shown)])

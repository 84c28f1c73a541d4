"""Guises: what a region's expert may be told to be, and the prompt that tells it. Knows nothing of scores.

    bare         instruction                  ─► demos                     ─► query
    generic      "You are an expert …", instr ─► demos                     ─► query
    expert       identity, instruction        ─► demos                     ─► query
    own          the user's text, instruction ─► demos                     ─► query
    own, first   the user's text, first instruction ─► demos               ─► query
    bare, first  first instruction            ─► demos                     ─► query
    role-play    instruction                  ─► identity, acceptance, demos ─► query

An identity is written from the region's medoids (ExpertPrompting, arXiv 2305.14688). The role-play puts it into a turn
of its own, which the model accepts before any question (arXiv 2308.07702); it stands in the prompt as a first demo.
The region's instruction was chosen without any persona and may speak against one that says how answers are to be, so
the user's own persona is tried under the search's first instruction as well: the user's, or the default one. What that
instruction gains by itself is not the persona's merit, so it is tried bare, too.
All of it is in the prefix of the prompt. What is retrieved for a query stays in every guise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mop.embeddings.projection import project
from mop.lm.request import Reply, Request
from mop.own_personas import OwnPersona
from mop.persona import Kind
from mop.personas.answering import why_unusable
from mop.personas.exemplars import chosen
from mop.personas.identities import ATTEMPTS, Identities, write_identities
from mop.personas.records import STATIC
from mop.personas.regions import MEDOIDS, region_request
from mop.personas.writing import IDENTITY_TOKENS, identity_request
from mop.prompts import Demo, Prompt
from mop.search.capped import unless_capped
from mop.search.experts import Layout
from mop.search.generalist import DEFAULT_INSTRUCTION
from mop.search.judging import Judging

#: End of the label of a guise under the search's first instruction.
UNDER = " under the first instruction"
#: Most tokens of the turn in which the model accepts a role; what is cut off there ends with its last sentence.
ACCEPTANCE_TOKENS = 80
_SENTENCES = re.compile(r".*[.!?](?=\s|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Guise:
    """What an expert is told to be: ``text``; in a role-play ``reply`` is how the model accepted it.

    ``demos``: the prompt shows the region's demos. ``name``: what the user calls it, if it is the user's own.
    ``instruction``: what the expert is to do, if that isn't the region's instruction; `wear` is given a prompt with it.
    """

    kind: Kind = "bare"
    demos: bool = True
    text: str = ""
    reply: str = ""
    name: str = ""
    instruction: str = ""

    @property
    def label(self) -> str:
        """What it is called among the guises of a region."""
        label = own_label(self.name) if self.kind == "own" else self.kind
        return label + UNDER if self.instruction else label

    def wear(self, prompt: Prompt) -> Prompt:
        """Return an expert's prompt in this guise."""
        demos = prompt.demos if self.demos else ()
        if self.kind == "role-play":
            return replace(prompt, demos=(Demo(self.text, self.reply), *demos))
        prompt = replace(prompt, demos=demos)
        return prompt.told(self.text) if self.text else prompt


BARE = Guise()
GENERIC = Guise("generic", text=STATIC)
#: The guises of a region by label, with demos.
Wardrobe = Mapping[str, Guise]


def role_turn(identity: str) -> str:
    """Return the turn that gives the model a role."""
    return f"{identity} From now on you are this person and answer as this person would. Do you take on this role?"


def medoids(judging: Judging, layout: Layout) -> list[list[str]]:
    """Return the inputs of each region's training examples that are nearest to its centroid."""
    problem = judging.problem
    distances = layout.regions.distances(project(problem.train_vectors, layout.projection))
    members = layout.members(problem.train_vectors)
    found = []
    for region in range(len(layout.regions)):
        here = np.flatnonzero(members == region)
        near = here[np.argsort(distances[here, region], kind="stable")][:MEDOIDS]
        found.append([problem.train[int(i)].input for i in near])
    return found


def own_label(name: str) -> str:
    """Return what a persona of the user's is called among guises."""
    return f'own "{name}"'


def own_guises(personas: Sequence[OwnPersona], first: str) -> list[Guise]:
    """Return the guises of the user's own personas: under the region's instruction, then under the ``first`` one.

    Where there are any, so is a guise with the first instruction alone.
    """
    own = [Guise("own", text=one.text, name=one.name) for one in personas]
    bare = [Guise(instruction=first)] if own else []
    return [*own, *bare, *(replace(one, instruction=first) for one in own)]


async def write_guises(judging: Judging, layout: Layout, instructions: Sequence[str]) -> list[Wardrobe]:
    """Return the guises of each region, as far as there are calls for them; ``instructions`` are the regions'.

    A region whose identities fail the checks has none of its own. What the user gave is the same in every region.
    """
    count = len(layout.regions)
    asked = [region_request(instructions[region], inputs) for region, inputs in enumerate(medoids(judging, layout))]
    first = judging.problem.description or DEFAULT_INSTRUCTION
    common = [GENERIC, *own_guises(judging.session.own_personas, first)]
    wardrobes: list[dict[str, Guise]] = [{one.label: one for one in common} for _ in range(count)]
    # Two regions that ask for the same are asked about once.
    distinct = list(dict.fromkeys(asked))
    identities = await _identities(judging, distinct)
    by_text = {distinct[place]: text for place, text in identities.items()}
    replies = await _acceptances(judging, [by_text[one] for one in distinct if one in by_text])
    for wardrobe, one in zip(wardrobes, asked, strict=True):
        if (identity := by_text.get(one)) is None:
            continue
        wardrobe["expert"] = Guise("expert", text=identity)
        if identity in replies:
            wardrobe["role-play"] = Guise("role-play", text=role_turn(identity), reply=replies[identity])
    return list(wardrobes)


async def _identities(judging: Judging, asked: Sequence[str]) -> dict[int, str]:
    session = judging.session
    assert session.encoder is not None
    shown = chosen()
    sample = "\n\n".join(text for _, text in identity_request("", asked[0], shown).messages)
    attempts = ATTEMPTS
    while attempts and not judging.affords(
        (), questions=[sample] * (len(asked) * attempts), question_tokens=IDENTITY_TOKENS
    ):
        attempts -= 1
    sent = 0

    def count(_: str) -> None:
        nonlocal sent
        sent += 1

    seed = judging.problem.seed
    found = await unless_capped(
        write_identities(session.proposer, session.encoder, asked, shown, seed=seed, attempts=attempts, told=count),
        Identities(),
    )
    judging.allowance.used += sent
    return {place: identity.text for place, identity in found.accepted.items()}


async def _acceptances(judging: Judging, identities: Sequence[str]) -> dict[str, str]:
    """Return how the model that answers accepts each role, as far as it does."""
    client = judging.session.trials.client
    turns = [role_turn(one) for one in identities]
    if not turns or not judging.affords((), questions=turns, question_tokens=ACCEPTANCE_TOKENS):
        return {}
    requests = [
        Request(model=client.model, messages=(("user", turn),), max_tokens=ACCEPTANCE_TOKENS, role="propose")
        for turn in turns
    ]
    replies: dict[int, Reply] = {}
    await unless_capped(client.complete_many(requests, replies.__setitem__), [])
    judging.allowance.used += len(replies)
    found = {}
    for place, reply in sorted(replies.items()):
        identity = identities[place]
        text = reply.text.strip()
        if reply.finish_reason == "length":
            whole = _SENTENCES.match(text)
            text = whole.group() if whole else ""
        if text and why_unusable(replace(reply, text=text, finish_reason="stop")) is None:
            found[identity] = text
    return found

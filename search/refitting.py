"""Refitting: an expert's prompt with new demos among its old ones. Knows nothing of what they will score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.examples import Example
from mop.mixture import Mixture
from mop.prompts import Demo, Prompt
from mop.search.demos import each_answer_first, nearest_demos
from mop.search.experts import with_answers

_LISTED = " Answer with one of: "


def with_new_demos(
    mixture: Mixture,
    region: int,
    shown: Sequence[Example],
    vectors: Vectors,
    *,
    max_demos: int,
    token_budget: int,
) -> Prompt:
    """Return the expert's prompt with new demos for half of its room, and its own nearest for the rest.

    ``shown`` are new examples of the region and ``vectors`` theirs, in the space in which queries are routed. Demos
    with which the expert begins as the generalist does stay, and so does the turn of a role-play. Farther demos come
    first, as when it was learned.
    """
    prompt, common = mixture.experts[region].prompt, mixture.generalist.demos
    persona = mixture.experts[region].persona
    # The turn in which a role is accepted is no example.
    role = 1 if persona is not None and persona.kind == "role-play" else 0
    stacked = prompt != mixture.generalist and common and prompt.demos[role : role + len(common)] == common
    head = prompt.demos[: role + len(common)] if stacked else prompt.demos[:role]
    own = [Example(demo.input, (demo.output,)) for demo in prompt.demos[len(head) :]]
    own_vectors = (
        project(mixture.encoder.encode([one.input for one in own]), mixture.projection) if own else vectors[:0]
    )
    examples = [*own, *shown]
    far = Regions(mixture.centroids[region : region + 1]).distances(np.vstack([own_vectors, vectors]))[:, 0]
    tokens = max(token_budget, sum(Demo.of(one).tokens for one in own))
    count = max(max_demos, len(own))
    near = np.argsort(far, kind="stable")
    old = near[near < len(own)]
    new = each_answer_first(examples, near[near >= len(own)])
    # A new answer that isn't shown can hardly be given.
    first = nearest_demos(examples, new, token_budget=tokens // 2, max_demos=(count + 1) // 2, per_answer=None)
    known = {demo.input for demo in (*head, *first)}
    rest = [int(place) for place in (*old, *new) if examples[int(place)].input not in known]
    room = tokens - sum(demo.tokens for demo in first)
    more = nearest_demos(examples, rest, token_budget=room, max_demos=count - len(first), per_answer=None)
    distance = {one.input: float(value) for one, value in zip(examples, far, strict=True)}
    demos = sorted((*first, *more), key=lambda demo: -distance[demo.input])
    instruction = _extended(prompt.instruction, [example.output for example in shown])
    return Prompt(instruction, (*head, *demos), prompt.layout)


def _extended(instruction: str, answers: Sequence[str]) -> str:
    """Return the instruction with ``answers`` among those that it lists, if it lists any."""
    head, mark, listed = instruction.rpartition(_LISTED)
    if not mark or not listed.endswith("."):
        return instruction
    known = listed[:-1].split(", ")
    return instruction if set(answers) <= set(known) else with_answers(head, [*known, *answers])

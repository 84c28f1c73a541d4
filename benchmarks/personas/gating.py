"""Gating: one pool of facts and of requests with a house style, and who may wear a persona in which region of it.

The regions are K-means cells of the inputs; each has an identity that is written from its medoids and from the brief of
the house, and tries it and the generic persona on its validation examples. `mop.search.persona_gate.pick_personas`, the
gate of `mop optimize --personas gated`, decides. Only then the test examples are asked, once. What the brief wants of
the style, only a persona can tell the model: no arm's form of answer says it. Knows no other part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.personas.accuracy import letter_score
from benchmarks.personas.arms import ARMS
from benchmarks.personas.desk import Desk, cost
from benchmarks.personas.reading import differences, mean
from mop.lm.request import Reply
from mop.metrics.checks import all_passed
from mop.search.guises import BARE, GENERIC, MEDOIDS, Guise, region_request
from mop.search.persona_gate import FEWEST, PLAIN, Form, Pick, pick_personas

#: The same for both kinds and for every arm.
FORM = "Answer the request. If it has options, give the letter of the right option alone."
ANSWER_TOKENS = 80
#: The house's wishes, as those who write personas know them, and how a program checks them.
BRIEF = (
    "Examination questions with options are answered by the letter of the right option and nothing else. Any other "
    'request is answered as a letter to a reader: the answer begins with the words "Dear reader," and has at most 50 '
    "words."
)
STYLE = json.dumps({"starts_with": "Dear reader", "max_words": 50})
#: Regions to divide the pool into; those with too few validation examples are dissolved.
REGIONS = 4
GENERIC_FORM: Form = ("generic", True)
EXPERT_FORM: Form = ("expert", True)
KINDS = ("fact", "style")

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """A query, and the accepted letters if it is a question of fact; else its answer is to have the house's style."""

    query: str
    letters: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``fact`` or ``style``."""
        return "fact" if self.letters else "style"

    def score(self, answer: str) -> float:
        """Return 1 for the right letter, or for the whole style, else 0."""
        return letter_score(answer, self.letters) if self.letters else all_passed(answer.strip(), STYLE)


@dataclass(frozen=True)
class Pool:
    """Items by role: regions and identities come from ``train``, the gate from ``validation``."""

    train: Sequence[Item]
    validation: Sequence[Item]
    test: Sequence[Item]


def make_pool(facts: Sequence[Item], style: Sequence[Item], count: int) -> Pool:
    """Return a pool with ``count`` items of each kind in each role; both are long enough."""
    parts = [
        [*facts[role * count : (role + 1) * count], *style[role * count : (role + 1) * count]] for role in range(3)
    ]
    return Pool(*parts)


@dataclass
class _Asked:
    """Scores by form of everything asked in one role, and the replies."""

    rows: dict[Form, Scores] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)


@dataclass(frozen=True)
class Gating:
    """The part ``gate``."""

    pool: Pool

    @property
    def calls(self) -> int:
        """Calls, if every identity is accepted at once."""
        return 3 * (len(self.pool.validation) + len(self.pool.test)) + REGIONS

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Learn the gate on validation examples, then ask the test examples."""
        from mop.embeddings.regions import find_regions

        pool = self.pool
        train, validation, test = [
            await asyncio.to_thread(desk.encoder.encode, [item.query for item in items])
            for items in (pool.train, pool.validation, pool.test)
        ]
        regions = find_regions(train, REGIONS, seed=desk.seed, held_out=validation, min_held_out=FEWEST)
        count = len(regions)
        shown = [
            [pool.train[i].query for i in np.argsort(regions.distances(train)[:, region], kind="stable")[:MEDOIDS]]
            for region in range(count)
        ]
        texts, refused = await desk.identities("gate", [region_request(BRIEF, inputs) for inputs in shown])
        experts = {region: Guise("expert", text=text) for region, text in texts.items()}
        where = regions.assign(validation)
        asked = await self._ask(desk, "gate, validation", pool.validation, where, experts)
        picks = pick_personas(asked.rows, where, count)
        desk.say("gate", ", ".join(f"region {region}: {pick.form[0]}" for region, pick in enumerate(picks)))
        tested = regions.assign(test)
        final = await self._ask(desk, "gate, test", pool.test, tested, experts)
        return {
            "form": FORM,
            "brief": BRIEF,
            "left_out": list(refused.values()),
            "regions": [
                _region(pick, experts.get(region), pool.validation, where == region)
                for region, pick in enumerate(picks)
            ],
            **outcomes(pool.test, tested, picks, final.rows),
            "validation": cost(asked.replies),
            "test": cost(final.replies),
        }

    async def _ask(
        self, desk: Desk, what: str, items: Sequence[Item], where: NDArray[np.intp], experts: Mapping[int, Guise]
    ) -> _Asked:
        """Return the scores of each form; NaN where a region has no identity."""
        asked = _Asked()
        for form in (PLAIN, GENERIC_FORM, EXPERT_FORM):
            # By region, so that queries with one prefix follow one another.
            order = [
                int(i) for i in np.argsort(where, kind="stable") if form != EXPERT_FORM or int(where[i]) in experts
            ]
            guises = [
                BARE if form == PLAIN else GENERIC if form == GENERIC_FORM else experts[int(where[i])] for i in order
            ]
            chats = [
                ARMS["bare"].messages(guise.text, FORM, items[i].query) for guise, i in zip(guises, order, strict=True)
            ]
            replies = await desk.answers(f"{what}, {form[0]}", chats, ANSWER_TOKENS)
            row = np.full(len(items), np.nan)
            for i, reply in zip(order, replies, strict=True):
                row[i] = items[i].score(reply.text)
            asked.rows[form] = row
            asked.replies += replies
        return asked


def outcomes(
    items: Sequence[Item], where: NDArray[np.intp], picks: Sequence[Pick], rows: Mapping[Form, Scores]
) -> dict[str, Any]:
    """Return the scores of each way to decide, from what every form scored, in all and by kind.

    ``expert`` and ``generic`` are always on. ``random`` opens as many queries as ``gated``, whichever: what it scores
    on average. ``oracle`` takes the best of all forms for each query, in hindsight.
    """
    bare, generic = rows[PLAIN], rows[GENERIC_FORM]
    expert = np.where(np.isfinite(rows[EXPERT_FORM]), rows[EXPERT_FORM], generic)
    by_form = {PLAIN: bare, GENERIC_FORM: generic, EXPERT_FORM: expert}
    # Where the gate is shut, opening it would mean the best persona that was tried there.
    wearing = [pick.form if pick.form[0] != "bare" else pick.best.form if pick.best else EXPERT_FORM for pick in picks]
    persona = np.array([by_form[wearing[region]][i] for i, region in enumerate(where)])
    on = np.array([picks[region].form[0] != "bare" for region in where])
    share = float(on.mean())
    arms = {
        "bare": bare,
        "generic": generic,
        "expert": expert,
        "gated": np.where(on, persona, bare),
        "random": share * persona + (1 - share) * bare,
        "oracle": np.maximum.reduce([bare, generic, expert]),
    }
    kinds = np.array([item.kind for item in items])
    found: dict[str, Any] = {"open": {"all": share}, "arms": {}, "differences": {}}
    for name, here in {"all": np.ones(len(items), dtype=bool), **{kind: kinds == kind for kind in KINDS}}.items():
        scores = {arm: row[here].tolist() for arm, row in arms.items()}
        found["open"][name] = float(on[here].mean())
        found["arms"][name] = {arm: mean(row) for arm, row in scores.items()}
        against_gated = [("gated", other) for other in ("expert", "generic", "random")]
        found["differences"][name] = differences(scores, [*against_gated, ("oracle", "gated")])
    return found


def _region(pick: Pick, expert: Guise | None, items: Sequence[Item], here: NDArray[np.bool_]) -> dict[str, Any]:
    mine = [item.kind for item, inside in zip(items, here, strict=True) if inside]
    return {
        "used": pick.form[0],
        "validation": {kind: mine.count(kind) for kind in KINDS},
        "identity": None if expert is None else expert.text,
        "tried": [
            {
                "persona": one.form[0],
                "examples": one.examples,
                "mean": one.mean,
                "gain": one.shrunk.mean,
                "low": one.shrunk.low,
                "high": one.shrunk.high,
            }
            for one in pick.tried
        ],
    }

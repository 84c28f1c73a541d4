"""Gating: one pool of facts and of requests with a house style, and who may wear a persona in which region of it.

The regions are K-means cells of the inputs. Each tries two personas on its validation examples: the generic one, and
the house's own, which says how its answers look; no other text of any arm says that. The gate is that of `mop optimize
--personas gated`, `mop.search.persona_gate.pick_personas`; only when it has decided, the test examples are asked, once.
The house's persona is given and not written by the model, as PRISM's are (arXiv 2603.18507). Knows no other part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.personas.accuracy import letter_score, names_letter
from benchmarks.personas.arms import ARMS
from benchmarks.personas.desk import Desk, cost
from benchmarks.personas.reading import differences, mean
from mop.examples import Example
from mop.lm.request import Reply
from mop.metrics.checks import all_passed
from mop.personas.records import STATIC
from mop.search.persona_gate import FEWEST, PLAIN, Form, Pick, pick_personas

#: The same for both kinds and for every arm; what a question with options asks for, it says itself.
FORM = "Answer the request."
LETTER = "Answer with the letter of the right option alone."
ANSWER_TOKENS = 32
#: The house's persona, and how a program checks the style that it asks for.
HOUSE = (
    'You are the editor of a readers\' page. Begin every answer with the words "Dear reader," and then answer in one '
    "sentence."
)
STYLE = json.dumps({"starts_with": "Dear reader", "max_sentences": 1})
#: Regions to divide the pool into; those with too few validation examples are dissolved.
REGIONS = 4
#: What is tried beside the bare form; the house's persona is an expert identity to the gate.
GENERIC_FORM: Form = ("generic", True)
HOUSE_FORM: Form = ("expert", True)
TEXTS: dict[Form, str] = {PLAIN: "", GENERIC_FORM: STATIC, HOUSE_FORM: HOUSE}
NAMES: dict[Form, str] = {PLAIN: "bare", GENERIC_FORM: "generic", HOUSE_FORM: "house"}
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


def fact(example: Example) -> Item:
    """Return the item of a question with options."""
    return Item(f"{example.input}\n\n{LETTER}", example.outputs)


@dataclass(frozen=True)
class Pool:
    """Items by role: regions come from ``train``, the gate from ``validation``."""

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
    """Scores by form of everything asked in one role, the questions of fact answered without a letter, the replies."""

    rows: dict[Form, Scores] = field(default_factory=dict)
    no_letter: dict[str, int] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)


@dataclass(frozen=True)
class Gating:
    """The part ``gate``."""

    pool: Pool

    @property
    def calls(self) -> int:
        """Calls that it takes."""
        return len(TEXTS) * (len(self.pool.validation) + len(self.pool.test))

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Learn the gate on validation examples, then ask the test examples."""
        from mop.embeddings.regions import find_regions

        pool = self.pool
        train, validation, test = [
            await asyncio.to_thread(desk.encoder.encode, [item.query for item in items])
            for items in (pool.train, pool.validation, pool.test)
        ]
        regions = find_regions(train, REGIONS, seed=desk.seed, held_out=validation, min_held_out=FEWEST)
        where = regions.assign(validation)
        asked = await _ask(desk, "gate, validation", pool.validation)
        picks = pick_personas(asked.rows, where, len(regions))
        desk.say("gate", ", ".join(NAMES[pick.form] for pick in picks))
        tested = regions.assign(test)
        final = await _ask(desk, "gate, test", pool.test)
        return {
            "form": FORM,
            "house": HOUSE,
            "regions": [_region(pick, pool.validation, where == region) for region, pick in enumerate(picks)],
            **outcomes(pool.test, tested, picks, final.rows),
            "facts_without_a_letter": final.no_letter,
            "validation": cost(asked.replies),
            "test": cost(final.replies),
        }


async def _ask(desk: Desk, what: str, items: Sequence[Item]) -> _Asked:
    """Return the scores of each form."""
    asked = _Asked()
    for form, text in TEXTS.items():
        chats = [ARMS["bare"].messages(text, FORM, item.query) for item in items]
        replies = await desk.answers(f"{what}, {NAMES[form]}", chats, ANSWER_TOKENS)
        scores = [item.score(reply.text) for item, reply in zip(items, replies, strict=True)]
        asked.rows[form] = np.array(scores)
        facts = [reply for item, reply in zip(items, replies, strict=True) if item.letters]
        asked.no_letter[NAMES[form]] = sum(not names_letter(reply.text) for reply in facts)
        asked.replies += replies
    return asked


def outcomes(
    items: Sequence[Item], where: NDArray[np.intp], picks: Sequence[Pick], rows: Mapping[Form, Scores]
) -> dict[str, Any]:
    """Return the scores of each way to decide, from what every form scored, in all and by kind.

    ``house`` and ``generic`` are always on. ``random`` opens as many queries as ``gated``, whichever: what it scores
    on average. ``oracle`` takes the best of all forms for each query, in hindsight.
    """
    # Where the gate is shut, opening it would mean the best persona that was tried there.
    wearing = [pick.form if pick.form != PLAIN else pick.best.form if pick.best else HOUSE_FORM for pick in picks]
    persona = np.array([rows[wearing[region]][i] for i, region in enumerate(where)])
    on = np.array([picks[region].form != PLAIN for region in where])
    share = float(on.mean())
    arms = {NAMES[form]: row for form, row in rows.items()} | {
        "gated": np.where(on, persona, rows[PLAIN]),
        "random": share * persona + (1 - share) * rows[PLAIN],
        "oracle": np.maximum.reduce(list(rows.values())),
    }
    kinds = np.array([item.kind for item in items])
    found: dict[str, Any] = {"open": {}, "arms": {}, "differences": {}}
    for name, here in {"all": np.ones(len(items), dtype=bool), **{kind: kinds == kind for kind in KINDS}}.items():
        scores = {arm: row[here].tolist() for arm, row in arms.items()}
        found["open"][name] = float(on[here].mean())
        found["arms"][name] = {arm: mean(row) for arm, row in scores.items()}
        against_gated = [("gated", other) for other in ("house", "generic", "random")]
        found["differences"][name] = differences(scores, [*against_gated, ("oracle", "gated")])
    return found


def _region(pick: Pick, items: Sequence[Item], here: NDArray[np.bool_]) -> dict[str, Any]:
    mine = [item.kind for item, inside in zip(items, here, strict=True) if inside]
    return {
        "used": NAMES[pick.form],
        "validation": {kind: mine.count(kind) for kind in KINDS},
        "tried": [
            {
                "persona": NAMES[one.form],
                "examples": one.examples,
                "mean": one.mean,
                "gain": one.shrunk.mean,
                "low": one.shrunk.low,
                "high": one.shrunk.high,
                "own_low": one.own_low,
            }
            for one in pick.tried
        ],
    }

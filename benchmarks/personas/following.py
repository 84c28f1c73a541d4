"""Following: open questions, with rules that a program checks, and without rules for a judge. Knows no other part.

Each question has an expert identity of its own, as in ExpertPrompting (arXiv 2305.14688), and a neutral text of that
identity's length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.personas.arms import Arm, lengths
from benchmarks.personas.desk import Chat, Desk, cost
from benchmarks.personas.reading import differences, mean
from mop.errors import ModelError, ModelUnavailable
from mop.judge import Pair
from mop.judge.reading import WinRate, agreement, by_length, position_bias, win_rate, winners_by_score
from mop.lm.request import Reply
from mop.metrics.checks import all_passed, count_words, share_passed

#: The form of every arm, and the most tokens of an answer.
FORM, RULED_FORM = "Answer the request.", "Answer the request, and keep to its rule."
ANSWER_TOKENS = 120
#: A rule in words, and as `mop.metrics.checks` takes it; the questions get them in turn.
RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Use at most 40 words.", {"max_words": 40}),
    (
        "Answer with exactly three bullet points, each beginning with a hyphen, and write nothing else.",
        {"bullets": 3, "lines": 3},
    ),
    ("Answer in exactly two sentences.", {"min_sentences": 2, "max_sentences": 2}),
    ('Begin the answer with the words "In short".', {"starts_with": "In short"}),
    ("Write at most 60 words, and none of them with a capital letter.", {"case": "lower", "max_words": 60}),
    (
        'Answer with a JSON object with the keys "answer" and "reason", ten words each at most, and nothing else.',
        {"json_keys": ["answer", "reason"]},
    ),
    (
        'Write at most 60 words; one of them is "however", and none is "very" or "also".',
        {"max_words": 60, "must_include": ["however"], "must_not_include": ["very", "also"]},
    ),
    ('Write at most 60 words, and end with the words "That is all."', {"max_words": 60, "ends_with": "That is all."}),
)
#: The judge compares the bare answers with those of each of these arms.
JUDGED = ("generic", "expert", "neutral")


@dataclass(frozen=True)
class Following:
    """The part ``instructions``."""

    questions: Sequence[str]
    arms: Sequence[Arm]

    @property
    def calls(self) -> int:
        """Calls, if every identity is accepted at once."""
        return len(self.questions) * (1 + len(self.arms))

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Ask every question with its rule in every arm."""
        worn, refused = await _identities(desk, self.questions)
        ruled = [self.questions[place] for place in worn]
        rules = [RULES[place % len(RULES)] for place in worn]
        texts = [f"{question}\n\n{said}" for question, (said, _) in zip(ruled, rules, strict=True)]
        replies = await _ask(desk, "instructions", self.arms, list(worn.values()), texts, RULED_FORM)
        checks = [json.dumps(rule) for _, rule in rules]
        every, share = (
            {
                name: [score(reply.text.strip(), check) for reply, check in zip(given, checks, strict=True)]
                for name, given in replies.items()
            }
            for score in (all_passed, share_passed)
        )
        return {
            "form": RULED_FORM,
            "questions": len(ruled),
            "left_out": refused,
            "arms": {
                name: {
                    **mean(every[name]),
                    "share_of_checks": float(np.mean(share[name])),
                    **_shape(given),
                    **cost(given),
                }
                for name, given in replies.items()
            },
            "differences": differences(every, (("expert", "neutral"), ("expert", "generic"))),
            "rules": {
                said: {
                    name: float(np.mean([score for score, (other, _) in zip(row, rules, strict=True) if other == said]))
                    for name, row in every.items()
                }
                for said in dict.fromkeys(said for said, _ in rules)
            },
            "checked_and_judged": await self._agreement(desk, texts, replies, every),
        }

    async def _agreement(
        self, desk: Desk, texts: Sequence[str], replies: dict[str, list[Reply]], every: dict[str, list[float]]
    ) -> dict[str, Any] | None:
        """Return how far the judge and the checks say the same of expert and bare answers."""
        if "expert" not in replies:
            return None
        pairs = _pairs(texts, replies["expert"], replies["bare"])
        judged = await _verdicts(desk, "instructions, judged", pairs)
        if "winners" not in judged:
            return judged
        return asdict(agreement(judged["winners"], winners_by_score(every["expert"], every["bare"])))


@dataclass(frozen=True)
class Judged:
    """The part ``judged``."""

    questions: Sequence[str]
    arms: Sequence[Arm]

    @property
    def calls(self) -> int:
        """Calls, if every identity is accepted at once and no two answers are equal."""
        return len(self.questions) * (1 + len(self.arms) + 2 * sum(arm.name in JUDGED for arm in self.arms))

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Ask every question in every arm, and a judge about each answer beside the bare one, in both orders."""
        worn, refused = await _identities(desk, self.questions)
        asked = [self.questions[place] for place in worn]
        replies = await _ask(desk, "judged", self.arms, list(worn.values()), asked, FORM)
        against = {}
        for name in (arm.name for arm in self.arms if arm.name in JUDGED):
            judged = await _verdicts(desk, f"judged, {name}", _pairs(asked, replies[name], replies["bare"]))
            judged.pop("winners", None)
            against[name] = judged
        return {
            "form": FORM,
            "questions": len(asked),
            "left_out": refused,
            "judge": {"model": desk.judge.client.model, "criteria": desk.judge.criteria.name},
            "arms": {name: {**_shape(given), **cost(given)} for name, given in replies.items()},
            "against_bare": against,
        }


async def _identities(desk: Desk, questions: Sequence[str]) -> tuple[dict[int, str], dict[str, str]]:
    texts, refused = await desk.identities("open questions", questions)
    if not texts:
        raise ModelError(
            f"{desk.client.model} wrote no identity that passes the checks ({refused}); choose another model."
        )
    return texts, refused


async def _ask(
    desk: Desk, what: str, arms: Sequence[Arm], identities: Sequence[str], texts: Sequence[str], form: str
) -> dict[str, list[Reply]]:
    replies = {}
    for arm in arms:
        chats: list[Chat] = []
        for identity, text in zip(identities, texts, strict=True):
            chats.append(arm.messages(arm.text(lengths(identity)), form, text))
        replies[arm.name] = await desk.answers(f"{what}, {arm.name}", chats, ANSWER_TOKENS)
    return replies


def _pairs(texts: Sequence[str], first: Sequence[Reply], second: Sequence[Reply]) -> list[Pair]:
    return [Pair(text, one.text.strip(), two.text.strip()) for text, one, two in zip(texts, first, second, strict=True)]


async def _verdicts(desk: Desk, what: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what the judge says of pairs; that its replies can't be read is a result as well."""
    try:
        verdicts = await desk.judge.compare(pairs)
    except ModelUnavailable:
        raise
    except ModelError as error:
        return {"unusable": str(error)}
    desk.say(what, f"{len(verdicts)} verdicts")
    compared = by_length(pairs, verdicts)
    return {
        "win_rate": _rate(win_rate(verdicts)),
        "win_rate_where_alike_in_length": _rate(compared.alike),
        "words": [compared.first_words, compared.second_words],
        "position_bias": asdict(position_bias(verdicts)),
        "winners": [verdict.winner for verdict in verdicts],
    }


def _rate(found: WinRate) -> dict[str, Any] | None:
    if found.interval is None:
        return None
    counts = {"wins": found.wins, "ties": found.ties, "losses": found.losses}
    return {"mean": found.rate, "low": found.interval.low, "high": found.interval.high, **counts}


def _shape(replies: Sequence[Reply]) -> dict[str, float]:
    return {
        "words": float(np.mean([count_words(reply.text) for reply in replies])),
        "cut_off": sum(reply.finish_reason == "length" for reply in replies),
    }

"""Accuracy: MMLU subjects under every arm, with one form of answer for all. Knows no other part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.personas.arms import CONTRASTS, Arm, Length, lengths
from benchmarks.personas.desk import Desk, cost
from benchmarks.personas.reading import differences, mean
from benchmarks.personas.sources import Subject
from mop.errors import ModelError
from mop.lm.request import Reply
from mop.metrics import get_metric
from mop.metrics.checks import count_words
from mop.personas.regions import region_request

#: How an answer to a question with options is asked for, by every arm alike.
FORM = "Answer with the letter of the right option alone."
#: Room for a letter with a few words around it; the answer is one line.
ANSWER_TOKENS, STOP = 12, ("\n",)
_LETTERS = "ABCDEFGHIJ"

Identities = dict[Length, str]


@dataclass(frozen=True)
class Accuracy:
    """The part ``mmlu``."""

    subjects: Sequence[Subject]
    arms: Sequence[Arm]

    @property
    def each(self) -> int:
        """Identities that a subject needs: a long one is two."""
        return 2 if any(arm.length == "long" for arm in self.arms) else 1

    @property
    def calls(self) -> int:
        """Calls, if every identity is accepted at once."""
        return sum(len(one.asked) * len(self.arms) + self.each for one in self.subjects)

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Ask every question in every arm. Raises ModelError if the model can write no identity that passes."""
        worn, refused = await write_for(desk, self.subjects, self.each)
        used = [one for one in self.subjects if one.name in worn]
        if not used:
            raise ModelError(
                f"{desk.client.model} wrote no identity that passes the checks ({refused}); choose another model."
            )
        replies: dict[str, list[Reply]] = {arm.name: [] for arm in self.arms}
        for subject in used:
            for arm in self.arms:
                text = arm.text(worn[subject.name])
                chats = [arm.messages(text, FORM, one.input) for one in subject.asked]
                replies[arm.name] += await desk.answers(f"{subject.name}, {arm.name}", chats, ANSWER_TOKENS, STOP)
        examples = [example for one in used for example in one.asked]
        texts = {name: [reply.text for reply in given] for name, given in replies.items()}
        scores = {
            name: [letter_score(text, example.outputs) for text, example in zip(given, examples, strict=True)]
            for name, given in texts.items()
        }
        return {
            "form": FORM,
            "questions": len(examples),
            "subjects": _by_subject(used, scores),
            "left_out": refused,
            "arms": {
                name: {
                    **mean(scores[name]),
                    "no_letter": sum(not names_letter(text) for text in texts[name]),
                    **cost(given),
                }
                for name, given in replies.items()
            },
            "differences": differences(scores, CONTRASTS),
            "personas": {
                one.name: {
                    length: {"words": count_words(text), "text": text} for length, text in worn[one.name].items()
                }
                for one in used
            },
        }


async def write_for(desk: Desk, subjects: Sequence[Subject], each: int) -> tuple[dict[str, Identities], dict[str, str]]:
    """Return each subject's identities by length, and why a subject has none.

    The first of ``each`` is written from questions of the subject; a second one, from its name, makes the long one.
    """
    asked = [
        request
        for one in subjects
        for request in (
            region_request(f"Answer examination questions in {one.title}.", one.shown),
            f"Teach me {one.title}, and help me to solve exercises in it.",
        )[:each]
    ]
    texts, refused = await desk.identities("mmlu", asked)
    worn, left_out = {}, {}
    for number, subject in enumerate(subjects):
        places = range(each * number, each * (number + 1))
        missing = [place for place in places if place not in texts]
        if missing:
            left_out[subject.name] = refused[asked[missing[0]]]
        else:
            worn[subject.name] = lengths(*[texts[place] for place in places])
    return worn, left_out


def letter_score(answer: str, outputs: Sequence[str]) -> float:
    """Return 1 if an answer names the right option, else 0."""
    return get_metric("multiple_choice")(answer, outputs)


def names_letter(answer: str) -> bool:
    """Whether an answer names any one option: whether it has the form that was asked for."""
    return any(letter_score(answer, [letter]) for letter in _LETTERS)


def _by_subject(used: Sequence[Subject], scores: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    start = 0
    for subject in used:
        end = start + len(subject.asked)
        found[subject.name] = {name: float(sum(row[start:end]) / (end - start)) for name, row in scores.items()}
        start = end
    return found

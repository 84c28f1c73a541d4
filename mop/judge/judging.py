"""Judge: asks a model which of two answers is better, or how good one is. Knows nothing of search.

Models favour an answer for where it stands, so each pair is shown in both orders, and an answer wins only if it wins
both. Nothing is decided by a reply that can't be read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mop.errors import ModelError
from mop.judge.criteria import Criteria, get_criteria
from mop.lm.request import Request

if TYPE_CHECKING:
    from mop.lm.client import ModelClient

#: What one reply said: which answer is better, whatever its place; or nothing that could be read.
Vote = Literal["first", "second", "tie", "unread"]

#: Grades that the pointwise judge gives, as ExpertPrompting's did (arXiv 2305.14688).
LOWEST, HIGHEST = 1, 10
#: Times that a grade is asked for before it counts as unread; the repeats are sampled.
ATTEMPTS = 3
#: Share of unread replies above which a judge is of no use, and replies before that is looked at.
MOST_UNREAD, ENOUGH = 0.2, 20
#: Longer answers are cut for the question; both of a pair at the same length.
MAX_CHARACTERS = 6000

_SYSTEM = "You compare answers fairly and strictly. You follow the criteria and nothing else."
_VERDICT = re.compile(r"(?<![A-Za-z])(?P<verdict>A|B|TIE|Tie|tie)(?![A-Za-z'’])")
_ABSTAINED = re.compile(r"\b(neither|both)\b", re.IGNORECASE)
_GRADE = re.compile(r"(?<![\d.])(?P<grade>10|[1-9])(?:\s*/\s*10)?(?!\d|\.\d|\s*/)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one input, and a reference answer if there is one."""

    input: str
    first: str
    second: str
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a pair.

    ``votes`` are those with the first answer shown first and shown second. ``score`` is 1.0 if the first answer won
    both, 0.0 if the second did, else 0.5. ``asked`` is False for equal answers, which tie without a call.
    """

    votes: tuple[Vote, Vote]
    asked: bool = True

    @property
    def score(self) -> float:
        """1.0: the first answer is better; 0.0: the second is; 0.5: a tie."""
        if self.votes == ("first", "first"):
            return 1.0
        return 0.0 if self.votes == ("second", "second") else 0.5

    @property
    def winner(self) -> Literal["first", "second", "tie"]:
        """Which answer won."""
        return {1.0: "first", 0.0: "second"}.get(self.score, "tie")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade from 1 to 10, or None if no reply could be read."""

    value: int | None

    @property
    def score(self) -> float:
        """The grade as a number from 0 to 1; a half where none could be read, so that nobody gains or loses by it."""
        return 0.5 if self.value is None else (self.value - LOWEST) / (HIGHEST - LOWEST)


class Judge:
    """A model as judge.

    Args:
        client: Client of the judge's model. It need not be the model that answered, and better isn't.
        criteria: What counts: a built-in name, a text, ``@FILE``, or `Criteria`.

    Raises:
        SettingsError: There are no such criteria.
    """

    def __init__(self, client: ModelClient, criteria: str | Criteria = "helpfulness") -> None:
        self.client = client
        self.criteria = get_criteria(criteria)

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return the verdict on each pair; two calls each, none for a pair of equal answers.

        Raises ModelError if the model can't answer, or if too many of its replies can't be read.
        """
        asked = [place for place, pair in enumerate(pairs) if pair.first.strip() != pair.second.strip()]
        requests = [self._comparison(pairs[place], swapped) for place in asked for swapped in (False, True)]
        replies = await self.client.complete_many(requests)
        votes = [read_verdict(reply.text) for reply in replies]
        self._check_read([vote != "unread" for vote in votes], [reply.text for reply in replies])
        verdicts = [Verdict(("tie", "tie"), asked=False)] * len(pairs)
        for number, place in enumerate(asked):
            verdicts[place] = Verdict((votes[2 * number], _turned(votes[2 * number + 1])))
        return verdicts

    async def grade(
        self, inputs: Sequence[str], answers: Sequence[str], references: Sequence[str | None]
    ) -> list[Grade]:
        """Return the grade of each answer to its input; one call each, up to three if replies can't be read.

        Raises ModelError as `compare` does.
        """
        grades = await asyncio.gather(*(self._grade(*one) for one in zip(inputs, answers, references, strict=True)))
        self._check_read([grade.value is not None for grade, _ in grades], [text for _, text in grades])
        return [grade for grade, _ in grades]

    # -- questions

    def _comparison(self, pair: Pair, swapped: bool) -> Request:
        shown = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        question = (
            f"{self._task(pair.input, pair.reference)}\n\n[Answer A]\n{_clip(shown[0])}\n[End of answer A]\n\n"
            f"[Answer B]\n{_clip(shown[1])}\n[End of answer B]\n\n"
            "Which answer is better? Reply with one word: A, B or TIE."
        )
        return self._request(question, max_tokens=8)

    async def _grade(self, given: str, answer: str, reference: str | None) -> tuple[Grade, str]:
        question = (
            f"{self._task(given, reference)}\n\n[Answer]\n{_clip(answer)}\n[End of answer]\n\n"
            f"Grade the answer from {LOWEST} (useless) to {HIGHEST} (could not be better). Reply with the number alone."
        )
        text = ""
        for attempt in range(ATTEMPTS):
            reply = await self.client.complete(self._request(question, max_tokens=8, attempt=attempt))
            text = reply.text
            if (value := read_grade(text)) is not None:
                return Grade(value), text
        return Grade(None), text

    def _task(self, given: str, reference: str | None) -> str:
        right = "" if reference is None else f"\n\n[A right answer]\n{_clip(reference)}\n[End of the right answer]"
        return f"{self.criteria.text}\n\n[Question]\n{_clip(given)}\n[End of question]{right}"

    def _request(self, question: str, *, max_tokens: int, attempt: int = 0) -> Request:
        return Request(
            model=self.client.model,
            messages=(("system", _SYSTEM), ("user", question)),
            temperature=0.7 if attempt else 0.0,
            max_tokens=max_tokens,
            sample=attempt,
            role="judge",
        )

    def _check_read(self, read: Sequence[bool], texts: Sequence[str]) -> None:
        unread = [text for text, fine in zip(texts, read, strict=True) if not fine]
        if len(read) >= ENOUGH and len(unread) > MOST_UNREAD * len(read):
            raise ModelError(
                f"{len(unread)} of {len(read)} replies of the judge {self.client.model} can't be read, such as "
                f"{unread[0][:60]!r}. Choose another model as judge."
            )


def read_verdict(text: str) -> Vote:
    """Return what a reply says, ``"first"`` for A and ``"second"`` for B; unread if it names both or neither."""
    if _ABSTAINED.search(text):
        return "tie"
    found = {match["verdict"].upper() for match in _VERDICT.finditer(text)}
    if len(found) != 1:
        return "unread"
    return {"A": "first", "B": "second", "TIE": "tie"}[found.pop()]  # type: ignore[return-value]


def read_grade(text: str) -> int | None:
    """Return the grade in a reply, from 1 to 10; None if there is no number, or more than one."""
    found = {int(match["grade"]) for match in _GRADE.finditer(text)}
    return found.pop() if len(found) == 1 else None


def _turned(vote: Vote) -> Vote:
    return {"first": "second", "second": "first"}.get(vote, vote)  # type: ignore[return-value]


def _clip(text: str) -> str:
    # An answer must not be able to close its own brackets and go on as the question.
    text = text.replace("[End of", "(End of").replace("[Answer", "(Answer")
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rstrip() + " …"

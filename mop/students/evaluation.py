"""Evaluation: a student's answers against those of its base model on the same questions, and what its roles are worth.

A role is worth something if it is written, if it fits its question better than other questions, and if the answer
changes when another role is put in its place; otherwise it is decoration. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mop.errors import DataError
from mop.examples import Example
from mop.metrics import Metric
from mop.stats import Interval, PairedDifference, paired_difference, proportion_interval
from mop.students.annotation import Fit, fit_of
from mop.students.opening import OpenStudent
from mop.students.role_lines import Spoken

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder


@dataclass(frozen=True)
class Scored:
    """Mean score of a system, its 95 % interval, and the mean number of words in its answers."""

    mean: float
    interval: Interval
    words: float


@dataclass(frozen=True)
class RolesFound:
    """What a student did with roles.

    ``written`` and ``nobody`` are the shares of answers with a role line, and with one that names nobody. ``fit`` is
    how the roles fit (None if fewer than two differ). ``swapped`` answers were written again under the role of another
    question, ``changed`` is the share of them that came out differently.
    """

    written: float
    nobody: float
    fit: Fit | None
    swapped: int
    changed: float | None


@dataclass(frozen=True)
class Evaluated:
    """Scores of the student and of its base model, how they differ, and its roles if it writes any.

    ``routed`` is the share of questions that a gated student's adapter answered; None for one without a gate.
    """

    examples: int
    student: Scored
    base: Scored
    difference: PairedDifference
    roles: RolesFound | None
    answers: list[dict[str, Any]]
    routed: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def evaluate(
    opened: OpenStudent,
    examples: Sequence[Example],
    metric: Metric,
    *,
    max_tokens: int = 256,
    batch: int = 16,
    encoder: Encoder | None = None,
    swap: bool = True,
) -> Evaluated:
    """Score a student and its base model; the metric sees answers without their role lines.

    Args:
        opened: The student.
        examples: Questions and accepted answers.
        metric: Scores an answer, from 0 to 1.
        max_tokens: Most tokens of what is written.
        batch: Questions that are read at a time.
        encoder: Measures how roles fit; None leaves it out.
        swap: Whether to write again under the roles of other questions.

    Raises:
        DataError: There are no examples.
    """
    if not examples:
        raise DataError("There are no examples to evaluate on.")
    asked = [[{"role": "user", "content": one.input}] for one in examples]
    spoken = opened.answer(asked, max_tokens=max_tokens, batch=batch)
    bare = opened.answer(asked, max_tokens=max_tokens, batch=batch, bare=True)
    scores = [metric(one.answer, example.outputs) for one, example in zip(spoken, examples, strict=True)]
    base = [metric(one.answer, example.outputs) for one, example in zip(bare, examples, strict=True)]
    roles = None
    if opened.line is not None:
        roles = _roles(opened, asked, spoken, encoder, max_tokens, batch, swap)
    return Evaluated(
        len(examples),
        _scored(scores, spoken),
        _scored(base, bare),
        paired_difference(scores, base),
        roles,
        [
            {"input": example.input, "role": one.role, "answer": one.answer, "score": score, "on": one.on}
            for example, one, score in zip(examples, spoken, scores, strict=True)
        ],
        None if opened.gated is None else sum(bool(one.on) for one in spoken) / len(spoken),
    )


def _roles(
    opened: OpenStudent,
    asked: Sequence[Sequence[dict[str, str]]],
    spoken: Sequence[Spoken],
    encoder: Encoder | None,
    max_tokens: int,
    batch: int,
    swap: bool,
) -> RolesFound:
    named = [place for place, one in enumerate(spoken) if one.role is not None]
    roles = [spoken[place].role or "" for place in named]
    fit = None
    if encoder is not None:
        fit = fit_of(roles, [asked[place][-1]["content"] for place in named], encoder)
    places: list[int] = []
    changed = None
    if swap and len(set(roles)) > 1:
        # The next question's role, going round; questions whose neighbour has the same one say nothing.
        others = {place: roles[(number + 1) % len(roles)] for number, place in enumerate(named)}
        places = [place for place in named if others[place] != spoken[place].role]
        again = opened.answer(
            [asked[place] for place in places],
            max_tokens=max_tokens,
            batch=batch,
            roles=[others[place] for place in places],
        )
        different = [one.answer != spoken[place].answer for one, place in zip(again, places, strict=True)]
        changed = sum(different) / len(different) if different else None
    return RolesFound(
        sum(one.written for one in spoken) / len(spoken),
        sum(one.written and one.role is None for one in spoken) / len(spoken),
        fit,
        len(places),
        changed,
    )


def _scored(scores: Sequence[float], spoken: Sequence[Spoken]) -> Scored:
    words = sum(len(one.answer.split()) for one in spoken) / len(spoken)
    return Scored(sum(scores) / len(scores), proportion_interval(scores), words)

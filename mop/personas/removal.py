"""Removal: the rules and a model's audit compared on the same answers, with answers of no persona as a control.

Three ways are tried on each answer: the rules; the audit alone; the rules and then the audit, which is the stricter
mode of `mop.personas.curate`. Nobody says how many mentions there are, so each way is measured by the other: what the
audit still finds after the rules, what the rules still find after the audit. Bare answers were written without an
identity; what is cut from them is innocent text harmed. Knows no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mop.errors import DataError
from mop.lm.request import Reply
from mop.personas.answering import answer_of, answer_request, why_unusable
from mop.personas.auditing import Audit, audit_all
from mop.personas.checking import words_of
from mop.personas.identities import Told
from mop.personas.mentions import Cleaned, remove_mentions
from mop.personas.records import Arm, Plan, Row

if TYPE_CHECKING:
    from mop.lm.client import ModelClient

Way = Literal["rules", "audit alone", "rules, then audit"]
WAYS: tuple[Way, ...] = ("rules", "audit alone", "rules, then audit")
#: The answers of experts, and the control.
COMPARED: tuple[Arm, ...] = ("expert", "bare")


@dataclass(frozen=True, slots=True)
class Case:
    """One answer, and what each way makes of it. ``rules`` reports what it can't cut, for which a row is dropped."""

    row: Row
    arm: Arm
    answer: str
    rules: Cleaned
    alone: Audit
    strict: Audit

    def text(self, way: Way) -> str:
        """Return the answer after a way."""
        return {"rules": self.rules.text, "audit alone": self.alone.text, "rules, then audit": self.strict.text}[way]

    def dropped(self, way: Way) -> bool:
        """Whether a way would drop the answer: a mention that can't be cut, too much cut, or nothing left."""
        return (
            (way != "audit alone" and bool(self.rules.left))
            or (way == "audit alone" and self.alone.too_much)
            or (way == "rules, then audit" and self.strict.too_much)
            or not self.text(way).strip()
        )

    @property
    def differ(self) -> bool:
        """Whether the ways don't agree on the answer."""
        return len({(self.text(way).strip(), self.dropped(way)) for way in WAYS}) > 1


@dataclass(frozen=True, slots=True)
class Tally:
    """What a way did to the answers of an arm.

    ``changed`` and ``dropped`` count answers, a dropped one among the latter only; ``words`` is the share of all words
    that were cut. ``missed`` counts kept answers in which the other way still finds a mention: the audit after the
    rules, the rules after the audit.
    """

    arm: Arm
    way: Way
    answers: int
    changed: int
    dropped: int
    words: float
    missed: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All cases and their tallies, and how many answers weren't compared, by reason."""

    cases: tuple[Case, ...]
    tallies: tuple[Tally, ...]
    left_out: dict[str, int]


async def compare_removal(
    rows: Sequence[Row], model: ModelClient, auditor: ModelClient, plan: Plan, told: Told = lambda _: None
) -> Comparison:
    """Ask for the answers of experts and of no persona, and remove mentions from both in every way.

    Args:
        rows: Instructions with identities (see `mop.personas.identify`).
        model: Client of the model that answers.
        auditor: Client of the model that audits.
        plan: How answers are asked for.
        told: Hears the name of the stage at every reply.

    Raises:
        DataError: No answer can be used.
        BudgetExceeded, ModelError, LedgerError: As `mop.lm.client.ModelClient.complete_many` does.
    """
    pairs = [(row, arm) for arm in COMPARED for row in rows if row.identity is not None]

    def tell(place: int, _reply: Reply) -> None:
        told(f"answers ({pairs[place][1]})")

    replies = await model.complete_many([answer_request(model.model, plan, arm, row) for row, arm in pairs], tell)
    left_out: Counter[str] = Counter()
    found: list[tuple[Row, Arm, str, Cleaned]] = []
    for (row, arm), reply in zip(pairs, map(answer_of, replies), strict=True):
        if reason := why_unusable(reply):
            left_out[reason] += 1
        else:
            text = reply.text.strip()
            # The control is searched for the very identity that it was written without.
            found.append((row, arm, text, remove_mentions(text, row.persona("expert"), row.instruction.text)))
    if not found:
        raise DataError(f"None of the {len(pairs)} answers can be used ({dict(left_out)}); try another model.")
    identities = [row.persona("expert") for row, _, _, _ in found]
    asked = [row.instruction.text for row, _, _, _ in found]
    alone = await audit_all(auditor, [text for _, _, text, _ in found], identities, asked, told)
    strict = await audit_all(auditor, [cleaned.text.strip() for _, _, _, cleaned in found], identities, asked, told)
    cases = tuple(Case(*one, *audits) for one, *audits in zip(found, alone, strict, strict=True))
    return Comparison(cases, tuple(_tally(cases, arm, way) for arm in COMPARED for way in WAYS), dict(left_out))


def _tally(cases: Sequence[Case], arm: Arm, way: Way) -> Tally:
    mine = [case for case in cases if case.arm == arm]
    kept = [case for case in mine if not case.dropped(way)]
    before = sum(len(words_of(case.answer)) for case in kept)
    after = sum(len(words_of(case.text(way))) for case in kept)
    return Tally(
        arm,
        way,
        len(mine),
        sum(case.text(way).strip() != case.answer for case in kept),
        len(mine) - len(kept),
        (before - after) / before if before else 0.0,
        sum(_missed(case, way) for case in kept),
    )


def _missed(case: Case, way: Way) -> bool:
    if way == "rules":
        return bool(case.strict.removed)
    again = remove_mentions(case.text(way), case.row.persona("expert"), case.row.instruction.text)
    return bool(again.removed or again.left)

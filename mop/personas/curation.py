"""Curation: from instructions to a data set of answers, with a record of every one that is dropped. Knows no files.

    instructions ─► repeats out ─► identities ─► answers, arm by arm ─► refusals out ─► mentions out ─► audit ─► grades

Every stage asks the ledger first, so a run that was killed goes on where it was, and what comes out depends on the
replies alone. An instruction is in all arms or in none: the arms stand side by side, row by row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mop.data.duplicates import find_repeats
from mop.errors import DataError, SettingsError
from mop.lm.request import Reply
from mop.personas.auditing import Audit, audit_all
from mop.personas.exemplars import Design, chosen
from mop.personas.identities import Identity, Told, write_identities
from mop.personas.instructions import Instruction
from mop.personas.mentions import remove_mentions
from mop.personas.refusing import why_dropped
from mop.personas.writing import ARMS, STATIC, Arm, answer_request

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder
    from mop.judge import Judge
    from mop.lm.client import ModelClient

Removal = Literal["rules", "audit"]
#: Answers that are graded at a time.
_GRADED = 64


@dataclass(frozen=True)
class Plan:
    """How a data set is made.

    Attributes:
        arms: Which answers are written: ``bare``, ``static`` (one persona for all), ``expert`` (an identity each).
        k: Exemplars shown to the model that writes identities.
        design: Exemplars of diverse domains, or of similar ones.
        removal: Mentions are removed by rules, or by rules and then a model's audit.
        min_grade: Least grade (1 to 10) of the main arm's answer; None grades nothing.
        answer_tokens: Most tokens of an answer; one that is cut off there is dropped.
        temperature: Sampling temperature of the answers; 0 is greedy.
        seed: Seed of everything that is drawn.
    """

    arms: tuple[Arm, ...] = ("expert",)
    k: int = 3
    design: Design = "diverse"
    removal: Removal = "rules"
    min_grade: int | None = None
    answer_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) != len(self.arms) or not set(self.arms) <= set(ARMS):
            raise SettingsError(
                f"The arms {','.join(self.arms)!r} can't be used; name some of {', '.join(ARMS)}, once."
            )
        chosen(self.k, self.design)
        if self.removal not in ("rules", "audit"):
            raise SettingsError(f"There is no removal {self.removal!r}; give rules or audit.")
        if self.min_grade is not None and not 1 <= self.min_grade <= 10:
            raise SettingsError(f"The least grade is {self.min_grade}; give 1 to 10.")
        if self.answer_tokens < 1 or not 0 <= self.temperature <= 2:
            raise SettingsError(
                f"answer_tokens={self.answer_tokens} must be above 0, and temperature={self.temperature} from 0 to 2."
            )

    @property
    def main(self) -> Arm:
        """The arm whose answers are the data set: expert if it is there, else the first one."""
        return "expert" if "expert" in self.arms else self.arms[0]


@dataclass(frozen=True)
class Answer:
    """An answer as it is kept, what was removed from it by rules and by the audit, and its grade."""

    text: str
    removed: tuple[str, ...] = ()
    audited: tuple[str, ...] = ()
    grade: int | None = None


@dataclass(frozen=True)
class Row:
    """A kept instruction with its answers by arm."""

    instruction: Instruction
    identity: Identity | None
    answers: dict[Arm, Answer]


@dataclass(frozen=True)
class Reject:
    """An instruction that was dropped: at which stage, why, and what there was of it. ``detail`` says where."""

    instruction: Instruction
    stage: str
    reason: str
    arm: Arm | None = None
    identity: str | None = None
    answer: str | None = None
    detail: str = ""


@dataclass
class Curated:
    """The data set, what was dropped, and what was counted on the way (`mop.personas.card` shows it)."""

    plan: Plan
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    asked: int = 0
    first_problems: Counter[str] = field(default_factory=Counter)
    audits: list[Audit] = field(default_factory=list)
    grades: dict[Arm, list[int]] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were dropped for each reason, most frequent first."""
        return dict(Counter(f"{one.stage}: {one.reason}" for one in self.rejects).most_common())


@dataclass(frozen=True)
class Models:
    """Clients by what they do; they may be one. ``judge`` is needed for a least grade, ``auditor`` for the audit."""

    model: ModelClient
    writer: ModelClient
    encoder: Encoder
    auditor: ModelClient | None = None
    judge: Judge | None = None


async def curate(
    instructions: Sequence[Instruction], models: Models, plan: Plan, told: Told = lambda _: None
) -> Curated:
    """Make a data set.

    Args:
        instructions: What to answer.
        models: Who answers, writes identities, audits and grades.
        plan: How.
        told: Hears the name of the stage at every reply.

    Raises:
        DataError: There are no instructions.
        SettingsError: The plan needs an auditor or a judge, and there is none.
        BudgetExceeded, ModelError, LedgerError: As `mop.lm.client.ModelClient.complete_many` does.
    """
    if not instructions:
        raise DataError("There are no instructions; give at least one.")
    if (plan.removal == "audit" and models.auditor is None) or (plan.min_grade is not None and models.judge is None):
        raise SettingsError("The audit needs an auditor and a least grade needs a judge; give both in models.")
    done = Curated(plan)
    rows = await asyncio.to_thread(_without_repeats, instructions, done)
    if "expert" in plan.arms:
        rows = await _with_identities(rows, models, plan, done, told)
    rows = await _answered(rows, models.model, plan, done, told)
    if plan.removal == "audit" and models.auditor is not None:
        rows = await _audited(rows, models.auditor, plan, done, told)
    if plan.min_grade is not None and models.judge is not None:
        rows = await _graded(rows, models.judge, plan, done, told)
    done.rows = rows
    done.rejects.sort(key=lambda one: one.instruction.line)
    return done


def _without_repeats(instructions: Sequence[Instruction], done: Curated) -> list[Row]:
    repeats = find_repeats([one.text for one in instructions])
    for place, (earlier, cosine) in repeats.items():
        how = "repeats" if cosine == 1.0 else "nearly repeats"
        like = f"line {instructions[earlier].line}, similarity {cosine:.2f}"
        done.rejects.append(Reject(instructions[place], "instruction", f"{how} another", detail=like))
    done.asked = len(instructions)
    return [Row(one, None, {}) for place, one in enumerate(instructions) if place not in repeats]


async def _with_identities(rows: list[Row], models: Models, plan: Plan, done: Curated, told: Told) -> list[Row]:
    texts = [row.instruction.text for row in rows]
    exemplars = chosen(plan.k, plan.design)
    found = await write_identities(models.writer, models.encoder, texts, exemplars, seed=plan.seed, told=told)
    done.first_problems = found.first_problems
    for place, refused in found.refused.items():
        done.rejects.append(
            Reject(rows[place].instruction, "identity", refused.reason, arm="expert", identity=refused.text)
        )
    return [replace(rows[place], identity=identity) for place, identity in found.accepted.items()]


async def _answered(rows: list[Row], client: ModelClient, plan: Plan, done: Curated, told: Told) -> list[Row]:
    pairs = [(row, arm) for arm in plan.arms for row in rows]
    requests = [
        answer_request(
            client.model,
            arm,
            row.instruction.text,
            row.identity.text if row.identity else None,
            max_tokens=plan.answer_tokens,
            temperature=plan.temperature,
            seed=plan.seed,
        )
        for row, arm in pairs
    ]

    def tell(place: int, _reply: Reply) -> None:
        told(f"answers ({pairs[place][1]})")

    replies = await client.complete_many(requests, tell)
    kept: dict[int, dict[Arm, Answer]] = {row.instruction.line: {} for row in rows}
    problems: dict[int, Reject] = {}
    for (row, arm), reply in zip(pairs, replies, strict=True):
        answer, problem, detail = _checked(reply, persona_of(row, arm), row.instruction.text)
        kept[row.instruction.line][arm] = answer
        if problem and row.instruction.line not in problems:
            problems[row.instruction.line] = _reject(row, "answer", problem, arm, reply.text, detail)
    done.rejects += problems.values()
    return [replace(row, answers=kept[line]) for row in rows if (line := row.instruction.line) not in problems]


def _checked(reply: Reply, persona: str, instruction: str) -> tuple[Answer, str | None, str]:
    """Return the answer without mentions, and why and where it is dropped, if it is."""
    text = reply.text.strip()
    if not text:
        return Answer(""), "empty", ""
    if reply.finish_reason == "length":
        return Answer(text), "cut off", ""
    if reason := why_dropped(text):
        return Answer(text), reason, ""
    cleaned = remove_mentions(text, persona, instruction)
    answer = Answer(cleaned.text.strip(), cleaned.removed)
    if cleaned.left:
        return answer, "mentions the identity within a sentence", cleaned.left[0]
    return answer, None if answer.text else "nothing but the identity", ""


async def _audited(rows: list[Row], auditor: ModelClient, plan: Plan, done: Curated, told: Told) -> list[Row]:
    pairs = [(row, arm) for arm in plan.arms for row in rows]
    done.audits = await audit_all(
        auditor, [row.answers[arm].text for row, arm in pairs], [persona_of(row, arm) for row, arm in pairs], told
    )
    kept = {row.instruction.line: dict(row.answers) for row in rows}
    problems: dict[int, Reject] = {}
    for (row, arm), audit in zip(pairs, done.audits, strict=True):
        line = row.instruction.line
        kept[line][arm] = replace(row.answers[arm], text=audit.text.strip(), audited=audit.removed)
        if (audit.too_much or not audit.text.strip()) and line not in problems:
            reason = "more than half is about the identity"
            problems[line] = _reject(row, "audit", reason, arm, row.answers[arm].text)
    done.rejects += problems.values()
    return [replace(row, answers=kept[line]) for row in rows if (line := row.instruction.line) not in problems]


async def _graded(rows: list[Row], judge: Judge, plan: Plan, done: Curated, told: Told) -> list[Row]:
    kept = {row.instruction.line: dict(row.answers) for row in rows}
    for arm in plan.arms:
        done.grades[arm] = []
        for start in range(0, len(rows), _GRADED):
            part = rows[start : start + _GRADED]
            grades = await judge.grade(
                [row.instruction.text for row in part], [row.answers[arm].text for row in part], [None] * len(part)
            )
            for row, grade in zip(part, grades, strict=True):
                told(f"grades ({arm})")
                kept[row.instruction.line][arm] = replace(row.answers[arm], grade=grade.value)
                if grade.value is not None:
                    done.grades[arm].append(grade.value)
    passed = []
    for row in (replace(row, answers=kept[row.instruction.line]) for row in rows):
        answer = row.answers[plan.main]
        if answer.grade is None:
            done.rejects.append(_reject(row, "grade", "the judge's grade can't be read", plan.main, answer.text))
        elif answer.grade < (plan.min_grade or 0):
            done.rejects.append(_reject(row, "grade", f"below {plan.min_grade}", plan.main, answer.text))
        else:
            passed.append(row)
    return passed


def persona_of(row: Row, arm: Arm) -> str:
    """Return the persona with which an arm's answer was written; empty for the bare arm."""
    if arm == "expert" and row.identity is not None:
        return row.identity.text
    return STATIC if arm == "static" else ""


def _reject(row: Row, stage: str, reason: str, arm: Arm, answer: str, detail: str = "") -> Reject:
    return Reject(row.instruction, stage, reason, arm, persona_of(row, arm) or None, answer, detail)

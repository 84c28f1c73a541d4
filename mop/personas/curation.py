"""Curation: from instructions to a data set of answers, with a record of every one that is dropped. Knows no files.

    instructions ─► repeats out ─► identities ─► answers, arm by arm ─► refusals out ─► mentions out ─► audit ─► grades

Every stage asks the ledger first, so a run that was killed goes on where it was, and what comes out depends on the
replies alone. An instruction is in all arms or in none: the arms stand side by side, row by row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mop.data.duplicates import find_repeats
from mop.errors import DataError, SettingsError
from mop.lm.request import Reply
from mop.personas.answering import answer_of, answer_request, why_unusable
from mop.personas.auditing import audit_all
from mop.personas.exemplars import chosen
from mop.personas.identities import Told, write_identities
from mop.personas.instructions import Instruction
from mop.personas.mentions import remove_mentions
from mop.personas.records import Answer, Arm, Curated, Plan, Reject, Row

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder
    from mop.judge import Judge
    from mop.lm.client import ModelClient

#: Answers that are graded at a time.
_GRADED = 64


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
    if (plan.removal == "audit" and models.auditor is None) or (plan.min_grade is not None and models.judge is None):
        raise SettingsError("The audit needs an auditor and a least grade needs a judge; give both in models.")
    done = await identify(instructions, models.writer, models.encoder, plan, told)
    rows = await _answered(done.rows, models.model, plan, done, told)
    if plan.removal == "audit" and models.auditor is not None:
        rows = await _audited(rows, models.auditor, plan, done, told)
    if plan.min_grade is not None and models.judge is not None:
        rows = await _graded(rows, models.judge, plan, done, told)
    done.rows = rows
    done.rejects.sort(key=lambda one: one.instruction.line)
    return done


async def identify(
    instructions: Sequence[Instruction],
    writer: ModelClient,
    encoder: Encoder,
    plan: Plan,
    told: Told = lambda _: None,
    *,
    distinct: bool = False,
) -> Curated:
    """Drop repeated instructions and, if the plan has an expert, write an identity for each of the others.

    ``distinct``: they are known to be no repeats, however alike they look; regions share a long instruction.
    The rows have no answers yet. Raises as `curate` does.
    """
    if not instructions:
        raise DataError("There are no instructions; give at least one.")
    done = Curated(plan, asked=len(instructions))
    if distinct:
        rows = [Row(one, None, {}) for one in instructions]
    else:
        rows = await asyncio.to_thread(_without_repeats, instructions, done)
    done.rows = await _with_identities(rows, writer, encoder, done, told) if "expert" in plan.arms else rows
    done.rejects.sort(key=lambda one: one.instruction.line)
    return done


def _without_repeats(instructions: Sequence[Instruction], done: Curated) -> list[Row]:
    repeats = find_repeats([one.text for one in instructions])
    for place, (earlier, cosine) in repeats.items():
        how = "repeats" if cosine == 1.0 else "nearly repeats"
        like = f"line {instructions[earlier].line}, similarity {cosine:.2f}"
        done.rejects.append(Reject(instructions[place], "instruction", f"{how} another", detail=like))
    return [Row(one, None, {}) for place, one in enumerate(instructions) if place not in repeats]


async def _with_identities(
    rows: list[Row], writer: ModelClient, encoder: Encoder, done: Curated, told: Told
) -> list[Row]:
    plan = done.plan
    texts = [row.instruction.text for row in rows]
    exemplars = chosen(plan.k, plan.design)
    found = await write_identities(writer, encoder, texts, exemplars, seed=plan.seed, told=told)
    done.first_problems = found.first_problems
    for place, refused in found.refused.items():
        done.rejects.append(
            Reject(rows[place].instruction, "identity", refused.reason, arm="expert", identity=refused.text)
        )
    return [replace(rows[place], identity=identity) for place, identity in found.accepted.items()]


async def _answered(rows: list[Row], client: ModelClient, plan: Plan, done: Curated, told: Told) -> list[Row]:
    pairs = [(row, arm) for arm in plan.arms for row in rows]
    requests = [answer_request(client.model, plan, arm, row) for row, arm in pairs]

    def tell(place: int, _reply: Reply) -> None:
        told(f"answers ({pairs[place][1]})")

    replies = await client.complete_many(requests, tell)
    kept: dict[int, dict[Arm, Answer]] = {row.instruction.line: {} for row in rows}
    problems: dict[int, Reject] = {}
    for (row, arm), reply in zip(pairs, replies, strict=True):
        answer, problem, detail = _checked(answer_of(reply), row.persona(arm), row.instruction.text)
        kept[row.instruction.line][arm] = answer
        if problem and row.instruction.line not in problems:
            problems[row.instruction.line] = _reject(row, "answer", problem, arm, reply.text, detail)
    done.rejects += problems.values()
    return [replace(row, answers=kept[line]) for row in rows if (line := row.instruction.line) not in problems]


def _checked(reply: Reply, persona: str, instruction: str) -> tuple[Answer, str | None, str]:
    """Return the answer without mentions, and why and where it is dropped, if it is."""
    text = reply.text.strip()
    if reason := why_unusable(reply):
        return Answer(text), reason, ""
    cleaned = remove_mentions(text, persona, instruction)
    answer = Answer(cleaned.text.strip(), cleaned.removed)
    if cleaned.left:
        return answer, "mentions the identity within a sentence", cleaned.left[0]
    return answer, None if answer.text else "nothing but the identity", ""


async def _audited(rows: list[Row], auditor: ModelClient, plan: Plan, done: Curated, told: Told) -> list[Row]:
    pairs = [(row, arm) for arm in plan.arms for row in rows]
    done.audits = await audit_all(
        auditor,
        [row.answers[arm].text for row, arm in pairs],
        [row.persona(arm) for row, arm in pairs],
        [row.instruction.text for row, _ in pairs],
        told,
    )
    kept = {row.instruction.line: dict(row.answers) for row in rows}
    problems: dict[int, Reject] = {}
    for (row, arm), audit in zip(pairs, done.audits, strict=True):
        line = row.instruction.line
        kept[line][arm] = replace(row.answers[arm], text=audit.text.strip(), audited=audit.removed)
        if (audit.too_much or not audit.text.strip()) and line not in problems:
            reason = "more than half speaks of its writer"
            problems[line] = _reject(row, "audit", reason, arm, row.answers[arm].text, "\n".join(audit.removed))
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
            reason = f"below {plan.min_grade}"
            done.rejects.append(_reject(row, "grade", reason, plan.main, answer.text, f"{answer.grade:g}"))
        else:
            passed.append(row)
    return passed


def _reject(row: Row, stage: str, reason: str, arm: Arm, answer: str, detail: str = "") -> Reject:
    return Reject(row.instruction, stage, reason, arm, row.persona(arm) or None, answer, detail)

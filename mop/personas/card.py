"""Card: what a data set is, how it was made and what was dropped, in numbers and as a page in Markdown. No files here.

Nothing in it depends on the time or on how often the run was interrupted, so that a resumed run writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mop.personas.checking import words_of
from mop.personas.english import looks_english
from mop.personas.records import Curated, Row


def facts(done: Curated, **made_with: Any) -> dict[str, Any]:
    """Return everything that the card says, as plain data; ``made_with`` are names of models, files and hashes."""
    plan = done.plan
    return {
        "instructions": done.asked,
        "kept": len(done.rows),
        "dropped": len(done.rejects),
        "reasons": done.reasons,
        "arms": {arm: _arm(done, arm) for arm in plan.arms},
        "main": plan.main,
        "identities": identity_facts(done),
        "removal": _removal(done),
        "settings": {
            "k": plan.k,
            "exemplars": plan.design,
            "removal": plan.removal,
            "min_grade": plan.min_grade,
            "answer_tokens": plan.answer_tokens,
            "temperature": plan.temperature,
            "seed": plan.seed,
        },
        **made_with,
    }


def card(found: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    lines = [
        f"# {found.get('dataset', 'Data set')}",
        "",
        f"{found['kept']} of {found['instructions']} instructions with answers, in chat format: one JSON object with "
        '"messages" in each line. The answers are those of the arm '
        f"{found['main']}. No identity and no persona is part of the messages, as far as rules can tell, and they read "
        "English alone: neither refusals nor mentions of the identity are found in other languages.",
        "",
        "The answers were written by a model and checked by rules, not by people. The terms of the model that wrote "
        "them apply, and those of the instructions.",
        "",
        "## How it was made",
        "",
        *_table(
            ("", ""),
            [
                *(
                    (name, found[name])
                    for name in ("model", "writer", "judge", "criteria", "encoder")
                    if found.get(name)
                ),
                *((name.replace("_", " "), value) for name, value in found["settings"].items()),
                *((name, found[name]) for name in ("instructions_sha256", "dataset_sha256") if found.get(name)),
            ],
        ),
        "## Arms side by side",
        "",
        *_table(
            ("arm", "words on average", "answers with a mention removed", "mean grade", "graded"),
            [(arm, one["words"], one["cleaned"], one["grade"], one["graded"]) for arm, one in found["arms"].items()],
        ),
        "A least grade is applied to the main arm; the mean grades are those before that.",
        "",
        "## Dropped",
        "",
        "An instruction is dropped from all arms if it repeats another; if no identity passed the checks in three "
        "attempts; if an answer is empty, cut off, refuses in one of its first three sentences or says that a model "
        "wrote it; if a mention of the identity stands within a sentence, or the answer is nothing else; if an audit "
        "finds that more than half speaks of its writer; or if the judge's grade is too low or can't be read. The file "
        "of rejects holds each of them with its reason.",
        "",
        *_table(("reason", "instructions"), list(found["reasons"].items()) or [("none", 0)]),
    ]
    if found["identities"]:
        lines += [
            "## Identities",
            "",
            *_table(("", ""), [(name.replace("_", " "), value) for name, value in found["identities"].items()]),
        ]
    lines += [
        "## Mentions of the identity",
        "",
        *_table(("", ""), [(name.replace("_", " "), value) for name, value in found["removal"].items()]),
    ]
    return "\n".join(lines)


def _arm(done: Curated, arm: Any) -> dict[str, Any]:
    answers = [row.answers[arm] for row in done.rows]
    grades = done.grades.get(arm, [])
    return {
        "words": round(fmean(len(words_of(one.text)) for one in answers), 1) if answers else None,
        "cleaned": sum(bool(one.removed or one.audited) for one in answers),
        "grade": round(fmean(grades), 2) if grades else None,
        "graded": len(grades),
    }


def identity_facts(done: Curated) -> dict[str, Any]:
    """Return what is counted and measured of the identities; nothing if the plan has none."""
    if "expert" not in done.plan.arms:
        return {}
    identities = [row.identity for row in done.rows if row.identity is not None]
    found: dict[str, Any] = {f"first replies refused, {why}": count for why, count in done.first_problems.most_common()}
    if identities:
        found |= {
            "similarity_to_own_instruction": round(fmean(one.nearness.own for one in identities), 3),
            "similarity_to_shuffled_instructions": round(fmean(one.nearness.shuffled for one in identities), 3),
            "different_identities": len({one.text for one in identities}),
            "words_on_average": round(fmean(len(words_of(one.text)) for one in identities), 1),
            "asked_for_again": sum(one.attempt > 0 for one in identities),
        }
    return found


def _removal(done: Curated) -> dict[str, Any]:
    answers = [answer for row in done.rows for answer in row.answers.values()]
    found: dict[str, Any] = {
        "kept_answers_cleaned_by_rules": sum(bool(one.removed) for one in answers),
        "mentions_removed_from_kept_answers_by_rules": sum(len(one.removed) for one in answers),
        "kept_answers_that_do_not_look_english": sum(not looks_english(one.text) for one in answers),
    }
    if done.plan.removal == "audit":
        found |= {
            "answers_audited": len(done.audits),
            "answers_cleaned_by_the_audit_after_rules": sum(bool(one.removed) for one in done.audits),
            "sentences_removed_by_the_audit": sum(len(one.removed) for one in done.audits),
            "sentences_named_by_the_audit_and_left_as_innocent": sum(len(one.ignored) for one in done.audits),
        }
    return found


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *map(line, rows), ""]


def _cell(value: Any) -> str:
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def chat(row: Row, arm: Any) -> dict[str, Any]:
    """Return a row in chat format: what was asked and what was answered, without persona."""
    return {
        "messages": [
            {"role": "user", "content": row.instruction.text},
            {"role": "assistant", "content": row.answers[arm].text},
        ]
    }

"""Bootstrap: personas become queries, answers with and without them, and verdicts; all by the model itself.

Each stage is a file (`mop.students.stages`): ``queries.jsonl``, ``answers.jsonl``, ``verdicts.jsonl``; those of a
``finished`` run are not replaced. No data and no model from outside. A persona wins a query only if its answer is
judged better in both orders. After PRISM (arXiv 2603.18507, section 3). Knows nothing of adapters or gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mop.errors import DataError
from mop.judge import Judge, Pair, Verdict
from mop.lm.asked import Asked
from mop.lm.request import Request
from mop.students.personas import Persona
from mop.students.stages import Row, run_stage

Progress = Callable[[str, int, int], None]

QUERIES, ANSWERS, VERDICTS = "queries.jsonl", "answers.jsonl", "verdicts.jsonl"
#: A shorter query says too little.
LEAST_CHARACTERS = 15
_CURATOR = (
    "You write realistic messages of users to an assistant. You are given a kind of assistant and what a user wants "
    "of it. You reply with one message that such a user could send: one sentence or question, in the user's own words, "
    "about something definite. No quotation marks, no greeting, no answer."
)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How much is made and how.

    Args:
        queries: Queries that are asked for, for each intent of each persona; doubles are left out afterwards.
        query_tokens: Most tokens of a query.
        answer_tokens: Most tokens of an answer.
        query_temperature: High, so that queries differ.
        answer_temperature: Of both answers alike; 0 is greedy.
        seed: Another seed gives other queries and answers.
    """

    queries: int = 10
    query_tokens: int = 60
    answer_tokens: int = 256
    query_temperature: float = 0.9
    answer_temperature: float = 0.7
    seed: int = 0


async def make_queries(
    folder: Path,
    personas: Sequence[Persona],
    model: Asked,
    settings: Bootstrap,
    progress: Progress | None = None,
    *,
    finished: bool = False,
) -> list[Row]:
    """Return a row for each query that was asked for: ``query`` (None if nothing of use was written) and ``reply``.

    Doubles keep their rows and lose their ``query`` when they are read; see `usable`.
    """
    work = [
        {
            "persona": one.name,
            "text": one.text,
            "intent": intent,
            "number": number,
            "model": model.model,
            "seed": settings.seed,
            "temperature": settings.query_temperature,
            "max_tokens": settings.query_tokens,
        }
        for one in personas
        for intent in one.intents
        for number in range(settings.queries)
    ]

    async def make(rows: Sequence[Row]) -> list[Row]:
        requests = [
            Request(
                model=model.model,
                messages=(("system", _CURATOR), ("user", _wanted(row))),
                temperature=row["temperature"],
                max_tokens=row["max_tokens"],
                seed=row["seed"],
                sample=row["number"],
                role="propose",
            )
            for row in rows
        ]
        replies = await model.complete_many(requests)
        return [{"reply": reply.text, "query": read_query(reply.text)} for reply in replies]

    return await run_stage(folder / QUERIES, work, make, progress=progress, finished=finished)


def read_query(reply: str) -> str | None:
    """Return the query in a reply, its first line without what small models put around it; None if it is too short."""
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    if not lines:
        return None
    query = lines[0].removeprefix("User:").removeprefix("Message:").strip().strip("\"'“”").strip()
    return query if len(query) >= LEAST_CHARACTERS else None


def usable(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with a query that none before them has; letters and digits alone are compared."""
    seen: set[str] = set()
    found = []
    for row in rows:
        key = "".join(filter(str.isalnum, (row["query"] or "").lower()))
        if key and key not in seen:
            seen.add(key)
            found.append(row)
    return found


async def make_answers(
    folder: Path,
    queries: Sequence[Row],
    model: Asked,
    settings: Bootstrap,
    progress: Progress | None = None,
    *,
    finished: bool = False,
) -> list[Row]:
    """Return a row for each query with the answers ``bare`` and ``with_persona`` and whether each was ``ended``.

    Both are asked for in the same way; only the system message differs.
    """
    work = [
        {
            "query": row["query"],
            "persona": row["persona"],
            "text": row["text"],
            "intent": row["intent"],
            "model": model.model,
            "seed": settings.seed,
            "temperature": settings.answer_temperature,
            "max_tokens": settings.answer_tokens,
        }
        for row in queries
    ]

    async def make(rows: Sequence[Row]) -> list[Row]:
        both = [_question(row, model.model, persona) for row in rows for persona in (None, row["text"])]
        replies = await model.complete_many(both)
        return [
            {
                "bare": bare.text,
                "bare_ended": bare.finish_reason == "stop",
                "with_persona": told.text,
                "with_persona_ended": told.finish_reason == "stop",
            }
            for bare, told in zip(replies[::2], replies[1::2], strict=True)
        ]

    return await run_stage(folder / ANSWERS, work, make, progress=progress, finished=finished)


async def make_verdicts(
    folder: Path,
    answers: Sequence[Row],
    judge: Judge,
    progress: Progress | None = None,
    *,
    finished: bool = False,
) -> list[Row]:
    """Return a row for each pair of answers: the ``votes`` in both orders and whether the ``persona_won`` both.

    An empty answer loses without being judged; two of them tie. Raises ModelError if the judge can't be read.
    """
    work = [
        {
            **{name: row[name] for name in ("query", "persona", "text", "intent", "bare", "with_persona")},
            "ended": row["with_persona_ended"],
            "judge": judge.client.model,
            "criteria": judge.criteria.text,
        }
        for row in answers
    ]

    async def make(rows: Sequence[Row]) -> list[Row]:
        full = [bool(row["bare"].strip() and row["with_persona"].strip()) for row in rows]
        pairs = [
            Pair(row["query"], row["with_persona"], row["bare"]) for row, one in zip(rows, full, strict=True) if one
        ]
        verdicts = iter(await judge.compare(pairs))
        return [_outcome(row, next(verdicts) if one else None) for row, one in zip(rows, full, strict=True)]

    return await run_stage(folder / VERDICTS, work, make, progress=progress, finished=finished)


def _outcome(row: Row, verdict: Verdict | None) -> Row:
    if verdict is None:
        return {"votes": None, "persona_won": bool(row["with_persona"].strip())}
    return {"votes": list(verdict.votes), "persona_won": verdict.winner == "first"}


def winners(verdicts: Sequence[Row]) -> list[Row]:
    """Return the rows that the persona won. Raises DataError if there is none."""
    found = [row for row in verdicts if row["persona_won"]]
    if not found:
        raise DataError(
            f"The persona won none of {len(verdicts)} comparisons, so there is nothing to teach. Give other personas, "
            "a larger model, or more queries."
        )
    return found


def _wanted(row: Row) -> str:
    return f"The assistant: {row['text']}\nWhat the user wants: {row['intent']}\nThe user's message:"


def _question(row: Row, model: str, persona: str | None) -> Request:
    system = (("system", persona),) if persona else ()
    return Request(
        model=model,
        messages=(*system, ("user", row["query"])),
        temperature=row["temperature"],
        max_tokens=row["max_tokens"],
        seed=row["seed"],
    )

"""Gated students: does an adapter behind a gate keep a persona's rules without its prompt, and leave the rest alone?

    python -m benchmarks.students --small --out FOLDER        # minutes on two cores
    python -m benchmarks.students --out FOLDER                # about an hour on two cores
    python -m benchmarks.students --model NAME --topics 12 --seeds 5 --out FOLDER    # a GPU

Personas with rules that a program can check; generative prompts and factual ones with exact answers; no template is in
both splits. Labels for the gate come from the checks: on where the persona's answer is right and the bare one isn't.
The model as its own judge, in both orders, is reported beside them. Arms: four prompts, then the adapter always on,
behind its gate, behind its gate's decisions shuffled, and behind the decisions that the checks would take. Stopped, the
same command goes on where it was. Results go to FOLDER/results.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.student_tasks import ARMS, PERSONAS, Split, Task, right, tasks
from mop.errors import ModelError
from mop.judge import Judge, Pair
from mop.lm.request import Request
from mop.seeds import stream
from mop.stats import paired_difference, proportion_interval
from mop.students import adapters
from mop.students.asking import StudentClient
from mop.students.bootstrap import Bootstrap
from mop.students.distil import mean_divergence
from mop.students.distil_batches import in_turn, make_item
from mop.students.features import FirstLayer
from mop.students.gated import Gated
from mop.students.models import Student, load
from mop.students.prism import DISTILLATION, Prism, fit_gate
from mop.students.stages import Row, read_rows, run_stage, write_rows
from mop.students.teaching import distil
from mop.students.trainer import Step

Answers = dict[str, list[str]]
#: Learning rate; winning answers are few, so steps are too.
RATE = 5e-4


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="local/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="few topics, short answers, few verdicts")
    parser.add_argument("--topics", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--judged", type=int, help="training prompts that the model judges itself")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    defaults = (3, 3, 12, 8) if options.small else (8, 4, 40, 96)
    topics, epochs, max_tokens, judged = (
        default if given is None else given
        for given, default in zip(
            (options.topics, options.epochs, options.max_tokens, options.judged), defaults, strict=True
        )
    )
    student = load(options.model)
    train, test = tasks("train", topics), tasks("test", topics)
    prompted = {arm: _texts(ask(student, options.out, "test", arm, topics, max_tokens)) for arm in ARMS}
    taught = ask(student, options.out, "train", "persona", topics, max_tokens)
    seen = {"persona": _texts(taught), "bare": _texts(ask(student, options.out, "train", "bare", topics, max_tokens))}
    labels = better(train, seen["persona"], seen["bare"])
    own = judge(student, options.out, train[:: max(1, len(train) // max(1, judged))][:judged], train, seen)
    rows = [_row(student, one, answer, label) for one, answer, label in zip(train, taught, labels, strict=True)]
    runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        runs.append(one_seed(student, options.out, seed, rows, test, prompted, epochs, max_tokens))
        results = {
            "model": student.name,
            "sizes": {"train": len(train), "test": len(test), "topics": topics, "epochs": epochs, "tokens": max_tokens},
            "labels": {"on": float(np.mean(labels)), "own_judge": agreement(own, train, labels)},
            "arms": table(test, prompted, runs),
            "differences": differences(test, prompted, runs),
            "seeds": [run["facts"] for run in runs],
        }
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def ask(student: Student, folder: Path, split: Split, arm: str, topics: int, max_tokens: int) -> list[Row]:
    """Return the base model's greedy answers to a split under an arm's prompt, with ``answer`` and ``ended``."""
    given = tasks(split, topics)
    work = [
        {"query": one.query, "system": ARMS[arm](one), "model": student.name, "max_tokens": max_tokens} for one in given
    ]

    async def make(rows: Sequence[Row]) -> list[Row]:
        requests = []
        for row in rows:
            system = (("system", row["system"]),) if row["system"] else ()
            turns = (*system, ("user", row["query"]))
            requests.append(Request(model=student.name, messages=turns, max_tokens=row["max_tokens"]))
        replies = await StudentClient(student).complete_many(requests)
        return [{"answer": reply.text, "ended": reply.finish_reason == "stop"} for reply in replies]

    path = folder / f"{split}_{arm.replace(' ', '_')}.jsonl"
    return asyncio.run(run_stage(path, work, make, chunk=len(work), progress=_say))


def better(given: Sequence[Task], told: Sequence[str], bare: Sequence[str]) -> list[bool]:
    """Return where the first answer is right and the second isn't."""
    return [right(task, one) and not right(task, two) for task, one, two in zip(given, told, bare, strict=True)]


def judge(
    student: Student, folder: Path, chosen: Sequence[Task], train: Sequence[Task], seen: Answers
) -> dict[str, bool]:
    """Return, by query, whether the model itself prefers the persona's answer in both orders."""
    if not chosen:
        return {}
    pairs = [Pair(one.query, seen["persona"][train.index(one)], seen["bare"][train.index(one)]) for one in chosen]
    work = [{"input": one.input, "first": one.first, "second": one.second, "model": student.name} for one in pairs]

    async def make(rows: Sequence[Row]) -> list[Row]:
        asked = [Pair(row["input"], row["first"], row["second"]) for row in rows]
        return [{"votes": list(one.votes)} for one in await Judge(StudentClient(student)).compare(asked)]

    try:
        rows = asyncio.run(run_stage(folder / "judged.jsonl", work, make, progress=_say))
    except ModelError as error:
        _say(str(error), 0, len(work))  # a result as well: this model can't judge
        return {}
    return {row["input"]: row["votes"] == ["first", "first"] for row in rows}


def one_seed(
    student: Student,
    folder: Path,
    seed: int,
    rows: Sequence[Row],
    test: Sequence[Task],
    prompted: Answers,
    epochs: int,
    max_tokens: int,
) -> dict[str, Any]:
    """Return the answers of the adapter's arms for one seed, and what was measured on the way."""
    place = folder / f"seed_{seed}"
    student = adapters.detach(student)
    features = [FirstLayer(student.model, student.tokenizer)]
    gate = fit_gate(place, rows, features, seed)
    won = [row for row in rows if row["persona_won"]]
    trainer = DISTILLATION.model_copy(update={"seed": seed, "learning_rate": RATE})
    settings = Prism(Bootstrap(), trainer, epochs=epochs, batch=2, micro=2, held_out=0.17, seed=seed)
    gated, report = distil(won, student, gate, features, place, settings, _told(seed))
    answers = adapter_answers(gated, place, test, max_tokens, prompted, seed)
    on = answers.pop("on")
    facts = {
        **report,
        "gate": {"kind": gate.kind, **gate.evidence},
        "routing": {kind: float(np.mean([one for one, task in zip(on, test, strict=True) if task.factual == factual]))
                    for kind, factual in (("generative", False), ("factual", True))},
        "off_rows_equal_to_bare": [
            sum(a == b for a, b, one in zip(answers["gated"], prompted["bare"], on, strict=True) if not one),
            sum(not one for one in on),
        ],
    }  # fmt: skip
    adapters.detach(student)
    return {"answers": answers, "facts": facts}


def adapter_answers(
    gated: Gated, place: Path, test: Sequence[Task], max_tokens: int, prompted: Answers, seed: int
) -> dict[str, Any]:
    """Return the answers of all arms with the adapter, and the gate's decisions as ``on``.

    Rows of a batch don't touch each other, so the shuffled and the oracle gate take theirs from the arms at hand.
    """
    known = list(read_rows(place / "answers.jsonl").values())
    if [row["query"] for row in known] != [one.query for one in test]:
        queries = [one.query for one in test]
        gate = gated.answer(queries, max_tokens=max_tokens)
        _say(f"seed {seed}: gated", len(test), len(test))
        always = gated.answer(queries, max_tokens=max_tokens, on=[True] * len(test))
        _say(f"seed {seed}: ungated", len(test), len(test))
        known = [
            {"id": str(number), "query": task.query, "on": one.on, "gated": one.text, "ungated": other.text}
            for number, (task, one, other) in enumerate(zip(test, gate, always, strict=True))
        ]
        write_rows(place / "answers.jsonl", known)
    ungated, bare = [row["ungated"] for row in known], prompted["bare"]
    on = [bool(row["on"]) for row in known]
    shuffled = stream(seed, "shuffled gate").permutation(on).tolist()
    oracle = better(test, ungated, bare)
    mixed = {"shuffled gate": shuffled, "oracle gate": oracle}
    found: dict[str, Any] = {"ungated": ungated, "gated": [row["gated"] for row in known], "on": on}
    for arm, choice in mixed.items():
        found[arm] = [one if use else two for one, two, use in zip(ungated, bare, choice, strict=True)]
    return found


def table(test: Sequence[Task], prompted: Answers, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each arm: rules obeyed and facts right with intervals, and words of an answer; means over seeds."""
    found = {}
    for arm in (*prompted, *runs[0]["answers"]):
        texts = [prompted[arm]] if arm in prompted else [run["answers"][arm] for run in runs]
        row: dict[str, Any] = {"words": float(np.mean([len(text.split()) for one in texts for text in one]))}
        for kind, factual in (("rule", False), ("fact", True)):
            scores = _scores(test, texts, factual)
            interval = proportion_interval(scores)
            row[kind] = {"mean": float(scores.mean()), "low": interval.low, "high": interval.high, "n": len(scores)}
        found[arm] = row
    return found


def differences(test: Sequence[Task], prompted: Answers, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return paired differences with their intervals, over prompts; several seeds of a prompt are averaged first."""
    wanted = (
        ("rule: gated minus persona", "gated", "persona", False),
        ("rule: gated minus bare", "gated", "bare", False),
        ("rule: gated minus shuffled gate", "gated", "shuffled gate", False),
        ("fact: gated minus bare", "gated", "bare", True),
        ("fact: gated minus ungated", "gated", "ungated", True),
        ("fact: gated minus persona", "gated", "persona", True),
        ("fact: ungated minus bare", "ungated", "bare", True),
        ("fact: neutral text minus bare", "neutral text", "bare", True),
    )
    found = {}
    for name, one, other, factual in wanted:
        texts = [[prompted[arm]] if arm in prompted else [run["answers"][arm] for run in runs] for arm in (one, other)]
        gap = paired_difference(*(_scores(test, given, factual) for given in texts))
        found[name] = {"mean": gap.mean, "low": gap.low, "high": gap.high, "p": gap.p_value, "n": gap.n}
    return found


def agreement(own: dict[str, bool], train: Sequence[Task], labels: Sequence[bool]) -> dict[str, Any]:
    """Return how often the model as its own judge says what the checks say."""
    checked = {task.query: label for task, label in zip(train, labels, strict=True)}
    same = [checked[query] == won for query, won in own.items()]
    return {"pairs": len(same), "persona_won": sum(own.values()), "agrees": sum(same)}


def _scores(test: Sequence[Task], texts: Sequence[Sequence[str]], factual: bool) -> Any:
    rows = [
        [float(right(task, text)) for task, text in zip(test, one, strict=True) if task.factual == factual]
        for one in texts
    ]
    return np.mean(rows, axis=0)


def _texts(rows: Sequence[Row]) -> list[str]:
    return [row["answer"] for row in rows]


def _row(student: Student, task: Task, answer: Row, won: bool) -> Row:
    """Return what the gate and the distillation take; winners with the divergence before any step."""
    text = PERSONAS[task.persona].text
    row = {
        "query": task.query,
        "persona": task.persona,
        "intent": task.template,
        "text": text,
        "with_persona": answer["answer"],
        "ended": answer["ended"],
        "persona_won": won,
    }
    if won:
        item = make_item(student.tokenizer, task.query, text, answer["answer"], ended=answer["ended"])
        row["divergence"] = mean_divergence(student, in_turn([item]))
    return row


def _told(seed: int) -> Callable[[Step], None]:
    return lambda step: _say(f"seed {seed}: step, loss {step.loss:.3f}", step.number, step.steps)


def _say(stage: str, done: int, whole: int) -> None:
    print(f"{time.strftime('%H:%M:%S')} {stage}: {done} of {whole}", flush=True)


if __name__ == "__main__":
    main()

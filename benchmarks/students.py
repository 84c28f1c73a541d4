"""Gated students: does an adapter behind a gate keep a persona's rules without its prompt, and leave the rest alone?

    python -m benchmarks.students --small --out FOLDER        # about an hour on one core
    python -m benchmarks.students --out FOLDER                # hours on two cores
    python -m benchmarks.students --model NAME --topics 12 --seeds 5 --out FOLDER    # a GPU

Personas with rules that a program can check; generative prompts and factual ones with exact answers; no template and no
topic is in both splits. Labels for the gate come from the checks: on where the persona's answer is right and the bare
one isn't. The model as its own judge, in both orders, is reported beside them. Arms: four prompts, then the adapter
always on, behind its gate, behind the table of a mixture's regions, behind the gate's decisions shuffled, and behind
the decisions that the checks would take. Stopped, the same command goes on where it was. Results go to
FOLDER/results.json.
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

from benchmarks.student_tasks import ARMS, PERSONAS, Split, Task, tasks
from benchmarks.students_results import Answers, agreement, better, differences, table
from mop.embeddings.regions import find_regions
from mop.encoding import resolve_encoder
from mop.errors import ModelError
from mop.judge import Judge, Pair
from mop.lm.request import Request
from mop.mixture import PROBES, EncoderRecord
from mop.seeds import stream
from mop.students import adapters
from mop.students.asking import StudentClient
from mop.students.bootstrap import Bootstrap
from mop.students.features import Features, FirstLayer, Regions
from mop.students.gate import compute
from mop.students.gate_training import table_gate
from mop.students.gated import Gated
from mop.students.models import Student, load
from mop.students.prism import Prism, distillation, fit_gate, with_divergence
from mop.students.stages import Row, read_rows, run_stage, write_rows
from mop.students.teaching import distil
from mop.students.trainer import Step

#: Encoder and number of regions of the table; small regions are dissolved.
ENCODER, REGIONS = "local/all-minilm-l6-v2", 8
#: Share of the templates whose winning answers aren't trained on.
HELD_OUT = 0.12


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="local/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--dtype", default="auto", help="bfloat16 takes half the time where a processor has it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="few topics, short answers, few verdicts")
    parser.add_argument("--topics", type=int, help="topics of each generative training template")
    parser.add_argument("--test-topics", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--judged", type=int, help="training prompts that the model judges itself")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    defaults = (1, 1, 6, 16, 4) if options.small else (6, 4, 8, 40, 96)
    chosen = (options.topics, options.test_topics, options.epochs, options.max_tokens, options.judged)
    topics, test_topics, epochs, max_tokens, judged = (
        default if given is None else given for given, default in zip(chosen, defaults, strict=True)
    )
    student = load(options.model, dtype=options.dtype)
    train, test = tasks("train", topics), tasks("test", test_topics)
    taught, bare = (ask(student, options.out, "train", arm, train, max_tokens) for arm in ("persona", "bare"))
    seen = {"persona": _texts(taught), "bare": _texts(bare)}
    labels = better(train, seen["persona"], seen["bare"])
    rows = [_row(one, answer, label) for one, answer, label in zip(train, taught, labels, strict=True)]
    won = asyncio.run(with_divergence(options.out, [row for row in rows if row["persona_won"]], student, _say))
    prompted = {arm: _texts(ask(student, options.out, "test", arm, test, max_tokens)) for arm in ARMS}
    own: dict[str, bool] = {}
    runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        runs.append(one_seed(student, options.out, seed, rows, won, test, prompted, epochs, max_tokens))
        if seed == options.seeds - 1:
            own = judge(student, options.out, train[:: max(1, len(train) // max(1, judged))][:judged], train, seen)
        results = {
            "model": student.name,
            "numbers": _numbers(student),
            "sizes": {"train": len(train), "test": len(test), "epochs": epochs, "tokens": max_tokens},
            "labels": {"on": float(np.mean(labels)), "own_judge": agreement(own, train, labels)},
            "arms": table(test, prompted, [run["answers"] for run in runs]),
            "differences": differences(test, prompted, [run["answers"] for run in runs]),
            "seeds": [run["facts"] for run in runs],
        }
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def ask(student: Student, folder: Path, split: Split, arm: str, given: Sequence[Task], max_tokens: int) -> list[Row]:
    """Return the base model's greedy answers to prompts under an arm's prompt, with ``answer`` and ``ended``."""
    work = [
        {
            "query": one.query,
            "system": ARMS[arm](one),
            "model": student.name,
            "numbers": _numbers(student),
            "max_tokens": max_tokens,
        }
        for one in given
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
    return asyncio.run(run_stage(path, work, make, progress=_say))


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
    won: Sequence[Row],
    test: Sequence[Task],
    prompted: Answers,
    epochs: int,
    max_tokens: int,
) -> dict[str, Any]:
    """Return the answers of the adapter's arms for one seed, and what was measured on the way."""
    place = folder / f"seed_{seed}"
    student = adapters.detach(student)
    queries = [row["query"] for row in rows]
    features: list[Features] = [FirstLayer(student.model, student.tokenizer), regions(queries, seed)]
    gate = fit_gate(place, rows, features, seed)
    trainer = distillation(student.model.num_parameters()).model_copy(update={"seed": seed})
    settings = Prism(Bootstrap(), trainer, epochs=epochs, batch=2, micro=2, held_out=HELD_OUT, seed=seed)
    gated, report = distil(won, student, gate, features, place, settings, _told(seed))
    opponent = table_gate(compute(features, ["regions"], queries), [row["persona_won"] for row in rows])
    asked = [one.query for one in test]
    by_table = opponent.decide(opponent.probabilities(compute(features, ["regions"], asked), len(asked))).tolist()
    answers = adapter_answers(gated, place, test, max_tokens, prompted, seed, by_table)
    on = answers.pop("on")
    facts = {
        **report,
        "gate": {"kind": gate.kind, **gate.evidence},
        "routing": _routing(on, test),
        "routing_by_table": _routing(by_table, test),
        "off_rows_equal_to_bare": [
            sum(a == b for a, b, one in zip(answers["gated"], prompted["bare"], on, strict=True) if not one),
            sum(not one for one in on),
        ],
    }
    adapters.detach(student)
    return {"answers": answers, "facts": facts}


def adapter_answers(
    gated: Gated,
    place: Path,
    test: Sequence[Task],
    max_tokens: int,
    prompted: Answers,
    seed: int,
    by_table: Sequence[bool],
) -> dict[str, Any]:
    """Return the answers of all arms with the adapter, and the gate's decisions as ``on``.

    Rows of a batch don't touch each other, so the other gates take theirs from the arms at hand.
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
    mixed = {"region table": by_table, "shuffled gate": shuffled, "oracle gate": oracle}
    found: dict[str, Any] = {"ungated": ungated, "gated": [row["gated"] for row in known], "on": on}
    for arm, choice in mixed.items():
        found[arm] = [one if use else two for one, two, use in zip(ungated, bare, choice, strict=True)]
    return found


def regions(queries: Sequence[str], seed: int) -> Regions:
    """Return the distances to regions of these queries as features: those that a mixture learned on them would have."""
    encoder = resolve_encoder(ENCODER)
    found = find_regions(encoder.encode(list(queries)), REGIONS, seed=seed)
    return Regions(encoder, EncoderRecord(ENCODER, encoder.identity, encoder.encode(PROBES)), found.centroids)


def _routing(on: Sequence[bool], test: Sequence[Task]) -> dict[str, float]:
    """Return the share of each kind of prompt that goes to the adapter."""
    kinds = [task.kind for task in test]
    return {
        kind: float(np.mean([one for one, other in zip(on, kinds, strict=True) if other == kind]))
        for kind in dict.fromkeys(kinds)
    }


def _numbers(student: Student) -> str:
    return str(student.model.dtype).removeprefix("torch.")


def _texts(rows: Sequence[Row]) -> list[str]:
    return [row["answer"] for row in rows]


def _row(task: Task, answer: Row, won: bool) -> Row:
    """Return what the gate and the distillation take."""
    return {
        "query": task.query,
        "persona": task.persona,
        "intent": task.template,
        "text": PERSONAS[task.persona].text,
        "with_persona": answer["answer"],
        "ended": answer["ended"],
        "persona_won": won,
    }


def _told(seed: int) -> Callable[[Step], None]:
    return lambda step: _say(f"seed {seed}: step, loss {step.loss:.3f}", step.number, step.steps)


def _say(stage: str, done: int, whole: int) -> None:
    print(f"{time.strftime('%H:%M:%S')} {stage}: {done} of {whole}", flush=True)


if __name__ == "__main__":
    main()

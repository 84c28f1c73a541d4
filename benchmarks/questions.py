"""Two questions for instructions beside each other: APE's forward question, and the search's own after worked examples.

Each is asked about the same samples of training examples; what comes back is scored without demos on the same
validation examples. The file is a JSON list of rows with task, question, instruction and score. Resumable by its
ledger.

    python -m benchmarks.questions --data data --tasks "instruction_induction/sum,instruction_induction/rhymes" \
        --model local/qwen2.5-coder-1.5b-instruct --out questions.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np

from benchmarks.arguments import at_least
from benchmarks.measured_prompts import learned_by, parser
from benchmarks.tasks import choose_tasks
from mop.errors import ModelError
from mop.prompts import Prompt
from mop.search import proposers
from mop.search.baselines.parts import Contender, one_prompt
from mop.search.judging import Judging
from mop.search.learning import Learned, Session
from mop.search.race import RaceResult

EXAMPLES = 12
#: Training examples in a question.
SHOWN = 8
QUESTIONS = {"forward": (proposers.from_demos, ()), "worked": (proposers.after_worked, proposers.WORKED)}


async def measure(session: Session) -> Learned:
    """Ask both questions and score the instructions; they are in the report."""
    judging, problem = Judging(session), session.problem
    samples = [proposers.sample(problem.train, SHOWN, problem.seed, "demos", i) for i in range(session.plan.proposals)]
    examples = [int(place) for place in session.order[:EXAMPLES]]
    rows: list[dict[str, Any]] = []
    contenders, matrix = [], []
    for name, (question, before) in QUESTIONS.items():
        asked = [("demos", question(sample)) for sample in samples]
        for candidate in await judging.propose(asked, before=before):
            prompt = Prompt(candidate.instruction)
            scores = await judging.score([(prompt, place) for place in examples])
            rows.append({"question": name, "instruction": candidate.instruction, "score": round(fmean(scores), 4)})
            contenders.append(Contender(prompt, candidate.proposer, name))
            matrix.append(scores)
            session.listener.stage(f"{len(rows)} instructions")
    if not rows:
        raise ModelError("The model wrote no usable instruction for either question.")
    seen = np.full((len(rows), len(problem.validation)), np.nan)
    seen[:, examples] = matrix
    ranking = tuple(int(arm) for arm in np.argsort(-np.nanmean(seen, axis=1), kind="stable"))
    learned = one_prompt(session, contenders, RaceResult(seen, ranking), zero_shot=contenders[ranking[0]].prompt)
    learned.report["instructions"] = rows
    return learned


async def _run(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for task in choose_tasks(Path(options.data), options.tasks.split(",")):
        # Both questions, and a third of the budget at most for instructions: see `mop.search.plan.Plan.of`.
        budget = 2 * options.count * (1 + EXAMPLES)
        given = {"proposals": options.count, "budget": budget, "max_demos": 0}
        mixture = await learned_by(f"{__name__}:measure", options, task, given)
        found += [{"task": task, **row} for row in cast("list[dict[str, Any]]", mixture.report["instructions"])]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the file."""
    parsed = parser("questions", __doc__)
    parsed.add_argument("--tasks", required=True, help="names or patterns, with commas between them")
    parsed.add_argument("--count", type=at_least(1), default=6, help="instructions asked for with each question [6]")
    options = parsed.parse_args(arguments)
    rows = asyncio.run(_run(options))
    Path(options.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['task']} {row['question']} {row['score']:.2f} {row['instruction'][:90]}")
    for task in dict.fromkeys(row["task"] for row in rows):
        for name in QUESTIONS:
            scores = [row["score"] for row in rows if (row["task"], row["question"]) == (task, name)]
            if scores:
                print(f"| {task} | {name} | {len(scores)} | {fmean(scores):.2f} | {max(scores):.2f} |")


if __name__ == "__main__":
    main()

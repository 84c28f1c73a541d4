"""Score many single prompts of the kind that ``mop`` races on the same validation examples, for `race_simulation`.

Every prompt answers every example, which no search could pay for. The file is a JSON list: for each prompt its arm's
name, the beginning of its instruction, its number of demos and its scores. Resumable by its ledger.

    python -m benchmarks.measured_prompts --data data --task instruction_induction/antonyms \
        --model local/qwen2.5-coder-1.5b-instruct --out antonyms_prompts.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.arguments import at_least
from benchmarks.splitting import sizes_of, split_task
from benchmarks.tasks import load_task
from mop.connect import open_ledger
from mop.mixture import Mixture
from mop.optimization import aoptimize
from mop.search import methods
from mop.search.baselines.parts import Contender, one_prompt
from mop.search.generalist import propose_instructions
from mop.search.judging import Judging
from mop.search.learning import Learned, Session
from mop.search.race import RaceResult
from mop.search.singles import single_prompts
from mop.settings import make_settings

METHOD = "measured-prompts"
#: As many as a search of 200 calls asks for.
PROPOSALS = 6
EXAMPLES = 40
#: Characters of an instruction that are kept.
SHOWN = 120


async def measure(session: Session) -> Learned:
    """Ask every prompt every example; what was seen is in the report."""
    judging = Judging(session)
    candidates = await propose_instructions(judging)
    limits = {"max_demos": session.max_demos, "token_budget": session.token_budget}
    wanted = (session.plan.calls - session.plan.proposals) // EXAMPLES
    singles = single_prompts(session.problem, candidates, arms=wanted, **limits)
    examples = [int(place) for place in session.order[:EXAMPLES]]
    rows = []
    for single in singles:  # one after the other: a local server keeps the prefix of the last prompt
        scores = await judging.score([(single.prompt, place) for place in examples])
        rows.append(
            {
                "name": single.name,
                "text": single.prompt.instruction[:SHOWN],
                "demos": len(single.prompt.demos),
                "scores": scores,
            }
        )
        session.listener.stage(f"{len(rows)} of {len(singles)} prompts")
    matrix = np.full((len(singles), len(session.problem.validation)), np.nan)
    matrix[:, examples] = [row["scores"] for row in rows]
    ranking = tuple(int(arm) for arm in np.argsort(-np.nanmean(matrix, axis=1), kind="stable"))
    contenders = [Contender(single.prompt, single.candidate.proposer, single.name) for single in singles]
    learned = one_prompt(session, contenders, RaceResult(matrix, ranking), zero_shot=singles[0].prompt)
    learned.report["prompts"] = rows
    return learned


async def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the file."""
    given = {"max_demos": options.max_demos, "proposals": PROPOSALS, "budget": PROPOSALS + options.prompts * EXAMPLES}
    mixture = await learned_by(f"{__name__}:measure", options, options.task, given)
    return cast("list[dict[str, Any]]", mixture.report["prompts"])


async def learned_by(home: str, options: argparse.Namespace, task_id: str, given: Mapping[str, Any]) -> Mixture:
    """Return what the method at ``home`` ("module:function") learns from a task; ``options`` are those of `parser`."""
    # A method of this program alone: no user of mop has a use for it.
    registry = cast("dict[str, methods.Method]", methods.METHODS)
    registry[METHOD] = methods.Method("scores of many prompts", home, frozenset({"proposals"}))
    ledger = open_ledger(options.ledger or str(Path(options.out).with_suffix(".ledger.sqlite")))
    try:
        task = load_task(Path(options.data), task_id)
        where = {"base_url": options.base_url, "encoder": options.encoder}
        every = {"method": METHOD, "model": options.model, "seed": options.seed, **where, **given}
        settings = make_settings(every, environment={}).model_copy(update={"metric": task.metric})
        return await aoptimize(split_task(task, options.seed, sizes_of(task)), settings, ledger=ledger)
    finally:
        ledger.close()
        del registry[METHOD]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the options that all programs have which measure prompts in this way."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    found.add_argument("--data", required=True, help="folder of the tasks")
    found.add_argument("--model", required=True)
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--base-url")
    found.add_argument("--encoder")
    found.add_argument("--ledger", help="file or URL; beside the results if not given")
    found.add_argument("--out", required=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the file."""
    parsed = parser("measured_prompts", __doc__)
    parsed.add_argument("--task", required=True)
    parsed.add_argument("--prompts", type=at_least(1), default=44)
    parsed.add_argument("--max-demos", type=int, default=20, help="most demos of a prompt [20]")
    options = parsed.parse_args(arguments)
    rows = asyncio.run(run(options))
    Path(options.out).write_text(json.dumps(rows) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{sum(row['scores']) / len(row['scores']):.2f} {row['name']}: {row['text'][:60]}")


if __name__ == "__main__":
    main()

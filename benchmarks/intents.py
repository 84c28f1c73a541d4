"""One prompt, a mixture and retrieved demos on a labelled task, at equal search budgets; the test rows are used once.

    python -m benchmarks.intents --train banking77.train.jsonl.gz --test banking77.test.jsonl.gz \
        --instruction "Classify the message to an online bank. Answer with the label only." --out results/banking77.json

The single prompt and the mixture are each learned with ``--budget`` calls on the same ``--train-rows`` examples; then
all systems answer the same ``--test-rows`` examples. Every call is in the ledger: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from mop.connect import connect, open_ledger
from mop.data import read_examples
from mop.evaluation import aevaluate, retrieving_prompter, single_prompter
from mop.examples import Example
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize, prepare
from mop.prompts import Prompt
from mop.search.knn import NearestDemos
from mop.seeds import stream
from mop.settings import make_settings


def sample(rows: list[Example], count: int, seed: int, name: str) -> list[Example]:
    order = stream(seed, "benchmark", name).permutation(len(rows))
    return [rows[int(position)] for position in order[:count]]


async def main(arguments: argparse.Namespace) -> dict[str, object]:
    ledger = open_ledger(arguments.ledger)
    train = sample(read_examples(arguments.train), arguments.train_rows, arguments.seed, "train")
    test = sample(read_examples(arguments.test), arguments.test_rows, arguments.seed, "test")
    options = {
        "model": arguments.model,
        "budget": arguments.budget,
        "base_url": arguments.base_url,
        "instruction": arguments.instruction,
        "seed": arguments.seed,
        "refit": arguments.refit,
        "prompt_tokens": arguments.prompt_tokens,
        "max_demos": arguments.max_demos,
        "retrieved": arguments.retrieved,
    }
    splits = prepare(train, seed=arguments.seed)
    learned: dict[str, Mixture] = {}
    runs: dict[str, object] = {}
    for name, experts in (("single", 1), ("mixture", arguments.experts)):
        used, started = Run(), time.perf_counter()
        settings = make_settings({**options, "experts": experts})
        learned[name] = await aoptimize(splits, settings, ledger=ledger, used=used)
        runs[name] = {
            "calls": used.spend.calls,
            "tokens": used.spend.tokens,
            "sent": used.sent,
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(name, runs[name], json.dumps(learned[name].report)[:3000], flush=True)
    mixture, single = learned["mixture"], learned["single"]
    if arguments.out:
        mixture.save(Path(arguments.out).with_suffix(".mop"))
    nearest = NearestDemos(train, mixture.encoder, arguments.instruction, k=arguments.k)
    systems = {
        "single": single_prompter(single.generalist),
        "zero-shot": single_prompter(Prompt(single.report["zero_shot"])),
        **(
            {} if mixture.retrieval is None else {"single, retrieving": retrieving_prompter(single.generalist, mixture)}
        ),
    }
    client = connect(arguments.model, ledger=ledger, base_url=arguments.base_url)
    result = await aevaluate(mixture, test, client, against=systems)
    # Retrieval reads a whole new prompt for every message, ten times the work; it may get the first rows only.
    few = test[: arguments.knn_rows]
    retrieved = await aevaluate(mixture, few, client, against={f"knn-{arguments.k}": nearest}) if few else None
    await client.aclose()
    return {
        "arguments": {key: str(value) for key, value in vars(arguments).items() if key not in ("ledger", "base_url")},
        "experts": len(mixture),
        "kept": mixture.kept,
        "search": runs,
        "report": {"single": single.report, "mixture": mixture.report},
        "test": result.to_dict(),
        "test_knn": retrieved and retrieved.to_dict(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--out")
    parser.add_argument("--train-rows", type=int, default=600)
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--budget", type=int, default=600)
    parser.add_argument("--model", default="local/qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--base-url")
    parser.add_argument("--experts", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--prompt-tokens", type=int, default=600)
    parser.add_argument("--max-demos", type=int, default=20)
    parser.add_argument("--retrieved", type=int, default=1)
    parser.add_argument("--knn-rows", type=int, default=200, help="test rows that retrieval answers, from the first on")
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--ledger")
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    outcome = asyncio.run(main(given))
    text = json.dumps(outcome, indent=1)
    print(json.dumps([outcome["test"], outcome["test_knn"]], indent=1))
    if given.out:
        Path(given.out).write_text(text + "\n", encoding="utf-8")

"""What a stable prefix is worth: seconds per query of one expert prompt, with prefix caching and with it defeated.

    python -m benchmarks.prefix_cache --queries 200 --defeated 200

The cache is defeated by a number at the very start of the instruction that differs for every query; nothing else
changes. A defeated query takes as long whichever it is, so fewer of them give the same median; on two cores 200 take
about half an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from statistics import median

from mop.connect import connect
from mop.datasets import HELPDESK_INSTRUCTION, helpdesk
from mop.decoding import Decoding
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.prompts import Demo, Prompt


async def seconds(client: ModelClient, prompts: list[Prompt], queries: list[str]) -> list[float]:
    decoding = Decoding(max_tokens=16, stop=("\n",))
    requests = [decoding.request(client.model, prompt, query) for prompt, query in zip(prompts, queries, strict=True)]
    return [reply.seconds for reply in await client.complete_many(requests)]


async def main(arguments: argparse.Namespace) -> dict[str, object]:
    splits = helpdesk()
    rows = [*splits.test, *splits.validation]
    queries = [example.input for example in rows][: arguments.queries]
    prompt = Prompt(HELPDESK_INSTRUCTION, tuple(Demo.of(example) for example in splits.train[: arguments.demos]))
    client = connect(arguments.model, ledger=Ledger.in_memory())
    await seconds(client, [prompt], ["warm up"])
    cached = await seconds(client, [prompt] * len(queries), queries)
    defeated_queries = queries[: arguments.defeated]
    spoiled = [
        replace(prompt, instruction=f"{number:04d} {prompt.instruction}") for number in range(len(defeated_queries))
    ]
    defeated = await seconds(client, spoiled, defeated_queries)
    await client.aclose()
    return {
        "model": arguments.model,
        "demos": arguments.demos,
        "queries": len(cached),
        "defeated_queries": len(defeated),
        "median_seconds_cached": round(median(cached), 3),
        "median_seconds_defeated": round(median(defeated), 3),
        "ratio": round(median(defeated) / median(cached), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="local/qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--demos", type=int, default=20)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--defeated", type=int, default=40)
    print(json.dumps(asyncio.run(main(parser.parse_args())), indent=1))

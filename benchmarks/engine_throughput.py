"""Engine throughput: what ledger, budget and retries cost over bare loops of the SDK.

All ask the same requests, at the same concurrency, of the same fake endpoint, which runs in a process of
its own and answers after a fixed latency. The runs alternate, so that what else the machine does meets all.

* ``create``: `AsyncOpenAI.chat.completions.create` behind a semaphore, as one would write it.
* ``post``: the same loop on the SDK's untyped `AsyncOpenAI.post`, which skips the walk through the type hints
  of every message. This is the call that the engine makes.
* ``engine``: `ModelClient.complete_many` with a ledger on disk and a budget.

    python -m benchmarks.engine_throughput

prints the median seconds of each and the engine's ratio to it; the mark is at most 1.25 times ``create``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Request

SYSTEM = "Classify the message into one of the categories of the bank's help desk. Answer with the category. " * 4


def make_requests(count: int) -> list[Request]:
    """Return ``count`` requests that share a prefix of 13 messages, as the trials of one expert do."""
    demos = [(role, f"message {i}") for i in range(6) for role in ("user", "assistant")]
    head = (("system", SYSTEM), *demos)
    return [Request("fake", (*head, ("user", f"query {i}")), max_tokens=16) for i in range(count)]


async def bare(base_url: str, requests: list[Request], concurrency: int, *, typed: bool) -> list[str]:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    gate = asyncio.Semaphore(concurrency)

    async def create(body: dict[str, Any]) -> str:
        completion = await client.chat.completions.create(**body)
        return str(completion.choices[0].message.content)

    async def post(body: dict[str, Any]) -> str:
        answer: Any = await client.post("/chat/completions", cast_to=object, body=body)
        return str(answer["choices"][0]["message"]["content"])

    async def one(request: Request) -> str:
        async with gate:
            body = {
                "model": request.model,
                "messages": [{"role": role, "content": content} for role, content in request.messages],
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
            }
            return await (create(body) if typed else post(body))

    texts = await asyncio.gather(*map(one, requests))
    await client.close()
    return texts


async def engine(base_url: str, requests: list[Request], concurrency: int, ledger: Ledger) -> list[str]:
    budget = Budget(calls=len(requests), tokens=10**9)
    client = ModelClient("fake", base_url=base_url, ledger=ledger, budget=budget, concurrency=concurrency)
    replies = await client.complete_many(requests)
    await client.aclose()
    return [reply.text for reply in replies]


@contextmanager
def endpoint(latency: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fake_endpoint", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"create": [], "post": [], "engine": []}
    with endpoint(options.latency) as base_url, tempfile.TemporaryDirectory() as folder:
        asyncio.run(bare(base_url, make_requests(100), options.concurrency, typed=True))
        for turn in range(options.rounds):
            ledger = Ledger(Path(folder) / f"{turn}.sqlite")
            texts: dict[str, list[str]] = {}
            for name, taken in seconds.items():
                requests = make_requests(options.calls)
                started = time.perf_counter()
                if name == "engine":
                    run = engine(base_url, requests, options.concurrency, ledger)
                else:
                    run = bare(base_url, requests, options.concurrency, typed=name == "create")
                texts[name] = asyncio.run(run)
                taken.append(time.perf_counter() - started)
            ledger.close()
            if texts["engine"] != texts["create"]:
                raise SystemExit("The engine's answers differ from the bare loop's.")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        rate, ratio = options.calls / median, medians["engine"] / median
        print(f"{name:6}  {median:6.2f} s  {rate:5.0f} calls/s  engine takes {ratio:.2f} of it")


if __name__ == "__main__":
    main()

"""A worker in a process of its own: asks questions as part of a run, and prints what became of them as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any

from mop.errors import MopError
from mop.lm import endpoint, workers
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Request
from mop.lm.shared_budget import SharedBudget


def questions(count: int, start: int = 0) -> list[Request]:
    numbers = range(start, start + count)
    return [Request("fake", (("user", f"question {i} " + "x" * (i * 7 % 50)),), max_tokens=12) for i in numbers]


async def work(given: argparse.Namespace) -> dict[str, Any]:
    ledger = Ledger(given.ledger)
    budget = None if given.calls is None else SharedBudget(ledger, "the run", calls=given.calls)
    client = ModelClient("fake", base_url=given.url, ledger=ledger, budget=budget, concurrency=given.concurrency)
    replies: dict[int, str] = {}
    error = None
    try:
        asked = questions(given.count, given.start)
        await client.complete_many(asked, lambda place, reply: replies.update({place: reply.text}))
    except MopError as caught:
        error = f"{type(caught).__name__}: {caught}"
    await client.aclose()
    ledger.close()
    return {
        "replies": replies,
        "error": error,
        "sent": client.traffic.sent,
        "from_ledger": client.traffic.from_ledger,
        "spent": None if budget is None else budget.spent.calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--lease", type=float, default=30.0)
    given = parser.parse_args()
    given.ledger = os.environ["MOP_LEDGER"]
    workers.SECONDS = given.lease
    endpoint.PAUSE = 0.01
    print(json.dumps(asyncio.run(work(given))))


if __name__ == "__main__":
    main()

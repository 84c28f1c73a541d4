"""Estimates: what `mop estimate` says, against what runs then use; and how much of a cap they use.

Whole runs of several methods on several data sets under caps on calls, tokens and money, against a fake endpoint on
loopback that counts tokens as a tokenizer would (pieces of words, digits by three, every sign) and whose model answers
as the demo most like the query does, and wrongly to three queries in ten.

    python -m benchmarks.estimates

prints a line for each run. A cap is not used up where a search has tried all that it knows to try, which few
validation examples bring about.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
from typing import Any

from mop.datasets import helpdesk
from mop.estimate import estimate
from mop.examples import Example, Splits
from mop.lm.ledger import Ledger
from mop.optimization import Run, aoptimize
from mop.settings import make_settings
from tests.fake_endpoint import FakeEndpoint
from tests.simulated import nearest_demo_answer, task

BUDGETS = ("100", "400", "1500", "50k tokens", "200k tokens", "1M tokens", "0.02 USD", "0.1 USD")
METHODS = ("mop", "zero-shot", "random-demos", "ape-random-fair", "mop-paper")
_PIECE = re.compile(r"[A-Za-z]{1,6}|\d{1,3}|[^\w\s]|_|[^\x00-\x7f]")


class Counting(FakeEndpoint):
    """Counts tokens by pieces of words, and four more for each message."""

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._chat(body)
        text = answer["choices"][0]["message"]["content"]
        prompt = 3 + sum(len(_PIECE.findall(message["content"])) + 4 for message in body["messages"])
        answer["usage"] = {"prompt_tokens": prompt, "completion_tokens": len(_PIECE.findall(text)) + 1}
        return answer


def unsure(messages: list[dict[str, Any]]) -> str:
    """Answer as the simulated model does, but wrongly to three queries in ten."""
    share = int(hashlib.sha256(repr(messages).encode()).hexdigest()[:4], 16) % 10
    return "something_else" if len(messages) > 1 and share < 3 else nearest_demo_answer(messages)


def datasets() -> dict[str, Splits]:
    """Return the data sets: short messages, many intents, long messages, and few examples."""
    rows = task(rows_per_answer=25)
    lengthy = [Example(f"{row.input}, {' and then '.join(row.input.split() * 6)}", row.outputs) for row in rows]
    return {
        "short": Splits(tuple(rows[:300]), tuple(rows[300:450]), ()),
        "helpdesk": helpdesk(),
        "long": Splits(tuple(lengthy[:300]), tuple(lengthy[300:420]), ()),
        "few": Splits(tuple(rows[:60]), tuple(rows[60:90]), ()),
    }


def compare(name: str, splits: Splits, method: str, budget: str) -> tuple[float, float, float]:
    """Make one run and print its line; return used calls and tokens as shares of the estimate, and the cap's use."""
    with Counting(unsure, record=False) as server:
        options = {"model": "gpt-4o-mini", "base_url": server.base_url, "budget": budget, "method": method}
        settings = make_settings({**options, "encoder": f"endpoint:words@{server.base_url}"}, environment={})
        said, used = estimate(settings, splits), Run()
        asyncio.run(aoptimize(splits, settings, ledger=Ledger.in_memory(), used=used))
    spend = used.spend
    cap, got = next(
        (cap, got)
        for cap, got in (
            (settings.tokens, spend.tokens),
            (settings.usd, spend.usd or 0.0),
            (settings.budget, spend.calls),
        )
        if cap is not None
    )
    tokens = said.prompt_tokens + said.completion_tokens
    print(
        f"{name:9} {method:16} {budget:12} used {100 * got / cap:5.1f} %   calls {spend.calls:5,} of {said.calls:5,} "
        f"estimated ({100 * (spend.calls / said.calls - 1):+4.0f} %)   tokens {spend.tokens:9,} of {tokens:9,} "
        f"({100 * (spend.tokens / tokens - 1):+4.0f} %)",
        flush=True,
    )
    return spend.calls / said.calls, spend.tokens / tokens, got / cap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument("--data", nargs="+", choices=list(datasets()), default=list(datasets()))
    options = parser.parse_args()
    shares = [
        compare(name, splits, method, budget)
        for name, splits in datasets().items()
        if name in options.data
        for method in options.methods
        for budget in options.budgets
    ]
    for place, what in enumerate(("calls", "tokens")):
        off = sorted(100 * (share[place] - 1) for share in shares)
        middle = off[len(off) // 2]
        low, high = off[len(off) // 10], off[-len(off) // 10 - 1] if len(off) > 1 else off[0]
        print(
            f"{what}: used against estimated {middle:+.0f} % in the middle, {low:+.0f} to {high:+.0f} % in four of five"
        )
    if max(share[2] for share in shares) > 1:
        raise SystemExit("A cap was passed.")


if __name__ == "__main__":
    main()

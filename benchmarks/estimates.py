"""Estimates: what `mop estimate` says, against what runs then use; and how much of a cap they use.

Whole runs of several methods on several data sets under caps on calls, tokens and money, against a fake endpoint on
loopback that counts tokens as a tokenizer would (pieces of words, digits by three, every sign) and whose model answers
as the demo most like the query does, and wrongly to three queries in ten.

    python -m benchmarks.estimates

prints a line for each run. A cap is not used up where a search has tried all that it knows to try, which few
validation examples bring about.

    python -m benchmarks.estimates --grid FILE --tasks DIR

compares with real runs: the finished cells of a grid of methods and tasks (`python -m benchmarks run`), whose lines say
what each search used, whoever paid for it; DIR is the data folder that the grid was run on. No model is called.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import Results
from benchmarks.splitting import sizes_of, split_task
from benchmarks.tasks import load_task
from mop.datasets import helpdesk
from mop.errors import DataError
from mop.estimate import estimate
from mop.examples import Example, Splits
from mop.lm.ledger import Ledger
from mop.optimization import Run, aoptimize
from mop.provenance import data_hash
from mop.search.ablations import CHOICES
from mop.settings import Settings, make_settings
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


@dataclass(frozen=True)
class Off:
    """How far one real search was from its estimate: used over estimated, less one, for calls and tokens."""

    task: str
    method: str
    calls: float
    prompt: float
    completion: float
    tokens: float


def off(record: Mapping[str, Any], splits: Splits) -> Off:
    """Compare a finished cell with its estimate. Raises DataError if it was run on other examples than ``splits``."""
    if data_hash(splits) != record["splits_sha256"]["learn"]:
        raise DataError(
            f"The cell {record['cell']} ({record['task']}, seed {record['seed']}) was run on other examples; give the "
            "data folder that the grid was run on."
        )
    fields = Settings.model_fields
    given = {name: value for name, value in record["settings"].items() if value != fields[name].default}
    said, used = estimate(Settings(**given), splits), record["search"]
    prompt, completion = used["prompt_tokens"], used["completion_tokens"]
    return Off(
        record["task"],
        record["method"],
        _ratio(used["calls"], said.calls),
        _ratio(prompt, said.prompt_tokens),
        _ratio(completion, said.completion_tokens),
        _ratio(prompt + completion, said.prompt_tokens + said.completion_tokens),
    )


def real_runs(grid: Path, tasks: Path) -> Iterator[Off]:
    """Compare every finished cell of a grid's result file with its estimate, but those with exchanged parts."""
    known: dict[tuple[str, int], Splits] = {}
    for record in Results(grid).read().values():
        if set(record["options"]) & set(CHOICES):
            continue
        place = record["task"], record["seed"]
        if place not in known:
            task = load_task(tasks, record["task"])
            known[place] = split_task(task, record["seed"], sizes_of(task, record["most_test"]))
        yield off(record, known[place])


def table(found: list[Off]) -> list[str]:
    """Return how far the runs of each method were off, as lines of Markdown: the median, and the worst of them."""
    lines = [
        "| method | runs | calls | prompt tokens | answer tokens | all tokens |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in [*dict.fromkeys(one.method for one in found), "all"]:
        runs = [one for one in found if method in (one.method, "all")]
        cells = []
        for what in ("calls", "prompt", "completion", "tokens"):
            values = [100 * getattr(one, what) for one in runs]
            cells.append(f"{median(values):+.0f} % ({max(values, key=abs):+.0f} %)")
        lines.append(f"| {method} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def _ratio(used: float, said: float) -> float:
    return used / said - 1 if said else 0.0 if not used else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument("--data", nargs="+", choices=list(datasets()), default=list(datasets()))
    parser.add_argument("--grid", type=Path, help="result file of a grid: compare its real runs and make none")
    parser.add_argument("--tasks", type=Path, help="the data folder that the grid was run on")
    options = parser.parse_args()
    if (options.grid is None) != (options.tasks is None):
        parser.error("--grid and --tasks go together")
    if options.grid is not None:
        found = list(real_runs(options.grid, options.tasks))
        if not found:
            raise SystemExit(f"{options.grid} holds no finished search.")
        print("\n".join(table(found)))
        _say_spread([(1 + one.calls, 1 + one.tokens) for one in found])
        return
    shares = [
        compare(name, splits, method, budget)
        for name, splits in datasets().items()
        if name in options.data
        for method in options.methods
        for budget in options.budgets
    ]
    _say_spread([share[:2] for share in shares])
    if max(share[2] for share in shares) > 1:
        raise SystemExit("A cap was passed.")


def _say_spread(shares: Sequence[tuple[float, float]]) -> None:
    """Print how far calls and tokens were from their estimates in four runs of five."""
    for place, what in enumerate(("calls", "tokens")):
        spread = sorted(100 * (share[place] - 1) for share in shares)
        out = len(spread) // 10
        middle, low, high = spread[len(spread) // 2], spread[out], spread[-1 - out]
        print(
            f"{what}: used against estimated {middle:+.0f} % in the middle, {low:+.0f} to {high:+.0f} % in four of five"
        )


if __name__ == "__main__":
    main()

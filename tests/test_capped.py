"""Caps on tokens and money: whatever the method and however long answers are, a search ends with a measured prompt."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, task

from mop.errors import BudgetExceeded
from mop.estimate import call_tokens
from mop.examples import Example, Splits
from mop.lm.ledger import Ledger
from mop.optimization import Run, aoptimize
from mop.search.methods import METHODS
from mop.settings import Settings, make_settings

#: All that need no white-box model; these are tried in test_instructzero.
NAMES = [name for name in METHODS if not name.startswith("instructzero")]


class Wordy(FakeEndpoint):
    """A model whose prompts have ``scale`` times the usual tokens, and whose answers take ``answers`` of their most.

    The instructions that it writes have ``written`` words.
    """

    def __init__(self, scale: float = 1.0, answers: float = 0.0, written: int = 0) -> None:
        super().__init__(self._text, record=False)
        self.scale, self.answers, self.written = scale, answers, written
        self.chats = 0

    def _text(self, messages: list[dict[str, str]]) -> str:
        if len(messages) == 1:
            return nearest_demo_answer(messages) + " carefully" * self.written
        chance = hashlib.sha256(repr(messages).encode()).digest()[0]
        return "something_else" if chance % 3 == 0 else nearest_demo_answer(messages)

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.chats += 1
        answer, most = super()._chat(body), body["max_tokens"]
        usage, messages = answer["usage"], body["messages"]
        bound = sum(len(message["content"].encode()) + 16 for message in messages)
        usage["prompt_tokens"] = min(bound, int(self.scale * usage["prompt_tokens"]))
        if len(messages) > 1:
            usage["completion_tokens"] = max(usage["completion_tokens"], int(self.answers * most))
        usage["completion_tokens"] = min(most, usage["completion_tokens"])
        return answer


def datasets() -> dict[str, Splits]:
    """Short messages, few of them, messages of very different lengths, and a few that are longer than any cap."""
    rows = task(rows_per_answer=12)
    rng = random.Random(0)
    uneven = [
        Example(f"{row.input} {' and then '.join(row.input.split() * rng.randint(1, 9))}", row.outputs) for row in rows
    ]
    huge = [
        Example(row.input + " and so on" * (300 if number % 40 == 7 else 0), row.outputs)
        for number, row in enumerate(rows)
    ]
    sizes = {"short": (rows, 120, 170), "few": (rows, 40, 60), "uneven": (uneven, 120, 160), "huge": (huge, 120, 170)}
    return {name: Splits(tuple(made[:a]), tuple(made[a:b]), ()) for name, (made, a, b) in sizes.items()}


DATASETS = datasets()


@dataclass(frozen=True)
class Case:
    """A search under a cap that is worth about ``calls`` calls."""

    method: str
    data: str
    calls: int
    money: bool
    options: dict[str, Any]
    scale: float
    answers: float
    written: int

    @classmethod
    def drawn(cls, seed: int) -> Case:
        rng = random.Random(seed)
        method = rng.choice([*["mop", "mop-paper", "mop-paper-block", "mop-paper-chance"] * 3, *NAMES])
        options: dict[str, Any] = {"seed": rng.randint(0, 9), "prompt_tokens": rng.choice([100, 300, 600])}
        if "proposals" in METHODS[method].heeds and rng.random() < 0.4:
            options["proposals"] = rng.choice([0, 4, 30])
        return cls(
            method,
            rng.choice(list(DATASETS)),
            int(20 * 6 ** rng.random()),
            rng.random() < 0.4,
            options,
            rng.choice([0.6, 1.0, 2.0, 3.0]),
            rng.choice([0.0, 0.5, 1.0]),
            rng.choice([0, 20, 200]),
        )

    def settings(self, server: FakeEndpoint) -> Settings:
        options = {"model": "gpt-4o-mini", "method": self.method, "base_url": server.base_url, **self.options}
        found = make_settings({**options, "encoder": f"endpoint:words@{server.base_url}"}, environment={})
        prompt, completion = call_tokens(found, DATASETS[self.data])
        tokens, usd = self.calls * (prompt + completion), self.calls * (0.15e-6 * prompt + 0.6e-6 * completion)
        return found.model_copy(update={"budget": None} | ({"usd": usd} if self.money else {"tokens": tokens}))


#: Before searches sized themselves by every cap, all of these but the last two died at the cap or measured nothing.
SEEDS = (4, 6, 10, 17, 21, 26, 27, 30, 34, 35, 36, 41, 1, 11)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_search_ends_with_a_measured_prompt_or_sends_nothing_and_passes_no_cap(seed: int) -> None:
    case, used = Case.drawn(seed), Run()
    with Wordy(case.scale, case.answers, case.written) as server:
        settings = case.settings(server)
        try:
            mixture = await aoptimize(DATASETS[case.data], settings, ledger=Ledger.in_memory(), used=used)
        except BudgetExceeded:
            assert server.chats == 0, case
        else:
            assert not METHODS[case.method].asks or mixture.report["generalist"]["score"] is not None, case
    assert used.spend.tokens <= (settings.tokens or 10**9)
    assert (used.spend.usd or 0.0) <= (settings.usd or 1.0)


@pytest.mark.parametrize("method", ["mop", "mop-paper", "ape"])
@pytest.mark.parametrize(
    ("budget", "options", "says"),
    [
        ("400 tokens", {}, r"400 tokens come to about \d+ model calls here.*give at least [\d,]+ tokens"),
        ("0.0002 USD", {}, r"come to about \d+ model calls here.*give at least 0\.\d+ USD"),
        ("20000 tokens", {"answer_tokens": 30_000}, r"20,000 tokens are too few to learn from.*Give at least [\d,]+"),
    ],
)
async def test_a_cap_that_the_smallest_search_does_not_fit_into_is_refused_before_the_first_call(
    method: str, budget: str, options: dict[str, Any], says: str
) -> None:
    with Wordy() as server:
        given = {"model": "gpt-4o-mini", "method": method, "budget": budget, "base_url": server.base_url, **options}
        settings = make_settings({**given, "encoder": f"endpoint:words@{server.base_url}"}, environment={})
        with pytest.raises(BudgetExceeded, match=says):
            await aoptimize(DATASETS["short"], settings, ledger=Ledger.in_memory())
    assert server.chats == 0

"""A budget that several workers share, under random concurrency, latencies and failures: as one that one keeps."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault, fingerprint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from postgres import Postgres
from worker import questions

from mop.errors import BudgetExceeded
from mop.lm import endpoint as endpoint_module
from mop.lm import workers as workers_module
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.prices import Prices
from mop.lm.request import Request
from mop.lm.shared_budget import SharedBudget
from mop.lm.wire import most_prompt_tokens

PRICES = Prices({"fake": {"input": 1.0, "cached_input": 0.25, "output": 4.0}})


@pytest.fixture(autouse=True, scope="module")
def _short_pauses() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint_module, "PAUSE", 0.002)
        yield


class Upstream:
    """Answers late, and not at all with a certain probability; counts the questions that it answered."""

    def __init__(self, seed: int, failing: float, latency: float) -> None:
        self._rng = random.Random(seed)
        self._failing, self._latency = failing, latency
        self.answered: list[str] = []

    def __call__(self, _number: int, body: dict[str, Any]) -> Fault | None:
        if self._rng.random() < self._failing:
            return self._rng.choice([Fault.error(500), Fault.error(503), Fault(drop=True)])
        self.answered.append(fingerprint(body))
        return Fault(delay=self._rng.random() * self._latency)


async def spend(
    url: str, parts: list[list[Request]], upstream: Upstream, concurrency: int, **caps: Any
) -> tuple[list[bool], SharedBudget]:
    """Ask each part as a worker of its own, all at once; return whom the budget refused a call."""
    books = [Ledger(url) for _ in parts]
    budgets = [SharedBudget(book, "the run", prices=PRICES, **caps) for book in books]
    with FakeEndpoint(faults=upstream, record=False) as server:
        clients = [
            ModelClient("fake", base_url=server.base_url, ledger=book, budget=budget, concurrency=concurrency)
            for book, budget in zip(books, budgets, strict=True)
        ]
        asked = (client.complete_many(part) for client, part in zip(clients, parts, strict=True))
        done = await asyncio.gather(*asked, return_exceptions=True)
        for client in clients:
            await client.aclose()
    refused = [isinstance(one, BudgetExceeded) for one in done]
    assert all(no or isinstance(one, list) for no, one in zip(refused, done, strict=True)), done
    await budgets[0].flush()
    for book in books:
        book.close()
    return refused, budgets[0]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cap=st.integers(0, 40),
    work=st.integers(1, 40),
    shared=st.floats(0, 1),
    workers=st.integers(1, 3),
    concurrency=st.integers(1, 50),
    failing=st.floats(0, 0.4),
    seed=st.integers(0, 2**16),
)
@example(cap=137, work=100, shared=0.0, workers=2, concurrency=50, failing=0.3, seed=1)
@example(cap=30, work=40, shared=1.0, workers=2, concurrency=50, failing=0.3, seed=2)
def test_a_cap_on_calls_is_reached_by_all_workers_together_and_never_passed(
    postgres: Postgres, cap: int, work: int, shared: float, workers: int, concurrency: int, failing: float, seed: int
) -> None:
    common = int(shared * work)
    parts = [questions(common) + questions(work - common, 1000 * (n + 1)) for n in range(workers)]
    distinct = len({one.key for part in parts for one in part})
    upstream = Upstream(seed, failing, 0.01)
    refused, budget = asyncio.run(spend(postgres.url(), parts, upstream, concurrency, calls=cap))
    assert len(upstream.answered) == len(set(upstream.answered)) == budget.spent.calls == min(cap, distinct)
    assert any(refused) == (distinct > cap)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["tokens", "usd"]),
    share=st.floats(0.05, 1.2),
    concurrency=st.integers(1, 50),
    failing=st.floats(0, 0.4),
    seed=st.integers(0, 2**16),
)
def test_a_cap_on_tokens_or_money_holds_and_no_worker_stops_while_its_next_call_would_fit(
    postgres: Postgres, kind: str, share: float, concurrency: int, failing: float, seed: int
) -> None:
    parts = [questions(30), questions(30, 1000)]
    most = [(most_prompt_tokens(one), one.max_tokens) for part in parts for one in part]
    if kind == "tokens":
        caps: dict[str, Any] = {"tokens": int(share * sum(map(sum, most)))}
    else:
        caps = {"usd": share * sum(prompt * 1.0 + answer * 4.0 for prompt, answer in most) / 1e6}
    upstream = Upstream(seed, failing, 0.005)
    refused, budget = asyncio.run(spend(postgres.url(), parts, upstream, concurrency, **caps))
    spent = budget.spent
    assert spent.calls == len(upstream.answered) == len(set(upstream.answered))
    assert any(refused) == (spent.calls < 60)
    used, cap = (spent.tokens, caps.get("tokens")) if kind == "tokens" else (spent.usd or 0.0, caps.get("usd"))
    assert used <= cap + 1e-9
    if any(refused):
        largest = max(prompt + answer if kind == "tokens" else (prompt + 4 * answer) / 1e6 for prompt, answer in most)
        assert used + largest > cap - 1e-9


async def test_reservations_of_a_worker_that_is_dead_are_released_and_those_of_others_are_kept(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = postgres.url(), questions(3)
    monkeypatch.setattr(workers_module, "SECONDS", 600.0)
    books = [Ledger(url) for _ in range(3)]
    budgets = [SharedBudget(book, "the run", calls=2) for book in books]
    assert await budgets[0].admit(asked[0], None)
    assert await budgets[1].admit(asked[1], None)
    waiting = asyncio.create_task(budgets[2].admit(asked[2], None))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    # By the server's clock, whatever the workers' clocks say.
    postgres.execute(
        f"UPDATE workers SET expires_at = extract(epoch FROM now()) - 1 WHERE owner = '{books[0].worker.owner}'",
        url.rpartition("/")[2],
    )
    async with asyncio.timeout(10):
        taken = await waiting
    assert taken is not None
    assert taken.owned
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await budgets[2].admit(asked[0], None)
    for book in books:
        book.close()


async def test_what_one_worker_reserved_another_takes_over_and_what_it_does_not_use_is_free_again(
    postgres: Postgres,
) -> None:
    url = postgres.url()
    books = [Ledger(url) for _ in range(2)]
    first, second = (SharedBudget(book, "the run", calls=5) for book in books)
    asked = questions(8)
    admitted = await first.admit_many([(one, None) for one in asked])
    assert [one.key for one in admitted if one is not None and one.owned] == [one.key for one in asked[:5]]
    second.take_over(books[0].worker.owner, asked[:3])
    mine = await second.admit(asked[0], None)
    assert mine is not None
    assert mine.owned
    theirs = await second.admit(asked[4], None)
    assert theirs is not None
    assert not theirs.owned
    second.let_go(asked[:3])
    await second.flush()
    admitted = await first.admit_many([(one, None) for one in asked[5:]])
    assert [one.key for one in admitted if one is not None] == [one.key for one in asked[5:7]]
    for book in books:
        book.close()


async def test_as_many_calls_are_admitted_at_once_as_there_is_room_for_and_the_first_that_can_never_fit_is_refused(
    postgres: Postgres,
) -> None:
    asked = questions(12)
    book = Ledger(postgres.url())
    room = sum(most_prompt_tokens(one) + one.max_tokens for one in asked[:7]) + 3
    budget = SharedBudget(book, "the run", tokens=room)
    assert len(await budget.admit_many([(one, None) for one in asked])) == 7
    large = Request("fake", (("user", "x" * 10_000),))
    with pytest.raises(BudgetExceeded):
        await budget.admit_many([(large, None), *((one, None) for one in asked)])
    book.close()

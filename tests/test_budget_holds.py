"""Budgets under random concurrency, latencies and failures: never over a cap, never a call short of it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault, fingerprint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mop.errors import BudgetExceeded
from mop.lm import endpoint as endpoint_module
from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.prices import Prices
from mop.lm.request import Reply, Request
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
            kinds = [Fault.error(500), Fault.error(503), Fault(drop=True), Fault(raw=b"no JSON")]
            # An answer that makes no sense may come three times; a failure may come more often.
            return self._rng.choice(kinds[:3] if self._rng.random() < 0.9 else kinds)
        self.answered.append(fingerprint(body))
        return Fault(delay=self._rng.random() * self._latency)


async def spend(
    requests: list[Request], budget: Budget, upstream: Upstream, concurrency: int, batches: int
) -> tuple[list[Reply], bool]:
    """Ask ``requests`` in as many batches at once; return the replies, and whether the budget refused a call."""
    replies: list[Reply] = []
    ledger = Ledger.in_memory()
    with FakeEndpoint(faults=upstream, record=False) as server:
        client = ModelClient("fake", base_url=server.base_url, ledger=ledger, budget=budget, concurrency=concurrency)

        def note(_place: int, reply: Reply) -> None:
            replies.append(reply)
            for spent, cap in (
                (budget.spent.calls, budget.calls),
                (budget.spent.tokens, budget.tokens),
                (budget.spent.usd or 0.0, budget.usd),
            ):
                assert cap is None or spent <= cap + 1e-9

        parts = [requests[start::batches] for start in range(batches)]
        done = await asyncio.gather(*(client.complete_many(part, note) for part in parts), return_exceptions=True)
        await client.aclose()
    ledger.close()
    refused = [one for one in done if isinstance(one, BaseException)]
    assert all(isinstance(one, BudgetExceeded) for one in refused), refused
    return replies, bool(refused)


def questions(count: int) -> list[Request]:
    return [Request("fake", (("user", f"question {i} " + "x" * (i * 7 % 50)),), max_tokens=12) for i in range(count)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cap=st.integers(0, 60),
    work=st.integers(1, 60),
    concurrency=st.integers(1, 50),
    failing=st.floats(0, 0.4),
    latency=st.sampled_from([0.0, 0.002, 0.01]),
    batches=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@example(cap=137, work=400, concurrency=50, failing=0.3, latency=0.005, batches=1, seed=1)
@example(cap=137, work=400, concurrency=50, failing=0.3, latency=0.005, batches=3, seed=2)
@example(cap=50, work=50, concurrency=50, failing=0.0, latency=0.0, batches=2, seed=3)
def test_a_cap_on_calls_is_reached_and_never_passed(
    cap: int, work: int, concurrency: int, failing: float, latency: float, batches: int, seed: int
) -> None:
    budget, upstream = Budget(calls=cap), Upstream(seed, failing, latency)
    replies, refused = asyncio.run(spend(questions(work), budget, upstream, concurrency, batches))
    assert len(replies) == budget.spent.calls == len(upstream.answered) == len(set(upstream.answered))
    assert len(replies) == min(cap, work)
    assert refused == (work > cap)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["tokens", "usd"]),
    share=st.floats(0.05, 1.2),
    work=st.integers(1, 40),
    concurrency=st.integers(1, 50),
    failing=st.floats(0, 0.4),
    seed=st.integers(0, 2**16),
)
@example(kind="tokens", share=0.3, work=200, concurrency=50, failing=0.3, seed=1)
@example(kind="usd", share=0.3, work=200, concurrency=50, failing=0.3, seed=2)
def test_a_cap_on_tokens_or_money_is_never_passed_and_no_call_that_fits_is_left(
    kind: str, share: float, work: int, concurrency: int, failing: float, seed: int
) -> None:
    asked = questions(work)
    most = [(most_prompt_tokens(one), one.max_tokens) for one in asked]
    if kind == "tokens":
        cap = int(share * sum(prompt + answer for prompt, answer in most))
        budget = Budget(tokens=cap, prices=PRICES)
    else:
        cap_usd = share * sum(prompt * 1.0 + answer * 4.0 for prompt, answer in most) / 1e6
        budget = Budget(usd=cap_usd, prices=PRICES)
    replies, refused = asyncio.run(spend(asked, budget, Upstream(seed, failing, 0.002), concurrency, 1))
    assert refused == (len(replies) < work)
    if refused:  # what is left has no room for the very call that was refused: it is less than one call
        prompt, answer = most[len(replies)]
        with pytest.raises(BudgetExceeded):
            budget.reserve("fake", prompt, answer)

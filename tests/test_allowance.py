"""Budgets in tokens and money: a search uses them, keeps to them, and goes on where it was."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_endpoint import FakeEndpoint, Fault
from simulated import nearest_demo_answer, splits

from mop.artifact import to_bytes
from mop.errors import MopError
from mop.estimate import estimate
from mop.examples import Example
from mop.lm.budget import Budget, Spend
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.optimization import Run, aoptimize
from mop.prompts import Prompt
from mop.search.allowance import Allowance
from mop.search.trials import Trials
from mop.settings import Settings, make_settings


def unsure(messages: list[dict[str, Any]]) -> str:
    """Answer as the simulated model does, but wrongly to a third of the questions."""
    digest = hashlib.sha256(repr(messages).encode()).digest()
    return "something_else" if len(messages) > 1 and digest[0] % 3 == 0 else nearest_demo_answer(messages)


def settings(server: FakeEndpoint, budget: str, **more: object) -> Settings:
    options = {"model": "gpt-4o-mini", "base_url": server.base_url, "budget": budget, "prompt_tokens": 200, **more}
    return make_settings({**options, "encoder": f"endpoint:words@{server.base_url}"}, environment={})


# Where one expert wins the race of layouts a search has soon tried all that it knows, so the largest cap has a number.
@pytest.mark.parametrize(("budget", "experts"), [("40k tokens", None), ("120k tokens", 12), ("0.01 USD", None)])
async def test_a_cap_on_tokens_or_money_is_used_and_not_passed(budget: str, experts: int | None) -> None:
    with FakeEndpoint(unsure, record=False) as server:
        chosen, used = settings(server, budget, experts=experts), Run()
        await aoptimize(splits(), chosen, ledger=Ledger.in_memory(), used=used)
    spent = used.spend.tokens if chosen.tokens else used.spend.usd
    cap = chosen.tokens or chosen.usd
    assert spent is not None
    assert cap is not None
    assert 0.85 * cap <= spent <= cap


async def test_the_tightest_of_several_caps_is_the_one_that_holds() -> None:
    with FakeEndpoint(unsure, record=False) as server:
        used = Run()
        both = settings(server, "60k tokens").model_copy(update={"budget": 110})
        await aoptimize(splits(), both, ledger=Ledger.in_memory(), used=used)
    assert used.spend.calls <= 110
    assert used.spend.tokens <= 60_000
    assert used.spend.calls > 90 or used.spend.tokens > 50_000


def judging(messages: list[dict[str, Any]]) -> str:
    """Answer as `unsure` does; judge by chance, and one time in twenty so that nobody can read it."""
    question = messages[-1]["content"]
    if "[End of answer" not in question:
        return unsure(messages)
    chance = hashlib.sha256(question.encode()).digest()[0]
    if chance < 13:
        return "hm"
    return "AB"[chance % 2] if "[Answer A]" in question else str(1 + chance % 10)


@pytest.mark.parametrize("metric", ["judge", "judge:pairwise"])
@pytest.mark.parametrize(("budget", "calls"), [("120", 120), ("300", 300), ("300k tokens", 150)])
async def test_a_judges_calls_pass_no_cap_whatever_other_caps_there_are(metric: str, budget: str, calls: int) -> None:
    with FakeEndpoint(judging, record=False) as server:
        chosen, used = settings(server, budget, metric=metric).model_copy(update={"budget": calls}), Run()
        await aoptimize(splits(), chosen, ledger=Ledger.in_memory(), used=used)
    assert 0.8 * calls <= used.spend.calls <= calls


@pytest.mark.parametrize("scale", [0.5, 3.0])
async def test_an_endpoint_that_counts_other_tokens_than_estimated_gets_another_plan(scale: float) -> None:
    class Counting(FakeEndpoint):
        def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._chat(body)
            answer["usage"]["prompt_tokens"] = int(scale * answer["usage"]["prompt_tokens"])
            return answer

    with Counting(unsure, record=False) as server:
        used = Run()
        await aoptimize(splits(), settings(server, "80k tokens"), ledger=Ledger.in_memory(), used=used)
    assert 0.6 * 80_000 <= used.spend.tokens <= 80_000


def test_replies_that_count_no_tokens_leave_trials_what_they_were_estimated_to_take() -> None:
    prompt, example = Prompt("Name it."), Example("my card is late", ("card_late",))
    trials = SimpleNamespace(calls_each=1, done=9, sizes=(90, 9), size=lambda _: (10, 1))
    silent = SimpleNamespace(spent=Spend(9, by_role={"execute": Spend(9)}))
    allowance = Allowance(
        100, budget=Budget(tokens=1100), trials=cast(Trials, trials), clients=[cast(ModelClient, silent)]
    )
    assert allowance.cost([(prompt, example)] * 10) == pytest.approx(10)


async def test_a_run_under_a_cap_on_tokens_that_is_stopped_goes_on_to_the_same_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = []
    with FakeEndpoint(unsure, record=False) as server:
        whole, resumed = Ledger.in_memory(), Ledger.in_memory()
        found.append(to_bytes(await aoptimize(splits(), settings(server, "60k tokens"), ledger=whole)))
        for stop in (3, 40, 90):
            start = server.served
            server._faults = lambda n, body, at=start + stop: (
                Fault.error(400) if n >= at and "messages" in body else None
            )
            with pytest.raises(MopError):
                await aoptimize(splits(), settings(server, "60k tokens", concurrency=3), ledger=resumed)
        server._faults = lambda n, body: None
        found.append(to_bytes(await aoptimize(splits(), settings(server, "60k tokens", concurrency=5), ledger=resumed)))
        assert resumed.totals(by=())[()].calls == whole.totals(by=())[()].calls
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["mop", "ape-random-fair", "random-demos", "mop-paper"])
@pytest.mark.parametrize("budget", ["150", "60k tokens"])
async def test_an_estimate_is_near_what_a_run_uses(method: str, budget: str) -> None:
    with FakeEndpoint(unsure, record=False) as server:
        chosen, used = settings(server, budget, method=method), Run()
        await aoptimize(splits(), chosen, ledger=Ledger.in_memory(), used=used)
    found = estimate(chosen, splits())
    assert found.calls == pytest.approx(used.spend.calls, rel=0.35)
    assert found.prompt_tokens + found.completion_tokens == pytest.approx(used.spend.tokens, rel=0.5)

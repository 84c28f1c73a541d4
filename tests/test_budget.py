import asyncio
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.errors import BudgetExceeded, MopError, SettingsError, UnknownPrice
from mop.lm.budget import Budget
from mop.lm.prices import Prices
from mop.lm.request import Usage

PRICES = Prices({"m": {"input": 2.0, "cached_input": 0.5, "output": 8.0}})


def test_a_reservation_that_would_pass_a_cap_is_refused_and_takes_nothing():
    budget = Budget(calls=2, prices=PRICES)
    budget.reserve("m", 10, 5)
    with pytest.raises(BudgetExceeded, match=r"up to 2 calls more would pass the cap of 2"):
        budget.reserve("m", 10, 5, calls=2)
    budget.reserve("m", 10, 5)
    with pytest.raises(BudgetExceeded):
        budget.reserve("m", 10, 5)


@pytest.mark.parametrize("caps", [{"calls": 1}, {"tokens": 15}, {"usd": 0.00006}])
def test_each_kind_of_cap_lets_exactly_what_fits_pass(caps):
    budget = Budget(**caps, prices=PRICES)
    budget.settle(budget.reserve("m", 10, 5), Usage(10, 0, 5))
    assert budget.spent.usd == pytest.approx(0.00006)
    with pytest.raises(BudgetExceeded):
        budget.reserve("m", 1, 1)


def test_settling_and_cancelling_give_back_what_was_not_used():
    budget = Budget(tokens=100)
    first = budget.reserve("m", 50, 50)
    budget.settle(first, Usage(20, 0, 10))
    second = budget.reserve("m", 35, 35)
    budget.cancel(second)
    budget.cancel(second)
    assert budget.room(1, 70, "m")
    assert not budget.room(1, 71, "m")


def test_a_reservation_is_settled_once():
    budget = Budget()
    reservation = budget.reserve("m", 1, 1)
    budget.settle(reservation, Usage(1, 0, 1))
    with pytest.raises(MopError, match="twice"):
        budget.settle(reservation, Usage(1, 0, 1))


def test_usage_above_the_reservation_is_counted_as_it_is():
    budget = Budget(tokens=20)
    budget.settle(budget.reserve("m", 5, 5), Usage(5, 0, 500))
    assert budget.spent.tokens == 505
    assert not budget.room(0, 0, "m")


def test_spending_is_told_by_role():
    budget = Budget(prices=PRICES)
    budget.settle(budget.reserve("m", 10, 5, role="propose"), Usage(10, 0, 5))
    budget.settle(budget.reserve("m", 10, 5), Usage(8, 4, 1))
    assert budget.spent.calls == 2
    assert budget.spent.by_role["propose"].usage == Usage(10, 0, 5)
    assert budget.spent.by_role["execute"].usd == pytest.approx((4 * 2 + 4 * 0.5 + 8) * 1e-6)


def test_an_unknown_price_stops_a_money_cap_with_the_lines_to_add_but_nothing_else():
    with pytest.raises(UnknownPrice, match=r'\[models\."mystery"\]'):
        Budget(usd=1.0).reserve("mystery", 1, 1)
    free = Budget(calls=1)
    free.settle(free.reserve("mystery", 1, 1), Usage(1, 0, 1))
    assert free.spent.usd is None


@pytest.mark.parametrize("caps", [{"calls": -1}, {"usd": float("nan")}, {"tokens": float("inf")}])
def test_a_cap_that_is_no_amount_is_refused(caps):
    with pytest.raises(SettingsError, match="cap on"):
        Budget(**caps)


amounts = st.integers(0, 40)


@settings(max_examples=150, deadline=None)
@given(
    caps=st.tuples(st.none() | st.integers(0, 8), st.none() | amounts, st.none() | st.floats(0, 3e-4)),
    steps=st.lists(st.tuples(st.sampled_from(["reserve", "settle", "cancel"]), amounts, amounts, st.integers(0, 9))),
)
def test_no_sequence_of_calls_that_keep_their_reservation_passes_a_cap(caps, steps):
    calls, tokens, usd = caps
    budget = Budget(calls, tokens, usd, PRICES)
    held = []
    for action, prompt, completion, pick in steps:
        if action == "reserve":
            try:
                held.append((budget.reserve("m", prompt, completion), prompt, completion))
            except BudgetExceeded:
                continue
        elif held:
            reservation, most_prompt, most_completion = held.pop(pick % len(held))
            if action == "settle":
                used = Usage(min(prompt, most_prompt), min(pick, prompt, most_prompt), min(completion, most_completion))
                budget.settle(reservation, used)
            else:
                budget.cancel(reservation)
        spent = budget.spent
        worst = spent.tokens + sum(p + c for _, p, c in held)
        assert calls is None or spent.calls + len(held) <= calls
        assert tokens is None or worst <= tokens
        assert usd is None or (spent.usd or 0) <= usd + 1e-12
    for reservation, *_ in held:
        budget.cancel(reservation)
    left = None if calls is None else calls - budget.spent.calls
    assert left is None or budget.room(left, 0, "m")


def test_threads_together_get_exactly_what_the_cap_holds():
    budget = Budget(calls=500, tokens=10_000)
    refused = []

    def work(n: int) -> None:
        for i in range(200):
            try:
                reservation = budget.reserve("m", 10, 10)
            except BudgetExceeded:
                refused.append(n)
                continue
            if (n + i) % 5 == 0:
                budget.cancel(reservation)
            else:
                budget.settle(reservation, Usage(10, 0, 10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent.calls == 500
    assert budget.spent.tokens == 10_000
    assert refused


async def test_a_turn_waits_for_open_reservations_that_may_still_shrink():
    budget = Budget(tokens=100)
    first = await budget.reserve_in_turn("m", 50, 30)
    waiting = asyncio.create_task(budget.reserve_in_turn("m", 40, 10))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    budget.settle(first, Usage(30, 0, 10))
    assert (await asyncio.wait_for(waiting, 1)).tokens == 50


async def test_a_turn_is_refused_when_what_is_spent_leaves_no_room():
    budget = Budget(tokens=100)
    first = await budget.reserve_in_turn("m", 50, 30)
    waiting = asyncio.create_task(budget.reserve_in_turn("m", 40, 10))
    await asyncio.sleep(0)
    budget.settle(first, Usage(50, 0, 30))
    with pytest.raises(BudgetExceeded, match="80 spent"):
        await asyncio.wait_for(waiting, 1)


async def test_a_turn_that_is_cancelled_while_it_waits_does_no_harm():
    budget = Budget(calls=1)
    first = await budget.reserve_in_turn("m", 1, 1)
    waiting = asyncio.create_task(budget.reserve_in_turn("m", 1, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    budget.cancel(first)
    assert budget.room(1, 0, "m")


def test_cached_tokens_have_their_own_price_and_the_saving_can_be_told():
    usage = Usage(1_000_000, 400_000, 100_000)
    assert PRICES.cost(usage, "m") == 0.6 * 2 + 0.4 * 0.5 + 0.8
    assert PRICES.cost_without_cache(usage, "m") == 2.8
    assert Prices({"m": {"input": 2, "output": 8}}).cost(usage, "m") == 2.8


def test_local_models_cost_nothing_and_dated_snapshots_cost_what_their_model_costs():
    prices = Prices()
    assert prices.cost(Usage(10**6, 0, 10**6), "local/anything") == 0
    assert prices.get("gpt-4o-mini-2024-07-18") == prices.get("gpt-4o-mini")
    assert prices.find("gpt-4o-mini-turbo-deluxe") is None


@pytest.mark.parametrize("name", ["own.toml", "own.json"])
def test_a_price_file_overrides_the_built_in_prices(tmp_path, name):
    path = tmp_path / name
    models = {"gpt-4o": {"input": 1, "output": 3}}
    path.write_text(json.dumps({"models": models}) if name.endswith("json") else TOML)
    assert Prices(path).cost(Usage(10**6, 0, 10**6), "gpt-4o") == 4
    assert Prices(path).find("gpt-4.1") is not None


TOML = '[models."gpt-4o"]\ninput = 1\noutput = 3\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[models."x"]\ninput = -1\noutput = 1', "models.x.input"),
        ("not toml", "valid TOML"),
        ("a = 1", "models"),
    ],
)
def test_a_price_file_that_cannot_be_used_is_an_error_that_names_the_place(tmp_path, text, words):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        Prices(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        Prices(tmp_path / "absent.toml")

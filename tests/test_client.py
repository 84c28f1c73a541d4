import asyncio
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking import ask, asks, client_of, expected
from fake_endpoint import FakeEndpoint, Fault

from mop.errors import BudgetExceeded, LedgerError, ModelError, SettingsError, UnknownPrice
from mop.lm import endpoint as endpoint_module
from mop.lm.budget import Budget
from mop.lm.client import EMBED_BATCH, ModelClient
from mop.lm.commits import GroupCommit
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Usage

SECRET = "sk-do-not-tell-0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.01)
    for name in ("OPENAI_API_KEY", "MOP_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ledger():
    ledger = Ledger.in_memory()
    yield ledger
    ledger.close()


async def test_replies_come_in_the_order_of_the_requests_whatever_order_they_arrive_in(ledger):
    pauses = random.Random(0)
    with FakeEndpoint(faults=lambda n, body: Fault(delay=pauses.random() / 50)) as server:
        client = client_of(server, ledger, concurrency=16)
        replies = await client.complete_many(asks(60))
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(60))
    assert not any(reply.from_ledger for reply in replies)


async def test_requests_are_sent_in_order_within_the_concurrency(ledger):
    with FakeEndpoint(latency=0.01) as server:
        client = client_of(server, ledger, concurrency=3)
        await client.complete_many(asks(20))
        await client.aclose()
    order = [int(body["messages"][1]["content"]) for body in server.bodies]
    assert server.most_in_flight <= 3
    # Three connections at a time: an arrival may overtake two others, no more.
    assert all(abs(place - number) <= 2 for place, number in enumerate(order))


async def test_the_same_request_is_never_sent_twice(ledger):
    with FakeEndpoint(latency=0.02) as server:
        client = client_of(server, ledger)
        pair = [ask("a"), ask("b"), ask("a")]
        first, second = await asyncio.gather(client.complete_many(pair), client.complete_many(pair[::-1]))
        third = await client.complete(ask("a", role="judge"))
        await client.aclose()
        other = client_of(server, ledger)
        fourth = await other.complete(ask("a"))
        await other.aclose()
    assert server.served == 2
    assert [reply.text for reply in first] == [reply.text for reply in second] == expected(pair)
    assert third.from_ledger
    assert fourth.from_ledger
    assert fourth.text == first[0].text
    assert (other.traffic.sent, other.traffic.from_ledger) == (0, 1)


async def test_a_sample_number_asks_again(ledger):
    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        await client.complete_many([ask("a", seed=7, sample=n) for n in range(3)])
        await client.aclose()
    assert sorted(body["seed"] for body in server.bodies) == [7, 8, 9]


async def test_extra_fields_of_the_body_are_sent_and_belong_to_the_key(ledger):
    with FakeEndpoint() as server:
        plain, low = (client_of(server, ledger, extra_body=extra) for extra in (None, {"reasoning_effort": "low"}))
        first, second = await plain.complete(ask("a")), await low.complete(ask("a"))
        await plain.aclose()
        await low.aclose()
    assert first.key == ask("a").key != second.key
    assert server.bodies[1]["reasoning_effort"] == "low"
    with pytest.raises(SettingsError, match="temperature"):
        client_of(server, ledger, extra_body={"temperature": 1})


async def test_a_reply_is_on_record_before_it_is_given_out(tmp_path):
    ledger, reader = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    seen = []
    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        await client.complete_many(
            asks(10), lambda place, reply: seen.append((place, reader.get_many([reply.key])[reply.key].text))
        )
        await client.aclose()
    assert sorted(seen) == list(enumerate(expected(asks(10))))


async def test_a_call_counts_once_whether_sent_or_from_the_ledger_and_the_sum_is_the_same_when_resumed(
    ledger,
):
    spent, refused_at = [], []
    with FakeEndpoint() as server:
        for concurrency in (1, 16, 5):
            budget = Budget(tokens=900)
            client = client_of(server, ledger, budget=budget, concurrency=concurrency)
            got = []
            with pytest.raises(BudgetExceeded):
                await client.complete_many(asks(50) + asks(50), lambda place, reply, got=got: got.append(place))
            await client.aclose()
            spent.append(budget.spent)
            refused_at.append(sorted(got))
    assert spent[0] == spent[1] == spent[2]
    assert spent[0].tokens <= 900
    assert refused_at[0] == refused_at[1] == refused_at[2]
    assert server.served == spent[0].calls


async def test_the_budget_refuses_a_call_after_those_before_it_were_answered_and_recorded(ledger):
    with FakeEndpoint(latency=0.01) as server:
        budget = Budget(calls=7)
        client = client_of(server, ledger, budget=budget, concurrency=16)
        with pytest.raises(BudgetExceeded, match="cap of 7"):
            await client.complete_many(asks(20))
        await client.complete_many(asks(7))
        await client.aclose()
    assert server.served == budget.spent.calls == 7
    assert len(ledger.get_many([request.key for request in asks(20)])) == 7


async def test_a_failed_call_is_not_counted(ledger):
    with FakeEndpoint(faults=[Fault.error(400)]) as server:
        budget = Budget(calls=1)
        client = client_of(server, ledger, budget=budget)
        with pytest.raises(ModelError):
            await client.complete(ask("a"))
        assert budget.spent.calls == 0
        await client.complete(ask("a"))
        await client.aclose()
    assert budget.spent.calls == 1


async def test_a_money_cap_without_a_price_sends_nothing(ledger):
    with FakeEndpoint() as server:
        client = client_of(server, ledger, budget=Budget(usd=5))
        with pytest.raises(UnknownPrice, match="fake"):
            await client.complete(ask("a"))
        await client.aclose()
    assert server.served == 0


async def test_when_one_call_fails_those_underway_are_recorded_and_no_more_are_sent(ledger):
    def fault(number, body):
        return Fault.error(400, "bad") if body["messages"][1]["content"] == "2" else Fault(delay=0.05)

    with FakeEndpoint(faults=fault) as server:
        client = client_of(server, ledger, concurrency=4)
        with pytest.raises(ModelError, match="bad"):
            await client.complete_many(asks(30))
        await client.aclose()
    assert server.served < 8
    assert len(ledger.get_many([request.key for request in asks(30)])) == server.served - 1


async def test_a_batch_takes_over_the_calls_of_a_batch_that_was_stopped(ledger):
    with FakeEndpoint(latency=0.1) as server:
        budget = Budget(calls=3)
        client = client_of(server, ledger, budget=budget)
        first = asyncio.create_task(client.complete_many(asks(3)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(client.complete_many(asks(3)))
        await asyncio.sleep(0.02)
        first.cancel()
        replies = await asyncio.wait_for(second, 3)
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(3))
    assert first.cancelled()
    assert budget.spent.calls == 3


async def test_cancelling_records_what_has_arrived_and_leaves_the_client_usable(ledger):
    with FakeEndpoint(faults=lambda n, body: Fault(delay=0.0 if n < 5 else 30.0)) as server:
        budget = Budget(calls=100, tokens=10**6)
        client = client_of(server, ledger, budget=budget, concurrency=4)
        work = asyncio.create_task(client.complete_many(asks(30)))
        while server.served < 9:
            await asyncio.sleep(0.005)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert len(ledger.get_many([request.key for request in asks(30)])) == 5
        assert budget.room(95, 1, "fake")
        assert [reply.text for reply in await client.complete_many(asks(5))] == expected(asks(5))
        await client.aclose()


def test_ctrl_c_records_what_has_arrived(tmp_path):
    path = tmp_path / "run.sqlite"
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[3])\n"
        "from asking import ModelClient, Ledger, asks\n"
        "client = ModelClient('fake', base_url=sys.argv[1], ledger=Ledger(sys.argv[2]), concurrency=4)\n"
        "asyncio.run(client.complete_many(asks(40)))"
    )
    with FakeEndpoint(faults=lambda n, body: Fault(delay=0.0 if n < 10 else 30.0)) as server:
        command = [sys.executable, "-c", script, server.base_url, str(path), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while server.served < 14:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=10)[1]
    assert "KeyboardInterrupt" in errors
    ledger = Ledger(path)
    assert len(ledger.get_many([request.key for request in asks(40)])) == 10
    ledger.close()


async def test_a_ledger_that_cannot_be_written_ends_the_batch(tmp_path):
    ledger = Ledger(tmp_path / "l")

    def full(calls, run, account):
        raise LedgerError("The disk is full")

    ledger.put_many = full
    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        with pytest.raises(LedgerError, match="disk is full"):
            await asyncio.wait_for(client.complete_many(asks(40)), 5)
        await client.aclose()


async def test_a_reply_that_no_database_takes_fails_alone_and_nobody_waits_for_ever(ledger):
    commits = GroupCommit(ledger)
    absurd = commits.add(ask("a"), Reply("ok", Usage(10**19, 0, 1), "stop", ask("a").key, False, 0.0))
    with pytest.raises(LedgerError, match="could not be recorded"):
        await asyncio.wait_for(absurd, 20)
    fine = commits.add(ask("b"), Reply("ok", Usage(1, 0, 1), "stop", ask("b").key, False, 0.0))
    assert (await asyncio.wait_for(fine, 20)).text == "ok"


async def test_an_error_of_the_callback_is_not_swallowed(ledger):
    def callback(place, reply):
        raise ZeroDivisionError

    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        with pytest.raises(ZeroDivisionError):
            await client.complete_many(asks(3), callback)
        await client.aclose()


async def test_the_api_key_is_in_no_file_error_repr_or_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "l"
    ledger = Ledger(path)

    def fault(number, body):
        return Fault.error(401, f"Incorrect API key provided: {SECRET}") if number else None

    with FakeEndpoint(faults=fault) as server:
        client = client_of(server, ledger, api_key=SECRET)
        await client.complete(ask("a"))
        with pytest.raises(ModelError) as caught:
            await client.complete(ask("b"))
        await client.aclose()
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    ledger.close()
    error, chain = caught.value, []
    while error is not None:
        chain.append(str(error) + repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    shown = [*chain, repr(client), repr(vars(client)["_meter"]), caplog.text]
    assert all(SECRET not in text for text in shown)
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_the_key_comes_from_the_caller_then_mop_api_key_then_openai_api_key(monkeypatch, ledger):
    with pytest.raises(SettingsError, match="OPENAI_API_KEY or MOP_API_KEY"):
        ModelClient("gpt-4o", ledger=ledger)
    monkeypatch.setenv("OPENAI_API_KEY", "from-openai")
    assert ModelClient("gpt-4o", ledger=ledger)._key == "from-openai"
    monkeypatch.setenv("MOP_API_KEY", "from-mop")
    assert ModelClient("gpt-4o", ledger=ledger)._key == "from-mop"
    assert ModelClient("gpt-4o", ledger=ledger, api_key="given")._key == "given"
    with pytest.raises(SettingsError) as caught:
        ModelClient("gpt-4o", ledger=ledger, api_key="kéy")
    assert "kéy" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8080/v1", "ftp://host", "http://"])
def test_an_address_that_is_no_url_is_refused(ledger, url):
    with pytest.raises(SettingsError, match="base URL"):
        ModelClient("fake", base_url=url, ledger=ledger)


def test_one_client_serves_several_event_loops_in_turn(ledger):
    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        texts = [asyncio.run(client.complete(ask(n))).text for n in range(3)]
    gc.collect()
    assert texts == expected(asks(3))


async def test_nothing_asked_is_nothing_sent(ledger):
    with FakeEndpoint() as server:
        client = client_of(server, ledger)
        assert await client.complete_many([]) == []
        assert await client.embed([]) == []
        await client.aclose()
    assert server.served == 0


async def test_embeddings_come_in_the_order_of_the_texts_over_several_bounded_calls(ledger):
    texts = [f"text {i}" for i in range(2 * EMBED_BATCH + 1)]
    with FakeEndpoint(faults=[Fault.error(503)]) as server:
        client = client_of(server, ledger)
        vectors = await client.embed(texts)
        assert vectors[-1] == (await client.embed(texts[-1:], "other"))[0]
        await client.aclose()
    assert len(vectors) == len(texts)
    assert len({tuple(vector) for vector in vectors}) == len(texts)
    assert server.bodies[-1]["model"] == "other"
    assert max(len(body["input"]) for body in server.bodies) == EMBED_BATCH


async def test_too_few_embeddings_are_an_error(ledger):
    with FakeEndpoint(faults=lambda n, body: Fault.body({"data": [{"index": 0, "embedding": [1]}]})) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelError, match="1 embeddings for 2 texts"):
            await client.embed(["a", "b"])
        await client.aclose()


def test_importing_the_client_does_not_load_what_it_does_not_need():
    code = (
        "import sys, mop.lm.request, mop.lm.limiter;"
        "print(*(name for name in ('openai', 'sqlalchemy') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == ""

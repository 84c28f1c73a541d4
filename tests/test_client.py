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
from fake_endpoint import FakeEndpoint, Fault, hashed

from mop.errors import BudgetExceeded, LedgerError, ModelError, ModelUnavailable, SettingsError, UnknownPrice
from mop.lm import endpoint as endpoint_module
from mop.lm.budget import Budget
from mop.lm.client import EMBED_BATCH, ModelClient
from mop.lm.commits import GroupCommit
from mop.lm.endpoint import Endpoint
from mop.lm.failures import retry_after
from mop.lm.ledger import Ledger
from mop.lm.limiter import AdaptiveLimiter
from mop.lm.request import Reply, Request, Usage

SECRET = "sk-do-not-tell-0123456789"


def ask(query, **fields) -> Request:
    return Request("fake", (("system", "Say the opposite."), ("user", str(query))), max_tokens=8, **fields)


def asks(count) -> list[Request]:
    return [ask(i) for i in range(count)]


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


def client_of(server: FakeEndpoint, ledger: Ledger, **options) -> ModelClient:
    return ModelClient("fake", base_url=server.base_url, ledger=ledger, **options)


def expected(requests) -> list[str]:
    return [hashed([{"role": role, "content": text} for role, text in request.messages]) for request in requests]


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


@pytest.mark.parametrize(
    "fault",
    [
        Fault.error(429, retry_after="0.01"),
        Fault.error(500),
        Fault.error(502),
        Fault.error(503),
        Fault.error(408),
        Fault.error(409),
        Fault(status=504, raw=b"<html>gateway</html>", headers={"content-type": "text/html"}),
        Fault(drop=True),
        Fault(raw=b'{"choices": ['),
        Fault(raw=b"<html>hello</html>", headers={"content-type": "text/html"}),
        Fault.body({"choices": []}),
        Fault.body({"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}),
        Fault.body({"error": {"message": "overloaded"}}),
        Fault.body(["surprise"]),
    ],
    ids=lambda fault: f"{fault.status}-{(fault.raw or b'drop')[:24].decode()}",
)
async def test_what_may_go_away_is_asked_again(ledger, fault):
    with FakeEndpoint(faults=[fault, fault]) as server:
        client = client_of(server, ledger, concurrency=2)
        replies = await client.complete_many(asks(3))
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(3))
    assert server.served == 5


@pytest.mark.parametrize(
    ("status", "code", "said", "words"),
    [
        (401, "invalid_api_key", "Incorrect API key", "MOP_API_KEY or OPENAI_API_KEY"),
        (403, None, "no access", "permissions"),
        (404, "model_not_found", "no such model", "model's name"),
        (400, "context_length_exceeded", "maximum context length is 4096", "fewer or shorter demos"),
        (400, None, "Unsupported value: 'temperature'", "Unsupported value: 'temperature'"),
        (422, None, "bad", "change the setting"),
        (429, "insufficient_quota", "You exceeded your quota", "Add credit"),
    ],
)
async def test_what_will_not_go_away_is_an_error_that_says_what_to_do(ledger, status, code, said, words):
    with FakeEndpoint(faults=lambda n, body: Fault.error(status, said, code)) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelError, match=words) as caught:
            await client.complete(ask("a"))
        await client.aclose()
    assert not isinstance(caught.value, ModelUnavailable)
    assert server.served == 1
    assert ledger.totals(by=())[()].calls == 0


async def test_an_endpoint_that_never_makes_sense_is_an_error_not_an_empty_answer(ledger):
    with FakeEndpoint(faults=lambda n, body: Fault.body({"choices": []})) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelError, match=r"no usable answer.*empty list of choices"):
            await client.complete(ask("a"))
        await client.aclose()
    assert server.served == endpoint_module.MALFORMED_ATTEMPTS
    assert ledger.get_many([ask("a").key]) == {}


async def test_an_endpoint_that_keeps_failing_ends_the_call_at_its_deadline(ledger):
    with FakeEndpoint(faults=lambda n, body: Fault.error(503)) as server:
        client = client_of(server, ledger, deadline=0.3)
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"within 0.3 s.*HTTP 503.*same command again"):
            await client.complete(ask("a"))
        await client.aclose()
    assert time.monotonic() - started < 1
    assert server.served > 2


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(ledger):
    with FakeEndpoint(faults=[Fault.error(429, retry_after="3600")]) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelUnavailable, match="HTTP 429"):
            await asyncio.wait_for(client.complete(ask("a")), 2)
        await client.aclose()


async def test_a_retry_whose_time_ran_out_while_it_waited_for_a_slot_is_not_sent():
    with FakeEndpoint(faults=[Fault(500, b"{}", delay=0.1)]) as server:
        endpoint = Endpoint(server.base_url, "k", "", concurrency=1, timeout=20.0, deadline=1.0)

        async def hold():
            async with endpoint.limiter.slot(first=True):
                await asyncio.sleep(1.5)

        call = asyncio.create_task(endpoint.post("/chat/completions", {}, str, model="fake"))
        await asyncio.sleep(0.02)
        holding = asyncio.create_task(hold())
        with pytest.raises(ModelUnavailable, match=r"1 attempts"):
            await call
        await holding
        await endpoint.aclose()
    assert endpoint.attempts == 1


async def test_a_slow_answer_is_given_up_after_the_timeout_and_asked_again(ledger):
    with FakeEndpoint(faults=[Fault(delay=5)]) as server:
        client = client_of(server, ledger, timeout=0.1)
        reply = await asyncio.wait_for(client.complete(ask("a")), 2)
        await client.aclose()
    assert [reply.text] == expected([ask("a")])
    assert server.served == 2


async def test_an_address_where_nobody_listens_is_told_soon(ledger):
    client = ModelClient("fake", base_url="http://127.0.0.1:9/v1", ledger=ledger)
    with pytest.raises(ModelUnavailable, match=r"cannot be reached.*that the server runs"):
        await asyncio.wait_for(client.complete(ask("a")), 3)
    await client.aclose()


async def test_a_filtered_answer_is_still_a_reply(ledger):
    choice = {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}
    with FakeEndpoint(faults=[Fault.body(body)]) as server:
        client = client_of(server, ledger)
        reply = await client.complete(ask("a"))
        await client.aclose()
    assert (reply.text, reply.finish_reason, reply.usage) == ("", "content_filter", Usage(5, 0, 0))


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}},
            Usage(9, 6, 2),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(9, 4, 2)),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}},
            Usage(3, 3, 2),
        ),
        (None, Usage(5 + 5 + 1 + 5, 0, 1)),
        ({"prompt_tokens": 10**19, "completion_tokens": 2}, Usage(5 + 5 + 1 + 5, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": -2}, Usage(5 + 5 + 1 + 5, 0, 1)),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10**19}},
            Usage(9, 0, 2),
        ),
    ],
)
async def test_usage_is_read_with_its_cached_part_and_estimated_when_it_is_missing(ledger, usage, read):
    body = {"choices": [{"message": {"content": "ok"}}], "usage": usage, "timings": {"cache_n": 4}}
    with FakeEndpoint(faults=[Fault.body(body)]) as server:
        client = client_of(server, ledger)
        reply = await client.complete(ask("a"))
        await client.aclose()
    assert reply.usage == read


async def test_text_that_no_database_holds_is_repaired_before_it_is_used(ledger):
    body = b'{"choices": [{"message": {"content": "a\\ud800b\\u0000c"}, "finish_reason": "stop"}]}'
    with FakeEndpoint(faults=[Fault(raw=body)]) as server:
        client = client_of(server, ledger)
        first = await client.complete(ask("a"))
        again = await client.complete(ask("a"))
        await client.aclose()
    assert first.text == again.text == "a?b�c"


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
        "from test_client import ModelClient, Ledger, asks\n"
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


async def test_the_limiter_doubles_until_the_first_refusal_then_halves_once_and_creeps():
    limiter = AdaptiveLimiter(64)
    assert limiter.limit == 8

    async def succeed(count):
        for _ in range(count):
            async with limiter.slot() as slot:
                slot.succeeded()

    await succeed(8 + 16)
    assert limiter.limit == 32
    slots = [limiter.slot() for _ in range(5)]
    for slot in slots:
        await slot.__aenter__()
    for slot in slots:
        slot.throttled()
        await slot.__aexit__(None, None, None)
    assert limiter.limit == 16
    await succeed(16)
    assert limiter.limit == 17
    for _ in range(9):
        async with limiter.slot() as slot:
            slot.throttled()
    assert limiter.limit == 1


async def test_the_limiter_lets_nobody_start_before_retry_after_has_passed():
    limiter = AdaptiveLimiter(4)
    async with limiter.slot() as slot:
        slot.throttled(0.1)
    started = time.monotonic()
    async with limiter.slot():
        pass
    assert time.monotonic() - started >= 0.09


async def test_the_limiter_wakes_someone_though_the_clock_passes_the_opening_while_it_looks():
    class Ticking:
        now, timers = -0.5, 0

        def time(self):
            self.now += 1.0
            return self.now

        def call_at(self, *_):
            self.timers += 1

    clock, limiter = Ticking(), AdaptiveLimiter(4)
    limiter._resume_at = 1.0
    turn = asyncio.get_running_loop().create_future()
    limiter._queue.append(turn)
    limiter._wake(clock)
    assert turn.done() or clock.timers == 1


async def test_the_limiter_loses_no_slot_to_cancelled_waiters():
    limiter = AdaptiveLimiter(1)

    async def hold(seconds):
        async with limiter.slot():
            await asyncio.sleep(seconds)

    holder = asyncio.create_task(hold(0.02))
    await asyncio.sleep(0)
    waiters = [asyncio.create_task(hold(0)) for _ in range(5)]
    await asyncio.sleep(0)
    for waiter in waiters[::2]:
        waiter.cancel()
    await asyncio.gather(holder, *waiters, return_exceptions=True)
    assert limiter.in_flight == 0
    await asyncio.wait_for(hold(0), 1)


async def test_many_refusals_slow_the_client_down_and_everything_is_still_answered(ledger):
    with FakeEndpoint(latency=0.002) as server:
        # The endpoint takes four at a time.
        server._faults = lambda n, body: Fault.error(429) if server.in_flight > 4 else None
        client = client_of(server, ledger, concurrency=64)
        replies = await client.complete_many(asks(200))
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(200))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers) == seconds


def test_importing_the_client_does_not_load_what_it_does_not_need():
    code = (
        "import sys, mop.lm.request, mop.lm.limiter;"
        "print(*(name for name in ('openai', 'sqlalchemy') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == ""

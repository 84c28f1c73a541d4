"""What the client makes of an endpoint's failures: asked again, or an error that says what to do."""

import asyncio
import time

import pytest
from asking import ask, asks, client_of, expected
from fake_endpoint import FakeEndpoint, Fault

from mop.errors import ModelError, ModelUnavailable
from mop.lm import endpoint as endpoint_module
from mop.lm.client import ModelClient
from mop.lm.endpoint import Endpoint
from mop.lm.failures import retry_after
from mop.lm.ledger import Ledger


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.01)


@pytest.fixture
def ledger():
    ledger = Ledger.in_memory()
    yield ledger
    ledger.close()


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


async def test_a_last_attempt_that_the_deadline_cuts_short_leaves_the_failure_before_it_to_be_told(ledger):
    with FakeEndpoint(faults=lambda n, body: Fault.error(503) if n == 0 else Fault(delay=60.0)) as server:
        client = client_of(server, ledger, deadline=2.0)
        with pytest.raises(ModelUnavailable, match=r"2 attempts; the last: .*HTTP 503"):
            await client.complete(ask("a"))
        await client.aclose()


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


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:58 GMT"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "yesterday"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers) == seconds

"""Upstreams that fail in every way they know: what passes is asked again, what doesn't ends the run and says why."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ask, asks, client_of, expected
from fake_endpoint import FakeEndpoint, Fault
from simulated import nearest_demo_answer, splits

from mop.errors import ModelError, ModelUnavailable
from mop.lm import endpoint as endpoint_module
from mop.lm.ledger import Ledger
from mop.lm.upkeep import export
from mop.optimization import aoptimize
from mop.settings import make_settings


def chat(content: str | None, reason: str = "stop", tokens: int | None = 0) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": reason}
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 9, "completion_tokens": tokens}}
    return {"choices": [choice], **usage}


TRANSIENT = {
    "429": Fault.error(429),
    "429 and Retry-After": Fault.error(429, retry_after="0.02"),
    "429 and Retry-After in ms": Fault.error(429, retry_after_ms="20"),
    "429 as a web page": Fault(429, b"<html>slow down</html>", {"content-type": "text/html"}),
    "500": Fault.error(500),
    "502 as a web page": Fault(502, b"<html>bad gateway</html>", {"content-type": "text/html"}),
    "503": Fault.error(503),
    "503 and Retry-After": Fault.error(503, retry_after="0.02"),
    "529": Fault.error(529),
    "hang": Fault(delay=30),
    "close": Fault(drop=True),
    "reset": Fault(reset=True),
    "cut in the head": Fault(cut=30),
    "cut in the body": Fault(cut=150),
    "drip": Fault(drip=0.02),
    "cut JSON": Fault(raw=b'{"choices": [{"message": {"content": "Par'),
    "cut chunks": Fault(head=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{"),
    "a length that is too long": Fault(raw=b'{"choices": []}', headers={"content-length": "4000"}, cut=200),
    "no HTTP": Fault(head=b"SSH-2.0-OpenSSH_9.6\r\n"),
    "gzip that isn't": Fault(raw=b"\x1f\x8b garbage", headers={"content-encoding": "gzip"}),
    "408": Fault.error(408),
    "409": Fault.error(409),
    "425": Fault.error(425),
    "a name for Retry-After": Fault.error(429, retry_after="soon"),
    "Retry-After as a date": Fault.error(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
    "Retry-After that is too large": Fault.error(503, retry_after="1e400"),
    "429 in a 200": Fault.body({"error": {"message": "Rate limit reached", "type": "requests", "code": 429}}),
    "429 in words in a 200": Fault.body({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
    "null choices": Fault.body({"choices": None}),
    "no message": Fault.body({"choices": [{"index": 0, "finish_reason": "stop"}]}),
    "an answer of another kind": Fault.body({"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
    "no JSON": Fault(raw=b"upstream connect error or disconnect/reset before headers"),
    "no bytes": Fault(raw=b""),
    "web page": Fault(raw=b"<html>login</html>", headers={"content-type": "text/html"}),
    "bytes": Fault(raw=b"\xff\xfe\x00", headers={"content-type": "application/octet-stream"}),
    "empty text": Fault.body(chat("")),
    "empty text, no usage": Fault.body(chat("", tokens=None)),
    "no text": Fault.body(chat(None)),
    "error in a 200": Fault.body({"error": {"message": "overloaded", "code": 502}}),
    "no choices": Fault.body({"choices": []}),
    "number": Fault.body(7),
    "null": Fault.body(None),
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.01)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger.in_memory()
    yield ledger
    ledger.close()


@pytest.mark.parametrize("name", TRANSIENT)
async def test_what_passes_is_asked_again_and_only_answers_are_recorded(ledger: Ledger, name: str) -> None:
    fault = TRANSIENT[name]
    with FakeEndpoint(faults=[None, fault, fault]) as server:
        client = client_of(server, ledger, concurrency=2, timeout=0.5 if name in ("hang", "drip") else 20)
        replies = await asyncio.wait_for(client.complete_many(asks(5)), 20)
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(5))
    assert server.served == 7
    assert ledger.totals(by=())[()].calls == 5


async def test_a_length_that_is_too_short_spoils_no_other_answer(ledger: Ledger) -> None:
    """What comes after it lies on the connection, where the next call would read it as its answer."""
    short = Fault.body(chat("half an answer", tokens=3), headers={"content-length": "40"})
    with FakeEndpoint(faults=[None, short, short]) as server:
        client = client_of(server, ledger, concurrency=2)
        replies = await asyncio.wait_for(client.complete_many(asks(8)), 20)
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(8))
    assert server.served <= 8 + 2 * 2


async def test_an_overload_in_the_body_of_a_200_is_waited_for_like_any_other(ledger: Ledger) -> None:
    """More often than a malformed answer is asked again."""
    busy = Fault.body({"error": {"message": "Rate limit reached", "code": 429}})
    with FakeEndpoint(faults=[busy] * 6) as server:
        client = client_of(server, ledger)
        assert (await asyncio.wait_for(client.complete(ask("a")), 20)).text == expected([ask("a")])[0]
        await client.aclose()
    assert server.served == 7


@pytest.mark.parametrize(("code", "words"), [(401, "API_KEY"), ("404", "model's name"), ("invalid_api_key", "API_KEY")])
async def test_a_refusal_in_the_body_of_a_200_ends_the_run_at_once(ledger: Ledger, code: int | str, words: str) -> None:
    with FakeEndpoint(faults=lambda number, body: Fault.body({"error": {"message": "no", "code": code}})) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelError, match=words):
            await client.complete(ask("a"))
        await client.aclose()
    assert server.served == 1


async def test_a_refusal_in_words_is_the_models_answer(ledger: Ledger) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    with FakeEndpoint(faults=[Fault.body(body)]) as server:
        client = client_of(server, ledger)
        assert (await client.complete(ask("a"))).text == "I cannot help with that."
        await client.aclose()


@pytest.mark.parametrize("said", ["86400", "Fri, 21 Nov 2098 07:28:00 GMT"])
async def test_a_pause_of_days_ends_the_call_now_and_not_after_them(ledger: Ledger, said: str) -> None:
    with FakeEndpoint(faults=lambda number, body: Fault.error(429, retry_after=said)) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelUnavailable, match="same command again"):
            await asyncio.wait_for(client.complete(ask("a")), 10)
        await client.aclose()
    assert server.served == 1


async def test_a_clock_that_is_set_back_and_forward_by_hours_changes_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, -7200.0, 36000.0])
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + next(jumps))
    ledger, began = Ledger(tmp_path / "l"), time.monotonic()
    faults = [Fault.error(429, retry_after="0.05"), Fault.error(503), Fault(drop=True), Fault(delay=30)]
    with FakeEndpoint(faults=faults) as server:
        client = client_of(server, ledger, timeout=0.5, deadline=30)
        replies = await asyncio.wait_for(client.complete_many(asks(12)), 20)
        await client.aclose()
    monkeypatch.undo()
    assert [reply.text for reply in replies] == expected(asks(12))
    assert time.monotonic() - began < 15
    days = ledger.totals(("day",))
    assert sum(total.calls for total in days.values()) == 12
    assert all(0 <= total.seconds < 12 * 0.6 for total in days.values()), "durations are those of a steady clock"
    assert [call["key"] for call in export(ledger)] != []
    ledger.close()


async def test_an_answer_that_comes_as_text_is_still_an_answer(ledger: Ledger) -> None:
    import json

    body = json.dumps(chat("hello", tokens=1)).encode()
    with FakeEndpoint(faults=[Fault(raw=body, headers={"content-type": "text/plain"})]) as server:
        client = client_of(server, ledger)
        assert (await client.complete(ask("a"))).text == "hello"
        await client.aclose()


async def test_a_model_that_says_nothing_with_a_token_has_answered(ledger: Ledger) -> None:
    with FakeEndpoint(faults=[Fault.body(chat("", tokens=1))]) as server:
        client = client_of(server, ledger)
        assert (await client.complete(ask("a"))).text == ""
        await client.aclose()
    assert server.served == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.body(chat("")), "without text"),
        (Fault.body(chat("", "length", 400)), "raise it"),
        (Fault(raw=b"<html>", headers={"content-type": "text/html"}), "speaks the OpenAI API"),
    ],
)
async def test_an_endpoint_that_never_answers_ends_the_call_and_nothing_is_recorded(
    ledger: Ledger, fault: Fault, words: str
) -> None:
    with FakeEndpoint(faults=lambda number, body: fault) as server:
        client = client_of(server, ledger)
        with pytest.raises(ModelError, match=words):
            await client.complete(ask("a"))
        await client.aclose()
    assert server.served == endpoint_module.MALFORMED_ATTEMPTS
    assert ledger.totals(by=())[()].calls == 0


@pytest.mark.parametrize("fault", [Fault(delay=60), Fault(drip=0.05), Fault(reset=True), Fault.error(500)])
async def test_nothing_is_tried_for_ever(ledger: Ledger, fault: Fault) -> None:
    began = time.monotonic()
    with FakeEndpoint(faults=lambda number, body: fault if number else None) as server:
        client = client_of(server, ledger, timeout=0.3, deadline=0.8)
        await client.complete(ask("first"))
        with pytest.raises(ModelUnavailable, match="same command again"):
            await client.complete(ask("a"))
        await client.aclose()
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.error(404, "The model `old` has been deprecated", "model_not_found"), "model's name"),
        (Fault.error(410, "gone"), "model's name"),
        (Fault.error(401, "bad key"), "API_KEY"),
    ],
)
async def test_a_retired_model_or_a_wrong_key_stops_a_search_at_once(fault: Fault, words: str) -> None:
    late = lambda number, body: fault if number > 20 and "messages" in body else None  # noqa: E731
    with FakeEndpoint(nearest_demo_answer, faults=late) as server:
        options = {"model": "simulated", "base_url": server.base_url, "budget": 100, "concurrency": 4}
        settings = make_settings({**options, "encoder": f"endpoint:words@{server.base_url}"})
        with pytest.raises(ModelError, match=words):
            await aoptimize(splits(), settings, ledger=Ledger.in_memory())
    assert server.served < 21 + 8


async def test_a_search_through_every_fault_finds_what_it_finds_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed trial is never scored as a wrong answer: then the mixture would differ."""
    from mop.artifact import to_bytes

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    rng = random.Random(3)
    faults = [fault for name, fault in TRANSIENT.items() if name not in ("hang", "drip")]

    def sometimes(_number: int, body: dict[str, Any]) -> Fault | None:
        return rng.choice(faults) if "messages" in body and rng.random() < 0.1 else None

    found = []
    # One address for both, because the encoder's name has it.
    with FakeEndpoint(nearest_demo_answer) as server:
        for fault in ((lambda number, body: None), sometimes):
            server._faults = fault
            options = {"model": "simulated", "base_url": server.base_url, "budget": 120, "prompt_tokens": 200}
            settings = make_settings({**options, "encoder": f"endpoint:words@{server.base_url}"})
            found.append(to_bytes(await aoptimize(splits(), settings, ledger=Ledger.in_memory())))
    assert found[0] == found[1]

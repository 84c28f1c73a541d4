"""Upstreams that fail in every way they know: what passes is asked again, what doesn't ends the run and says why."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asking import ask, asks, client_of, expected
from fake_endpoint import FakeEndpoint, Fault
from simulated import nearest_demo_answer, splits

from mop.errors import ModelError, ModelUnavailable
from mop.lm import endpoint as endpoint_module
from mop.lm.ledger import Ledger
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
    "no JSON": Fault(raw=b"upstream connect error or disconnect/reset before headers"),
    "no bytes": Fault(raw=b""),
    "web page": Fault(raw=b"<html>login</html>", headers={"content-type": "text/html"}),
    "bytes": Fault(raw=b"\xff\xfe\x00", headers={"content-type": "application/octet-stream"}),
    "empty text": Fault.body(chat("")),
    "empty text, no usage": Fault.body(chat("", tokens=None)),
    "no text": Fault.body(chat(None)),
    "error in a 200": Fault.body({"error": {"message": "overloaded", "code": 502}}),
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

"""What callers are told when the upstream fails them: a status, a type and a code each."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator

import openai
import pytest
from fake_endpoint import Fault
from fake_upstream import FakeUpstream, StreamFault
from serving import Running, chat, running, said, small_app, wait_until

from mop.serve.limits import Limits

KEY = "sk-upstream-secret"


# -- whole answers

HTML = b"<html><h1>502 Bad Gateway</h1></html>"
QUOTA = {"error": {"message": f"limit of {KEY} reached", "type": "x", "code": "insufficient_quota"}}
UPSTREAM_FAULTS = [
    (Fault(raw=HTML, headers={"content-type": "text/html"}), 502, "upstream_malformed"),
    (Fault(raw=b"", headers={}), 502, "upstream_malformed"),
    (Fault(raw=b"[1]"), 502, "upstream_malformed"),
    (Fault(raw=b'{"object": "list"}'), 502, "upstream_malformed"),
    (Fault(raw=b"{" * 10_000), 502, "upstream_malformed"),
    (Fault.body({"error": {"message": f"bad {KEY}"}}), 502, "upstream_error_body"),
    (Fault.body({"error": "overloaded"}), 502, "upstream_error_body"),
    (Fault.error(429, "slow down", retry_after="7"), 429, "upstream_rate_limited"),
    (Fault(429, json.dumps(QUOTA).encode()), 429, "upstream_rate_limited"),
    (Fault.error(400, "top_k isn't known", code="unknown_field"), 400, "unknown_field"),
    (Fault(422, b'{"detail": "no"}'), 422, "upstream_refused_parameters"),
    (Fault.error(400, "no", code="c" * 1000), 400, "c" * 64),
    (Fault.error(401, f"Incorrect API key: {KEY[:12]}***"), 502, "upstream_refused"),
    (Fault.error(403), 502, "upstream_refused"),
    (Fault.error(404, "no such model"), 502, "upstream_refused"),
    (Fault.error(500, f"crash with {KEY}"), 502, "upstream_failed"),
    (Fault(502, HTML), 502, "upstream_failed"),
    (Fault(302, b"", {"location": "https://example.com"}), 502, "upstream_malformed"),
    (Fault(drop=True), 502, "upstream_dropped"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "status", "code"), UPSTREAM_FAULTS)
def test_each_failure_of_the_upstream_has_its_status_and_code(
    failing: tuple[FakeUpstream, Running], fault: Fault, status: int, code: str, stream: bool
) -> None:
    upstream, server = failing
    upstream._faults = lambda _number, _body: fault
    reply = server.post("/v1/chat/completions", chat("card", stream=stream))
    error = said(reply, status, code)
    assert KEY[:12] not in reply.text
    assert "x-request-id" in reply.headers
    if status == 429:
        assert error["type"] == "rate_limit_error"
        assert int(reply.headers["retry-after"]) >= 1
    # The upstream's own codes are no labels: there could be any number of them.
    label = "upstream_refused_parameters" if status in (400, 422) else code
    assert server.metric(f'mop_upstream_errors_total{{code="{label}",mixture="bank"}}') >= 1
    metrics = server.get("/metrics").text
    assert "unknown_field" not in metrics
    assert "cccc" not in metrics


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[FakeUpstream, Running]]:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url, key=KEY)) as server:
        yield upstream, server


def test_the_upstreams_own_wait_is_passed_on(failing: tuple[FakeUpstream, Running]) -> None:
    upstream, server = failing
    upstream._faults = lambda _number, _body: Fault.error(429, "slow down", retry_after="7")
    client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**chat("card"))
    assert caught.value.response.headers["retry-after"] == "7"


def test_an_upstream_that_is_down_is_told_within_the_time_for_trying_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with running(small_app(address)) as server:
        began = time.monotonic()
        error = said(server.post("/v1/chat/completions", chat("card")), 502, "upstream_unreachable")
        assert time.monotonic() - began < 20
        assert error["type"] == "upstream_error"
        assert address not in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_hangs_is_given_up_after_the_time_limit(stream: bool) -> None:
    limits = Limits(seconds=0.4, retry_seconds=0.1)
    with FakeUpstream(latency=30) as upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        said(server.post("/v1/chat/completions", chat("card", stream=stream)), 504, "upstream_timeout")
        assert server.metric("mop_requests_held") == 0
        # Its place at the upstream is free again.
        assert server.gateway.registry.find("bank").upstream.slots._value == limits.concurrency


def test_a_whole_answer_that_breaks_off_is_asked_for_again() -> None:
    faults = [Fault(drop=True), Fault(503, b'{"error": {"message": "Loading model"}}'), None]
    limits = Limits(seconds=60, retry_seconds=30)
    with FakeUpstream(faults=faults) as upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        assert server.post("/v1/chat/completions", chat("card")).status_code == 200
        assert upstream.served == 3
        assert server.metric('mop_upstream_errors_total{code="upstream_dropped",mixture="bank"}') == 1


def test_requests_wait_out_the_restart_of_an_upstream() -> None:
    limits = Limits(seconds=120, retry_seconds=60)
    with FakeUpstream() as first:
        port = first._port
    with running(small_app(f"http://127.0.0.1:{port}/v1", limits=limits)) as server:
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(server.post("/v1/chat/completions", chat("card")).status_code)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.metric('mop_upstream_errors_total{code="upstream_unreachable"') >= 5)
        with FakeUpstream(port=port):
            for thread in threads:
                thread.join(60)
    assert statuses == [200] * 5


# -- streams

STREAM_FAULTS = [
    (StreamFault(), "upstream_dropped"),
    (StreamFault(orderly=True), "upstream_dropped"),
    (StreamFault(tail=b'data: {"choi', orderly=True), "upstream_dropped"),
    (StreamFault(tail=b'data: {"error": {"message": "boom", "code": "boom"}}\n\n', orderly=True), "boom"),
]


@pytest.mark.parametrize(("fault", "code"), STREAM_FAULTS)
def test_a_stream_that_fails_halfway_ends_with_an_error_that_the_official_client_raises(
    failing: tuple[FakeUpstream, Running], fault: StreamFault, code: str
) -> None:
    upstream, server = failing
    upstream._faults = lambda _number, _body: fault
    client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
    pieces = iter(client.chat.completions.create(**chat("card"), stream=True))
    assert next(pieces).choices[0].delta.content == "word0 "
    with pytest.raises(openai.APIError) as caught:
        next(pieces)
    assert caught.value.code == code
    text = server.post("/v1/chat/completions", chat("card", stream=True)).text
    assert "[DONE]" not in text
    assert text.count('"error"') == 1


def test_a_stream_that_stops_moving_is_given_up() -> None:
    limits = Limits(idle_seconds=0.5)
    upstream = FakeUpstream(faults=[StreamFault(hang=True)])
    with upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        text = server.post("/v1/chat/completions", chat("card", stream=True)).text
    assert '"word0 "' in text
    assert '"upstream_timeout"' in text


def test_a_stream_that_begins_with_an_error_is_an_error(failing: tuple[FakeUpstream, Running]) -> None:
    upstream, server = failing
    tail = b'data: {"error": {"message": "no"}}\n\n'
    upstream._faults = lambda _number, _body: StreamFault(after=0, tail=tail, orderly=True)
    said(server.post("/v1/chat/completions", chat("card", stream=True)), 502, "upstream_error_body")
    upstream._faults = lambda _number, _body: StreamFault(after=0, tail=b'{\n "error": "no"\n}', orderly=True)
    said(server.post("/v1/chat/completions", chat("card", stream=True)), 502, "upstream_error_body")
    upstream._faults = lambda _number, _body: StreamFault(after=0, orderly=True)
    said(server.post("/v1/chat/completions", chat("card", stream=True)), 502, "upstream_malformed")


def test_the_upstreams_key_is_neither_in_answers_nor_in_the_log(
    failing: tuple[FakeUpstream, Running], caplog: pytest.LogCaptureFixture
) -> None:
    upstream, server = failing
    with caplog.at_level(logging.DEBUG):
        for fault in (Fault.body({"error": KEY}), Fault.error(401, KEY), Fault.error(500, KEY), Fault.error(400, KEY)):
            upstream._faults = lambda _number, _body, fault=fault: fault  # type: ignore[misc]
            reply = server.post("/v1/chat/completions", chat("card"))
            assert KEY not in reply.text + str(reply.headers)
        tail = b'data: {"error": {"message": "' + KEY.encode() + b'"}}\n\n'
        upstream._faults = lambda _number, _body: StreamFault(tail=tail)
        assert KEY not in server.post("/v1/chat/completions", chat("card", stream=True)).text
    assert upstream.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text


def test_a_key_that_is_a_word_spoils_no_answer() -> None:
    tail = b'data: {"choices": [{"index": 0, "delta": {"content": "fastest"}, "finish_reason": "stop"}]}\n\n'
    whole = {"choices": [{"message": {"role": "assistant", "content": "the fastest"}}]}
    faults = [Fault.body(whole), StreamFault(tail=tail, orderly=True), Fault.error(500, "test is wrong")]
    with FakeUpstream(faults=faults) as upstream, running(small_app(upstream.base_url, key="test")) as server:
        assert server.post("/v1/chat/completions", chat("card")).json() == whole
        assert tail.decode() in server.post("/v1/chat/completions", chat("card", stream=True)).text
        assert "*** is wrong" in server.post("/v1/chat/completions", chat("card")).text


def test_after_done_a_stream_has_ended_whatever_else_comes() -> None:
    error = b'data: {"error": {"message": "late"}}\n\n'
    faults = [
        StreamFault(tail=b"data: [DONE]\n\n", hang=True),
        StreamFault(tail=b"data: [DONE]\n\n"),
        StreamFault(tail=b"data: [DONE]\n\n" + error, orderly=True),
    ]
    with FakeUpstream(faults=faults) as upstream, running(small_app(upstream.base_url)) as server:
        for _ in faults:
            began = time.monotonic()
            text = server.post("/v1/chat/completions", chat("card", stream=True)).text
            assert text.endswith("data: [DONE]\n\n")
            assert "error" not in text
            assert time.monotonic() - began < 30


def _finish(index: int) -> bytes:
    return b'data: {"choices": [{"index": %d, "delta": {}, "finish_reason": "stop"}]}\n\n' % index


def test_a_stream_of_several_choices_is_whole_when_all_have_finished() -> None:
    faults = [
        StreamFault(tail=_finish(0), orderly=True),
        StreamFault(tail=_finish(0) + _finish(0), orderly=True),
        StreamFault(tail=_finish(1) + _finish(0), orderly=True),
        StreamFault(tail=_finish(0) + _finish(1), orderly=True),
    ]
    asked = chat("card", stream=True, n=2)
    with FakeUpstream(faults=faults) as upstream, running(small_app(upstream.base_url)) as server:
        texts = [server.post("/v1/chat/completions", asked).text for _ in faults[:3]]
        body = {"model": "bank", "prompt": ["card", "parcel", "card"], "stream": True}
        texts.append(server.post("/v1/completions", body).text)
    assert ["upstream_dropped" in text for text in texts] == [True, True, False, True]


def test_no_header_of_a_caller_reaches_the_upstream() -> None:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url)) as server:
        headers = {"authorization": "Bearer callers-own", "cookie": "a=b", "x-secret": "s"}
        server.post("/v1/chat/completions", chat("card"), headers=headers)
        assert not {"authorization", "cookie", "x-secret"} & set(upstream.headers[-1])


async def test_a_caller_who_goes_away_frees_its_place_at_the_upstream() -> None:
    limits = Limits(seconds=60, concurrency=1)
    with FakeUpstream(pace=0.2, words=100) as upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
            stream = await client.chat.completions.create(**chat("card"), stream=True)
            await anext(aiter(stream))
            await stream.close()
        upstream.pace = 0.0
        reply = await asyncio.to_thread(server.post, "/v1/chat/completions", chat("card"))
        assert reply.status_code == 200
        gone = 'mop_requests_total{code="caller_gone",endpoint="chat",mixture="bank",status='
        await asyncio.to_thread(wait_until, lambda: server.metric(gone) == 1)

"""Peers that stand still, strange requests, an upstream that comes and goes: nothing is held, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fake_endpoint import Fault
from fake_upstream import FakeUpstream, StreamFault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Running, chat, running, serve_small, small_app, wait_until
from small import WordEncoder, small_mixture
from test_serve_parsing import bodies, values

from benchmarks.serve_load import load, outcome_of_error, outcome_of_stream, served
from mop.prompts import Prompt
from mop.serve.app import create_app
from mop.serve.keys import add_key, read_keys
from mop.serve.limits import Limits
from mop.serve.loading import Loader, Source
from mop.serve.upstream import Upstream
from mop.serve.watching import Watch


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url)) as one:
        yield one


def connection(server: Running, receive: int = 0) -> socket.socket:
    line = socket.socket()
    if receive:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    line.settimeout(60)
    line.connect(("127.0.0.1", int(server.root.rpartition(":")[2])))
    return line


# -- peers that stand still


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_stops_reading_is_let_go(stream: bool) -> None:
    limits = Limits(write_seconds=0.5, seconds=120)
    large = "word " * 4_000_000
    with (
        FakeUpstream(words=200_000, answer=lambda _messages: large) as upstream,
        running(small_app(upstream.base_url, limits=limits)) as server,
        connection(server, 4096) as line,
    ):
        body = json.dumps(chat("card", stream=stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        wait_until(lambda: server.gateway.admission.taken == 1)
        wait_until(lambda: server.gateway.admission.taken == 0)  # and never reads a byte
        assert server.gateway.registry.find("bank").upstream.slots._value == limits.concurrency
        wait_until(lambda: len(server.server.server_state.connections) == 0)


def test_a_caller_who_reads_slowly_but_reads_gets_everything() -> None:
    limits = Limits(write_seconds=2.0)
    with (
        FakeUpstream(words=20_000) as upstream,
        running(small_app(upstream.base_url, limits=limits)) as server,
        connection(server, 65536) as line,
    ):
        body = json.dumps(chat("card", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}"
        line.sendall(f"{head}\r\n\r\n".encode() + body)
        got = b""
        while part := line.recv(1 << 18):
            got += part
            time.sleep(0.02)
    assert b"word19999 " in got
    assert b"[DONE]" in got


@pytest.mark.parametrize(("before", "sent"), [(0, b""), (0, b"POST /v1/chat/comp"), (1, b"GET /hea")])
def test_a_head_that_never_ends_is_given_up(before: int, sent: bytes) -> None:
    with (
        running(small_app("http://127.0.0.1:1/v1", limits=Limits(body_seconds=0.4))) as server,
        connection(server) as line,
    ):
        for _ in range(before):
            answered(line)
        line.sendall(sent)
        began = time.monotonic()
        try:
            while line.recv(65536):
                pass
        except ConnectionResetError:
            pass
        assert time.monotonic() - began < 30


def test_an_idle_connection_is_kept_for_the_next_request() -> None:
    with (
        running(small_app("http://127.0.0.1:1/v1", limits=Limits(body_seconds=0.2))) as server,
        connection(server) as line,
    ):
        for _ in range(2):
            answered(line)
            time.sleep(0.5)


def answered(line: socket.socket) -> None:
    """Ask whether the server is alive, and read its answer."""
    line.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    got = b""
    while b"alive" not in got:
        part = line.recv(65536)
        assert part, got
        got += part


def test_a_removed_key_ends_while_a_new_mixture_is_warmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mop.serve.loading.resolve_recorded_encoder", lambda _name, state=None: WordEncoder())
    path, keys = tmp_path / "bank.mop", tmp_path / "keys"
    small_mixture().save(path)
    key = add_key(keys, "app")
    with FakeUpstream(latency=3600) as upstream:  # a model that takes an hour for each prompt
        monkeypatch.setattr("mop.serve.loading._own_server", lambda _model: upstream.base_url)
        source, loader = Source.of(str(path)), Loader(model="local/simulated")
        watch = Watch([source], loader, keys=keys, seconds=0.03, rewarm=True)
        app = create_app([loader.load(source)], keys=read_keys(keys), background=[watch])
        with running(app, grace=1) as server:
            known = {"authorization": f"Bearer {key}"}
            assert server.get("/v1/models", headers=known).status_code == 200
            small_mixture(generalist=Prompt("A new one.")).save(path)
            wait_until(lambda: upstream.served == 1)
            keys.write_text("")
            wait_until(lambda: server.get("/v1/models", headers=known).status_code == 401, 10)


# -- strange requests, over the wire

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/route"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=bodies | values, raw=st.none() | st.binary(max_size=100))
def test_whatever_is_posted_gets_a_typed_answer(server: Running, path: str, body: Any, raw: bytes | None) -> None:
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass") if raw is None else raw
    reply = server.post(path, content=content)
    if reply.status_code == 200:
        return
    # 404: a model by a name that there isn't. Never a defect.
    assert reply.status_code in (400, 404), reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "text",
    ["\x00", "\ufeff card", "\u202e", "a\u0300" * 5000, "🂡" * 5000, "card\r\nx-mop-expert: 7", "</s><|im_end|>"],
)
def test_strange_text_is_routed_and_passed_on_as_it_came(text: str) -> None:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url)) as server:
        reply = server.post("/v1/chat/completions", chat(text))
        assert reply.status_code == 200
        assert upstream.bodies[-1]["messages"][-1]["content"] == text
        assert reply.headers["x-mop-expert"] in ("0", "1", "2")


def test_numbers_without_bounds_and_deep_fields_pass_or_are_refused_but_never_break(server: Running) -> None:
    for extra in ({"seed": 10**400}, {"top_p": 1e308}, {"n": 10**100}, {"x": -(10**1000)}):
        assert server.post("/v1/chat/completions", chat("card", **extra)).status_code in (200, 400)
    deep: Any = 1
    for _ in range(300):
        deep = {"a": [deep]}
    assert server.post("/v1/chat/completions", chat("card", metadata=deep)).status_code == 200


# -- an upstream that comes and goes


def test_an_upstream_that_refuses_for_a_minute_is_told_with_its_wait_and_the_official_client_gets_through() -> None:
    until = [0.0]

    def refuses(_number: int, _body: dict[str, Any]) -> Fault | None:
        return Fault.error(429, "slow down", retry_after="60") if time.monotonic() < until[0] else None

    with FakeUpstream(faults=refuses) as upstream, running(small_app(upstream.base_url)) as server:
        until[0] = time.monotonic() + 3600
        client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**chat("card"), stream=stream)
            assert caught.value.response.headers["retry-after"] == "60"
            assert caught.value.code == "upstream_rate_limited"
        assert server.gateway.admission.taken == 0
        until[0] = 0.0
        assert client.chat.completions.create(**chat("card")).choices


@pytest.mark.parametrize(
    "fault", [Fault(drop=True), Fault(503, b"<html>"), Fault(502, b""), Fault(529, b"{}"), Fault(408, b"{}")]
)
def test_what_may_pass_by_itself_says_when_to_ask_again(fault: Fault) -> None:
    with (
        FakeUpstream(faults=lambda _number, _body: fault) as upstream,
        running(small_app(upstream.base_url, limits=Limits(retry_seconds=0))) as server,
    ):
        reply = server.post("/v1/chat/completions", chat("card"))
    assert reply.json()["error"]["code"].startswith("upstream_")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


def test_an_upstream_that_hangs_or_is_away_says_when_to_ask_again() -> None:
    limits = Limits(seconds=0.4, retry_seconds=0)
    with FakeUpstream(latency=30) as upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        assert server.post("/v1/chat/completions", chat("card")).headers["retry-after"]
    with running(small_app("http://127.0.0.1:1/v1", limits=limits)) as server:
        assert server.post("/v1/chat/completions", chat("card")).headers["retry-after"]


async def test_nothing_accepted_is_lost_while_the_upstream_is_killed_and_started_again() -> None:
    with served(workers=1, pace=0.005) as (address, upstream):
        tally = await load(address, upstream, requests=300, width=30, kill_at=0.4, down=0.5)
    assert tally.done == 300
    assert tally.lost == []
    assert tally.outcomes["whole"] >= 200


def test_the_load_run_knows_a_lost_request_when_it_sees_one() -> None:
    none = httpx2.Headers()
    typed = b'{"error": {"code": "a", "type": "b"}}'
    assert outcome_of_error(502, none, b"<html>").startswith("lost")
    assert outcome_of_error(502, none, typed).startswith("lost")
    assert outcome_of_error(502, httpx2.Headers({"retry-after": "1"}), typed) == "refused a"
    assert outcome_of_stream("").startswith("lost")
    assert outcome_of_stream('data: {"choices": []}\n\n').startswith("lost")
    assert outcome_of_stream('data: {"choices": []}\n\ndata: [DONE]\n\n').startswith("lost")
    assert outcome_of_stream('data: {"error": {"code": "a"}}\n\n') == "told a"


async def test_two_hundred_streams_at_once_all_come_through() -> None:
    with FakeUpstream(pace=0.02, words=10) as upstream, running(small_app(upstream.base_url)) as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0, timeout=120) as client:

            async def one() -> int:
                stream = await client.chat.completions.create(**chat("card"), stream=True)
                return len([piece async for piece in stream])

            assert await asyncio.gather(*(one() for _ in range(200))) == [11] * 200


def test_a_stream_cut_in_its_middle_frees_its_place_and_others_go_on() -> None:
    faults = [StreamFault(), None]
    with FakeUpstream(faults=faults) as upstream:
        app = create_app([serve_small("bank", Upstream(upstream.base_url, limits=Limits(concurrency=1)))])
        with running(app) as server:
            threads = [
                threading.Thread(target=server.post, args=("/v1/chat/completions", chat("card", stream=True)))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert upstream.served == 2
            wait_until(lambda: server.gateway.admission.taken == 0)

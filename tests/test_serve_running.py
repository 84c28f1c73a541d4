"""A server in production: keys, overload, batches, warm prefixes, and its end."""

from __future__ import annotations

import asyncio
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from fake_upstream import FakeUpstream
from serving import chat, running, serve_small, small_app, wait_until
from small import WordEncoder, small_mixture

from mop.errors import ModelError, SettingsError
from mop.serve.admission import Admission
from mop.serve.app import create_app
from mop.serve.batching import MOST_CHARACTERS, EncodeBatcher
from mop.serve.keys import KeyRing, add_key, read_keys
from mop.serve.limits import Limits
from mop.serve.loading import Source
from mop.serve.problems import Problem
from mop.serve.upstream import Upstream
from mop.serve.warming import warm, warm_all

# -- keys


def test_only_callers_with_a_key_are_let_in(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key, other = add_key(path, "app"), add_key(path, "cron@night")
    with FakeUpstream() as upstream, running(small_app(upstream.base_url, keys=read_keys(path))) as server:
        for wrong in ({}, {"authorization": key}, {"authorization": f"Bearer {key}x"}, {"authorization": "Bearer"}):
            for reply in (
                server.post("/v1/chat/completions", chat("card"), headers=wrong),
                server.post("/v1/route", {"input": "card"}, headers=wrong),
                server.get("/v1/models", headers=wrong),
            ):
                assert reply.status_code == 401
                assert reply.json()["error"]["code"] == "invalid_api_key"
        for right in (key, other):
            client = openai.OpenAI(base_url=server.url, api_key=right, max_retries=0)
            assert client.chat.completions.create(**chat("card")).choices
            assert client.models.list().data[0].id == "bank"
        assert server.get("/readyz").status_code == 200
    assert key not in str(upstream.headers)


def test_the_file_of_keys_holds_hashes_and_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "app")
    path.write_text(path.read_text().rstrip("\n") + "\n# a note without line feed")
    second = add_key(path, "second")
    text = path.read_text()
    assert key not in text
    assert second not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = read_keys(path)
    assert (ring.caller(key), ring.caller(second), ring.caller("")) == ("app", "second", None)


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "-x", "a\nb sha256:" + "0" * 64])
def test_a_callers_name_is_one_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be a caller's name"):
        add_key(tmp_path / "keys", name)


def test_a_bad_file_of_keys_is_refused_with_its_line_but_never_quoted(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "app")
    with pytest.raises(SettingsError, match="called app already"):
        add_key(path, "app")
    path.write_text(path.read_text() + f"plain {key}\n")
    with pytest.raises(SettingsError, match="line 2") as caught:
        read_keys(path)
    assert key not in str(caught.value)
    with pytest.raises(SettingsError, match="mop serve-key"):
        read_keys(tmp_path / "none")


def test_an_empty_ring_lets_nobody_in() -> None:
    assert KeyRing({}).caller("anything") is None


# -- overload


def test_beyond_its_queue_the_server_says_429_and_when_to_come_back() -> None:
    limits = Limits(concurrency=1, queue=1, seconds=120)
    with FakeUpstream(latency=1.0) as upstream, running(small_app(upstream.base_url, limits=limits)) as server:
        replies: list[Any] = []
        threads = [
            threading.Thread(target=lambda: replies.append(server.post("/v1/chat/completions", chat("card"))))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert upstream.most_in_flight == 1
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses.count(200) >= 2
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(refused) == 6 - statuses.count(200) > 0
    for reply in refused:
        assert reply.json()["error"] == {
            "message": "The server answers or holds 2 requests already; try again later.",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded",
        }
        assert 1 <= int(reply.headers["retry-after"]) <= 60


def test_the_wait_that_is_told_grows_with_the_queue_and_has_bounds() -> None:
    admission = Admission(1000, 4)
    for _ in range(100):
        admission.took(3.0)
    alone = admission.retry_after()
    admission.taken = 40
    assert 1 <= alone < admission.retry_after() <= 60
    admission.taken = 1000
    assert admission.retry_after() == 60


# -- batches


class SlowEncoder(WordEncoder):
    """Takes ``seconds`` for a call, and fails for texts that say so."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.calls: list[list[str]] = []

    def encode(self, texts: Any) -> Any:
        self.calls.append(list(texts))
        time.sleep(self.seconds)
        if any("poison" in text for text in texts):
            raise ModelError("no")
        return super().encode(texts)


async def test_texts_that_come_while_one_is_encoded_become_one_batch() -> None:
    encoder = SlowEncoder(0.05)
    batcher = EncodeBatcher(encoder)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    texts = [f"text {number}" for number in range(40)]
    vectors = await asyncio.gather(*(batcher.encode([text]) for text in texts))
    ticking.cancel()
    assert len(encoder.calls) <= 3
    assert ticks >= 5  # the loop was free meanwhile
    assert np.allclose(np.concatenate(vectors), WordEncoder().encode(texts))
    batcher.close()


async def test_a_text_that_cannot_be_encoded_fails_alone() -> None:
    batcher = EncodeBatcher(SlowEncoder(0.02))
    first = asyncio.create_task(batcher.encode(["first"]))
    await asyncio.sleep(0)
    results = await asyncio.gather(
        batcher.encode(["good"]), batcher.encode(["poison"]), batcher.encode(["fine"]), return_exceptions=True
    )
    await first
    assert [isinstance(result, ModelError) for result in results] == [False, True, False]
    assert len(await batcher.encode(["afterwards"])) == 1
    batcher.close()


async def test_texts_are_cut_and_too_many_are_refused() -> None:
    encoder = SlowEncoder(0.05)
    batcher = EncodeBatcher(encoder, waiting=3)
    tasks = [asyncio.create_task(batcher.encode(["x" * 1_000_000])) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    more = [asyncio.create_task(batcher.encode(["y"])) for _ in range(4)]
    refused = [error for error in await asyncio.gather(*more, return_exceptions=True) if isinstance(error, Problem)]
    await asyncio.gather(*tasks)
    assert {error.status for error in refused} == {429}
    assert {len(text) for call in encoder.calls for text in call if text[0] == "x"} == {MOST_CHARACTERS}
    batcher.close()


async def test_a_request_of_many_texts_is_encoded_in_pieces_and_lets_others_in_between() -> None:
    encoder = SlowEncoder(0.01)
    batcher = EncodeBatcher(encoder, most=4)
    texts = [f"text {number}" for number in range(50)]
    large = asyncio.create_task(batcher.encode(texts))
    await asyncio.sleep(0)
    assert len(await batcher.encode(["small"])) == 1
    assert not large.done()
    assert np.allclose(await large, WordEncoder().encode(texts))
    assert max(len(call) for call in encoder.calls) <= 4
    encoder.calls.clear()
    left = asyncio.create_task(batcher.encode(texts))
    await asyncio.sleep(0.02)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert len(await batcher.encode(["afterwards"])) == 1
    assert sum(len(call) for call in encoder.calls) < 50
    assert batcher._waiting == 0
    batcher.close()


def test_an_encoder_that_fails_is_told_as_such() -> None:
    mixture = small_mixture().with_known_encoder(SlowEncoder())
    with FakeUpstream() as upstream:
        app = create_app([serve_small("bank", Upstream(upstream.base_url), mixture=mixture)])
        with running(app) as server:
            reply = server.post("/v1/chat/completions", chat("poison"))
            assert reply.status_code == 502
            assert reply.json()["error"]["code"] == "encoder_failed"
            assert server.post("/v1/chat/completions", chat("card")).status_code == 200


# -- names, warm prefixes, the end


def test_a_mixture_is_served_under_its_files_stem_or_a_given_name(tmp_path: Path) -> None:
    path = tmp_path / "a=b.mop"
    path.touch()
    assert Source.of(str(path)).name == "a=b"
    assert Source.of(f"bank={path}") == Source("bank", path)
    with pytest.raises(SettingsError, match="There is no mixture file"):
        Source.of(str(tmp_path / "none.mop"))


def test_two_mixtures_of_one_name_or_none_are_refused() -> None:
    upstream = Upstream("http://127.0.0.1:1/v1")
    with pytest.raises(SettingsError, match="Two mixtures are called 'bank'"):
        create_app([serve_small("bank", upstream), serve_small("bank", upstream)])
    with pytest.raises(SettingsError, match="at least one"):
        create_app([])


def test_every_prompt_that_can_answer_is_warmed_before_the_server_is_ready() -> None:
    with FakeUpstream(latency=0.1) as endpoint:
        upstream = Upstream(start=lambda: endpoint.base_url, concurrency=1)
        with running(create_app([serve_small("bank", upstream)], background=[warm_all])) as server:
            assert server.get("/readyz").status_code == 503
            assert server.get("/healthz").status_code == 200
            wait_until(lambda: server.get("/readyz").status_code == 200)
        first = [body["messages"][0]["content"] for body in endpoint.bodies]
        assert first == ["Answer about the card.", "Answer about the parcel.", "Answer «in one word» – größer."]
        assert {body["max_tokens"] for body in endpoint.bodies} == {1}


async def test_a_prompt_that_is_not_warm_in_time_gives_its_slot_back() -> None:
    with FakeUpstream(latency=30) as endpoint:
        upstream = Upstream(start=lambda: endpoint.base_url, concurrency=1)
        assert await asyncio.wait_for(warm(serve_small("bank", upstream), 0.05), 20) == 0
        assert not upstream.slots.locked()
        await upstream.aclose()


def test_a_defect_while_warming_leaves_the_server_ready() -> None:
    def start() -> str:
        raise RuntimeError("no")

    served = [serve_small(name, Upstream(start=start)) for name in ("bank", "shop")]
    with running(create_app(served, background=[warm_all])) as server:
        wait_until(lambda: server.get("/readyz").status_code == 200, 10)


def test_an_embedded_model_that_dies_is_started_again() -> None:
    addresses: list[str] = []
    upstream = Upstream(start=lambda: addresses[-1], concurrency=1)
    with FakeUpstream() as first:
        addresses.append(first.base_url)
        app = create_app([serve_small("bank", upstream)])
        with running(app) as server:
            assert server.post("/v1/chat/completions", chat("card")).status_code == 200
            with FakeUpstream() as second:
                addresses.append(second.base_url)
                assert server.post("/v1/chat/completions", chat("card")).status_code == 200
                assert second.served == 1


def test_a_server_that_is_stopped_finishes_its_streams() -> None:
    with FakeUpstream(pace=0.05, words=20) as upstream, running(small_app(upstream.base_url)) as server:
        client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        stream = client.chat.completions.create(**chat("card"), stream=True)
        next(iter(stream))
        server.stop()
        time.sleep(0.2)
        with pytest.raises(openai.APIConnectionError):
            openai.OpenAI(base_url=server.url, api_key="x", max_retries=0).models.list()
        assert len(list(stream)) == 20


def test_an_answer_that_outlasts_the_grace_ends_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with FakeUpstream(pace=0.3, words=100) as upstream, running(small_app(upstream.base_url), grace=1) as server:
        client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        stream = iter(client.chat.completions.create(**chat("card"), stream=True))
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "stopping"
    assert "Exception in ASGI" not in caplog.text

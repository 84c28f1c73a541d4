"""The official client's and curl's less common ways of asking, unchanged but for the base URL."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_upstream import FakeUpstream
from serving import Running, chat, running, small_app


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream) -> Iterator[Running]:
    with running(small_app(upstream.base_url)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="anything", max_retries=0)


@pytest.mark.parametrize(
    "given",
    [
        {"n": 3},
        {"stop": ["\n", "END"]},
        {"stop": "END"},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        {"logprobs": True, "top_logprobs": 5},
        {"user": "somebody", "metadata": {"a": "b"}, "store": False},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "parallel_tool_calls": False},
        {"reasoning_effort": "low", "max_completion_tokens": 7},
        {"presence_penalty": 0.5, "frequency_penalty": -0.5},
        {"modalities": ["text"], "prediction": {"type": "content", "content": "a"}},
    ],
    ids=lambda given: "+".join(given),
)
@pytest.mark.parametrize("stream", [False, True])
def test_parameters_reach_the_upstream_as_they_were_given(
    client: openai.OpenAI, upstream: FakeUpstream, given: dict[str, Any], stream: bool
) -> None:
    answer = client.chat.completions.create(**chat("card"), **given, stream=stream)
    if stream and given.get("n", 1) == 1:
        list(answer)
    sent = upstream.bodies[-1]
    assert {name: sent[name] for name in given} == given
    assert sent["messages"][-1] == {"role": "user", "content": "card"}


def test_extra_headers_and_raw_responses_work_and_no_header_goes_further(
    client: openai.OpenAI, upstream: FakeUpstream
) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat("card"), extra_headers={"x-trace": "7"})
    assert raw.headers["x-mop-expert"] == "0"
    assert raw.headers["x-request-id"]
    assert raw.parse().choices
    assert "x-trace" not in upstream.headers[-1]
    with client.chat.completions.with_streaming_response.create(**chat("card"), stream=True) as response:
        assert response.headers["x-mop-mixture"] == "bank"
        assert any("[DONE]" in line for line in response.iter_lines())


async def test_the_asynchronous_client_streams_and_gets_raw_responses(server: Running) -> None:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(**chat("parcel"))
        assert raw.headers["x-mop-expert"] == "1"
        async with await client.completions.create(model="bank", prompt="card", stream=True) as stream:
            texts = [piece.choices[0].text async for piece in stream]
        assert "".join(texts) == "word0 word1 word2 word3 word4 "


def test_completions_stream_with_usage_and_the_experts_headers(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    raw = client.completions.with_raw_response.create(
        model="bank", prompt="my parcel", stream=True, stream_options={"include_usage": True}, suffix=".", echo=False
    )
    assert raw.headers["x-mop-expert"] == "1"
    pieces = list(raw.parse())
    assert pieces[-1].usage is not None
    assert upstream.bodies[-1]["suffix"] == "."


def test_a_conversation_that_ends_with_tool_messages_is_routed_by_its_last_user_message(
    client: openai.OpenAI, upstream: FakeUpstream
) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "developer", "content": "Use the tools."},
        {"role": "user", "content": "where is my parcel"},
        {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "b"}]},
        {"role": "tool", "tool_call_id": "a", "content": "card card card"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "meeting"}]},
    ]
    raw = client.chat.completions.with_raw_response.create(model="bank", messages=messages)
    assert raw.headers["x-mop-expert"] == "1"
    assert upstream.bodies[-1]["messages"][-5:] == messages


def test_a_developer_message_follows_the_rule_of_system_messages(upstream: FakeUpstream) -> None:
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "card"}]
    with running(small_app(upstream.base_url, style={"caller_system": "merge"})) as server:
        server.post("/v1/chat/completions", {"model": "bank", "messages": messages})
    assert upstream.bodies[-1]["messages"][0]["content"] == "Answer about the card.\n\nBe kind."


def test_the_query_of_a_message_of_parts_is_its_text_wherever_the_images_stand(
    client: openai.OpenAI, upstream: FakeUpstream
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    content = [image, {"type": "text", "text": "my card"}, audio, image]
    raw = client.chat.completions.with_raw_response.create(
        model="bank",
        messages=[{"role": "user", "content": content}],  # type: ignore[arg-type]
    )
    assert raw.headers["x-mop-expert"] == "0"
    assert upstream.bodies[-1]["messages"][-1]["content"] == content


def test_curl_streams_and_reads_models_and_errors(server: Running) -> None:
    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-s", "-N", "-w", "\n%{http_code}", "--noproxy", "*", *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    said = curl(f"{server.url}/chat/completions", "-d", json.dumps(chat("card", stream=True)))
    assert said.count("data: ") == 7
    assert said.rstrip().endswith("200")
    assert '"id":"bank"' in curl(f"{server.url}/models").replace(" ", "")
    assert curl(f"{server.url}/chat/completions", "-d", "{").rstrip().endswith("400")
    assert curl("-I", f"{server.root}/healthz").rstrip().endswith("200")

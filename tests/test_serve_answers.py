"""The server as clients see it: the official client and plain HTTP, whole answers and streams, routes and models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import openai
import pytest
from fake_upstream import FakeUpstream
from serving import Running, chat, running, serve_small, small_app
from small import small_mixture

from mop.decoding import Decoding
from mop.prompts import Prompt
from mop.serve.app import create_app
from mop.serve.upstream import Upstream

PREFIX = [
    {"role": "system", "content": "Answer about the card."},
    {"role": "user", "content": "my card is lost"},
    {"role": "assistant", "content": "card_lost"},
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream) -> Iterator[Running]:
    with running(small_app(upstream.base_url, key="sk-upstream")) as one:
        yield one


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="anything", max_retries=0)


# -- chat completions


def test_the_official_client_gets_an_answer_from_the_expert_of_its_query(
    client: openai.OpenAI, upstream: FakeUpstream
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="bank", messages=[{"role": "user", "content": "the card was swallowed"}]
    )
    assert raw.parse().choices[0].message.content
    assert raw.headers["x-mop-mixture"] == "bank"
    assert raw.headers["x-mop-expert"] == "0"
    assert raw.headers["x-mop-generalist"] == "false"
    assert raw.headers["x-mop-reason"] == "none"
    assert float(raw.headers["x-mop-margin"]) > 0
    assert raw.headers["x-mop-version"] == "v1"
    assert upstream.bodies[-1]["messages"] == [*PREFIX, {"role": "user", "content": "the card was swallowed"}]
    assert upstream.bodies[-1]["model"] == "simulated"


def test_a_region_that_has_fallen_back_is_answered_by_the_generalist(server: Running, upstream: FakeUpstream) -> None:
    reply = server.post("/v1/chat/completions", chat("a meeting"))
    assert (reply.headers["x-mop-expert"], reply.headers["x-mop-generalist"]) == ("2", "true")
    assert reply.headers["x-mop-reason"] == "no gain"
    assert upstream.bodies[-1]["messages"][0]["content"] == "Answer «in one word» – größer."


def test_a_stream_arrives_piece_by_piece_as_the_upstream_sends_it(client: openai.OpenAI, server: Running) -> None:
    pieces = list(client.chat.completions.create(**chat("card"), stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "word0 word1 word2 word3 word4 "
    reply = server.post("/v1/chat/completions", chat("card", stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("data: [DONE]\n\n")
    assert reply.headers["x-mop-expert"] == "0"


async def test_the_asynchronous_client_gets_answers_and_streams(server: Running) -> None:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        whole = await client.chat.completions.create(**chat("card"))
        assert whole.choices[0].message.content
        stream = await client.chat.completions.create(
            **chat("card"), stream=True, stream_options={"include_usage": True}
        )
        pieces = [piece async for piece in stream]
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.prompt_tokens == 20


def test_the_history_stays_and_the_last_user_message_is_routed(server: Running, upstream: FakeUpstream) -> None:
    messages = [
        {"role": "user", "content": "a parcel"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "a", "content": "gone"},
        {"role": "user", "content": "and my card?"},
        {"role": "assistant", "content": "One moment,"},
    ]
    reply = server.post("/v1/chat/completions", {"model": "bank", "messages": messages})
    assert reply.headers["x-mop-expert"] == "0"
    assert upstream.bodies[-1]["messages"] == [*PREFIX, *messages]


def test_tools_and_every_other_parameter_pass_through_untouched(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
    given = {"tools": tools, "tool_choice": "auto", "top_p": 0.25, "seed": 7, "n": 1, "logit_bias": {"5": -100}}
    answer = client.chat.completions.create(**chat("card"), **given, extra_body={"top_k": 3, "odd": {"a": [1, None]}})
    sent = dict(upstream.bodies[-1])
    del sent["messages"], sent["model"]
    assert sent == {**given, "top_k": 3, "odd": {"a": [1, None]}}
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"x":1}'


def test_what_the_caller_leaves_open_is_decoded_as_it_was_learned(server: Running, upstream: FakeUpstream) -> None:
    server.post("/v1/chat/completions", chat("card"))
    assert upstream.bodies[-1]["max_tokens"] == 16
    assert upstream.bodies[-1]["stop"] == ["\n"]
    assert upstream.bodies[-1]["temperature"] == 0.0
    server.post("/v1/chat/completions", chat("card", max_completion_tokens=99, stop="END", temperature=1))
    assert "max_tokens" not in upstream.bodies[-1]
    assert upstream.bodies[-1]["stop"] == "END"
    assert upstream.bodies[-1]["temperature"] == 1


def test_text_parts_are_joined_and_routed_and_images_pass_through(server: Running, upstream: FakeUpstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "where is"}, image, {"type": "text", "text": "my parcel"}]
    reply = server.post("/v1/chat/completions", {"model": "bank", "messages": [{"role": "user", "content": content}]})
    assert reply.headers["x-mop-expert"] == "1"
    assert upstream.bodies[-1]["messages"][-1] == {"role": "user", "content": content}
    assert server.post("/v1/route", {"input": "where is\nmy parcel"}).json()["data"][0]["expert"] == 1


def test_a_lone_image_goes_to_the_generalist(server: Running) -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    reply = server.post("/v1/chat/completions", {"model": "bank", "messages": [{"role": "user", "content": content}]})
    assert reply.status_code == 200
    assert (reply.headers["x-mop-expert"], reply.headers["x-mop-generalist"]) == ("none", "true")
    assert reply.headers["x-mop-reason"] == "no text"


def test_every_request_of_an_expert_begins_with_the_same_bytes(server: Running, upstream: FakeUpstream) -> None:
    texts = []
    for query in ("card one", "card two"):
        server.post("/v1/chat/completions", chat(query))
        texts.append(json.dumps(upstream.bodies[-1]["messages"]))
    shared = json.dumps(PREFIX)[:-1]
    assert all(text.startswith(shared) for text in texts)


def test_plain_curl_works(server: Running) -> None:
    command = ["curl", "-s", "-i", "--noproxy", "*", f"{server.url}/chat/completions", "-d", json.dumps(chat("card"))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("HTTP/1.1 200")
    assert "x-mop-expert: 0" in said
    assert '"chat.completion"' in said


def test_without_a_model_the_only_mixture_answers_and_the_upstreams_name_stands_for_it(server: Running) -> None:
    body = chat("card")
    del body["model"]
    assert server.post("/v1/chat/completions", body).headers["x-mop-mixture"] == "bank"
    assert server.post("/v1/chat/completions", {**body, "model": "simulated"}).headers["x-mop-mixture"] == "bank"


# -- a caller's own system message, other layouts, other queries


@pytest.mark.parametrize(
    ("rule", "roles", "first"),
    [
        ("after", ["system", "user", "assistant", "system", "user"], "Answer about the card."),
        ("merge", ["system", "user", "assistant", "user"], "Answer about the card.\n\nBe kind.\nBe brief."),
        ("drop", ["system", "user", "assistant", "user"], "Answer about the card."),
    ],
)
def test_a_callers_system_message_follows_the_rule(
    upstream: FakeUpstream, rule: str, roles: list[str], first: str
) -> None:
    parts = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}]
    messages = [{"role": "system", "content": parts}, {"role": "user", "content": "card"}]
    with running(small_app(upstream.base_url, style={"caller_system": rule})) as server:
        server.post("/v1/chat/completions", {"model": "bank", "messages": messages})
    sent = upstream.bodies[-1]["messages"]
    assert [message["role"] for message in sent] == roles
    assert sent[0]["content"] == first


@pytest.mark.parametrize(("rule", "expert"), [("last", "1"), ("first", "0"), ("all", "0")])
def test_other_user_messages_can_be_the_routed_query(upstream: FakeUpstream, rule: str, expert: str) -> None:
    messages = [{"role": "user", "content": "card card card"}, {"role": "user", "content": "parcel"}]
    with running(small_app(upstream.base_url, route_on=rule)) as server:
        reply = server.post("/v1/chat/completions", {"model": "bank", "messages": messages})
    assert reply.headers["x-mop-expert"] == expert


def test_a_block_prompt_is_written_around_the_last_user_message(upstream: FakeUpstream) -> None:
    mixture = small_mixture(generalist=Prompt("Say it.", (), "block"))
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [
        {"role": "user", "content": "before"},
        {"role": "user", "content": [{"type": "text", "text": "meeting"}, image]},
    ]
    with running(small_app(upstream.base_url, style={"mixture": mixture, "decoding": None})) as server:
        server.post("/v1/chat/completions", {"model": "bank", "messages": messages})
    block = {"type": "text", "text": "Instruction: Say it.\n\nInput: meeting\nOutput:"}
    assert upstream.bodies[-1] == {
        "model": "simulated",
        "messages": [messages[0], {"role": "user", "content": [block, image]}],
    }


def test_openai_is_told_the_length_by_its_new_name() -> None:
    assert Upstream("https://api.openai.com/v1").length_field == "max_completion_tokens"
    assert Upstream("http://127.0.0.1:1/v1").length_field == "max_tokens"


# -- completions, routes, models


def test_a_completion_asks_in_the_block_layout_of_its_expert(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    answer = client.completions.create(model="bank", prompt="the card is wet", max_tokens=3)
    assert answer.choices[0].text
    assert upstream.bodies[-1]["prompt"] == (
        "Instruction: Answer about the card.\n\nInput: my card is lost\nOutput: card_lost\n\n"
        "Input: the card is wet\nOutput:"
    )
    assert upstream.bodies[-1]["max_tokens"] == 3
    pieces = client.completions.create(model="bank", prompt="card", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces).startswith("word0")


def test_several_prompts_are_one_call_with_an_expert_each(server: Running, upstream: FakeUpstream) -> None:
    served = upstream.served
    reply = server.post("/v1/completions", {"model": "bank", "prompt": ["my card", "my parcel", "a meeting"]})
    assert upstream.served == served + 1
    assert len(reply.json()["choices"]) == 3
    assert reply.headers["x-mop-expert"] == "0, 1, 2"
    assert reply.headers["x-mop-generalist"] == "false, false, true"
    assert "card_lost" in upstream.bodies[-1]["prompt"][0]
    assert "parcel_lost" in upstream.bodies[-1]["prompt"][1]


def test_route_gives_the_decisions_of_a_batch_and_asks_no_model(server: Running, upstream: FakeUpstream) -> None:
    served = upstream.served
    queries = ["my card", "my parcel", "a meeting"]
    reply = server.post("/v1/route", {"model": "bank", "input": queries}).json()
    expected = small_mixture().route(queries)
    assert [row["expert"] for row in reply["data"]] == [0, 1, 2]
    assert [row["generalist"] for row in reply["data"]] == [False, False, True]
    assert [row["margin"] for row in reply["data"]] == pytest.approx([route.margin for route in expected])
    assert reply["model"] == "bank"
    assert upstream.served == served


def test_with_one_expert_there_is_no_margin(upstream: FakeUpstream) -> None:
    whole = small_mixture()
    alone = small_mixture(experts=whole.experts[:1], centroids=whole.centroids[:1], decoding=Decoding(4))
    with running(small_app(upstream.base_url, style={"mixture": alone})) as server:
        assert server.post("/v1/route", {"input": "card"}).json()["data"][0]["margin"] is None
        assert server.post("/v1/chat/completions", chat("card")).headers["x-mop-margin"] == "inf"


def test_each_mixture_is_a_model(upstream: FakeUpstream) -> None:
    shared = Upstream(upstream.base_url)
    app = create_app([serve_small("bank", shared), serve_small("größer", shared)])
    with running(app) as server:
        client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        assert [model.id for model in client.models.list()] == ["bank", "größer"]
        assert client.models.retrieve("bank").owned_by == "mop"
        reply = server.post("/v1/chat/completions", {**chat("card"), "model": "größer"})
        assert reply.headers["x-mop-mixture"] == "gr%C3%B6%C3%9Fer"
        with pytest.raises(openai.NotFoundError, match="Did you mean 'bank'"):
            client.chat.completions.create(**{**chat("card"), "model": "banc"})
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
        nameless = server.post("/v1/chat/completions", {"messages": chat("card")["messages"]})
        assert nameless.status_code == 400
        # Two mixtures of one upstream model: its name stands for neither.
        assert server.post("/v1/chat/completions", {**chat("card"), "model": "simulated"}).status_code == 404


# -- what operators see


def test_metrics_count_requests_experts_fallbacks_margins_and_tokens(upstream: FakeUpstream) -> None:
    with running(small_app(upstream.base_url)) as server:
        server.post("/v1/chat/completions", chat("card"))
        server.post("/v1/chat/completions", chat("meeting", stream=True, stream_options={"include_usage": True}))
        server.post("/v1/chat/completions", content=b"{")
        server.post("/v1/chat/completions", {**chat("card"), "model": "secret-name"})
        ok = 'mop_requests_total{code="",endpoint="chat",mixture="bank",status="200"}'
        assert server.metric(ok) == 2
        assert server.metric('mop_requests_total{code="invalid_json",endpoint="chat",mixture="",status="400"}') == 1
        assert server.metric('mop_expert_queries_total{expert="0",mixture="bank"}') == 1
        assert server.metric('mop_fallbacks_total{mixture="bank",reason="no gain"}') == 1
        assert server.metric('mop_route_margin_count{mixture="bank"}') == 2
        assert server.metric('mop_tokens_total{kind="prompt",mixture="bank"}') == 40
        assert server.metric('mop_tokens_total{kind="cached",mixture="bank"}') == 24
        assert server.metric('mop_tokens_total{kind="completion",mixture="bank"}') == 6
        assert server.metric('mop_request_seconds_count{endpoint="chat",mixture="bank"}') == 2
        assert server.metric("mop_requests_held") == 0
        assert "secret-name" not in server.get("/metrics").text


def test_health_and_readiness_need_no_key(server: Running) -> None:
    assert server.get("/healthz").json() == {"status": "alive"}
    ready = server.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "models": {"bank": {"version": "v1", "stale": None}}}

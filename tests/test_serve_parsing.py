"""The parser of requests: whatever comes, it reads it or raises a Problem that can be sent; nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mop.decoding import Decoding
from mop.prompts import Demo, Prompt
from mop.serve.parsing import parse_chat, parse_completion, parse_routing
from mop.serve.problems import Problem
from mop.serve.prompting import Style, chat_body, completion_body

PARSERS = (parse_chat, parse_completion, parse_routing)
PROMPT = Prompt("Answer.", (Demo("a", "b"),))
STYLE = Style("upstream", Decoding(8, ("\n",)))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url"]) | values}, optional={"text": st.text() | values}
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | values},
    optional={"content": st.text() | st.lists(parts | values, max_size=3) | values},
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text() | values,
        "messages": st.lists(messages | values, max_size=4) | values,
        "prompt": st.text() | st.lists(st.text() | values, max_size=3) | values,
        "input": st.text() | st.lists(st.text() | values, max_size=3) | values,
        "stream": st.booleans() | values,
        "stop": values,
        "tools": values,
    },
)


def check(raw: bytes) -> None:
    for parse in PARSERS:
        problem = tried(parse, raw)
        if problem is not None:
            assert problem.status == 400
            assert json.loads(problem.body)["error"]["message"]


def tried(parse: Any, raw: bytes) -> Problem | None:
    """Read a request and make the upstream's of it; return why not."""
    try:
        call = parse(raw)
        sent = []
        if parse is parse_chat:
            call.query("all").encode()
            sent += [chat_body(call, PROMPT, STYLE), chat_body(call, PROMPT, Style("m", None, "merge"))]
        if parse is parse_completion:
            sent.append(completion_body(call, [PROMPT] * len(call.prompts), STYLE))
    except Problem as problem:
        return problem
    assert all(json.loads(body)["model"] for body in sent)
    return None


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 5000)
@example(b'{"messages":' + b'[{"a":' * 400 + b"1" + b"}]" * 400 + b"}")
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    check(raw)


@settings(max_examples=60)
@given(bodies)
def test_any_json_is_read_or_refused(body: dict[str, Any]) -> None:
    check(json.dumps(body).encode())
    check(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts, lambda inner: st.lists(inner, max_size=3)
)
users = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=4)


@given(users, st.dictionaries(st.text(max_size=8).map("x_".__add__), plain, max_size=3))
def test_a_good_chat_reaches_the_upstream_as_it_came_behind_the_prefix(
    given_messages: list[dict[str, Any]], extra: dict[str, Any]
) -> None:
    call = parse_chat(json.dumps({"model": "m", "messages": given_messages, **extra}).encode())
    sent = json.loads(chat_body(call, PROMPT, STYLE))
    assert sent["messages"][:3] == [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert sent["messages"][3:] == given_messages
    assert {name: sent[name] for name in extra} == extra
    assert call.query() == given_messages[-1]["content"]


@pytest.mark.parametrize("raw", [b'{"input": "a", "model": null}', b'{"input": ["a"]}'])
def test_a_route_needs_no_model(raw: bytes) -> None:
    assert parse_routing(raw).model is None

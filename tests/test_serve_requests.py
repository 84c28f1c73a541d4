"""What callers are told when their request is bad: a status, a type and a code each."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_upstream import FakeUpstream
from serving import Running, chat, running, said, small_app

from mop.serve.limits import Limits


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url)) as one:
        yield one


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "bank", "messages": [{"role": "user", "content": "card"}], "x": 1e999}', "invalid_json"),
        (b'{"x": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"model": "\xff\xfe"}', "invalid_utf8"),
        ('{"model": "bank"}'.encode("utf-16"), "invalid_utf8"),
        (b"{}", "invalid_value"),
        (b'{"messages": []}', "invalid_value"),
        (b'{"messages": "hi"}', "invalid_value"),
        (b'{"messages": ["hi"]}', "invalid_value"),
        (b'{"messages": [{"content": "hi"}]}', "invalid_value"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "invalid_value"),
        (b'{"messages": [{"role": "user", "content": ["hi"]}]}', "invalid_value"),
        (b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_value"),
        (b'{"model": 5, "messages": [{"role": "user", "content": "hi"}]}', "invalid_value"),
        (b'{"model": "", "messages": [{"role": "user", "content": "hi"}]}', "invalid_value"),
        (b'{"stream": "yes", "messages": [{"role": "user", "content": "hi"}]}', "invalid_value"),
        (b'{"messages": [{"role": "system", "content": "hi"}]}', "no_user_message"),
    ],
)
def test_a_bad_chat_is_refused_with_status_400(server: Running, content: bytes, code: str) -> None:
    error = said(server.post("/v1/chat/completions", content=content), 400, code)
    assert error["type"] == "invalid_request_error"


def test_the_field_to_blame_is_named(server: Running) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": 4, "content": "hi"}]
    error = said(server.post("/v1/chat/completions", {"messages": messages}), 400, "invalid_value")
    assert error["param"] == "messages[1].role"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/completions", {"prompt": [1, 2, 3]}, "invalid_value"),
        ("/v1/completions", {"prompt": []}, "invalid_value"),
        ("/v1/completions", {}, "invalid_value"),
        ("/v1/completions", {"prompt": ["a"] * 129}, "invalid_value"),
        ("/v1/route", {"input": ["card", ""]}, "invalid_value"),
        ("/v1/route", {"input": {"text": "card"}}, "invalid_value"),
        ("/v1/route", {"input": "card", "inptu": 1}, "unknown_parameter"),
        ("/v1/route", {"input": ["a"] * 2049}, "invalid_value"),
    ],
)
def test_a_bad_prompt_or_input_is_refused_with_status_400(server: Running, path: str, body: Any, code: str) -> None:
    said(server.post(path, body), 400, code)


def test_ten_megabytes_of_text_are_refused_whether_announced_or_not(server: Running) -> None:
    body = json.dumps(chat("x" * 10_000_000)).encode()
    said(server.post("/v1/chat/completions", content=body), 413, "request_too_large")
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    said(server.post("/v1/chat/completions", content=pieces), 413, "request_too_large")  # type: ignore[arg-type]
    client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**chat("x" * 10_000_000))
    assert caught.value.status_code == 413


def test_seven_megabytes_are_routed_and_answered(server: Running) -> None:
    reply = server.post("/v1/chat/completions", chat("card " * 1_400_000))
    assert reply.status_code == 200
    assert reply.headers["x-mop-expert"] == "0"


def test_a_body_that_never_ends_is_given_up() -> None:
    answer = b""
    with running(small_app("http://127.0.0.1:1/v1", limits=Limits(body_seconds=0.3))) as server:
        address = ("127.0.0.1", int(server.root.rpartition(":")[2]))
        with socket.create_connection(address, timeout=30) as line:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            while part := line.recv(65536):  # until the server hangs up
                answer += part
    assert b" 408 " in answer
    assert b"request_timeout" in answer


def test_an_unknown_model_path_or_method_is_named(server: Running) -> None:
    error = said(server.post("/v1/chat/completions", {**chat("card"), "model": "other"}), 404, "model_not_found")
    assert "bank" in error["message"]
    said(server.get("/v1/other"), 404, "not_found")
    said(server.get("/v1/chat/completions"), 405, "method_not_allowed")


def test_a_web_page_of_another_origin_may_not_ask_an_open_server(server: Running) -> None:
    reply = server.post("/v1/chat/completions", chat("card"), headers={"origin": "https://example.com"})
    assert said(reply, 403, "cross_origin")["type"] == "permission_error"
    assert server.post("/v1/chat/completions", chat("card"), headers={"origin": server.root}).status_code == 200


def test_a_defect_is_an_internal_error_with_the_id_that_the_log_has(caplog: pytest.LogCaptureFixture) -> None:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url)) as server:
        server.gateway.registry.find("bank").mixture.router.__dict__["_index"] = None
        with caplog.at_level(logging.ERROR, logger="mop.serve"):
            reply = server.post("/v1/chat/completions", chat("card"))
    error = said(reply, 500, "internal_error")
    assert reply.headers["x-request-id"] in error["message"]
    assert reply.headers["x-request-id"] in caplog.text
    assert "NoneType" not in reply.text


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example:8000", 403), ("", 403)],
)
def test_a_server_on_the_loopback_without_keys_answers_to_no_other_name(host: str, status: int) -> None:
    with FakeUpstream() as upstream, running(small_app(upstream.base_url, loopback=True)) as server:
        reply = server.post("/v1/chat/completions", chat("card"), headers={"host": host})
        assert reply.status_code == server.get("/v1/models", headers={"host": host}).status_code == status
        if status == 403:
            said(reply, 403, "unknown_host")

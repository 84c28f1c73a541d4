"""A gated student behind the OpenAI API, with the real 135M model and the official client on a real socket."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Running, running
from tiny_student import make_tiny

from mop.serve.problems import Problem
from mop.serve.student.app import create_student_app
from mop.serve.student.asked import read_chat
from mop.serve.student.desk import Decision, Desk, Done, Job
from mop.serve.student.growing import Growing
from mop.students import adapters
from mop.students.config import TrainerConfig
from mop.students.features import FirstLayer
from mop.students.gate import Gate, Linear
from mop.students.gated import Gated
from mop.students.generating import write
from mop.students.models import Student, load
from mop.students.opening import OpenStudent
from mop.students.rendering import prompt_ids
from mop.students.role_lines import role_line

BASE = "local/smollm2-135m-instruct"
QUERIES = ["How do I boil an egg?", "What is the capital of France?", "Tips for a long hike?", "2+2?"]
TOKENS = 5


def _gate(student: Student) -> Gate:
    """A gate with fixed numbers that is on for two of the queries."""
    width = student.model.config.hidden_size
    weight = np.zeros(width)
    weight[0] = 1.0
    means = FirstLayer(student.model, student.tokenizer)(QUERIES)[:, 0]
    linear = Linear(np.full(width, float(np.median(means))), np.full(width, 0.01), weight, 0.0)
    return Gate("learned", ("first layer",), linear)


def _with_adapter(student: Student) -> Student:
    """Give a student an adapter that is far from inert, without training."""
    import torch

    adapters.wrap(student, TrainerConfig(first_layer=1, rank=4, alpha=16))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for name, one in student.model.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.05)
    return student


def _ids(student: Student, query: str) -> list[int]:
    return prompt_ids(student.tokenizer, [{"role": "user", "content": query}])


@pytest.fixture(scope="module")
def bare(tiny_model: Path) -> tuple[Student, dict[str, str]]:
    """The model, and its answers before anything wrapped it, each asked alone."""
    student = load(BASE, device="cpu", dtype="float32")
    found = {query: write(student, [_ids(student, query)], max_tokens=TOKENS)[0].text for query in QUERIES}
    return student, found


@pytest.fixture(scope="module")
def opened(bare: tuple[Student, dict[str, str]]) -> OpenStudent:
    student = _with_adapter(bare[0])
    return OpenStudent(student, {}, None, Gated(student, _gate(student)))


@pytest.fixture(scope="module")
def server(opened: OpenStudent) -> Iterator[Running]:
    with running(create_student_app(opened, "sailor", max_tokens=TOKENS, batch=1, loopback=True)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="anything", max_retries=0, timeout=120)


def _ask(client: openai.OpenAI, query: str, **more: Any) -> Any:
    given = {"model": "sailor", "messages": [{"role": "user", "content": query}], **more}
    return client.chat.completions.create(**given)


def _job(opened: OpenStudent, query: str, *, tokens: int = TOKENS, **more: Any) -> Job:
    tokenizer = opened.student.tokenizer
    growing = Growing(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
    return Job(_ids(opened.student, query), query, tokens, 0.0, "seed", growing, **more)


async def _answered(desk: Desk, job: Job) -> tuple[Decision, Done]:
    async with desk.answering(job):
        decision, done = await job.next(), await job.next()
    assert isinstance(decision, Decision)
    assert isinstance(done, Done)
    return decision, done


# --- who answers


def test_the_gate_decides_for_each_query_and_where_it_is_shut_the_answer_is_the_never_wrapped_models(
    client: openai.OpenAI, opened: OpenStudent, bare: tuple[Student, dict[str, str]]
) -> None:
    assert opened.gated is not None
    expected = [on for on, _ in opened.gated.decide(QUERIES)]
    assert set(expected) == {True, False}
    for query, on in zip(QUERIES, expected, strict=True):
        raw = client.chat.completions.with_raw_response.create(
            model="sailor", messages=[{"role": "user", "content": query}]
        )
        answer = raw.parse()
        assert raw.headers["x-mop-adapter"] == ("on" if on else "off")
        assert answer.model_extra is not None
        assert answer.model_extra["mop"]["adapter"] is on
        assert (float(raw.headers["x-mop-probability"]) >= 0.5) is on
        assert (answer.choices[0].message.content == bare[1][query]) is not on
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(_ids(opened.student, query))


def test_the_base_model_answers_under_its_own_name_whatever_the_gate_says(
    client: openai.OpenAI, bare: tuple[Student, dict[str, str]]
) -> None:
    assert [one.id for one in client.models.list()] == ["sailor", BASE]
    assert client.models.retrieve(BASE).owned_by == "mop"
    for query in QUERIES[:2]:
        answer = _ask(client, query, model=BASE)
        assert answer.choices[0].message.content == bare[1][query]
        assert answer.model == BASE
        assert answer.model_extra["mop"] == {"adapter": False, "probability": None, "role": None}
    with pytest.raises(openai.NotFoundError, match="There are: sailor"):
        _ask(client, "2+2?", model="gpt-5")


def test_rows_with_and_without_the_adapter_share_a_batch(
    opened: OpenStudent, bare: tuple[Student, dict[str, str]]
) -> None:
    sizes = []

    class Counting(Desk):
        def _next(self) -> list[Job]:
            sizes.append(len(found := super()._next()))
            return found

    async def ask_all() -> list[tuple[Decision, Done]]:
        desk = Counting(opened, batch=8)
        found = await asyncio.gather(*(_answered(desk, _job(opened, query)) for query in QUERIES))
        await desk.aclose()
        return found

    found = asyncio.run(ask_all())
    assert sizes[0] == 4
    assert {decision.on for decision, _ in found} == {True, False}
    for query, (decision, done) in zip(QUERIES, found, strict=True):
        assert (done.text == bare[1][query]) is not decision.on


def test_callers_who_ask_at_the_same_time_all_get_the_answers_they_get_alone(client: openai.OpenAI) -> None:
    alone = [_ask(client, query).choices[0].message.content for query in QUERIES]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: _ask(client, query).choices[0].message.content, QUERIES))
    assert together == alone


# --- how it answers


def test_a_stream_says_who_answers_and_its_pieces_are_the_whole_answer(client: openai.OpenAI) -> None:
    query = QUERIES[1]
    whole = _ask(client, query)
    pieces = list(_ask(client, query, stream=True, stream_options={"include_usage": True}))
    assert pieces[0].model_extra["mop"]["adapter"] is whole.model_extra["mop"]["adapter"]
    text = "".join(one.choices[0].delta.content or "" for one in pieces if one.choices)
    assert text == whole.choices[0].message.content
    assert sum(bool(one.choices and one.choices[0].delta.content) for one in pieces) > 1
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert pieces[-1].usage == whole.usage


def test_lengths_stops_and_seeds_are_kept(client: openai.OpenAI) -> None:
    query = QUERIES[1]
    words = _ask(client, query, model=BASE).choices[0].message.content.split()
    stopped = _ask(client, query, model=BASE, stop=[words[2]])
    assert stopped.choices[0].message.content == " ".join(words[:2])
    assert stopped.choices[0].finish_reason == "stop"
    assert _ask(client, query, max_completion_tokens=2).usage.completion_tokens == 2
    sampled = [_ask(client, query, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize(
    "given",
    [
        {"n": 2},
        {"top_p": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"temperature": 3},
        {"max_tokens": 0},
        {"max_tokens": 100_000},
        {"stop": [""]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "tool", "content": "4", "tool_call_id": "1"}, {"role": "user", "content": "hi"}]},
        {"messages": [{"role": "system", "content": "hi"}]},
    ],
    ids=str,
)
def test_what_a_student_cannot_do_is_refused_by_name(client: openai.OpenAI, given: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        _ask(client, "hi", **given)
    assert (caught.value.param or "").partition("[")[0] in (*given, "messages")


def test_fields_that_change_nothing_of_an_answer_are_taken(client: openai.OpenAI) -> None:
    answer = _ask(client, "2+2?", user="a", n=1, top_p=1.0, tools=[], response_format={"type": "text"}, max_tokens=1)
    assert answer.usage.completion_tokens == 1


def test_it_tells_that_it_is_alive_and_ready_and_counts_who_answered(server: Running, client: openai.OpenAI) -> None:
    before = {who: server.metric(f'mop_expert_queries_total{{expert="{who}"') for who in ("adapter", "base")}
    for query in QUERIES:
        _ask(client, query, max_tokens=1)
    after = {who: server.metric(f'mop_expert_queries_total{{expert="{who}"') for who in ("adapter", "base")}
    assert {who: after[who] - before[who] for who in after} == {"adapter": 2, "base": 2}
    assert server.get("/healthz").json() == {"status": "alive"}
    assert server.get("/readyz").json() == {"status": "ready", "models": {"sailor": {"base": BASE, "gate": "learned"}}}
    assert server.get("/v1/nothing").json()["error"]["code"] == "not_found"


def test_a_student_that_writes_roles_gives_them_apart_and_refuses_streams(opened: OpenStudent) -> None:
    class Speaking(Desk):
        def _answer(self, jobs: Any, loop: Any) -> None:
            for job in jobs:
                loop.call_soon_threadsafe(job.told.put_nowait, Decision(True, None))
                loop.call_soon_threadsafe(job.told.put_nowait, Done("[Role: a cook]\n\nTen minutes.", "stop", 9))

    app = create_student_app(OpenStudent(opened.student, {}, role_line("bracket")), "sailor")
    app.state.gateway.desk = Speaking(app.state.gateway.opened, batch=1)
    with running(app) as one:
        asking = openai.OpenAI(base_url=one.url, api_key="a", max_retries=0)
        answer = _ask(asking, "How long does an egg take?")
        assert answer.choices[0].message.content == "Ten minutes."
        assert answer.model_extra["mop"]["role"] == "a cook"
        with pytest.raises(openai.BadRequestError, match="writes its role"):
            _ask(asking, "How long does an egg take?", stream=True)


# --- the desk


def test_a_caller_who_leaves_ends_the_answer_and_the_next_one_is_served(opened: OpenStudent) -> None:
    async def ask() -> tuple[Job, Done]:
        desk = Desk(opened, batch=1)
        long = _job(opened, QUERIES[2], tokens=2000, pieces=True, bare=True)
        async with desk.answering(long):
            await long.next()
            await long.next()
        _, done = await _answered(desk, _job(opened, "2+2?", tokens=1))
        await desk.aclose()
        return long, done

    long, done = asyncio.run(ask())
    assert done.tokens == 1
    assert 0 < len(long.growing) < 2000


def test_a_batch_that_fails_is_tried_again_one_by_one_so_that_a_bad_request_fails_alone(opened: OpenStudent) -> None:
    class Choking(Desk):
        def _answer(self, jobs: Any, loop: Any) -> None:
            if any(job.query == "bad" for job in jobs):
                raise RuntimeError("out of memory")
            super()._answer(jobs, loop)

    async def ask() -> list[Any]:
        desk = Choking(opened, batch=8)
        jobs = [_answered(desk, _job(opened, query, tokens=1)) for query in ("2+2?", "bad", "hi")]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        await desk.aclose()
        return found

    first, bad, last = asyncio.run(ask())
    assert (first[1].tokens, last[1].tokens) == (1, 1)
    assert isinstance(bad, RuntimeError)


# --- texts and fields


@given(st.text(alphabet="ab \né😀S", max_size=30), st.sampled_from([(), ("S",), ("aS", "\n\n"), ("😀",)]))
def test_the_pieces_of_a_growing_text_are_the_whole_text_and_none_is_taken_back(
    text: str, stops: tuple[str, ...]
) -> None:
    growing = Growing(lambda ids: bytes(ids).decode(errors="replace"), stops)
    pieces = []
    for token in text.encode():
        pieces.append(growing.take(token))
        if growing.stopped:
            break
    pieces.append(growing.end())
    found = [place for stop in stops if (place := text.lstrip().find(stop)) >= 0]
    expected = text.lstrip()[: min(found)] if found else text
    assert "".join(pieces) == growing.text == expected.strip()


@given(
    st.dictionaries(
        st.sampled_from(["n", "top_p", "tools", "stop", "seed", "temperature", "max_tokens", "stream_options", "user"]),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
        | st.lists(st.text(), max_size=3),
    )
)  # fmt: skip
def test_any_fields_are_read_or_refused_as_the_callers_mistake(fields: dict[str, Any]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    problem, asked = None, None
    try:
        asked = read_chat(body, most_tokens=5)
    except Problem as caught:
        problem = caught
    if asked is None:
        assert problem is not None
        assert (problem.status, problem.param in fields) == (400, True)
    else:
        assert asked.max_tokens >= 1
        assert 0 <= asked.temperature <= 2


# --- the process


def test_a_second_ctrl_c_hangs_up_in_the_middle_of_a_stream_and_logs_no_error(
    opened: OpenStudent, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"messages": [{"role": "user", "content": QUERIES[2]}], "max_tokens": 1500, "stream": True}
    with running(create_student_app(opened, "sailor", batch=1, loopback=True)) as one:
        with httpx2.stream("POST", f"{one.url}/chat/completions", json=given, trust_env=False, timeout=60) as answer:
            pieces = answer.iter_lines()
            assert next(pieces).startswith("data:")
            for _ in range(2):
                one.server.handle_exit(signal.SIGINT, None)
            with pytest.raises(httpx2.TransportError):
                list(pieces)
        one.thread.join(timeout=60)
        assert not one.thread.is_alive()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_command_serves_a_folder_and_ends_on_ctrl_c(tmp_path: Path, tiny_model: Path) -> None:
    student = _with_adapter(load(make_tiny(tmp_path / "base"), device="cpu", dtype="float32"))
    folder = tmp_path / "sailor"
    adapters.save(student, folder, {"recipe": "prism"})
    Gated(student, _gate(student)).save_gate(folder)
    command = [sys.executable, "-m", "mop", "students", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            while not said or not (match := re.search(r"Serving on (\S+)", said[-1])):
                said.append(process.stderr.readline())
                assert said[-1], f"It ended: {said}"
            asking = openai.OpenAI(base_url=match[1], api_key="a", max_retries=0)
            adapter = {_ask(asking, query, max_tokens=2).model_extra["mop"]["adapter"] for query in QUERIES}
            assert adapter == {True, False}
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "gate: learned" in "".join(said)

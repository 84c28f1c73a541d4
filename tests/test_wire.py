"""What is read out of an answer: its text, its tokens, and why it ended."""

import pytest
from asking import ask, client_of
from fake_endpoint import FakeEndpoint, Fault

from mop.lm.ledger import Ledger
from mop.lm.request import Usage


@pytest.fixture
def ledger():
    ledger = Ledger.in_memory()
    yield ledger
    ledger.close()


async def test_a_filtered_answer_is_still_a_reply(ledger):
    choice = {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}
    with FakeEndpoint(faults=[Fault.body(body)]) as server:
        client = client_of(server, ledger)
        reply = await client.complete(ask("a"))
        await client.aclose()
    assert (reply.text, reply.finish_reason, reply.usage) == ("", "content_filter", Usage(5, 0, 0))


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}},
            Usage(9, 6, 2),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(9, 4, 2)),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}},
            Usage(3, 3, 2),
        ),
        (None, Usage(5 + 5 + 1 + 5, 0, 1)),
        ({"prompt_tokens": 10**19, "completion_tokens": 2}, Usage(5 + 5 + 1 + 5, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": -2}, Usage(5 + 5 + 1 + 5, 0, 1)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(5 + 5 + 1 + 5, 0, 1)),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10**19}},
            Usage(9, 0, 2),
        ),
    ],
)
async def test_usage_is_read_with_its_cached_part_and_estimated_when_it_is_missing(ledger, usage, read):
    body = {"choices": [{"message": {"content": "ok"}}], "usage": usage, "timings": {"cache_n": 4}}
    with FakeEndpoint(faults=[Fault.body(body)]) as server:
        client = client_of(server, ledger)
        reply = await client.complete(ask("a"))
        await client.aclose()
    assert reply.usage == read


async def test_text_that_no_database_holds_is_repaired_before_it_is_used(ledger):
    body = b'{"choices": [{"message": {"content": "a\\ud800b\\u0000c"}, "finish_reason": "stop"}]}'
    with FakeEndpoint(faults=[Fault(raw=body)]) as server:
        client = client_of(server, ledger)
        first = await client.complete(ask("a"))
        again = await client.complete(ask("a"))
        await client.aclose()
    assert first.text == again.text == "a?b�c"

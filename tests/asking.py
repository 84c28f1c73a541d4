"""What tests ask a fake endpoint, the client that asks it, and the answers to expect."""

from fake_endpoint import FakeEndpoint, hashed

from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Request


def ask(query, **fields) -> Request:
    return Request("fake", (("system", "Say the opposite."), ("user", str(query))), max_tokens=8, **fields)


def asks(count) -> list[Request]:
    return [ask(i) for i in range(count)]


def client_of(server: FakeEndpoint, ledger: Ledger, **options) -> ModelClient:
    return ModelClient("fake", base_url=server.base_url, ledger=ledger, **options)


def expected(requests) -> list[str]:
    return [hashed([{"role": role, "content": text} for role, text in request.messages]) for request in requests]

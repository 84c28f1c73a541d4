"""A local model's server is a matter of the first call that is really sent."""

from contextlib import closing
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from mop.connect import connect, require_endpoint
from mop.errors import SettingsError, WeightsError
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Request

REQUESTS = [Request("local/tiny", (("user", f"question {number}"),)) for number in range(6)]


async def test_a_server_is_started_once_by_the_first_call_and_never_if_the_ledger_has_every_reply() -> None:
    starts = []
    with FakeEndpoint() as endpoint, closing(Ledger.in_memory()) as ledger:

        def start() -> str:
            starts.append(1)
            return endpoint.base_url

        client = ModelClient("local/tiny", ledger=ledger, start=start, api_key="local", concurrency=4)
        assert not starts
        first = await client.complete_many(REQUESTS)
        assert len(starts) == 1
        assert all("max_tokens" in body for body in endpoint.bodies)
        await client.aclose()

        again = ModelClient("local/tiny", ledger=ledger, start=start, api_key="local")
        second = await again.complete_many(REQUESTS)
        await again.aclose()
    assert len(starts) == 1
    assert [reply.text for reply in first] == [reply.text for reply in second]


async def test_a_server_that_does_not_start_fails_the_call_with_its_own_error(tmp_path: Path) -> None:
    def start() -> str:
        raise WeightsError("no such file")

    with closing(Ledger.in_memory()) as ledger:
        client = ModelClient("local/tiny", ledger=ledger, start=start, api_key="local")
        with pytest.raises(WeightsError, match="no such file"):
            await client.complete_many(REQUESTS)


def test_an_absent_local_model_is_reported_when_connecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_CACHE", str(tmp_path))
    with (
        closing(Ledger.in_memory()) as ledger,
        pytest.raises(WeightsError, match="mop models pull local/smollm2-135m-instruct"),
    ):
        connect("local/smollm2-135m-instruct", ledger=ledger)


def test_a_mixture_learned_elsewhere_is_not_silently_asked_at_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SettingsError, match="--base-url"):
        require_endpoint("some-model", None, {"own_endpoint": True})
    require_endpoint("some-model", "http://127.0.0.1:1/v1", {"own_endpoint": True})
    require_endpoint("some-model", None, {"own_endpoint": False})
    require_endpoint("local/qwen2.5-coder-1.5b-instruct", None, {"own_endpoint": True})

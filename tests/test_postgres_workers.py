"""Several worker processes on one real PostgreSQL: no call is paid twice, and the cap holds over all of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault, fingerprint
from postgres import Postgres, wait_until
from worker import questions

from mop.errors import ModelError
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger

TESTS = Path(__file__).parent


def start(ledger: str, server: FakeEndpoint, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(TESTS / "worker.py"), "--url", server.base_url]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "MOP_LEDGER": ledger, "MOP_API_KEY": "none"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return dict(json.loads(out))


class Failing:
    """Fails some requests, answers the others late, and keeps the questions that it answered."""

    def __init__(self, share: float, latency: float, seed: int = 0) -> None:
        self._rng, self._share, self._latency = random.Random(seed), share, latency
        self.answered: list[str] = []

    def __call__(self, _number: int, body: dict[str, Any]) -> Fault | None:
        if self._rng.random() < self._share:
            return self._rng.choice([Fault.error(500), Fault.error(503), Fault(drop=True), Fault(reset=True)])
        self.answered.append(fingerprint(body))
        return Fault(delay=self._rng.random() * self._latency)


@pytest.mark.parametrize("place", ["postgres", "file"])
def test_two_workers_with_the_same_questions_share_them_and_pay_for_each_once(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ledger = request.getfixturevalue("postgres").url() if place == "postgres" else str(tmp_path / "l")
    with FakeEndpoint(latency=0.1) as server:
        both = [outcome(one) for one in [start(ledger, server, count=100, concurrency=5) for _ in range(2)]]
        asked = Counter(map(fingerprint, server.bodies))
    assert set(asked.values()) == {1}
    assert len(asked) == 100 == both[0]["sent"] + both[1]["sent"]
    assert both[0]["replies"] == both[1]["replies"]
    assert min(one["sent"] for one in both) > 20


def test_a_budget_of_137_calls_holds_for_two_workers_with_50_calls_in_flight_and_failures(postgres: Postgres) -> None:
    ledger, upstream = postgres.url(), Failing(0.3, 0.05)
    with FakeEndpoint(faults=upstream) as server:
        given = {"count": 200, "calls": 137, "concurrency": 50}
        both = [outcome(one) for one in [start(ledger, server, start=200 * n, **given) for n in range(2)]]
    assert len(upstream.answered) == len(set(upstream.answered)) == 137
    assert sum(one["sent"] for one in both) == 137
    assert all(one["error"].startswith("BudgetExceeded") for one in both)
    book = Ledger(ledger)
    assert book.totals(by=())[()].calls == 137
    book.close()


def test_a_worker_that_is_killed_is_replaced_when_its_lease_expires(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = postgres.url()
    first = Fault(delay=60)
    with FakeEndpoint(faults=lambda number, _: first if number < 4 else None) as server:
        killed = start(ledger, server, count=4, calls=4, concurrency=4, lease=3)
        wait_until(lambda: server.served == 4)
        # As seen from another machine, where nobody can look whether the process is there.
        book = Ledger(ledger)
        postgres.execute("UPDATE workers SET machine = 'another'", ledger.rpartition("/")[2])
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        began = time.monotonic()
        done = outcome(start(ledger, server, count=5, calls=4, concurrency=4, lease=3))
        took = time.monotonic() - began
    assert len(done["replies"]) == done["sent"] == done["spent"] == 4
    assert done["error"].startswith("BudgetExceeded")
    assert server.served == 8
    assert took > 1.5
    book.close()


def test_on_the_same_machine_nobody_waits_for_a_worker_that_was_killed(postgres: Postgres) -> None:
    ledger = postgres.url()
    first = Fault(delay=60)
    with FakeEndpoint(faults=lambda number, _: first if number < 4 else None) as server:
        killed = start(ledger, server, count=4, calls=4, concurrency=4, lease=600)
        wait_until(lambda: server.served == 4)
        killed.send_signal(signal.SIGKILL)
        done = outcome(start(ledger, server, count=4, calls=4, concurrency=4, lease=600))
    assert done["sent"] == 4
    assert server.served == 8


def test_a_worker_that_lives_keeps_its_lease_however_long_its_call_takes(postgres: Postgres) -> None:
    ledger = postgres.url()
    with FakeEndpoint(latency=3.0) as server:
        both = [outcome(one) for one in [start(ledger, server, count=1, lease=0.8) for _ in range(2)]]
        assert server.served == 1
    assert both[0]["replies"] == both[1]["replies"]


async def test_a_call_that_fails_for_good_is_free_for_others_at_once(postgres: Postgres) -> None:
    url = postgres.url()
    with FakeEndpoint(faults=[Fault.error(400)]) as server:
        first, second = Ledger(url), Ledger(url)
        clients = [ModelClient("fake", base_url=server.base_url, ledger=book) for book in (first, second)]
        with pytest.raises(ModelError, match="400"):
            await clients[0].complete(questions(1)[0])
        async with asyncio.timeout(5):
            assert (await clients[1].complete(questions(1)[0])).text
        for one in (*clients, first, second):
            await one.aclose() if isinstance(one, ModelClient) else one.close()

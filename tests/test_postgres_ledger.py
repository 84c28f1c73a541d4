"""A ledger on a real PostgreSQL server does what one in a file does, also when the server goes away meanwhile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint, fingerprint
from postgres import PASSWORD, QUOTED, Postgres
from worker import questions

from mop.errors import LedgerError, LedgerUnavailable
from mop.lm import database as database_module
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request, Usage
from mop.lm.shared_budget import SharedBudget
from mop.lm.tables import SCHEMA

BEFORE_2 = """
    ALTER TABLE calls DROP COLUMN run CASCADE; ALTER TABLE calls DROP COLUMN crc;
    ALTER TABLE embeddings DROP COLUMN crc; DROP TABLE workers, leases, runs, spending;
    UPDATE meta SET value = '1';
"""


def reply_to(request: Request, text: str = "cold") -> Reply:
    return Reply(text, Usage(10, 4, 2), "stop", request.key, False, 0.5)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def mop(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mop", *arguments], capture_output=True, text=True, check=False)


def test_calls_and_vectors_come_back_as_they_were_and_the_first_record_stays(postgres: Postgres) -> None:
    url, (one, two) = postgres.url(), questions(2)
    first, second = Ledger(url), Ledger(url)
    assert not first.put_many([(one, reply_to(one))], "a run")[0].from_ledger
    back = second.put_many([(two, reply_to(two, "größer 冷")), (one, reply_to(one, "other"))])
    assert [reply.text for reply in back] == ["größer 冷", "cold"]
    assert first.get_many([two.key])[two.key].text == "größer 冷"
    vector = np.array([1.5, -0.0, 3e-38], dtype=np.float32)
    long = "endpoint:" + "e" * 300
    first.put_vectors(long, {"k": vector})
    assert second.get_vectors(long, ["k"])["k"].tobytes() == vector.tobytes()
    assert {group: total.calls for group, total in first.totals(("run",)).items()} == {("",): 1, ("a run",): 1}
    first.close()
    second.close()


def test_many_processes_may_make_a_ledger_at_once(postgres: Postgres) -> None:
    url, begin = postgres.url(), threading.Barrier(8)

    def open_one(_: int) -> None:
        begin.wait()
        Ledger(url).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_one, range(8)))
    assert postgres.execute("SELECT value FROM meta", name_of(url)) == [(str(SCHEMA),)]


def test_a_ledger_of_the_first_version_is_brought_up_to_date_by_many_at_once(postgres: Postgres) -> None:
    url, (one,) = postgres.url(), questions(1)
    book = Ledger(url)
    book.put_many([(one, reply_to(one))])
    book.close()
    postgres.execute(BEFORE_2, name_of(url))

    def read(_: int) -> str:
        book = Ledger(url)
        try:
            return book.get_many([one.key])[one.key].text
        finally:
            book.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == ["cold"] * 4
    assert postgres.execute("SELECT value FROM meta", name_of(url)) == [(str(SCHEMA),)]


async def test_a_server_that_restarts_in_the_middle_loses_nothing_and_nothing_is_paid_twice(
    postgres: Postgres,
) -> None:
    ledger = Ledger(postgres.url())
    budget = SharedBudget(ledger, "the run", calls=60)
    with FakeEndpoint(latency=0.05) as server:
        client = ModelClient("fake", base_url=server.base_url, ledger=ledger, budget=budget, concurrency=4)
        asking = asyncio.create_task(client.complete_many(questions(60)))
        while server.served < 15:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.start)
        assert len(await asking) == 60
        await client.aclose()
    assert set(Counter(map(fingerprint, server.bodies)).values()) == {1}
    assert ledger.totals(by=())[()].calls == budget.spent.calls == client.traffic.sent == 60
    ledger.close()


async def test_a_server_that_stays_away_ends_the_run_with_an_error_that_says_so(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "OUTAGE_SECONDS", 1.0)
    ledger = Ledger(postgres.url())
    with FakeEndpoint(latency=0.02) as server:
        client = ModelClient("fake", base_url=server.base_url, ledger=ledger, concurrency=2)
        asking = asyncio.create_task(client.complete_many(questions(500)))
        while server.served < 5:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.stop)
        try:
            with pytest.raises(LedgerUnavailable, match="can be reached") as caught:
                await asking
            await client.aclose()
            began = time.monotonic()
            ledger.close()
            assert time.monotonic() - began < 5
        finally:
            await asyncio.to_thread(postgres.start)
    assert PASSWORD not in str(caught.value)
    assert QUOTED not in str(caught.value)


def test_no_error_tells_the_password(postgres: Postgres) -> None:
    right = postgres.address("no_such_database")
    tried = {
        right: "does not exist",
        right.replace(str(postgres.port), "1"): "can be reached",
        postgres.address("postgres", "wrong-secret"): "user and password",
        f"postgresql+psycopg://mop:se@cret/x@127.0.0.1:{postgres.port}/x": "more than one @",
        f"postgresql+psycopg://mop:secret@127.0.0.1:{postgres.port}port/x": "cannot be read",
        f"postgresql+psycopg://mop@127.0.0.1:{postgres.port}/x?password=secret": "user and password",
        "mysql://mop:secret@127.0.0.1/x": "PostgreSQL",
    }
    for url, said in tried.items():
        with pytest.raises(LedgerError, match=said) as caught:
            Ledger(url)
        told, error = str(caught.value), caught.value.__cause__
        for secret in (PASSWORD, QUOTED, "secret", "cret/x"):
            assert secret not in told + str(error), told


def test_the_ledger_commands_work_on_a_url_and_repair_says_why_not(postgres: Postgres) -> None:
    url, (one, two) = postgres.url(), questions(2)
    ledger = Ledger(url)
    ledger.put_many([(one, reply_to(one)), (two, reply_to(two))], "a run")
    stats = mop("ledger", "stats", "--ledger", url, "--by", "run", "--json")
    assert json.loads(stats.stdout)["total"]["calls"] == 2
    exported = mop("ledger", "export", "--ledger", url)
    assert [json.loads(line)["key"] for line in exported.stdout.splitlines()] == sorted([one.key, two.key])
    assert mop("ledger", "verify", "--ledger", url).returncode == 0
    postgres.execute(f"UPDATE calls SET text = 'forged' WHERE key = '{one.key}'", name_of(url))
    verified = mop("ledger", "verify", "--ledger", url)
    assert verified.returncode != 0
    assert one.key in verified.stderr
    repaired = mop("ledger", "repair", "--ledger", url)
    assert repaired.returncode != 0
    assert "restore its backup" in " ".join(repaired.stderr.split())
    pruned = mop("ledger", "prune", "--ledger", url, "--run", "a run", "--yes")
    assert pruned.returncode == 0, pruned.stderr
    assert ledger.totals() == {}
    ledger.close()
    for done in (stats, exported, verified, repaired, pruned):
        assert PASSWORD not in done.stdout + done.stderr
        assert QUOTED not in done.stdout + done.stderr


async def test_pruned_calls_leave_the_books_of_their_run_and_may_be_paid_for_again(postgres: Postgres) -> None:
    from mop.lm.upkeep import Choice, prune

    ledger = Ledger(postgres.url())
    with FakeEndpoint() as server:
        for spent in (3, 3):
            budget = SharedBudget(ledger, "the run", calls=3)
            client = ModelClient("fake", base_url=server.base_url, ledger=ledger, budget=budget)
            assert len(await client.complete_many(questions(3))) == 3
            await client.aclose()
            assert budget.spent.calls == spent
            prune(ledger, Choice(model="fake"))
        assert server.served == 6
    ledger.close()

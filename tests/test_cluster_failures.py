"""A Dask cluster that fails in the middle of a search: it ends in time, says what to do, and costs nothing more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster import Wire, chats, spend
from fake_endpoint import FakeEndpoint, Fault
from postgres import Postgres

from mop.cluster import connection
from mop.cluster import crew as crew_module
from mop.errors import ClusterError, ModelError


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOP_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "MOP_LEDGER"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def two_workers() -> Iterator[Any]:
    """A cluster of two workers in this process."""
    from dask.distributed import LocalCluster

    how = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, **how) as made:
        yield made


@pytest.fixture
def cluster() -> Iterator[Any]:
    with two_workers() as made:
        yield made


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "OUTAGE_SECONDS", 0.3)
    monkeypatch.setattr(crew_module, "LOOK_AT_CLUSTER", 0.1)
    monkeypatch.setattr(crew_module, "LEAVE_SECONDS", 0.5)
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)


async def begun(server: FakeEndpoint, asked: asyncio.Task[Any]) -> None:
    while not server.served and not asked.done():
        await asyncio.sleep(0.02)


async def test_workers_that_are_gone_end_the_wait(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    # The endpoint outlives the cluster: jobs that nobody waits for go on, and would try a dead one for a minute.
    with FakeEndpoint(faults=lambda *_: Fault(delay=2)) as server, two_workers() as cluster:
        asked = asyncio.create_task(spend(cluster.scheduler_address, postgres.url(), server))
        await begun(server, asked)
        be_impatient(monkeypatch)
        cluster.scale(0)
        _, ended, _ = await asked
    assert isinstance(ended, ClusterError)
    assert "run the same command again" in str(ended)


async def test_a_scheduler_that_says_nothing_any_more_ends_the_wait(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEndpoint(latency=0.1) as server, two_workers() as cluster, Wire(cluster.scheduler_address) as wire:
        asked = asyncio.create_task(spend(wire.address, postgres.url(), server, count=200))
        await begun(server, asked)
        be_impatient(monkeypatch)
        wire.silence()
        answered, ended, _ = await asked
    assert len(answered) < 200
    assert isinstance(ended, ClusterError)
    assert "run the same command again" in str(ended)


async def test_a_scheduler_that_dies_ends_the_run_in_one_error_and_the_next_run_pays_for_nothing_twice(
    cluster: Any, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger, url = logging.getLogger("distributed.client"), postgres.url()
    logger.addHandler(handler)
    try:
        with FakeEndpoint(latency=0.1) as server:
            with Wire(cluster.scheduler_address) as wire:
                asked = asyncio.create_task(spend(wire.address, url, server, count=80))
                await begun(server, asked)
                be_impatient(monkeypatch)
                wire.cut()
                answered, ended, _ = await asked
            assert len(answered) < 80
            assert isinstance(ended, ClusterError)
            assert "scheduler" in str(ended)
            assert "run the same command again" in str(ended)
            assert not told
            monkeypatch.undo()
            answered, ended, counted = await spend(cluster.scheduler_address, url, server, count=80)
            assert (len(answered), ended, counted) == (80, None, 80)
            assert set(chats(server).values()) == {1}
    finally:
        logger.removeHandler(handler)


async def test_once_a_call_has_ended_the_search_in_an_error_no_worker_sends_another(
    cluster: Any, postgres: Postgres
) -> None:
    refuse = lambda number, _: Fault.error(400, "no such thing") if number == 12 else None  # noqa: E731
    with FakeEndpoint(faults=refuse, latency=0.05) as server:
        _, ended, _ = await spend(cluster.scheduler_address, postgres.url(), server, count=400)
        assert isinstance(ended, ModelError)
        sent = server.served
        await asyncio.sleep(1)
        assert server.served == sent

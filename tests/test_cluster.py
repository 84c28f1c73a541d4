"""One search on a real Dask cluster of two workers and a real PostgreSQL: the mixture of one process, paid for once."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cluster import KEY, chats, spend
from fake_endpoint import FakeEndpoint, Fault
from postgres import PASSWORD, QUOTED, Postgres, wait_until
from simulated import nearest_demo_answer, splits
from worker import questions

from mop.artifact import to_bytes
from mop.cluster import connection, worker
from mop.cluster import crew as crew_module
from mop.cluster.connection import open_client
from mop.cluster.crew import Crew
from mop.cluster.site import Post, Site
from mop.errors import BudgetExceeded, ClusterError, LedgerError, ModelError, MopError, SettingsError, WeightsError
from mop.lm.ledger import Ledger
from mop.lm.prices import Prices
from mop.lm.shared_budget import SharedBudget
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize
from mop.settings import make_settings
from mop.sync import run

CONCURRENCY = 4


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster whose workers, and nobody else, have an API key."""
    from dask.distributed import LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", KEY)
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOP_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "MOP_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def learn(server: FakeEndpoint, ledger: str | Path, **options: Any) -> tuple[Mixture, Run]:
    used = Run()
    given = {
        "model": "simulated", "budget": 100, "base_url": server.base_url, "prompt_tokens": 200, "experts": 4,
        "encoder": f"endpoint:words@{server.base_url}", "concurrency": CONCURRENCY, **options,
    }  # fmt: skip
    mixture = run(aoptimize(splits(), make_settings(given, environment={}), ledger=str(ledger), used=used))
    return mixture, used


def keys(server: FakeEndpoint) -> set[str]:
    asked = zip(server.bodies, server.headers, strict=True)
    return {headers["authorization"].removeprefix("Bearer ") for body, headers in asked if "messages" in body}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Counter[str], int]:
    """What one process learns and asks, and the port of its endpoint, which the file names."""
    with pytest.MonkeyPatch.context() as patch, FakeEndpoint(nearest_demo_answer) as server:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        mixture, _ = learn(server, tmp_path_factory.mktemp("alone") / "ledger")
        return to_bytes(mixture), chats(server), server._port


def test_two_workers_learn_what_one_process_learns_and_make_every_call_once(
    scheduler: str, postgres: Postgres, alone: tuple[bytes, Counter[str], int]
) -> None:
    content, asked, port = alone
    url = postgres.url()
    with FakeEndpoint(nearest_demo_answer, port=port) as server:
        mixture, used = learn(server, url, backend="dask", scheduler=scheduler)
        assert chats(server) == asked
        assert set(asked.values()) == {1}
        assert keys(server) == {KEY}
        assert (used.sent, used.from_ledger) == (asked.total(), 0)
    assert to_bytes(mixture) == content
    assert postgres.execute("SELECT count(*) FROM leases", url.rpartition("/")[2]) == [(0,)]
    assert postgres.execute("SELECT count(*) FROM workers", url.rpartition("/")[2]) == [(0,)]


@pytest.mark.parametrize("caps", [{"calls": 11}, {"tokens": 300}])
async def test_a_cap_admits_on_a_cluster_the_calls_that_it_admits_in_one_process(
    caps: dict[str, int], scheduler: str, postgres: Postgres, tmp_path: Path
) -> None:
    with FakeEndpoint() as server:
        expected, _, _ = await spend(None, str(tmp_path / "ledger"), server, **caps)
        server.bodies.clear()
        answered, ended, counted = await spend(scheduler, postgres.url(), server, **caps)
        asked = chats(server)
    assert 0 < len(expected) < 20
    assert answered == expected
    assert isinstance(ended, BudgetExceeded)
    assert counted == len(expected) == asked.total() == len(asked)


async def test_what_the_endpoint_refuses_ends_the_search_with_the_workers_error_and_frees_the_rest(
    scheduler: str, postgres: Postgres
) -> None:
    url = postgres.url()
    refuse = lambda number, _: Fault.error(400, "no such thing") if number == 12 else None  # noqa: E731
    with FakeEndpoint(faults=refuse) as server:
        _, ended, _ = await spend(scheduler, url, server, calls=20)
        assert isinstance(ended, ModelError)
        assert "no such thing" in str(ended)
        answered, ended, counted = await spend(scheduler, url, server, calls=20)
    assert (len(answered), ended, counted) == (20, None, 20)


def test_ctrl_c_finishes_what_all_workers_have_on_the_wire_and_the_next_run_pays_for_nothing_twice(
    scheduler: str, postgres: Postgres
) -> None:
    url = postgres.url()
    with FakeEndpoint(latency=0.2) as server:

        def interrupt() -> None:
            wait_until(lambda: server.served >= 10, 200)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run(spend(scheduler, url, server, count=80, calls=80))
        sent = server.served
        assert 10 <= sent < 80
        assert postgres.execute("SELECT count(*) FROM calls", url.rpartition("/")[2]) == [(sent,)]
        answered, ended, counted = run(spend(scheduler, url, server, count=80, calls=80))
        assert (len(answered), ended, counted) == (80, None, 80)
        assert server.served == len(chats(server)) == 80


def site_of(book: Ledger, **other: Any) -> Site:
    book.database.run(book.worker.renew, write=True)
    where = {"ledger": book.database.url, "driver": book.worker.owner, "run": "the run", "concurrency": 1}
    where["token"] = book.worker.owner
    rest = {"version": version("mop"), "caps": (5, None, None), "prices": Prices(), "keyed": False}
    return Site(**{**where, **rest, **other})


@pytest.mark.parametrize(
    ("other", "post", "kind", "said"),
    [
        ({}, Post("m", "http://127.0.0.1:1/v1"), None, ""),
        ({"version": "99"}, Post("m", "http://127.0.0.1:1/v1"), SettingsError, "99"),
        ({"keyed": True}, Post("m", "http://127.0.0.1:1/v1"), SettingsError, "MOP_API_KEY"),
        ({}, Post("m", "https://api.openai.com/v1"), SettingsError, "OPENAI_API_KEY"),
        ({}, Post("local/nobody-knows-it", None), MopError, "nobody-knows-it"),
        ({}, Post("local/qwen2.5-coder-1.5b-instruct", None), WeightsError, "mop models pull"),
        ({"ledger": "another"}, Post("m", "http://127.0.0.1:1/v1"), LedgerError, "same database"),
    ],
)
async def test_a_worker_that_cannot_do_the_work_says_why_before_anything_is_asked(
    other: dict[str, Any], post: Post, kind: type[MopError] | None, said: str,
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MOP_CACHE", str(tmp_path))
    if "ledger" in other:
        other = {"ledger": postgres.url()}
    ledger = Ledger(postgres.url())
    try:
        found = await worker.check(site_of(ledger, **other), [post])
    finally:
        await worker.leave(ledger.worker.owner)
        ledger.close()
    assert (found is None) if kind is None else isinstance(found, kind)
    assert said in str(found)
    assert PASSWORD not in str(found)


def test_a_worker_that_joins_late_is_held_to_the_same_and_pays_for_nothing(postgres: Postgres) -> None:
    ledger = Ledger(postgres.url())
    try:
        with FakeEndpoint() as server:
            post = Post("fake", server.base_url)
            with pytest.raises(SettingsError, match="MOP_API_KEY"):
                worker.answer(site_of(ledger, keyed=True), post, questions(1))
            with pytest.raises(LedgerError, match="same database"):
                worker.answer(site_of(ledger, ledger=postgres.url(), token="b"), post, questions(1))
            run(worker.leave(ledger.worker.owner))
            assert worker.answer(site_of(ledger), post, questions(1)) is None
            assert not server.served
    finally:
        ledger.close()


def test_a_worker_that_is_stopped_is_named_at_the_start_and_not_waited_for_at_the_end(
    scheduler: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SIGN_OF_LIFE_SECONDS", 0.5)
    monkeypatch.setattr(crew_module, "LEAVE_SECONDS", 0.5)
    ledger = Ledger(postgres.url())
    crew = Crew(scheduler, ledger, SharedBudget(ledger, "the run"), 1)
    address, process = min(crew._connection.on_all(os.getpid, seconds=60).items())
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(ClusterError, match=f"Workers don't answer: .*{address}"):
            crew.check()
        crew.close()
    finally:
        os.kill(process, signal.SIGCONT)
        ledger.close()


def test_workers_of_another_version_are_refused_before_anything_is_asked(
    scheduler: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "version", lambda _: "99")
    with FakeEndpoint() as server, pytest.raises(SettingsError, match=r"worker tcp://.* has mop 0.* the search 99"):
        learn(server, postgres.url(), backend="dask", scheduler=scheduler)
    assert not server.served


def test_no_key_is_sent_to_workers_and_no_password_is_shown(
    scheduler: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "sk-of-the-driver")
    ledger = Ledger(postgres.url())
    crew = Crew(scheduler, ledger, SharedBudget(ledger, "the run"), 1)
    try:
        crew.at("m", "https://user:word@host/v1")
        sent = pickle.dumps((crew.site, list(crew._posts)))
        shown = repr((crew.site, list(crew._posts)))
    finally:
        crew.close()
        ledger.close()
    assert b"sk-of-the-driver" not in sent
    assert not any(secret in shown for secret in (PASSWORD, QUOTED, "word@", "sk-"))


def test_what_cannot_be_spread_is_refused_and_the_message_says_what_to_do(
    scheduler: str, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEndpoint() as server:
        with pytest.raises(SettingsError, match=r"can't share the ledger .*postgresql"):
            learn(server, tmp_path / "ledger", backend="dask", scheduler=scheduler)
        with pytest.raises(SettingsError, match="--scheduler ADDRESS"):
            learn(server, tmp_path / "ledger", backend="dask")
        with pytest.raises(SettingsError, match="--backend dask"):
            learn(server, tmp_path / "ledger", scheduler=scheduler)
        monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
        with pytest.raises(SettingsError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
            learn(server, postgres.url(), backend="dask", scheduler="tcp://127.0.0.1:9")
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "mop.cluster.backend", raising=False)
            patch.setitem(sys.modules, "joblib._dask", None)
            with pytest.raises(SettingsError, match=r"joblib [0-9.]+ has no backend for Dask"):
                learn(server, postgres.url(), backend="dask", scheduler=scheduler)
        monkeypatch.setitem(sys.modules, "dask.distributed", None)
        with pytest.raises(SettingsError, match=r"install mop\[distributed\]"):
            learn(server, postgres.url(), backend="dask", scheduler=scheduler)
        assert not server.served


class Unreadable:
    """What Dask can't read."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_a_task_that_dask_gives_up_is_an_error_and_not_a_wait_for_ever(scheduler: str) -> None:
    from joblib import Parallel, delayed, parallel_config

    from mop.cluster.backend import ClusterBackend

    with open_client(scheduler) as client, parallel_config(backend=ClusterBackend(client)):
        tasks = [delayed(str)(Unreadable()), delayed(str)("x")]
        with pytest.raises(Exception, match="deserialization"):
            list(Parallel(n_jobs=-1, batch_size=1, return_as="generator_unordered")(tasks))


def test_a_worker_that_is_killed_in_the_middle_changes_nothing_and_costs_what_it_had_on_the_wire(
    scheduler: str, postgres: Postgres, alone: tuple[bytes, Counter[str], int]
) -> None:
    content, asked, port = alone
    with open_client(scheduler) as client, FakeEndpoint(nearest_demo_answer, latency=0.03, port=port) as server:
        victim = min(client.run(os.getpid).values())

        def kill() -> None:
            wait_until(lambda: chats(server).total() > 30 and server.in_flight, 200)
            os.kill(victim, 9)

        killer = threading.Thread(target=kill)
        killer.start()
        mixture, _ = learn(server, postgres.url(), backend="dask", scheduler=scheduler)
        killer.join()
        twice = chats(server) - asked
        assert set(chats(server)) == set(asked)
    assert twice.total() <= CONCURRENCY
    assert to_bytes(mixture) == content

"""Worker processes of the grid: what they are given, and what becomes of them when the grid is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from fake_endpoint import FakeEndpoint, Fault
from postgres import wait_until
from simulated import nearest_demo_answer, task
from test_benchmark_grid import ROOT, arguments, asked, start

from benchmarks import __main__ as command_line
from benchmarks.cells import Cell, Place
from benchmarks.results import Results


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two tasks, of which one is enough to keep a worker busy."""
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    for name, seed in (("states", 0), ("things", 1)):
        rows = [{"input": one.input, "output": list(one.outputs)} for one in task(6, seed)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {name: {"files": {f"{name}.jsonl": 144}, "metric": "exact_match"} for name in ("states", "things")}
    (folder / "tasks.json").write_text(json.dumps(files), encoding="utf-8")
    return folder.parent


def test_the_workers_of_a_killed_grid_end_too_and_ask_nothing_more(data: Path, tmp_path: Path) -> None:
    chats = 0

    def hold_the_first_chat(_: int, body: dict[str, object]) -> Fault | None:
        """Keep one worker from its second chat, so that two chats are two workers at work."""
        nonlocal chats
        chats += "messages" in body
        return Fault(delay=3600.0) if chats == 1 and "messages" in body else None

    with FakeEndpoint(nearest_demo_answer, latency=0.5, faults=hold_the_first_chat) as endpoint:
        process = start(arguments(data, endpoint, tmp_path / "results.jsonl", jobs=2, concurrency=1))
        try:
            wait_until(lambda: chats > 1 or process.poll() is not None, 240)
            assert process.poll() is None, process.communicate()[1]
            workers = [one for one in psutil.Process(process.pid).children() if "--process-name" in one.cmdline()]
            assert len(workers) == 2
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        _, alive = psutil.wait_procs(workers, timeout=30)
        for one in alive:
            one.kill()
        assert not alive
        before = sum(asked(endpoint).values())
        time.sleep(1)
        assert sum(asked(endpoint).values()) == before
    assert not Results(tmp_path / "results.jsonl").read()


def place_of(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> Place:
    """Return where the cells of a command would be run."""
    found: list[Place] = []

    def run_grid(_cells: Sequence[Cell], place: Place, *_: object) -> list[object]:
        found.append(place)
        return []

    monkeypatch.setattr(command_line, "run_grid", run_grid)
    assert command_line.main(["run", "--tasks=states", "--methods=knn", "--model=m", *arguments]) == 0
    return found[0]


def test_workers_in_other_folders_have_the_same_ledger_and_the_same_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = place_of(monkeypatch, ["--data=data", "--out=results.jsonl", "--ledger=mine.sqlite"])
    assert (place.ledger, place.data) == (str(tmp_path / "mine.sqlite"), str(data))
    assert place_of(monkeypatch, ["--data=data", "--out=results.jsonl"]).ledger == str(
        tmp_path / "results.ledger.sqlite"
    )
    url = "postgresql+psycopg://host/database"
    assert place_of(monkeypatch, ["--data=data", "--out=results.jsonl", f"--ledger={url}"]).ledger == url


CLUSTER = """
from dask.distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_cluster_begins_no_further_cell_when_the_grid_that_asked_is_gone(
    sent: signal.Signals, data: Path, tmp_path: Path
) -> None:
    script, out = tmp_path / "cluster.py", tmp_path / "results.jsonl"
    script.write_text(CLUSTER, encoding="utf-8")
    environment = os.environ | {"MOP_API_KEY": "key", "PYTHONPATH": str(ROOT)}
    cluster = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(log := (tmp_path / "log").open("w")),
    )
    with log, cluster, FakeEndpoint(nearest_demo_answer, latency=0.01) as endpoint:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        grid = start([*arguments(data, endpoint, out, seeds="0,1,2,3"), "--backend=dask", f"--scheduler={address}"])
        try:
            wait_until(lambda: bool(Results(out).read()) or grid.poll() is not None, 240)
            assert grid.poll() is None, grid.communicate()[1]
            grid.send_signal(sent)
            grid.communicate(timeout=60)
            # The two cells that were at work end as they would have; what each worker would do next, it leaves.
            wait_until(lambda: (tmp_path / "log").read_text().count("not begun") == 2, 120)
            served, finished = endpoint.served, len(Results(out).read())
            time.sleep(1)
            assert (endpoint.served, len(Results(out).read())) == (served, finished)
            assert finished < 16
        finally:
            grid.kill()
            cluster.communicate("")

"""The grid as its user runs it: real processes, a real socket, killed and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault
from postgres import PASSWORD, QUOTED, Postgres, wait_until
from simulated import nearest_demo_answer, task

from benchmarks.__main__ import main
from benchmarks.cells import ERA, Cell, Place
from benchmarks.grid import plan_cells, run_chain
from benchmarks.results import Results
from mop.errors import BudgetExceeded, SettingsError

ROOT = Path(__file__).parent.parent
CONCURRENCY = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two tasks that are in no benchmark."""
    folder = tmp_path_factory.mktemp("data") / "own"
    folder.mkdir()
    for name, seed in (("states", 0), ("things", 1)):
        rows = [
            {"input": one.input, "output": list(one.outputs), "meta": {"id": place}}
            for place, one in enumerate(task(6, seed))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {name: {"files": {f"{name}.jsonl": 144}, "metric": "exact_match"} for name in ("states", "things")}
    (folder / "tasks.json").write_text(json.dumps(files), encoding="utf-8")
    return folder.parent


def arguments(data: Path, endpoint: FakeEndpoint, out: Path, **options: Any) -> list[str]:
    given = {
        "data": data,
        "tasks": "states,things",
        "methods": "ape-random,mop-paper",
        "seeds": "0",
        "budget": 40,
        "test": 10,
        "model": "simulated",
        "base_url": endpoint.base_url,
        "encoder": f"endpoint:fake@{endpoint.base_url}",
        "concurrency": CONCURRENCY,
        "out": out,
        **options,
    }
    return ["run", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


def start(command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"MOP_API_KEY": "key", "MOP_BUDGET": "7", "MOP_LEDGER": "/dev/null/nowhere"}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *command],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(command: list[str]) -> str:
    """Run a command to its end and return what it said on standard error."""
    process = start(command)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def asked(endpoint: FakeEndpoint) -> Counter[str]:
    """Return how often each chat call was sent."""
    return Counter(json.dumps(body, sort_keys=True) for body in endpoint.bodies if "messages" in body)


@dataclass
class Outcome:
    endpoint: FakeEndpoint
    out: Path
    said: str
    twice: int
    uninterrupted: Path
    alone: Counter[str]


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """A grid that was killed and run again, beside one that was left alone and had two processes."""
    folder = tmp_path_factory.mktemp("killed")
    with FakeEndpoint(nearest_demo_answer, latency=0.01) as endpoint:
        command = arguments(data, endpoint, folder / "results.jsonl")
        process = start(command)
        results, deadline = Results(folder / "results.jsonl"), time.monotonic() + 120
        while not results.read() and time.monotonic() < deadline:
            time.sleep(0.005)
        at_first = sum(asked(endpoint).values())
        while sum(asked(endpoint).values()) < at_first + 15 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 0 < len(results.read()) < 4, "it was to be killed in the middle"
        said = finish(command)
        twice = sum(count - 1 for count in asked(endpoint).values())
        before = asked(endpoint)
        finish(arguments(data, endpoint, folder / "again.jsonl", jobs=2))
        alone = asked(endpoint) - before
        yield Outcome(endpoint, folder / "results.jsonl", said, twice, folder / "again.jsonl", alone)


def test_a_killed_grid_has_the_same_cells_in_the_end(killed: Outcome) -> None:
    cells, others = Results(killed.out).read(), Results(killed.uninterrupted).read()
    assert len(cells) == 4
    assert cells.keys() == others.keys()
    for key, record in cells.items():
        for name in ("score", "scores", "splits_sha256", "options", "versions", "experts"):
            assert record[name] == others[key][name]
        for name in ("calls", "prompt_tokens", "completion_tokens", "by_role"):
            assert record["search"][name] == others[key]["search"][name]


def test_no_call_is_sent_twice_but_those_that_were_in_flight(killed: Outcome) -> None:
    assert killed.twice <= CONCURRENCY


def test_the_tables_of_both_are_the_same_bytes(killed: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for path in (killed.out, killed.uninterrupted):
        assert main(["report", str(path), "--out", str(path.parent / path.stem)]) == 0
        tables.append((path.parent / path.stem / "report.md").read_bytes())
    assert tables[0] == tables[1]
    assert b"| own/states | exact_match | 10 |" in tables[0]


def test_finished_cells_are_not_run_again_and_the_rest_is_announced(killed: Outcome, data: Path) -> None:
    assert "4 cells, " in killed.said.splitlines()[0]
    assert not killed.said.startswith("4 cells, 0")
    assert "[4/4]" in killed.said
    assert "left" in killed.said
    content, served = killed.out.read_bytes(), killed.endpoint.served
    said = finish(arguments(data, killed.endpoint, killed.out))
    assert said == "4 cells, 4 of them finished before.\n"
    assert (killed.out.read_bytes(), killed.endpoint.served) == (content, served)


def test_every_line_says_where_it_comes_from(killed: Outcome) -> None:
    for record in Results(killed.out).read().values():
        assert record["options"]["budget"] == 40, "MOP_BUDGET of the environment has no say"
        assert record["search"]["calls"] <= 40
        assert sum(part["calls"] for part in record["search"]["by_role"].values()) == record["search"]["calls"]
        assert len(record["scores"]) == record["sizes"]["test"] == record["test"]["calls"] == 10
        assert record["versions"]["mop"]
        assert record["versions"]["xllamacpp"], "what ran the model may change its answers"
        assert record["era"] == ERA
        assert len(record["data_sha256"]) == 64
        assert len(set(record["test_inputs"])) == 10
        assert str(killed.endpoint.base_url) not in json.dumps(record["options"] | {"encoder": ""})


def test_two_processes_send_no_call_twice_either(killed: Outcome) -> None:
    assert max(killed.alone.values()) == 1


CLUSTER = """
import sys
from dask.distributed import LocalCluster
from benchmarks.__main__ import main
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        sys.exit(main([*sys.argv[1:], "--backend=dask", "--scheduler", cluster.scheduler_address]))
"""


def test_a_dask_cluster_of_two_workers_gives_the_same_table(killed: Outcome, data: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "cluster.py", tmp_path / "results.jsonl"
    script.write_text(CLUSTER, encoding="utf-8")
    before = asked(killed.endpoint)
    environment = os.environ | {"MOP_API_KEY": "key", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *arguments(data, killed.endpoint, out)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert max((asked(killed.endpoint) - before).values()) == 1
    for path in (out, killed.uninterrupted):
        assert main(["report", str(path), "--out", str(tmp_path / path.stem)]) == 0
    assert (tmp_path / "results/report.md").read_bytes() == (tmp_path / "again/report.md").read_bytes()


KILLED_CLUSTER = """
import os, sys, threading, time
from dask.distributed import Client, LocalCluster
from benchmarks.__main__ import main

def kill(address):
    with Client(address) as client:
        pids = client.run(os.getpid)
        while not os.path.exists("kill"):
            time.sleep(0.02)
        os.kill(list(pids.values())[0], 9)

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        threading.Thread(target=kill, args=(cluster.scheduler_address,), daemon=True).start()
        sys.exit(main([*sys.argv[1:], "--backend=dask", "--scheduler", cluster.scheduler_address]))
"""


def test_a_dask_worker_that_is_killed_is_replaced_and_what_was_answered_is_not_paid_twice(
    killed: Outcome, data: Path, tmp_path: Path, postgres: Postgres
) -> None:
    script, out, url = tmp_path / "cluster.py", tmp_path / "results.jsonl", postgres.url()
    script.write_text(KILLED_CLUSTER, encoding="utf-8")
    before, begun = asked(killed.endpoint), killed.endpoint.served
    environment = os.environ | {"MOP_API_KEY": "key", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *arguments(data, killed.endpoint, out, ledger=url)]
    log = tmp_path / "log"
    with log.open("w") as said, subprocess.Popen(command, env=environment, stderr=said, cwd=tmp_path) as process:
        wait_until(lambda: killed.endpoint.served > begun + 40 or process.poll() is not None, 120)
        (tmp_path / "kill").touch()
        assert process.wait(300) == 0, log.read_text()
    sent = asked(killed.endpoint) - before
    assert set(sent) == set(killed.alone)
    assert sum(sent.values()) - len(sent) <= CONCURRENCY
    for path in (out, killed.uninterrupted):
        assert main(["report", str(path), "--out", str(tmp_path / path.stem)]) == 0
    assert (tmp_path / "results/report.md").read_bytes() == (tmp_path / "again/report.md").read_bytes()
    for text in (log.read_text(), out.read_text()):
        assert PASSWORD not in text
        assert QUOTED not in text


def test_a_scheduler_without_its_backend_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--data", str(data), "--tasks=states", "--methods=ape", "--out", str(tmp_path / "results.jsonl")]
    assert main([*command, "--scheduler", "tcp://127.0.0.1:1"]) == SettingsError.exit_code
    assert main([*command, "--backend", "dask"]) == SettingsError.exit_code
    assert "--scheduler ADDRESS" in capsys.readouterr().err


def test_ctrl_c_ends_the_grid_at_once_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    with FakeEndpoint(nearest_demo_answer, latency=0.2) as endpoint:
        process = start(arguments(data, endpoint, tmp_path / "results.jsonl"))
        deadline = time.monotonic() + 120
        while not asked(endpoint) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command goes on where it was"
    assert "Traceback" not in said


def test_one_cell_that_fails_does_not_end_the_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")

    def refuse_demos(_: int, body: dict[str, Any]) -> Fault | None:
        long = any(message["role"] == "assistant" for message in body.get("messages", ()))
        return Fault.error(400, "too long") if long else None

    with FakeEndpoint(nearest_demo_answer, faults=refuse_demos) as endpoint:
        given = {"methods": "random-demos,ape", "tasks": "states"}
        command = arguments(data, endpoint, tmp_path / "results.jsonl", **given)
        assert main(command) == 1
    assert [record["method"] for record in Results(tmp_path / "results.jsonl").read().values()] == ["ape"]
    assert "not finished: own/states seed 0 random-demos" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "results.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "| failed |" in shown
    assert "too long" in shown


def test_a_defect_in_one_cell_does_not_end_the_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = cells(data, methods=["ape", "random-demos"])
    place = Place(str(data), str(tmp_path / "ledger.sqlite"), base_url="http://private.example/v1")

    def run_cell(cell: Cell, at: Place) -> dict[str, Any]:
        if cell.method == "ape":
            raise ZeroDivisionError(f"at {at.base_url}")
        return {**cell.conditions(), "score": 1}

    monkeypatch.setattr("benchmarks.grid.run_cell", run_cell)
    results = Results(tmp_path / "results.jsonl")
    (failed,) = run_chain([first, second], place, str(results.path))
    assert failed.error.startswith("ZeroDivisionError: at ")
    assert list(results.read()) == [second.key]
    (record,) = [one for one in results.all() if "failed" in one]
    assert record["failed"] == {"type": "ZeroDivisionError", "message": "at (endpoint)"}
    assert (record["cell"], record["method"]) == (first.key, "ape")
    monkeypatch.setattr("benchmarks.grid.run_cell", lambda cell, _: {**cell.conditions(), "score": 0.5})
    assert run_chain([first], place, str(results.path)) == []
    assert results.read()[first.key]["score"] == 0.5
    assert all("failed" not in one for one in results.all())


# --- the plan and the result file


def cells(data: Path, **changes: Any) -> list[Any]:
    given: dict[str, Any] = {"tasks": ["states"], "methods": ["ape"], "seeds": [0], "options": {"budget": "40"}}
    test = changes.pop("test", None)
    return plan_cells(data, **{**given, **changes}, test=test)


def test_what_can_change_a_result_makes_another_cell(data: Path) -> None:
    (cell,) = cells(data)
    assert cell == cells(data, options={"budget": "40 calls"})[0]
    changes: list[dict[str, Any]] = [
        {"seeds": [1]},
        {"methods": ["ape-random"]},
        {"tasks": ["things"]},
        {"options": {"budget": "41"}},
        {"options": {"budget": "40", "model": "other"}},
        {"options": {"budget": "40k tokens"}},
        {"options": {"budget": "40", "max_demos": 3}},
        {"test": 10},
    ]
    keys = {cells(data, **change)[0].key for change in changes}
    assert len(keys | {cell.key}) == len(changes) + 1


def test_a_default_that_is_given_makes_no_other_cell(data: Path) -> None:
    (cell,) = cells(data)
    assert cells(data, options={"budget": "40", "max_demos": 20, "prompt_tokens": 600})[0] == cell
    assert cells(data, test=100)[0] == cell
    (mop,) = cells(data, methods=["mop"])
    assert cells(data, methods=["mop"], options={"budget": "40", "retrieved": 1})[0].key == mop.key


def test_metric_split_sizes_and_version_make_another_cell(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = cells(data)
    keys = {cell.key, replace(cell, metric="f1").key, replace(cell, sizes=replace(cell.sizes, cut=7)).key}
    monkeypatch.setattr("benchmarks.cells.version", lambda package: f"another {package}")
    keys.add(cell.key)
    assert len(keys) == 4


def test_a_setting_of_some_methods_is_no_part_of_the_others_cells(data: Path) -> None:
    ape, paper = cells(data, methods=["ape", "mop-paper"], options={"experts": 4, "budget": "40"})
    assert ape == cells(data)[0]
    assert dict(paper.options)["experts"] == 4


def test_the_data_is_part_of_what_a_cell_is(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for file in (data / "own").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert cells(tmp_path)[0].key == cells(data)[0].key
    rows = (folder / "states.jsonl").read_text(encoding="utf-8")
    (folder / "states.jsonl").write_text(rows.replace("monday", "tuesday"), encoding="utf-8")
    assert cells(tmp_path)[0].key != cells(data)[0].key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["mop", "apee"]}, "no method 'apee'"),
        ({"tasks": ["stats"]}, "No task in .* 'stats'. Did you mean states"),
        ({"options": {"budget": "many"}}, "budget 'many'"),
        ({"options": {"max_demos": -1}}, "max_demos"),
        ({"options": {"budget": "19"}}, "19 model calls is too small"),
        ({"test": 0}, "0 test examples"),
        ({"test": -5}, "-5 test examples"),
        ({"bounds": -1}, "bounds"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_before_its_first_call(
    data: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((SettingsError, BudgetExceeded), match=message):
        cells(data, **change)


@pytest.mark.parametrize("option", ["--test=0", "--test=-5", "--bounds=-1", "--jobs=0", "--concurrency=0"])
def test_a_number_that_means_nothing_is_refused_by_name_and_leaves_no_line(
    option: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    with pytest.raises(SystemExit, match="2"):
        main(["run", f"--data={data}", "--tasks=states", "--methods=knn", "--model=m", f"--out={out}", option])
    assert option.partition("=")[0] in capsys.readouterr().err
    assert not out.exists()

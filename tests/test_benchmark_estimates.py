"""Estimates against the real runs of a grid: read from its result file, and no model is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer
from test_benchmark_grid import arguments, data

from benchmarks.__main__ import main as run_benchmarks
from benchmarks.estimates import main, off, real_runs
from benchmarks.results import Results
from benchmarks.splitting import sizes_of, split_task
from benchmarks.tasks import load_task
from mop.errors import DataError

__all__ = ["data"]


def test_the_searches_of_a_grid_are_compared_with_their_estimates_without_a_call(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    out = tmp_path / "results.jsonl"
    with FakeEndpoint(nearest_demo_answer, record=False) as endpoint:
        run_benchmarks(arguments(data, endpoint, out, tasks="states", methods="mop,ape-random,knn"))
        asked = endpoint.served
        found = {one.method: one for one in real_runs(out, data)}
        monkeypatch.setattr("sys.argv", ["estimates", "--grid", str(out), "--tasks", str(data)])
        main()
        assert endpoint.served == asked
    assert found["knn"].tokens == found["knn"].calls == 0
    assert abs(found["ape-random"].calls) < 0.1
    for method in ("mop", "ape-random"):
        assert abs(found[method].tokens) < 0.5
    said = capsys.readouterr().out
    assert "| mop | 1 | " in said
    assert "in four of five" in said

    (record,) = [one for one in Results(out).read().values() if one["method"] == "mop"]
    twice = json.loads(json.dumps(record))
    twice["search"]["calls"] *= 2
    task = load_task(data, "own/states")
    own, other = (split_task(task, seed, sizes_of(task, 10)) for seed in (0, 1))
    assert off(twice, own).calls == pytest.approx(1 + 2 * found["mop"].calls)
    with pytest.raises(DataError, match="other examples"):
        off(record, other)

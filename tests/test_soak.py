"""The soak and the large ledger, in small: what they measure holds, and what would fail them does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import large_ledger, soak
from benchmarks.soak import Look, Watch
from mop.lm.verify import verify


def test_memory_files_and_threads_are_steady_over_runs_with_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "RUN_CALLS", 160)
    monkeypatch.setattr(soak, "BATCH", 80)
    lines: list[str] = []
    with soak.endpoint() as url:
        assert soak.soak(url, tmp_path, 0.0, lines.append, every=0.0) == []
    assert len(lines) == soak.LEAST_RUNS + 1
    assert "calls" in lines[-1]


def test_what_grows_after_the_warm_up_fails_the_soak() -> None:
    watch = Watch(lambda _line: None, 1.0)
    watch.looks = [Look(t, 0, 100.0 + (t > 50) * 60, 10 + (t > 60) * 3, 5) for t in range(0, 100, 10)]
    assert [one.split(" grew")[0] for one in watch.failures(100)] == ["memory", "file descriptors"]
    watch.looks = [Look(t, 0, 100.0 + (t > 10) * 60, 10, 5 + (t == 0)) for t in range(0, 100, 10)]
    assert watch.failures(100) == [], "what is there after the warm-up counts"
    watch.looks = watch.looks[:2]
    assert watch.failures(100) == ["the soak was too short to say anything"]


def test_a_large_ledger_has_the_rows_that_the_client_writes_and_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_ledger, "CHUNK", 1000)
    lines: list[str] = []
    large_ledger.fill(tmp_path / "l", 3000, 200, lines.append)
    found = verify(tmp_path / "l")
    assert (found.calls, found.problems) == (3000, ())
    assert large_ledger.measure(tmp_path / "l", 3000, 200, lines.append) == []
    assert len([line for line in lines if line.startswith("stats by")]) == 16
    monkeypatch.setattr(large_ledger, "LOOK_UP_SECONDS", 0.0)
    assert any("look-up" in one for one in large_ledger.measure(tmp_path / "l", 3000, 200, lines.append))

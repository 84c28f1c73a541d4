"""A search that is killed again and again ends as one that never was; `benchmarks/crash.py` kills it more often."""

from __future__ import annotations

from pathlib import Path

from benchmarks.crash import Harness, crash, endpoint

CONCURRENCY = 4


def test_a_search_killed_at_random_points_loses_only_what_was_in_flight_and_ends_the_same(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with endpoint(journal, 0.03) as url:
        harness = Harness(
            tmp_path,
            url,
            journal,
            calls=60,
            concurrency=CONCURRENCY,
            latency=0.03,
            encoder=f"endpoint:words@{url}",
        )
        report = crash(harness, kills=8, seed=4, say=lambda _: None)
    assert report.failures(CONCURRENCY) == []
    assert len(report.in_flight) == 8
    assert report.sent - report.twice == report.runs * report.needed

"""Drift: false alarms are as rare as stated at every length of a stream, changes are found soon, no query is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fake_upstream import FakeUpstream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from serving import chat, running, serve_small
from small import TOPICS, WordEncoder, small_mixture
from starlette.applications import Starlette

from mop.artifact import MANIFEST, from_bytes, to_bytes
from mop.cli import main
from mop.drift import MOST_DISTANCES, DriftMonitor, Reference, _rank_returns
from mop.errors import ArtifactError
from mop.mixture import Mixture
from mop.serve.app import create_app
from mop.serve.upstream import Upstream

REGIONS = 6


def routes(rng: np.random.Generator, count: int, shares: Any = None, farther: float = 0.0) -> Any:
    """Return regions and squared distances of random queries; distances are not those of any formula in the tests."""
    regions = rng.choice(REGIONS, count, p=shares)
    return regions, rng.gamma(8 + regions, 0.06, count) + farther


def monitor_of(rng: np.random.Generator, held_out: int, rate: float, **held: Any) -> DriftMonitor:
    return DriftMonitor(Reference.of(*routes(rng, held_out, **held), REGIONS), rate=rate, seed=int(rng.integers(2**31)))


def alarm_after(monitor: DriftMonitor, stream: Any) -> int | None:
    for number, (region, distance) in enumerate(zip(*stream, strict=True), start=1):
        monitor.observe(int(region), float(distance))
        if monitor.alarm:
            return number
    return None


@pytest.mark.parametrize("held_out", [12, 120])
def test_false_alarms_are_as_rare_as_stated_whenever_one_looks(held_out: int) -> None:
    rng, runs, rate = np.random.default_rng(held_out), 100, 0.2
    alarms = sum(alarm_after(monitor_of(rng, held_out, rate), routes(rng, 160)) is not None for _ in range(runs))
    # The bound holds exactly; so many alarms would come by chance once in 10,000 tests.
    assert alarms <= stats.binom.ppf(0.9999, runs, rate)
    assert alarms < runs


def test_ranks_are_uniform_and_independent_even_with_few_held_out_examples() -> None:
    rng = np.random.default_rng(5)
    ranks = []
    for _ in range(400):
        monitor = monitor_of(rng, 8, 0.01)
        ranks.append([monitor._rank(int(r), float(d)) for r, d in zip(*routes(rng, 4), strict=True)])
    found = np.array(ranks)
    assert stats.kstest(found.ravel(), "uniform").pvalue > 1e-4
    for column in range(1, 4):
        assert abs(stats.spearmanr(found[:, 0], found[:, column]).statistic) < 0.2


def test_every_bet_pays_one_on_average() -> None:
    grid = (np.arange(20_000) + 0.5) / 20_000
    paid = np.array([_rank_returns(float(rank)) for rank in grid])
    np.testing.assert_allclose(paid.mean(axis=0), 1.0, atol=1e-3)
    assert (paid >= 0).all()


def test_queries_that_lie_elsewhere_are_caught_within_forty() -> None:
    rng = np.random.default_rng(1)
    found = [alarm_after(monitor_of(rng, 100, 0.01), routes(rng, 60, farther=0.8)) for _ in range(10)]
    assert all(number is not None and number <= 40 for number in found), found


def test_a_change_that_comes_late_is_caught() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        monitor = monitor_of(rng, 200, 0.01)
        assert alarm_after(monitor, routes(rng, 300)) is None
        number = alarm_after(monitor, routes(rng, 150, farther=0.8))
        assert number is not None
        assert number <= 100


def test_a_region_that_takes_most_of_the_traffic_is_caught_and_named() -> None:
    rng = np.random.default_rng(3)
    shares = [0.05, 0.05, 0.7, 0.05, 0.05, 0.1]
    for _ in range(5):
        monitor = monitor_of(rng, 120, 0.01)
        number = alarm_after(monitor, routes(rng, 150, shares))
        assert number is not None
        assert number <= 150
        assert {region for test, region, found in monitor.tests() if found["alarm"]} == {2}
        assert {test for test, _, found in monitor.tests() if found["alarm"]} == {"traffic"}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1e6)), max_size=12),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1e6)), max_size=30),
)
def test_any_stream_gives_a_report_of_plain_finite_numbers(held: Any, stream: Any) -> None:
    monitor = DriftMonitor(Reference.of([r for r, _ in held], [d for _, d in held], 3))
    for region, distance in stream:
        monitor.observe(region, distance)
    report = json.loads(json.dumps(monitor.report(), allow_nan=False))
    assert report["queries"] == len(stream) == sum(one["queries"] for one in report["regions"])
    assert report["held_out"] == len(held)


def test_the_same_stream_gives_the_same_report() -> None:
    rng = np.random.default_rng(4)
    reference, stream = Reference.of(*routes(rng, 50), REGIONS), routes(rng, 100)
    reports = []
    for _ in range(2):
        monitor = DriftMonitor(reference)
        alarm_after(monitor, stream)
        reports.append(monitor.report())
    assert reports[0] == reports[1]


def test_many_held_out_distances_are_drawn_and_all_are_counted() -> None:
    reference = Reference.of([0] * 5000, np.linspace(0.1, 2, 5000), 2)
    assert reference.counts == (5000, 0)
    assert [len(found) for found in reference.distances] == [MOST_DISTANCES, 0]


# -- in the file


def watched() -> Mixture:
    held = WordEncoder().encode([f"my {topic} {n}" for topic in TOPICS for n in ("today", "again", "now", "please")])
    mixture = small_mixture()
    found = mixture.route_vectors(held)
    reference = Reference.of([one.expert for one in found], [one.distance for one in found], 3)
    encoder = mixture.encoder
    return replace(mixture, reference=reference).with_known_encoder(encoder)


def test_the_reference_comes_back_exactly_and_must_fit_the_experts() -> None:
    mixture = watched()
    assert from_bytes(to_bytes(mixture)).reference == mixture.reference
    assert mixture.reference is not None
    short = replace(mixture, reference=Reference(mixture.reference.counts[:2], mixture.reference.distances))
    with pytest.raises(ArtifactError, match="entry for each expert"):
        to_bytes(short)


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_have_no_reference_and_load(version: int) -> None:
    from artifact_files import members, packed

    parts = members(to_bytes(small_mixture()))
    manifest = json.loads(parts[MANIFEST])
    manifest["schema_version"] = version
    del manifest["reference"]
    assert from_bytes(packed({**parts, MANIFEST: json.dumps(manifest).encode()})).reference is None


# -- served


@pytest.fixture
def app() -> Any:
    with FakeUpstream() as upstream:
        one = Upstream(upstream.base_url)
        yield create_app([serve_small("bank", one, mixture=watched()), serve_small("old", Upstream(upstream.base_url))])


def test_the_server_shows_drift_as_gauges_and_as_json_without_any_query(app: Starlette) -> None:
    with running(app) as server:
        before = server.get("/v1/drift").json()["data"]
        assert [one["model"] for one in before] == ["bank", "old"]
        assert before[0]["drift"]["queries"] == 0
        assert before[1]["drift"] is None
        assert "Learn it again" in before[1]["reason"]
        for number in range(40):
            answer: httpx2.Response = server.post("/v1/chat/completions", chat(f"zebra quagga okapi {number % 7} card"))
            assert answer.status_code == 200
        found = server.get("/v1/drift")
        drift = found.json()["data"][0]["drift"]
        assert drift["queries"] == 40
        assert drift["alarm"] is True
        assert "zebra" not in found.text
        assert server.metric('mop_drift_alarm{mixture="bank",region="",test="distance"}') == 1
        assert server.metric('mop_drift_evidence{mixture="bank",region="0",test="traffic"}') > 0
        assert 'mixture="old",region' not in server.get("/metrics").text


# -- the command


def test_the_command_compares_a_log_with_the_held_out_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mop.encoding.resolve_recorded_encoder", lambda name, **_options: WordEncoder())
    watched().save("bank.mop")
    small_mixture().save("old.mop")
    rows = [json.dumps({"input": f"zebra quagga okapi {number % 7} card"}) for number in range(60)]
    Path("log.jsonl").write_text("\n".join([*rows, "", json.dumps("my card again")]))
    assert main(["drift", "bank.mop", "log.jsonl", "--ledger", "l", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["alarm"], report["queries"]) == (True, 61)
    assert main(["drift", "bank.mop", "log.jsonl", "--ledger", "l"]) == 0
    assert "alarm at query" in capsys.readouterr().out
    Path("bad.jsonl").write_text('{"input": "fine"}\n{"other": 1}\n[1]\n{"input": " "}\nnot json')
    assert main(["drift", "bank.mop", "bad.jsonl", "--ledger", "l"]) == 3
    said = capsys.readouterr().err
    assert "4 lines" in said
    assert "line 2: no query or input or text; there are: other" in said
    assert "line 5" in said
    assert main(["drift", "old.mop", "log.jsonl", "--ledger", "l"]) == 3
    assert "older mop" in capsys.readouterr().err
    assert main(["drift", "bank.mop", "log.jsonl", "--rate", "1"]) == 2
    Path("empty.jsonl").write_text("\n")
    assert main(["drift", "bank.mop", "empty.jsonl", "--ledger", "l"]) == 3

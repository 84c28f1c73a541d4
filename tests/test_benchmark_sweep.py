"""Sweeps as their user runs them: each run a process of its own, which ends when the sweep does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from data_folder import write_task
from fake_endpoint import FakeEndpoint
from postgres import wait_until
from simulated import nearest_demo_answer, task

from benchmarks.__main__ import main
from benchmarks.sweep import numbers
from mop.errors import SettingsError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "own", "states", task(10))


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer, latency=0.1) as served:
        yield served


def command(data: Path, endpoint: FakeEndpoint, out: Path) -> list[str]:
    asked = ["--task", "states", "--test", "10", "--experts", "2", "--budget", "60", "--model", "simulated"]
    return ["sweep", "--data", str(data), "--base-url", endpoint.base_url, *asked, "--out", str(out)]


@pytest.fixture
def start(data: Path, endpoint: FakeEndpoint, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a sweep in a group of its own, which is killed after the test if it is still there."""
    begun: list[subprocess.Popen[str]] = []

    def one() -> subprocess.Popen[str]:
        words = [*command(data, endpoint, tmp_path / "sweep"), "--encoders", "tfidf"]
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks", *words],
                cwd=ROOT,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield one
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def test_every_run_is_measured_alone_and_none_repeated(
    data: Path, endpoint: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command(data, endpoint, tmp_path / "sweep"), "--encoders", "tfidf"]
    assert main(words) == 0
    served, first = endpoint.served, capsys.readouterr().out
    assert main(words) == 0
    assert endpoint.served == served
    assert capsys.readouterr().out == first
    rows = [line.split(" | ") for line in first.splitlines()[2:]]
    assert [row[1] for row in rows] == ["2"]
    assert all(int(row[-1].rstrip(" |")) > 50 for row in rows), "MiB of a process with NumPy"
    assert (tmp_path / "sweep" / "sweep.svg").exists()


def test_a_killed_sweep_asks_nothing_more(endpoint: FakeEndpoint, start: Callable[[], subprocess.Popen[str]]) -> None:
    process = start()
    wait_until(lambda: endpoint.served >= 3, 60)
    process.kill()
    process.communicate(timeout=60)  # the run has standard error too, so this waits for its end
    assert endpoint.served < 60, "the whole run asks more"


@pytest.mark.parametrize("whole_group", [True, False], ids=["by the terminal", "alone"])
def test_an_interrupted_sweep_ends_with_its_run_and_says_one_line(
    endpoint: FakeEndpoint, start: Callable[[], subprocess.Popen[str]], whole_group: bool
) -> None:
    process = start()
    wait_until(lambda: endpoint.served >= 3, 60)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines() == ["interrupted; the same command goes on where it was"]
    assert endpoint.served < 60, "the whole run asks more"


def test_a_run_that_is_interrupted_before_it_asks_anything_says_one_line(
    start: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start()
    wait_until((tmp_path / "sweep").exists, 60)  # made just before the first run
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines() == ["interrupted; the same command goes on where it was"]


def test_the_memory_of_a_run_is_its_own_and_not_the_sweeps() -> None:
    run = "from benchmarks.sweep import _peak_mib; print(_peak_mib())"
    sweep = f"import subprocess, sys; ballast = b'.' * (700 << 20); subprocess.run([sys.executable, '-c', {run!r}])"
    said = subprocess.run([sys.executable, "-c", sweep], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 50 < int(said) < 700


def test_an_encoder_that_is_not_there_is_found_before_the_first_run(
    data: Path, endpoint: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command(data, endpoint, tmp_path / "sweep"), "--encoders", "tfidf,local/all-minilm-l7-v2"]
    assert main(words) == SettingsError.exit_code
    assert "all-minilm-l6-v2" in capsys.readouterr().err
    assert endpoint.served == 0


def test_experts_of_a_method_that_learns_none_are_refused(
    data: Path, endpoint: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(data, endpoint, tmp_path), "--method", "ape"]) == SettingsError.exit_code
    assert "ape does not learn several experts" in capsys.readouterr().err


def test_numbers_are_a_list_or_a_range() -> None:
    assert numbers("2..5,16,2") == [2, 3, 4, 5, 16]
    for text in ("", "0", "x", "5..2", "2..x"):
        with pytest.raises(ValueError, match=r".*"):
            numbers(text)

"""Ctrl-C in real processes: once finishes what is on the wire, twice stops now; both say how to go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, Fault, fingerprint
from simulated import nearest_demo_answer, splits

from mop.lm.ledger import Ledger


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A search that takes a second but for its endpoint's latency."""
    parts = splits()
    rows = [*((one, "train") for one in parts.train), *((one, "validation") for one in parts.validation)]
    lines = [json.dumps({"input": one.input, "output": one.output, "split": name}) for one, name in rows]
    (tmp_path / "task.jsonl").write_text("\n".join(lines))
    return [
        sys.executable, "-m", "mop", "optimize", str(tmp_path / "task.jsonl"), "--model", "simulated",
        "--ledger", str(tmp_path / "l"), "--budget", "60", "--prompt-tokens", "200", "--concurrency", "4",
    ]  # fmt: skip


@contextmanager
def running(command: list[str], server: FakeEndpoint, calls: int) -> Iterator[subprocess.Popen[str]]:
    """Start the command and yield once ``calls`` chats have arrived."""
    command = [*command, "--base-url", server.base_url, "--encoder", f"endpoint:words@{server.base_url}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while chats(server) < calls and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()


def chats(server: FakeEndpoint) -> int:
    return sum("messages" in body for body in server.bodies)


def recorded(path: Path) -> int:
    ledger = Ledger(path)
    try:
        return ledger.totals(by=())[()].calls
    finally:
        ledger.close()


def test_one_ctrl_c_finishes_the_calls_on_the_wire_sends_no_more_and_says_how_to_go_on(
    command: list[str], tmp_path: Path
) -> None:
    slow = lambda number, body: Fault(delay=1.5 if "messages" in body else 0)  # noqa: E731
    with FakeEndpoint(nearest_demo_answer, faults=slow) as server, running(command, server, 4) as process:
        time.sleep(0.2)
        sent = chats(server)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert chats(server) == sent
    assert recorded(tmp_path / "l") == sent
    assert re.search(r"waiting for [1-5] calls? on the way, starting none\. Ctrl-C again stops now\.", err)
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    assert not (tmp_path / "task.mop").exists()


def test_a_second_ctrl_c_stops_now(command: list[str], tmp_path: Path) -> None:
    hang = lambda number, body: Fault(delay=12 if "messages" in body and number > 8 else 0)  # noqa: E731
    with FakeEndpoint(nearest_demo_answer, faults=hang) as server, running(command, server, 8) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first Ctrl-C waits for what is on the wire"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        took = time.monotonic() - began
    assert took < 8, "the second one does not wait for what hangs"
    assert process.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    assert 0 < recorded(tmp_path / "l") <= 8


def test_two_runs_on_one_ledger_at_once_share_the_calls_and_end_with_the_same_mixture(
    command: list[str], tmp_path: Path
) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    with FakeEndpoint(nearest_demo_answer, latency=0.01) as server:
        address = ["--base-url", server.base_url, "--encoder", f"endpoint:words@{server.base_url}"]
        both = [
            subprocess.Popen([*command, *address, "-o", str(tmp_path / name)], env=environment, stderr=subprocess.PIPE)
            for name in ("one.mop", "two.mop")
        ]
        for process in both:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
    assert (tmp_path / "one.mop").read_bytes() == (tmp_path / "two.mop").read_bytes()
    asked = [fingerprint(body) for body in server.bodies if "messages" in body]
    assert len(asked) == len(set(asked)) == recorded(tmp_path / "l") <= 60

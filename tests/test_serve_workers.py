"""Several processes on one port: shared counts, replaced dead, one clean end. Real processes, as users run them."""

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fake_upstream import FakeUpstream
from serving import chat, wait_until
from small import small_mixture

from mop.drift import Reference
from mop.encoding import resolve_encoder
from mop.errors import SettingsError
from mop.mixture import PROBES, EncoderRecord
from mop.prompts import Prompt
from mop.serve.limits import Limits
from mop.serve.process import Plan
from mop.serve.worker import plan_of
from mop.serve.workers import LONGEST_PAUSE, PAUSE, check_workers, pause_after, share


@pytest.fixture(scope="module")
def encoder_name() -> Iterator[str]:
    """An endpoint that encodes: workers with weights of their own would take seconds to start."""
    with FakeUpstream() as endpoint:
        yield f"endpoint:fake@{endpoint.base_url}"


def save(path: Path, encoder_name: str, **changes: Any) -> None:
    encoder = resolve_encoder(encoder_name)
    record = EncoderRecord(encoder_name, encoder.identity, encoder.encode(PROBES))
    centroids = encoder.encode(["card", "parcel", "meeting"])
    small_mixture(**{"centroids": centroids, "encoder_record": record, **changes}).save(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, encoder_name: str) -> Path:
    path = tmp_path_factory.mktemp("workers") / "bank.mop"
    save(path, encoder_name)
    return path


class Command:
    """``mop serve`` with some arguments, in a process group of its own, as a terminal would have it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "mop", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.said: list[str] = []
        assert self.process.stderr is not None
        while not self.said or not (match := re.search(r"Serving on (\S+)/v1", self.said[-1])):
            self.said.append(self.process.stderr.readline())
            assert self.said[-1], f"It ended: {self.said}"
        self.root = match[1]

    @property
    def workers(self) -> list[int]:
        """The ids of its children that serve."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(one) for one in children if b"mop.serve.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.root + path, trust_env=False, timeout=60)

    def ask(self, text: str = "card") -> httpx2.Response:
        return httpx2.post(f"{self.root}/v1/chat/completions", json=chat(text), trust_env=False, timeout=60)

    def end(self, number: signal.Signals) -> str:
        os.killpg(self.process.pid, number)
        _, err = self.process.communicate(timeout=60)
        return err


@contextmanager
def serving(*arguments: str) -> Iterator[Command]:
    command = Command(*arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait(60)


def total(text: str, name: str) -> float:
    """Return the sum over all labels of a metric."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Children are read from /proc.")


def test_a_worker_that_dies_again_and_again_is_replaced_for_ever_after_a_pause_that_is_bounded() -> None:
    pauses = [pause_after(deaths) for deaths in range(2000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (PAUSE, LONGEST_PAUSE)


def test_whichever_worker_is_asked_tells_of_the_drift_that_any_of_them_has_seen(
    encoder_name: str, tmp_path: Path
) -> None:
    path = tmp_path / "bank.mop"
    held_out = Reference((40, 40, 40), ((0.0001,) * 40,) * 3)
    save(path, encoder_name, reference=held_out)
    evidence = 'mop_drift_evidence{mixture="bank",region="",test="distance"} '
    alarm = 'mop_drift_alarm{mixture="bank",region="",test="distance"} '

    def gauge(text: str, name: str) -> float:
        [line] = [line for line in text.splitlines() if line.startswith(name)]
        return float(line.rpartition(" ")[2])

    arguments = [str(path), "--workers", "2", "--watch", "0.05", "--upstream"]
    with FakeUpstream() as upstream, serving(*arguments, upstream.base_url) as command:
        with httpx2.Client(trust_env=False, timeout=60) as one_worker:  # one connection: one of the two
            for number in range(60):
                one_worker.post(f"{command.root}/v1/chat/completions", json=chat(f"something else {number}"))
        wait_until(lambda: gauge(command.get("/metrics").text, alarm) == 1)
        for _ in range(8):
            text = command.get("/metrics").text
            assert gauge(text, alarm) == 1
            assert gauge(text, evidence) > 1
            assert "pid=" not in text

        encoder = resolve_encoder(encoder_name)
        fewer = small_mixture().experts[:1]
        save(path, encoder_name, experts=fewer, centroids=encoder.encode(["card"]))
        wait_until(lambda: gauge(command.get("/metrics").text, alarm) == 0)
        err = command.end(signal.SIGTERM)
    assert "multi-process mode" not in err


def test_workers_share_a_port_and_counts_and_a_dead_one_is_replaced(
    saved: Path, encoder_name: str, tmp_path: Path
) -> None:
    path = tmp_path / "bank.mop"
    path.write_bytes(saved.read_bytes())
    arguments = [str(path), "--workers", "2", "--watch", "0.05", "--upstream"]
    with FakeUpstream(pace=0.05, words=20) as upstream, serving(*arguments, upstream.base_url) as command:
        first = command.workers
        assert len(first) == 2
        for _ in range(10):
            assert command.ask().status_code == 200
        # Whichever worker is asked, it knows of all.
        for _ in range(5):
            assert total(command.get("/metrics").text, "mop_requests_total") == 10
        assert command.get("/readyz").json()["workers"] == {"wanted": 2, "running": 2, "replaced": 0}

        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: command.get("/readyz").json()["workers"]["running"] == 1)
        assert command.ask().status_code == 200
        wait_until(lambda: command.get("/readyz").json()["workers"] == {"wanted": 2, "running": 2, "replaced": 1}, 60)
        second = command.workers
        assert len(second) == 2
        assert first[1] in second
        text = command.get("/metrics").text
        assert total(text, "mop_requests_total") == 11  # the dead one's count, too
        assert total(text, "mop_requests_held") == 0
        assert 'mop_workers{state="replaced"} 1.0' in text

        save(path, encoder_name, generalist=Prompt("A new one."))
        wait_until(lambda: total(command.get("/metrics").text, "mop_reloads_total") == 2)

        client = openai.OpenAI(base_url=f"{command.root}/v1", api_key="x", max_retries=0)
        stream = client.chat.completions.create(**chat("card"), stream=True)
        pieces = [next(stream)]
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(command))
        assert len([*pieces, *stream]) == 21
        _, err = command.process.communicate(timeout=60)
    assert command.process.returncode == 0
    assert "A worker has died (status -9)" in err
    assert "Traceback" not in err
    assert "Fatal" not in err
    assert not any(Path(f"/proc/{one}").exists() for one in second)


def refused(command: Command) -> bool:
    try:
        command.get("/healthz")
    except httpx2.TransportError:
        return True
    return False


def test_ctrl_c_ends_all_workers_and_a_second_one_at_once(saved: Path) -> None:
    with FakeUpstream(latency=60) as upstream:
        with serving(str(saved), "--workers", "2", "--upstream", upstream.base_url) as command:
            workers = command.workers
            client = httpx2.Client(trust_env=False)
            with client:
                request = client.build_request("POST", f"{command.root}/v1/chat/completions", json=chat("card"))
                held = subprocess.Popen(
                    ["curl", "-s", "--noproxy", "*", str(request.url), "-d", request.content.decode()],
                    stdout=subprocess.DEVNULL,
                )
            wait_until(lambda: upstream.in_flight == 1)
            os.killpg(command.process.pid, signal.SIGINT)
            time.sleep(0.5)
            assert command.process.poll() is None  # it waits for the answer under way
            err = command.end(signal.SIGINT)
            held.wait(60)
        assert command.process.returncode == 130
        assert "Stopped." in err
        assert "Traceback" not in err
        assert "Fatal" not in err
        assert not any(Path(f"/proc/{one}").exists() for one in workers)


def test_workers_end_when_the_process_that_keeps_them_is_killed(saved: Path) -> None:
    with serving(str(saved), "--workers", "2", "--upstream", "http://127.0.0.1:1/v1") as command:
        workers = command.workers
        command.process.kill()
        wait_until(lambda: not any(_runs(one) for one in workers))


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_share_one_embedded_model(saved: Path, tiny_model: Path) -> None:
    def servers() -> list[str]:
        lines = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
        return [one for one in lines.splitlines() if one.split()[0] == str(command.process.pid) and "llama" in one]

    arguments = ["--workers", "2", "--no-warm", "--upstream", "local/smollm2-135m-instruct"]
    with serving(str(saved), *arguments) as command:
        assert len(servers()) == 1
        for _ in range(4):
            reply = httpx2.post(
                f"{command.root}/v1/chat/completions",
                json=chat("card", max_tokens=2),
                trust_env=False,
                timeout=120,
            )
            assert reply.status_code == 200, reply.text
        assert len(servers()) == 1
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(60) == 0
        assert servers() == []


def test_what_workers_cannot_serve_is_said_once_with_its_status(tmp_path: Path) -> None:
    (tmp_path / "junk.mop").write_text("junk")
    command = [sys.executable, "-m", "mop", "serve", str(tmp_path / "junk.mop"), "--workers", "2", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 7
    assert ended.stderr.count("isn't a mixture") == 1
    assert "Traceback" not in ended.stderr
    assert "Fatal" not in ended.stderr


def test_limits_are_shared_out_among_workers() -> None:
    part = share(Limits(concurrency=5, queue=0), 2)
    assert (part.concurrency, part.queue) == (3, 0)
    with pytest.raises(SettingsError, match="--workers is 0"):
        check_workers(0)


def test_a_plan_comes_out_of_json_as_it_went_in() -> None:
    plan = Plan(("a=b.mop", "s3://bucket/c.mop"), keys="keys", workers=3, limits=Limits(seconds=7))
    assert plan_of(json.loads(json.dumps(asdict(plan)))) == plan

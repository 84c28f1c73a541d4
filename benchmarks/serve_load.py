"""Serve load: thousands of requests while the upstream is killed and started again, and what became of each.

The rule: a request that the server has accepted gets exactly one of these, and nothing else counts as kept.

* ``whole``: the full answer; of a stream, every word and its end.
* ``refused``: a typed error with Retry-After, before anything of an answer was sent.
* ``told``: a stream that had begun ends with a typed error event (headers are over by then), never by silence.

``lost`` is everything else: a broken connection, a cut answer without an error, an error without a type or Retry-After.
The upstream is killed (SIGKILL) when ``--kill-at`` of the requests have ended, and is back on the same port after
``--down`` seconds. The mixture's encoder is an endpoint of the fake upstream's kind, in a process of its own: what is
tried here is the server, not an encoder.

    python -m benchmarks.serve_load                 # 5,000 requests, half of them streams, 200 at a time
    python -m benchmarks.serve_load --workers 2
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from benchmarks.serve_overhead import make_mixture, process
from mop.encoding import resolve_encoder

WORDS = 10
ANSWER = [f"word{number} " for number in range(WORDS)]


@dataclass
class Tally:
    """What became of the requests, by outcome and code; examples of what was lost; seconds of whole answers."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return sum(self.outcomes.values())


class Upstream:
    """The fake upstream as a process that can be killed and started again on its port."""

    def __init__(self, pace: float) -> None:
        self._arguments = ["--words", str(WORDS), "--pace", str(pace)]
        self.port = 0
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had."""
        command = [sys.executable, "-m", "tests.fake_upstream", *self._arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        match = re.search(r":(\d+)/", self.url)
        if match is None:
            raise SystemExit("The upstream did not start.")
        self.port = int(match[1])

    def kill(self) -> None:
        """Kill it; no connection is closed in order."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def outcome_of_error(status: int, headers: httpx2.Headers, body: bytes) -> str:
    """Return ``refused CODE`` for a typed error with Retry-After, else why it is lost."""
    try:
        error = json.loads(body)["error"]
        code, kind = error["code"], error["type"]
    except (ValueError, KeyError, TypeError):
        return f"lost: status {status} without a typed error"
    if not code or not kind or "retry-after" not in headers:
        return f"lost: {code} without Retry-After"
    return f"refused {code}"


def outcome_of_stream(text: str) -> str:
    """Return what became of a stream that began with status 200."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if events and events[-1] == "[DONE]":
        choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        words = [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
        return "whole" if words == ANSWER else "lost: words are missing"
    try:
        return f"told {json.loads(events[-1])['error']['code']}"
    except (ValueError, KeyError, IndexError):
        return "lost: a stream ended without [DONE] or error"


async def ask(client: httpx2.AsyncClient, url: str, number: int) -> str:
    """Send one request, every second one for a stream; return what became of it."""
    stream = number % 2 == 1
    body = {
        "model": "bank",
        "messages": [{"role": "user", "content": f"I lost card {number % 50}"}],
        "stream": stream,
    }
    try:
        reply = await client.post(f"{url}/chat/completions", json=body)
    except httpx2.HTTPError as error:
        return f"lost: {type(error).__name__}"
    if reply.status_code != 200:
        return outcome_of_error(reply.status_code, reply.headers, reply.content)
    if stream:
        return outcome_of_stream(reply.text)
    return "whole" if reply.json().get("choices") else "lost: no answer"


async def load(server: str, upstream: Upstream, requests: int, width: int, kill_at: float, down: float) -> Tally:
    """Send all requests, ``width`` at a time; kill the upstream on the way and start it again."""
    tally = Tally()
    numbers = iter(range(requests))

    async def work(client: httpx2.AsyncClient) -> None:
        for number in numbers:
            began = time.perf_counter()
            outcome = await ask(client, server, number)
            tally.outcomes[outcome] += 1
            if outcome == "whole":
                tally.seconds.append(time.perf_counter() - began)
            elif outcome.startswith("lost"):
                tally.lost.append(f"{number}: {outcome}")

    async def restart() -> None:
        while tally.done < requests * kill_at:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(upstream.kill)
        await asyncio.sleep(down)
        await asyncio.to_thread(upstream.start)

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=width)
    async with httpx2.AsyncClient(trust_env=False, timeout=300, limits=limits) as client:
        restarting = asyncio.create_task(restart())
        await asyncio.gather(*(work(client) for _ in range(width)))
        await restarting
    return tally


@contextmanager
def served(workers: int, pace: float) -> Iterator[tuple[str, Upstream]]:
    """Yield the base URL of a server, and its upstream."""
    fake = [sys.executable, "-m", "tests.fake_upstream"]
    upstream = Upstream(pace)
    with contextlib.ExitStack() as stack:
        stack.callback(upstream.kill)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        encoding = stack.enter_context(process(fake))
        name = f"endpoint:fake@{encoding}"
        mixture = make_mixture(resolve_encoder(name), 8, name)
        mixture.save(folder / "bank.mop")
        serve = [sys.executable, "-m", "mop", "serve", str(folder / "bank.mop"), "--port", "0"]
        serve += ["--workers", str(workers), "--upstream", upstream.url]
        yield stack.enter_context(process(serve, OPENAI_API_KEY="none")), upstream


def report(tally: Tally, seconds: float) -> dict[str, object]:
    """Return the figures of a run."""
    ordered = sorted(tally.seconds)
    return {
        "requests": tally.done,
        "outcomes": dict(sorted(tally.outcomes.items())),
        "lost": len(tally.lost),
        "seconds": round(seconds, 1),
        "median_seconds": round(ordered[len(ordered) // 2], 3) if ordered else None,
        "longest_seconds": round(ordered[-1], 3) if ordered else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kill-at", type=float, default=0.4, help="share of the requests that have ended")
    parser.add_argument("--down", type=float, default=3.0, help="seconds")
    parser.add_argument("--pace", type=float, default=0.01, help="seconds between the words of a stream")
    options = parser.parse_args()
    with served(options.workers, options.pace) as (server, upstream):
        began = time.perf_counter()
        tally = asyncio.run(load(server, upstream, options.requests, options.at_once, options.kill_at, options.down))
        found = report(tally, time.perf_counter() - began)
    print(json.dumps({"workers": options.workers, "at_once": options.at_once, **found}))
    if tally.lost or tally.done != options.requests:
        raise SystemExit(f"{len(tally.lost)} requests were lost: {tally.lost[:5]}")


if __name__ == "__main__":
    main()

"""Serve overhead: what the server adds to a call, and whether 200 streams at once all come through.

An upstream that answers at once runs in a process of its own, and so does the server, as a user would run it
(``mop serve``), with a mixture of 64 experts over the real encoder. One client asks the upstream directly and through
the server, in turns, so that what else the machine does meets both.

* ``encode``: one encode in this process, with one thread, as the server does it.
* ``direct``: a call to the upstream.
* ``route``: the decision alone, which is one encode and what HTTP costs.
* ``image``: through the server, a message without text: everything that serving does but the encode.
* ``served``: the same call through the server.

    python -m benchmarks.serve_overhead

prints medians and fastest tenths; the mark is ``served - direct`` of at most 4 ms plus one encode, so ``image -
direct`` of at most 4 ms. Then 200 streams run at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai

from mop.decoding import Decoding
from mop.embeddings.encoders import Encoder
from mop.encoding import resolve_encoder
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt

QUERIES = [
    f"I lost my {thing} on the way to {place}" for thing in ("card", "parcel", "key") for place in ("work", "school")
]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/card.png"}}


def make_mixture(encoder: Encoder, experts: int, name: str = "local/all-minilm-l6-v2") -> Mixture:
    topics = [f"topic {number} of a help desk" for number in range(experts)]
    demos = tuple(Demo(f"example message number {number} of a customer", f"label_{number}") for number in range(10))
    return Mixture(
        experts=tuple(Expert(Prompt(f"Name the kind of {topic}.", demos), 10, 5) for topic in topics),
        generalist=Prompt("Name the kind.", demos),
        centroids=encoder.encode(topics),
        encoder_record=EncoderRecord(name, encoder.identity, encoder.encode(PROBES)),
        model="fake",
        decoding=Decoding(16),
        metric="exact_match",
    )


@contextmanager
def process(command: list[str], **environment: str) -> Iterator[str]:
    """Run a server and yield its base URL, which it prints."""
    own = {**os.environ, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                match = re.search(r"http://\S+/v1(?=\s|$)", line)
                if match and not line.startswith("bank:"):  # what answers for the mixture is no address of ours
                    threading.Thread(target=running.stdout.read, daemon=True).start()
                    yield match[0]
                    return
            raise SystemExit(f"{command} ended with status {running.wait()}.")
        finally:
            running.terminate()


def body(content: object) -> dict[str, object]:
    return {"model": "bank", "messages": [{"role": "user", "content": content}]}


def one_at_a_time(upstream: str, server: str, encoder: Encoder, calls: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call, by its kind."""
    milliseconds: dict[str, list[float]] = {"encode": [], "direct": [], "route": [], "image": [], "served": []}
    with httpx2.Client(trust_env=False, timeout=60) as client:
        for turn in range(calls + 20):
            query = QUERIES[turn % len(QUERIES)]
            asks = {
                "direct": (f"{upstream}/chat/completions", body(query)),
                "route": (f"{server}/route", {"model": "bank", "input": query}),
                "image": (f"{server}/chat/completions", body([IMAGE])),
                "served": (f"{server}/chat/completions", body(query)),
            }
            began = time.perf_counter()
            encoder.encode([query])
            if turn >= 20:
                milliseconds["encode"].append((time.perf_counter() - began) * 1000)
            for name, (address, content) in asks.items():
                raw = json.dumps(content).encode()
                began = time.perf_counter()
                reply = client.post(address, content=raw)
                taken = time.perf_counter() - began
                if reply.status_code != 200:
                    raise SystemExit(f"{address} answered {reply.status_code}: {reply.text}")
                if turn >= 20:
                    milliseconds[name].append(taken * 1000)
    return milliseconds


def show(milliseconds: dict[str, list[float]], words: str, summary: Callable[[list[float]], float]) -> None:
    """Print one figure of each kind of call, and what serving adds."""
    figures = {name: summary(values) for name, values in milliseconds.items()}
    added, without = figures["served"] - figures["direct"], figures["image"] - figures["direct"]
    print(f"{words}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()) + " ms")
    print(f"  added {added:.2f} ms; without the encode {without:.2f} ms (mark: 4 ms)")


async def streams(server: str, count: int) -> tuple[int, float]:
    """Return how many of ``count`` streams at once came through whole, and the seconds for all."""
    client = openai.AsyncOpenAI(base_url=server, api_key="none", max_retries=0, timeout=300)

    async def one(number: int) -> bool:
        try:
            stream = await client.chat.completions.create(
                model="bank", messages=[{"role": "user", "content": QUERIES[number % len(QUERIES)]}], stream=True
            )
            pieces = [piece.choices[0].delta.content or "" async for piece in stream]
        except openai.OpenAIError as error:
            print(f"stream {number}: {error}")
            return False
        return "".join(pieces) == "".join(f"word{place} " for place in range(20))

    began = time.perf_counter()
    whole = await asyncio.gather(*map(one, range(count)))
    await client.close()
    return sum(whole), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--streams", type=int, default=200)
    options = parser.parse_args()
    encoder = resolve_encoder("local/all-minilm-l6-v2")
    make_mixture(encoder, 1)  # loads the encoder, and torch with it
    sys.modules["torch"].set_num_threads(1)
    fake = [sys.executable, "-m", "tests.fake_upstream", "--words", "20"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.mop"
        make_mixture(encoder, options.experts).save(path)
        serve = [sys.executable, "-m", "mop", "serve", str(path), "--port", "0", "--upstream"]
        with process(fake) as upstream, process([*serve, upstream], OPENAI_API_KEY="none") as server:
            milliseconds = one_at_a_time(upstream, server, encoder, options.calls)
            show(milliseconds, "median", statistics.median)
            # What else a busy machine does is in the median; in the fastest tenth there is little of it.
            show(milliseconds, "fastest tenth", lambda values: statistics.quantiles(values, n=10)[0])
        with (
            process([*fake, "--pace", "0.05"]) as upstream,
            process([*serve, upstream], OPENAI_API_KEY="none") as server,
        ):
            whole, seconds = asyncio.run(streams(server, options.streams))
            print(f"streams {whole} of {options.streams} whole in {seconds:.1f} s (one alone takes about 1.1 s)")
    if whole != options.streams:
        raise SystemExit("Streams were lost.")


if __name__ == "__main__":
    main()

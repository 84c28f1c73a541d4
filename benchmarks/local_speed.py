"""Local speed: how fast this build of llama.cpp reads prompts, and whether it answers as another one did.

Asks a local model again what a ledger holds of it, one call after the other, in the order in which it was asked.
Two builds are compared by running the command once with each on the same ledger.

    python -m benchmarks.local_speed LEDGER --calls 40
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import xllamacpp

from mop.lm.ledger import Ledger
from mop.lm.local import LocalServer
from mop.lm.upkeep import export


def rows_of(ledger: Ledger, model: str, calls: int) -> list[dict[str, object]]:
    """Return ``calls`` greedy calls of ``model``, evenly over the ledger."""
    rows = [row for row in export(ledger) if row["request"]["model"] == model and not row["request"].get("temperature")]
    if not rows:
        raise SystemExit(f"The ledger holds no greedy call of {model}; run a search with it first.")
    return rows[:: max(1, len(rows) // calls)][:calls]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the library's file, tokens that were not cached, seconds, and how many answers were the ledger's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_speed", description=__doc__)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--model", default="local/qwen2.5-coder-1.5b-instruct")
    options = parser.parse_args(argv)
    rows = rows_of(Ledger(options.ledger), options.model, options.calls)
    fresh = written = same = 0
    with (
        LocalServer.start(options.model, slots=1, context=4096, threads=options.threads) as server,
        httpx2.Client(timeout=600, trust_env=False) as client,
    ):
        started = time.perf_counter()
        for row in rows:
            asked = row["request"]
            body = {
                "model": options.model,
                "messages": [{"role": role, "content": content} for role, content in asked["messages"]],
                "temperature": 0,
                "max_tokens": asked["max_tokens"],
                **({"stop": asked["stop"]} if asked.get("stop") else {}),
            }
            reply = client.post(f"{server.base_url}/chat/completions", json=body).raise_for_status().json()
            usage = reply["usage"]
            fresh += usage["prompt_tokens"] - (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            written += usage["completion_tokens"]
            same += reply["choices"][0]["message"]["content"].strip() == str(row["text"]).strip()
        seconds = time.perf_counter() - started
    print(xllamacpp.__file__)
    print(
        f"{len(rows)} calls: {fresh} prompt tokens that were not cached, {written} written, {seconds:.0f} s; "
        f"{same} answers as in the ledger"
    )


if __name__ == "__main__":
    main()

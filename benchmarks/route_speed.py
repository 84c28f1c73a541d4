"""Route speed: what a decision over 64 experts costs beside FAISS alone, and how soon a loaded file answers.

The encoder is a dictionary of vectors, so that the decision is what is timed: `Mixture.route` from a text to a `Route`,
and beside it, in turns so that what else the machine does meets both, a bare ``IndexFlatIP.search`` of one vector for
the two nearest of 64. The mark is a ratio of at most 3. A batch of 256 is timed the same way.

Then, with the real encoder: loading the encoder, and what loading the file and its first route take beyond that; the
mark is one second. Every import that the file needs counts, so each figure comes from a fresh process.

    python -m benchmarks.route_speed
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import mop
from benchmarks.serve_overhead import make_mixture
from mop.embeddings.encoders import Vectors
from mop.encoding import resolve_encoder

#: Loads the encoder and encodes once; then loads a mixture that uses it, and routes. Prints the seconds of both.
_FIRST = """
import sys, time
from mop.encoding import resolve_encoder
began = time.perf_counter()
encoder = resolve_encoder("local/all-minilm-l6-v2")
encoder.encode(["I lost my card"])
loaded = time.perf_counter()
import mop
mixture = mop.load(sys.argv[1])
mixture.use_encoder(encoder)
mixture.route("I lost my card")
print(loaded - began, time.perf_counter() - loaded)
"""


class Known:
    """An encoder of texts whose vectors it has."""

    identity = "known"

    def __init__(self, vectors: dict[str, Vectors]) -> None:
        self._vectors = vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of known texts."""
        return np.stack([self._vectors[text] for text in texts])


def in_turns(works: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Return the median microseconds of each work."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + turns // 10):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn >= turns // 10:
                taken[name].append((time.perf_counter() - began) * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def decisions(experts: int, turns: int) -> dict[str, dict[str, float]]:
    """Return the microseconds of a decision and of a bare search, for one query and for 256."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((experts + 256, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = [f"query {number}" for number in range(256)]
    mixture = make_mixture(_Fixed(rows[:experts]), experts).with_known_encoder(
        Known(dict(zip(texts, rows[experts:], strict=True)))
    )
    bare = faiss.IndexFlatIP(384)
    bare.add(rows[:experts])
    one, many = rows[experts : experts + 1], rows[experts:]
    result = {}
    for name, vectors, asked in (("one query", one, texts[0]), ("256 queries", many, texts)):
        works: dict[str, Callable[[], Any]] = {
            "faiss": lambda vectors=vectors: bare.search(vectors, 2),
            "route": lambda asked=asked: mixture.route(asked),
        }
        result[name] = in_turns(works, turns if vectors is one else max(10, turns // 20))
    return result


class _Fixed:
    """Gives the same rows for whatever is encoded: centroids that need no model."""

    identity = "fixed"

    def __init__(self, rows: Vectors) -> None:
        self._rows = rows

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self._rows[: len(texts)]


def first_routes(repeats: int) -> list[tuple[float, float]]:
    """Return the seconds for the encoder, and those for a file and its first route, of fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.mop"
        make_mixture(resolve_encoder("local/all-minilm-l6-v2"), 64).save(path)
        found = []
        for _ in range(repeats):
            command = [sys.executable, "-c", _FIRST, str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            found.append((float(said[0]), float(said[1])))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--turns", type=int, default=5000)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--loads", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, Any] = {"version": mop.__version__, "experts": options.experts}
    for name, median in decisions(options.experts, options.turns).items():
        ratio = median["route"] / median["faiss"]
        found[name] = {**median, "ratio": ratio}
        print(f"{name:12} faiss {median['faiss']:8.1f} µs, route {median['route']:8.1f} µs, ratio {ratio:.2f}")
    if options.loads:
        loads = first_routes(options.loads)
        encoder, rest = (statistics.median(values) for values in zip(*loads, strict=True))
        found["load"] = {"encoder_seconds": encoder, "file_and_first_route_seconds": rest}
        print(f"encoder {encoder:.2f} s; file and first route beyond it {rest:.3f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""A million demos: clustering and indexing them on two cores, with a progress bar, seconds, memory and recall.

    python -m benchmarks.million [--rows 1000000] [--dimension 384] [--regions 64] [--seed 0] [--out FILE]

The vectors are made from the seed: 4,000 topics in 32 hidden dimensions, turned into the whole space, with noise.
Memory is the peak beyond the process as it stood with the vectors in it (from /proc, so on Linux only). Needs no
encoder and no model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mop.embeddings.encoders import Vectors
from mop.embeddings.index import NeighbourIndex
from mop.embeddings.large import CHUNK
from mop.embeddings.regions import find_regions
from mop.seeds import stream

TOPICS, HIDDEN = 4_000, 32
QUERIES = 1_000
#: Megabytes that 1,000,000 × 384 may take beyond the data.
MOST_MB = 4_096


def main(arguments: list[str] | None = None) -> int:
    """Make the vectors, cluster and index them, and print what it took; 1 if it took too much memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--regions", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        vectors = structured(given.rows + QUERIES, given.dimension, given.seed)
        vectors, queries = vectors[: given.rows], vectors[given.rows :].copy()
        before = _memory_mb("VmRSS")
        # The kernel's peak starts anew from here.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        clustering = bars.add_task("clustering", total=None)
        started = _times()
        regions = find_regions(
            vectors,
            given.regions,
            seed=given.seed,
            progress=lambda done, total: bars.update(clustering, completed=done, total=total),
        )
        sizes = np.bincount(regions.assign(vectors), minlength=len(regions))
        clustered = _since(started)
        indexing = bars.add_task("indexing", total=given.rows)
        started = _times()
        index = NeighbourIndex(vectors, progress=lambda done, _: bars.update(indexing, completed=done))
        indexed = _since(started)
        peak = _memory_mb("VmHWM") - before
    started = _times()
    for row in range(QUERIES):
        index.nearest(queries[row : row + 1], 1)
    searched = _since(started)
    found, short = index.search(queries, 10)[1], queries.astype(np.float16).astype(np.float32)
    truth = NeighbourIndex(vectors, exact_most=given.rows).nearest(queries, 10)
    report = {
        "rows": given.rows,
        "dimension": given.dimension,
        "data_mb": round(vectors.nbytes / 2**20),
        "regions": len(regions),
        "smallest_region": int(sizes.min()),
        "largest_region": int(sizes.max()),
        "cluster": clustered,
        "index": indexed,
        "peak_mb_beyond_data": round(peak),
        "exact": index.exact,
        "recall_at_1": float((found[:, 0] == truth[:, 0]).mean()),
        "recall_at_10": float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])),
        "recall_by_sample": index.recall(),
        "half_precision_queries_agree": float((index.nearest(short, 1)[:, 0] == found[:, 0]).mean()),
        "ms_per_query": round(1000 * searched["seconds"] / QUERIES, 3),
        "cores": len(os.sched_getaffinity(0)),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    return int(peak > MOST_MB)


def structured(rows: int, dimension: int, seed: int) -> Vectors:
    """Return unit vectors around topics of very different sizes, made in parts so that nothing but them is large."""
    rng = stream(seed, "million")
    topics = rng.standard_normal((TOPICS, HIDDEN), dtype=np.float32)
    turn = rng.standard_normal((HIDDEN, dimension), dtype=np.float32) / np.float32(HIDDEN**0.5)
    share = 1 / np.arange(1, TOPICS + 1) ** 0.7
    vectors = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, CHUNK):
        part = vectors[start : start + CHUNK]
        topic = rng.choice(TOPICS, len(part), p=share / share.sum())
        hidden = topics[topic] + np.float32(0.5) * rng.standard_normal((len(part), HIDDEN), dtype=np.float32)
        part[:] = hidden @ turn + np.float32(0.3) * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def _times() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> dict[str, float]:
    wall, processor = _times()
    return {"seconds": round(wall - started[0], 2), "processor_seconds": round(processor - started[1], 2)}


def _memory_mb(field: str) -> float:
    """Return a field of Linux's account of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    sys.exit(main())

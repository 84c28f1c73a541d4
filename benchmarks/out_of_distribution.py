"""Out of distribution: which distance tells a foreign query from one of the task's own, and how often it is wrong.

    python -m benchmarks.out_of_distribution FOLDER [--train 450] [--validation 150] [--seeds 5]

FOLDER holds BANKING77 and other sets as JSON lines (benchmarks/README.md). Needs the encoder only. Scores are learned
from BANKING77's training rows, thresholds from validation rows at 99 % coverage; then held-out rows of BANKING77 (false
alarms) and rows of other sets (found) are scored. "other intents" are rows of BANKING77 whose intents were left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mop.embeddings.conformal import threshold
from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import fit_projection, project
from mop.embeddings.regions import find_regions
from mop.encoding import resolve_encoder
from mop.seeds import stream

FOREIGN = ("hwu64", "snips", "trec", "sst2")
OTHER = "other intents"
LEFT_OUT = 15
QUERIES = 500
REGIONS = 29
COVERAGE = 0.99
Scores = NDArray[np.float64]


def scores_of(train: Vectors, centroids: Vectors, queries: Vectors) -> dict[str, Scores]:
    """Return every score of ``queries``: larger means farther from what was seen."""
    to_demos = np.sort(_squared(queries, train), axis=1)
    to_centroids = np.sort(_squared(queries, centroids), axis=1)
    inside = _squared(train, centroids)
    spread = np.bincount(inside.argmin(axis=1), inside.min(axis=1), len(centroids))
    spread = spread / np.maximum(np.bincount(inside.argmin(axis=1), minlength=len(centroids)), 1)
    nearest = _squared(queries, centroids).argmin(axis=1)
    return {
        "centroid": to_centroids[:, 0],
        "centroid / spread of its region": to_centroids[:, 0] / np.maximum(spread[nearest], 1e-9),
        "centroid / second centroid": to_centroids[:, 0] / np.maximum(to_centroids[:, 1], 1e-9),
        "nearest demo": to_demos[:, 0],
        "5th nearest demo": to_demos[:, 4],
        "nearest demo + centroid": to_demos[:, 0] + to_centroids[:, 0],
    }


def main(arguments: list[str] | None = None) -> None:
    """Print a table for each space: AUROC, false alarms and how much is found, by score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=450)
    parser.add_argument("--validation", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    encoder = resolve_encoder("local/all-minilm-l6-v2")
    rows = list(_rows(options.folder / "banking77.train.jsonl.gz"))
    tests = list(_rows(options.folder / "banking77.test.jsonl.gz"))
    vectors, test_vectors = encoder.encode([text for text, _ in rows]), encoder.encode([text for text, _ in tests])
    foreign = {name: encoder.encode(_sample(options.folder / f"{name}.test.jsonl.gz")) for name in FOREIGN}
    labels, test_labels = np.array([label for _, label in rows]), np.array([label for _, label in tests])
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(options.seeds):
        rng = stream(seed, "out of distribution")
        left_out = rng.choice(np.unique(labels), LEFT_OUT, replace=False)
        own = rng.permutation(np.flatnonzero(~np.isin(labels, left_out)))[: options.train + options.validation]
        train, held = own[: options.train], own[options.train :]
        groups = {OTHER: test_vectors[np.isin(test_labels, left_out)], **foreign}
        inside = test_vectors[~np.isin(test_labels, left_out)]
        projection = fit_projection(vectors[train], labels[train].tolist())
        for space, view in (("encoder", None), ("projection", projection)):
            seen = project(vectors[train], view)
            centroids = find_regions(seen, REGIONS, seed=seed).centroids
            parts = [vectors[held], inside, *groups.values()]
            scored = [scores_of(seen, centroids, project(part, view)) for part in parts]
            for name in scored[0]:
                calibration, own_scores, *others = [one[name] for one in scored]
                limit = threshold(calibration, COVERAGE)
                alarms = float((own_scores > limit).mean())
                row = [alarms, *(value for one in others for value in (_auroc(own_scores, one), (one > limit).mean()))]
                found.setdefault((space, name), []).append(row)
    print(f"{options.train} training and {options.validation} validation rows, {REGIONS} regions asked for,")
    print(f"coverage {COVERAGE}, means over {options.seeds} seeds; each cell: AUROC, share found.\n")
    print("| space | score | false alarms (per seed) | " + " | ".join([OTHER, *FOREIGN]) + " |")
    print("| --- " * (4 + len(FOREIGN)) + "|")
    for (space, name), results in found.items():
        mean = np.mean(results, axis=0)
        cells = [f"{mean[i]:.3f}, {mean[i + 1]:.2f}" for i in range(1, len(mean), 2)]
        alarms_text = f"{mean[0]:.3f} (" + " ".join(f"{result[0]:.3f}" for result in results) + ")"
        print(f"| {space} | {name} | {alarms_text} | " + " | ".join(cells) + " |")


def _auroc(inside: Scores, outside: Scores) -> float:
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(roc_auc_score(truth, np.r_[inside, outside]))


def _squared(one: Vectors, other: Vectors) -> Scores:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2 * one @ other.T
    return np.maximum(squares, 0).astype(np.float64)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["input"], row["output"][0]


def _sample(path: Path) -> list[str]:
    texts = [text for text, _ in _rows(path)]
    return [texts[i] for i in stream(0, "foreign", path.name).permutation(len(texts))[:QUERIES]]


if __name__ == "__main__":
    main()

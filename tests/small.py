"""A small mixture with an encoder that needs no model: enough to save, load, route and ask."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mop.decoding import Decoding
from mop.embeddings.encoders import Vectors
from mop.embeddings.region_map import draw_map
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt


class WordEncoder:
    """Counts words in a few hashed places; ``seed`` makes another encoder of it."""

    def __init__(self, dimension: int = 32, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed
        self.identity = f"words:{seed}@{dimension}"
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.encoded += texts
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[-1] = 0.1
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.sha256(f"{self.seed} {word}".encode()).digest()
                row[int.from_bytes(digest[:4], "big") % (self.dimension - 1)] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


TOPICS = ("card", "parcel", "meeting")


def small_mixture(**changes: Any) -> Mixture:
    """Return a mixture with one expert for each of three words; the last one has fallen back."""
    encoder = WordEncoder()
    experts = tuple(
        Expert(
            prompt=Prompt(f"Answer about the {topic}.", (Demo(f"my {topic} is lost", f"{topic}_lost"),)),
            size=7 + number,
            validation=5,
            words=(topic, "lost"),
            proposer="region",
            score=0.8,
            generalist_score=0.6,
            gain=0.1 + number / 3,
            gain_low=-0.05,
            gain_high=0.3,
            fallback=number == 2,
        )
        for number, topic in enumerate(TOPICS)
    )
    mixture = Mixture(
        **{
            "experts": experts,
            "generalist": Prompt("Answer «in one word» – größer.", (Demo("hot", "cold"),)),
            "centroids": encoder.encode(TOPICS),
            "encoder_record": EncoderRecord("words", encoder.identity, encoder.encode(PROBES)),
            "model": "simulated",
            "decoding": Decoding(16, ("\n",)),
            "metric": "exact_match",
            "report": {"zero_shot": "Answer.", "rounds": [1, 2.5, None]},
            "provenance": {"created": "2023-11-14T22:13:20+00:00", "seed": 0},
            **changes,
        }
    )
    return mixture.with_known_encoder(encoder)


def crowded(regions: int = 24) -> Mixture:
    """Return a mixture with as many regions as real ones have, long words and prompts among them."""
    names = [f"topic{number}" for number in range(regions)]
    encoder = WordEncoder()
    one = small_mixture().experts[0]
    experts: tuple[Expert, ...] = tuple(
        replace(
            one,
            prompt=Prompt(
                f"Answer about {name}. " * (1 + number % 9), (Demo(f"my {name} is lost", f"{name}_lost"),) * 3
            ),
            words=(name, "transaction", "supercalifragilistic" * (1 + number % 3)),
            size=10 * number,
            fallback=number % 5 == 4,
        )
        for number, name in enumerate(names)
    )
    centroids = encoder.encode([f"{name} {name} topic" for name in names])
    drawn = draw_map(centroids, encoder.encode([f"{name} is {word}" for name in names for word in ("lost", "late")]))
    gate = {"validation": 40, "mixture": 0.8, "generalist": 0.6, "gain": 0.2, "gain_low": 0.11, "open": True}
    return small_mixture(experts=experts, centroids=centroids, region_map=drawn, report={"gate": gate})

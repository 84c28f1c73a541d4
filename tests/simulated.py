"""A simulated model with one real weakness: it answers as the demo most like the query does, so demos matter."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Any

from mop.examples import Example, Splits
from mop.seeds import stream

TOPICS = {
    "card": ["swallowed", "declined", "blocked", "frozen", "stolen", "expired"],
    "parcel": ["late", "damaged", "missing", "wet", "returned", "heavy"],
    "meeting": ["cancelled", "moved", "crowded", "boring", "remote", "secret"],
    "garden": ["dry", "flooded", "overgrown", "muddy", "sunny", "fenced"],
}
FILLER = [
    "please",
    "help",
    "me",
    "today",
    "again",
    "since",
    "monday",
    "morning",
    "with",
    "some",
    "rather",
    "strange",
    "unusual",
    "trouble",
    "somewhere",
]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def nearest_demo_answer(messages: list[dict[str, Any]]) -> str:
    """Answer like the demo that shares most words with the query; write an instruction if there are no demos."""
    if len(messages) == 1:
        digest = hashlib.sha256(messages[0]["content"].encode()).hexdigest()
        return f"Name the state of the thing in the message, variant {digest[:6]}."
    query = words(messages[-1]["content"])
    best, overlap = "unknown", 0.0
    for user, assistant in itertools.pairwise(messages):
        if user["role"] == "user" and assistant["role"] == "assistant":
            shown = words(user["content"])
            score = len(query & shown) / (1 + len(query | shown))
            if score > overlap:
                best, overlap = assistant["content"], score
    return best


def task(rows_per_answer: int = 12, seed: int = 0) -> list[Example]:
    """Return a labelled task with 24 answers in four topics: too many for one short prompt."""
    rng = stream(seed, "simulated task")
    rows = []
    for topic, states in TOPICS.items():
        for state in states:
            for _ in range(rows_per_answer):
                filler = " ".join(rng.choice(FILLER, size=4, replace=False))
                rows.append(Example(f"my {topic} is {state} {filler}", (f"{topic}_{state}",)))
    return [rows[int(position)] for position in rng.permutation(len(rows))]


def splits(seed: int = 0) -> Splits:
    rows = task(rows_per_answer=25, seed=seed)
    return Splits(tuple(rows[:180]), tuple(rows[180:240]), tuple(rows[240:]))

"""The other side of `benchmarks.peers`: DSPy's kNN few-shot and semantic-router, in an environment of their own.

Knows nothing of mop: it runs under another interpreter, since DSPy and mop ask for different versions of `openai`.
Reads one JSON object from standard input (``base_url``, ``train`` and ``queries`` as pairs of text and label,
``vectors``: the path of an .npz with the vectors of both, ``k``), and prints one on its last line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np


def dspy_knn(asked: dict[str, Any], vector_of: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return seconds of each query, and the right answers, of ``KNNFewShot`` with its defaults beside ``k``."""
    import dspy
    from dspy.teleprompt import KNNFewShot

    def vectors(texts: list[str]) -> np.ndarray:
        # DSPy embeds "message: text" of all fields that are inputs.
        return np.stack([vector_of[text.removeprefix("message: ")] for text in texts])

    dspy.configure(lm=dspy.LM("openai/fake", api_base=asked["base_url"], api_key="k", cache=False))
    train = [dspy.Example(message=text, label=label).with_inputs("message") for text, label in asked["train"]]
    program = KNNFewShot(
        k=asked["k"],
        trainset=train,
        vectorizer=dspy.Embedder(vectors),
        metric=lambda example, found, _trace=None: example.label == found.label,
    ).compile(dspy.Predict("message -> label"))
    seconds, right = [], 0
    for text, label in asked["queries"]:
        began = time.perf_counter()
        right += program(message=text).label == label
        seconds.append(time.perf_counter() - began)
    return {"version": dspy.__version__, "seconds": statistics.median(seconds), "right": right}


def semantic_router(asked: dict[str, Any], vector_of: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the median seconds of a decision among one route for each label, and how many chose the label."""
    from importlib.metadata import version

    from semantic_router import Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.routers import IndexedRouter

    class Known(DenseEncoder):
        name: str = "known"
        type: str = "known"

        def __call__(self, docs: list[Any]) -> list[list[float]]:
            return [vector_of[text].tolist() for text in docs]

        async def acall(self, docs: list[Any]) -> list[list[float]]:
            return self(docs)

    by_label: dict[str, list[str]] = {}
    for text, label in asked["train"]:
        by_label.setdefault(label, []).append(text)
    routes = [Route(name=label, utterances=texts) for label, texts in by_label.items()]
    router = IndexedRouter(encoder=Known(), routes=routes)
    seconds, right = [], 0
    for _round in range(10):
        for text, label in asked["queries"]:
            began = time.perf_counter()
            found = router(text)
            seconds.append(time.perf_counter() - began)
            right += found is not None and getattr(found, "name", None) == label
    return {
        "version": version("semantic-router"),
        "seconds": statistics.median(seconds),
        "right": right / len(seconds),
        "routes": len(routes),
    }


def main() -> None:
    """Measure both."""
    asked = json.load(sys.stdin)
    with np.load(asked["vectors"]) as file:
        rows = file["vectors"]
    texts = [text for text, _ in [*asked["train"], *asked["queries"]]]
    vector_of = dict(zip(texts, rows, strict=True))
    print(json.dumps({"semantic-router": semantic_router(asked, vector_of), "dspy": dspy_knn(asked, vector_of)}))


if __name__ == "__main__":
    main()

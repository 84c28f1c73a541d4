"""Peers: what a query costs with a mixture, with DSPy's kNN few-shot, and what semantic-router's decision costs.

The help desk's messages go through a learned mixture and through ``dspy.KNNFewShot``, against one endpoint that answers
at once, so that what is counted is what each asks for: calls, and input tokens by the tokenizer of the 1.5B model. The
endpoint knows the right label and gives it in a stated share of calls: DSPy asks again where an answer was wrong. All
take their vectors from one table, so that seconds are those of the engine alone, without encoder and model.

semantic-router has one route for each label, with all training messages as its utterances; its decision stands beside
`Mixture.route`.

    python -m venv peers && peers/bin/pip install dspy semantic-router
    python -m benchmarks.peers helpdesk.mop --peers peers/bin/python
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mop
from mop.connect import connect
from mop.datasets import helpdesk
from mop.embeddings.encoders import Vectors
from mop.encoding import resolve_recorded_encoder
from mop.examples import Example
from mop.lm.ledger import Ledger
from mop.lm.weights import pull
from tests.fake_endpoint import FakeEndpoint

TOKENIZER = "local/qwen2.5-coder-1.5b-instruct"


class Known:
    """An encoder of texts whose vectors it has."""

    def __init__(self, identity: str, vectors: dict[str, Vectors]) -> None:
        self.identity = identity
        self._vectors = vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of known texts."""
        return np.stack([self._vectors[text] for text in texts])


class Oracle:
    """Answers with the label of the message asked about, in ``share`` of the calls; in DSPy's form where asked so."""

    def __init__(self, labels: dict[str, str], share: float) -> None:
        self._labels, self._share = labels, share

    def __call__(self, messages: list[dict[str, Any]]) -> str:
        """Return the answer."""
        question = str(messages[-1]["content"])
        structured = "[[ ## message ## ]]" in question
        text = question.split("[[ ## message ## ]]")[1].split("Respond with")[0].strip() if structured else question
        chance = hashlib.sha256(text.encode()).digest()[0] / 256
        label = self._labels[text] if chance < self._share else "other"
        return f"[[ ## label ## ]]\n{label}\n\n[[ ## completed ## ]]" if structured else label


class Tokens:
    """Counts the tokens of messages by the 1.5B model's own tokenizer and chat template."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        file = pull(TOKENIZER)
        self._tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)

    def count(self, messages: list[dict[str, Any]]) -> int:
        """Return the tokens of one call's messages, with the template's own."""
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("mixture")
    parser.add_argument("--peers", required=True, help="a Python interpreter that has dspy and semantic-router")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--k", type=int, default=16, help="demos that DSPy retrieves")
    parser.add_argument("--right", type=float, default=0.8, help="share of right answers")
    parser.add_argument("--out")
    given = parser.parse_args(arguments)

    splits = helpdesk()
    train, queries = splits.train, splits.test[: given.queries]
    mixture = mop.load(given.mixture)
    encoder = resolve_recorded_encoder(mixture.encoder_record.name)
    texts = [one.input for one in (*train, *queries)]
    vectors = encoder.encode(texts)
    known = dict(zip(texts, vectors, strict=True))
    probes = mixture.encoder_record
    known.update(zip(mop.mixture.PROBES, probes.probes, strict=True))
    mixture.use_encoder(Known(encoder.identity, known))
    labels = {one.input: one.output for one in (*train, *queries)}
    tokens = Tokens()
    with FakeEndpoint(Oracle(labels, given.right)) as endpoint:
        routed = asyncio.run(_predicted(mixture, queries, endpoint))
        routed |= _asked(endpoint, tokens, len(queries))
        endpoint.bodies.clear()
        peers = _peers(given, train, queries, vectors, endpoint.base_url)
        shown = peers["dspy"] | _asked(endpoint, tokens, len(queries))
    decision = _decided(mixture, [one.input for one in queries])
    result = {
        "queries": len(queries),
        "mop": {**routed, "decision_seconds": decision, "experts": len(mixture.experts)},
        "dspy": shown,
        "semantic-router": peers["semantic-router"],
        "k": given.k,
        "right": given.right,
    }
    _print(result)
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


async def _predicted(mixture: mop.Mixture, queries: Sequence[Example], endpoint: FakeEndpoint) -> dict[str, Any]:
    seconds, right = [], 0
    client = connect("fake", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
    try:
        for one in queries:
            began = time.perf_counter()
            answer = (await mixture.apredict([one.input], client))[0]
            seconds.append(time.perf_counter() - began)
            right += answer.text == one.output
    finally:
        await client.aclose()
    return {"seconds": statistics.median(seconds), "right": right}


def _decided(mixture: mop.Mixture, queries: Sequence[str]) -> float:
    seconds = []
    for _round in range(10):
        for query in queries:
            began = time.perf_counter()
            mixture.route(query)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _asked(endpoint: FakeEndpoint, tokens: Tokens, queries: int) -> dict[str, float]:
    counted = [tokens.count(body["messages"]) for body in endpoint.bodies]
    return {"calls": len(counted) / queries, "input_tokens": sum(counted) / queries}


def _peers(
    given: argparse.Namespace, train: Sequence[Example], queries: Sequence[Example], vectors: Vectors, base_url: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vectors.npz")
        np.savez(file, vectors=vectors)
        asked = {
            "base_url": base_url,
            "train": [(one.input, one.output) for one in train],
            "queries": [(one.input, one.output) for one in queries],
            "vectors": str(file),
            "k": given.k,
        }
        side = Path(__file__).with_name("peers_side.py")
        done = subprocess.run(
            [given.peers, str(side)], input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _print(result: dict[str, Any]) -> None:
    own, dspy, router = result["mop"], result["dspy"], result["semantic-router"]
    print(f"{result['queries']} queries; DSPy {dspy['version']}, semantic-router {router['version']}")
    print(f"{'':34}{'calls':>8}{'input tokens':>14}{'ms beside the model':>21}")
    for name, row in [("mixture", own), (f"DSPy KNNFewShot, k = {result['k']}", dspy)]:
        print(f"{name:34}{row['calls']:8.2f}{row['input_tokens']:14.0f}{1000 * row['seconds']:21.2f}")
    print(f"{'the decision alone':34}{'among':>8}{'microseconds':>14}")
    print(f"{'mixture':34}{own['experts']:8}{1e6 * own['decision_seconds']:14.1f}")
    print(f"{'semantic-router':34}{router['routes']:8}{1e6 * router['seconds']:14.1f}")


if __name__ == "__main__":
    sys.exit(main())

"""The target ``python``: one file that routes with numpy and writes messages, and never imports mop.

Its data are literals; vectors are float32 in base64. The same mixture always gives the same text.
"""

from __future__ import annotations

import base64
import pprint
from typing import TYPE_CHECKING, Any

import numpy as np

from mop.export.parts import Exported, calling, demo_regions, encoder_lost, limits_of
from mop.mixture import PROBE_COSINE, PROBES, Mixture
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mop.embeddings.encoders import Vectors

_HEAD = '''\
"""A mixture of prompts: picks the prompt that fits a query. Needs numpy; written by mop, do not edit.

    messages(query, encode=encode)   the chat messages that ask `query`
    messages(vector, query)          the same for a query whose vector is known
    route(query, encode)             where the query goes; a vector needs no `encode`
    check_encoder(encode)            raises ValueError for an encoder other than the mixture's

`encode` takes a text and gives its vector, as ENCODER does. CALL has the model's name and how it decodes.
"""

import math
from base64 import b64decode

import numpy as np

'''

_CODE = '''

def _array(name):
    shape, data = _ARRAYS[name]
    return np.frombuffer(b64decode(data), "<f4").reshape(shape).astype(np.float64)


_CENTROIDS = _array("centroids")
_PROJECTION = _array("projection") if "projection" in _ARRAYS else None
_RETRIEVED = _array("retrieved") if "retrieved" in _ARRAYS else None
_GAINS = np.array([0.0 if one["fallback"] else max(one["gain"], 0.0) for one in EXPERTS])


def _unit(vector):
    vector = np.asarray(vector, np.float64).ravel()
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _place(query, encode):
    if isinstance(query, str):
        if encode is None:
            raise TypeError("Give `encode`, or a vector in place of the text.")
        query = encode(query)
    vector = _unit(query)
    expected = _array("probes").shape[1]
    if vector.shape != (expected,) or not np.isfinite(vector).all():
        raise ValueError(f"A query's vector has {expected} finite numbers; got {vector.shape[0]}.")
    return vector if _PROJECTION is None else _unit(vector @ _PROJECTION[:-1] + _PROJECTION[-1])


def _distances(vectors, vector):
    return ((vectors - vector) ** 2).sum(axis=1)


def route(query, encode=None):
    """Return where a query (a text, or its vector) goes.

    A dictionary: `expert`, the squared `distance` to its centroid, the `margin` to the second nearest, `fallback`
    (whether the generalist answers), `reason` (why it does: "no gain" or "far from all examples"; else None),
    `retrieved` (pairs of input and output, the nearest last).
    """
    vector = _place(query, encode)
    distances = _distances(_CENTROIDS, vector)
    order = np.argsort(distances, kind="stable")
    margin = float(distances[order[1]] - distances[order[0]]) if len(order) > 1 else math.inf
    expert = int(order[0])
    if LIMITS["width"] is not None:
        # A kernel over regions: the largest gain counts, weighed by nearness.
        weights = np.exp((distances[expert] - distances) / (2 * LIMITS["width"]))
        weighted = weights / weights.sum() * _GAINS
        expert = int(weighted.argmax()) if weighted.max() > 0 else expert
    distance, closest = float(distances[expert]), float(distances[order[0]])
    retrieved = []
    if _RETRIEVED is not None:
        apart = _distances(_RETRIEVED, vector)
        nearest = np.argsort(apart, kind="stable")[:RETRIEVE]
        retrieved = [DEMOS[int(position)] for position in nearest[::-1]]
        if LIMITS["measure"] == "demo":
            closest = float(apart[nearest[0]])
        if LIMITS["margin"] is not None and margin <= LIMITS["margin"]:
            # Near a border: the nearest demo of the second region comes before the others.
            beside = [place for place, region in enumerate(DEMO_REGIONS) if region == order[1]]
            beside = [DEMOS[min(beside, key=lambda place: apart[place])]] if beside else []
            retrieved = [demo for demo in beside if demo not in retrieved] + retrieved
    # Thresholds are those of the nearest centroid, whatever the kernel chooses.
    threshold = LIMITS["thresholds"][order[0]]
    reason = "far from all examples" if threshold is not None and closest > threshold else None
    reason = "no gain" if EXPERTS[expert]["fallback"] else reason
    return {
        "expert": expert,
        "distance": distance,
        "margin": margin,
        "fallback": reason is not None,
        "reason": reason,
        "retrieved": [] if reason else retrieved,
    }


def messages(key, query=None, encode=None):
    """Return the messages for a query: `key` is its text, or its vector with the text in `query`."""
    if query is None:
        if not isinstance(key, str):
            raise TypeError("Give the text as `query` beside its vector.")
        query = key
    found = route(key, encode)
    prompt = GENERALIST if found["fallback"] else EXPERTS[found["expert"]]
    demos = [*prompt["demos"], *found["retrieved"]]
    instruction = prompt["instruction"]
    if prompt["layout"] == "block":
        parts = [f"Instruction: {instruction}"] if instruction else []
        parts += [f"Input: {given}\\nOutput: {answer}" for given, answer in demos]
        return [{"role": "user", "content": "\\n\\n".join([*parts, f"Input: {query}\\nOutput:"])}]
    turns = [{"role": "system", "content": instruction}] if instruction else []
    for given, answer in demos:
        turns += [{"role": "user", "content": given}, {"role": "assistant", "content": answer}]
    return [*turns, {"role": "user", "content": query}]


def check_encoder(encode):
    """Raise ValueError unless `encode` gives the vectors that the mixture was made with."""
    probes = _array("probes")
    for text, vector in zip(PROBES, probes):
        found = _unit(encode(text))
        if found.shape != vector.shape or not float(found @ vector) >= PROBE_COSINE:
            raise ValueError(f"This is not the encoder {ENCODER['identity']}: its vectors mean something else.")
'''


def python(mixture: Mixture) -> Exported:
    """Return the one file. It routes as the mixture does, but for the rounding of distances and for `lost`."""
    arrays = {"centroids": mixture.centroids, "probes": mixture.encoder_record.probes}
    retrieval, demos = mixture.retrieval, []
    if mixture.projection is not None:
        arrays["projection"] = mixture.projection
    if retrieval is not None:
        arrays["retrieved"] = retrieval.vectors
        demos = _pairs(retrieval.demos)
    record = mixture.encoder_record
    literals: dict[str, Any] = {
        "CALL": calling(mixture),
        "ENCODER": {"name": record.name, "identity": record.identity},
        "GENERALIST": _prompt(mixture.generalist),
        "EXPERTS": [
            {"fallback": expert.fallback, "gain": expert.gain, **_prompt(expert.prompt)} for expert in mixture.experts
        ],
        "LIMITS": limits_of(mixture),
        "RETRIEVE": 0 if retrieval is None else retrieval.count,
        "DEMOS": demos,
        "DEMO_REGIONS": demo_regions(mixture),
        "PROBES": list(PROBES),
        "PROBE_COSINE": PROBE_COSINE,
    }
    lines = [f"{name} = {pprint.pformat(value, width=118, sort_dicts=False)}\n" for name, value in literals.items()]
    packed = "".join(f'    "{name}": {_packed(array)},\n' for name, array in arrays.items())
    text = f"{_HEAD}{''.join(lines)}_ARRAYS = {{\n{packed}}}\n{_CODE}"
    return Exported({"mixture.py": text}, (*encoder_lost(mixture), *_search_lost(retrieval)))


def _search_lost(retrieval: Retrieval | None) -> list[str]:
    from mop.embeddings.index import EXACT_MOST

    if retrieval is None or len(retrieval.demos) <= EXACT_MOST:
        return []
    return [
        f"With more than {EXACT_MOST:,} demos mop looks for the nearest ones in the likeliest cells only; this file "
        "compares with all of them. It takes longer, and now and then finds a demo that is nearer."
    ]


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"instruction": prompt.instruction, "demos": _pairs(prompt.demos), "layout": prompt.layout}


def _pairs(demos: Sequence[Demo]) -> list[tuple[str, str]]:
    return [(demo.input, demo.output) for demo in demos]


def _packed(array: Vectors) -> str:
    data = base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    lines = "\n".join(data[start : start + 116] for start in range(0, len(data), 116))
    return f'({array.shape!r}, """\n{lines}\n""")'

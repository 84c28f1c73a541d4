"""Comparison: what changed between two mixtures. Knows neither files nor terminals.

Experts have no names, so they are matched: first those with the same prompt and centroid; then pairs of which each has
the other as its nearest centroid, if both mixtures place centroids in the same space; then those that share most demos,
half of the fewer at least. What is left was added or removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mop.mixture import Expert, Mixture
from mop.prompts import Demo, Prompt

#: Numbers of an expert that are compared.
_FIGURES = ("size", "validation", "score", "generalist_score", "gain", "gain_low", "gain_high", "fallback")


@dataclass(frozen=True)
class PromptChange:
    """What changed in a prompt. ``reordered``: the same demos in another order."""

    instruction: tuple[str, str] | None
    layout: tuple[str, str] | None
    added: tuple[Demo, ...]
    removed: tuple[Demo, ...]
    reordered: bool

    def __bool__(self) -> bool:
        return bool(self.instruction or self.layout or self.added or self.removed or self.reordered)


@dataclass(frozen=True)
class ExpertChange:
    """One expert in both mixtures, by its numbers there.

    ``moved`` is the distance between its centroids, None if they aren't in one space. ``figures`` are numbers and words
    that changed, (before, after) by name.
    """

    before: int
    after: int
    prompt: PromptChange
    moved: float | None
    figures: Mapping[str, tuple[Any, Any]]

    def __bool__(self) -> bool:
        return bool(self.prompt or self.moved or self.figures)


@dataclass(frozen=True)
class Comparison:
    """What changed from one mixture to another; falsy if nothing did.

    ``settings`` holds what is said once for all experts, (before, after) by name, provenance and report included.
    ``experts`` are those found in both, changed or not; ``added`` and ``removed`` are numbers in the second and in the
    first mixture. ``retrieval`` counts demos to retrieve: added, removed.
    """

    settings: Mapping[str, tuple[Any, Any]]
    generalist: PromptChange
    experts: tuple[ExpertChange, ...]
    added: tuple[int, ...]
    removed: tuple[int, ...]
    retrieval: tuple[int, int] = (0, 0)
    vectors: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(
            self.settings
            or self.generalist
            or any(self.experts)
            or self.added
            or self.removed
            or any(self.retrieval)
            or self.vectors
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything that changed as plain data."""
        return {
            "same": not self,
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "generalist": _prompt_dict(self.generalist) if self.generalist else None,
            "experts": {
                "same": sum(not one for one in self.experts),
                "changed": [_expert_dict(one) for one in self.experts if one],
                "added": list(self.added),
                "removed": list(self.removed),
            },
            "retrieval": {"added": self.retrieval[0], "removed": self.retrieval[1]},
            "vectors": list(self.vectors),
        }


def compare(before: Mixture, after: Mixture) -> Comparison:
    """Return what changed from ``before`` to ``after``."""
    one_space = _one_space(before, after)
    pairs = _matched(before, after, one_space=one_space)
    experts = tuple(_expert_change(before, after, *pair, one_space=one_space) for pair in pairs)
    first = set() if before.retrieval is None else {(demo.input, demo.output) for demo in before.retrieval.demos}
    second = set() if after.retrieval is None else {(demo.input, demo.output) for demo in after.retrieval.demos}
    return Comparison(
        settings=_settings(before, after),
        generalist=_prompt_change(before.generalist, after.generalist),
        experts=experts,
        added=tuple(sorted(set(range(len(after))) - {pair[1] for pair in pairs})),
        removed=tuple(sorted(set(range(len(before))) - {pair[0] for pair in pairs})),
        retrieval=(len(second - first), len(first - second)),
        vectors=_vectors(before, after),
    )


def _settings(before: Mixture, after: Mixture) -> dict[str, tuple[Any, Any]]:
    def described(mixture: Mixture) -> dict[str, Any]:
        decoding, record, reference = mixture.decoding, mixture.encoder_record, mixture.reference
        return {
            "model": mixture.model,
            "metric": mixture.metric,
            "max_tokens": decoding.max_tokens,
            "stop": list(decoding.stop),
            "temperature": decoding.temperature,
            "encoder": record.name,
            "encoder identity": record.identity,
            "retrieved": 0 if mixture.retrieval is None else mixture.retrieval.count,
            "held-out examples": None if reference is None else sum(reference.counts),
            **{f"provenance.{name}": value for name, value in _flat(mixture.provenance)},
            **{f"report.{name}": value for name, value in mixture.report.items()},
        }

    first, second = described(before), described(after)
    return {
        name: (first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    }


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in record.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found


def _one_space(before: Mixture, after: Mixture) -> bool:
    """Whether the centroids of both are places in the same space."""
    if before.encoder_record.identity != after.encoder_record.identity:
        return False
    if before.projection is None or after.projection is None:
        same = before.projection is after.projection
    else:
        same = np.array_equal(before.projection, after.projection)
    return bool(same and before.centroids.shape[1] == after.centroids.shape[1])


def _matched(before: Mixture, after: Mixture, *, one_space: bool) -> list[tuple[int, int]]:
    left, right = list(range(len(before))), list(range(len(after)))
    pairs: list[tuple[int, int]] = []

    def take(first: int, second: int) -> None:
        pairs.append((first, second))
        left.remove(first)
        right.remove(second)

    if one_space:
        places = {
            (before.experts[number].prompt, before.centroids[number].tobytes()): number for number in reversed(left)
        }
        for second in list(right):
            first = places.get((after.experts[second].prompt, after.centroids[second].tobytes()))
            if first in left:
                take(first, second)
        if left and right:
            apart = ((before.centroids[left][:, None] - after.centroids[right][None]) ** 2).sum(axis=2)
            nearest, back = apart.argmin(axis=1), apart.argmin(axis=0)
            mutual = [(left[i], right[int(j)]) for i, j in enumerate(nearest) if int(back[int(j)]) == i]
            for first, second in mutual:
                take(first, second)
    shared = sorted(
        (-_shared(before.experts[first], after.experts[second]), first, second) for first in left for second in right
    )
    for share, first, second in shared:
        if -share >= 0.5 and first in left and second in right:
            take(first, second)
    return sorted(pairs, key=lambda pair: pair[1])


def _shared(one: Expert, other: Expert) -> float:
    """Return the part of demos that both show, of the fewer; prompts without demos are alike if they are the same."""
    first, second = set(one.prompt.demos), set(other.prompt.demos)
    if not (first and second):
        return float(one.prompt == other.prompt)
    return len(first & second) / min(len(first), len(second))


def _expert_change(before: Mixture, after: Mixture, first: int, second: int, *, one_space: bool) -> ExpertChange:
    one, other = before.experts[first], after.experts[second]
    figures: dict[str, tuple[Any, Any]] = {
        name: (getattr(one, name), getattr(other, name))
        for name in _FIGURES
        if getattr(one, name) != getattr(other, name)
    }
    if one.words != other.words:
        figures["words"] = (", ".join(one.words), ", ".join(other.words))
    if one.proposer != other.proposer:
        figures["proposer"] = (one.proposer, other.proposer)
    apart = before.centroids[first] - after.centroids[second] if one_space else None
    moved = None if apart is None else float(np.linalg.norm(apart))
    return ExpertChange(first, second, _prompt_change(one.prompt, other.prompt), moved, figures)


def _prompt_change(before: Prompt, after: Prompt) -> PromptChange:
    first, second = set(before.demos), set(after.demos)
    return PromptChange(
        instruction=(before.instruction, after.instruction) if before.instruction != after.instruction else None,
        layout=(before.layout, after.layout) if before.layout != after.layout else None,
        added=tuple(demo for demo in after.demos if demo not in first),
        removed=tuple(demo for demo in before.demos if demo not in second),
        reordered=before.demos != after.demos and sorted(_pairs(before.demos)) == sorted(_pairs(after.demos)),
    )


def _pairs(demos: Sequence[Demo]) -> list[tuple[str, str]]:
    return [(demo.input, demo.output) for demo in demos]


def _vectors(before: Mixture, after: Mixture) -> tuple[str, ...]:
    """Return the names of arrays that differ and that nothing else shows."""
    found = []
    first, second = before.retrieval, after.retrieval
    same_demos = first is not None and second is not None and first.demos == second.demos
    if same_demos and first and second and not np.array_equal(first.vectors, second.vectors):
        found.append("vectors of demos to retrieve")
    if (before.projection is None) != (after.projection is None) or (
        before.projection is not None
        and after.projection is not None
        and not np.array_equal(before.projection, after.projection)
    ):
        found.append("projection")
    if not np.array_equal(before.encoder_record.probes, after.encoder_record.probes):
        found.append("probe vectors of the encoder")
    if before.reference != after.reference:
        found.append("distances of held-out examples")
    return tuple(found)


def _prompt_dict(change: PromptChange) -> dict[str, Any]:
    return {
        "instruction": None if change.instruction is None else list(change.instruction),
        "layout": None if change.layout is None else list(change.layout),
        "demos_added": [{"input": demo.input, "output": demo.output} for demo in change.added],
        "demos_removed": [{"input": demo.input, "output": demo.output} for demo in change.removed],
        "reordered": change.reordered,
    }


def _expert_dict(change: ExpertChange) -> dict[str, Any]:
    return {
        "before": change.before,
        "after": change.after,
        "moved": change.moved,
        "figures": {name: list(pair) for name, pair in change.figures.items()},
        "prompt": _prompt_dict(change.prompt) if change.prompt else None,
    }

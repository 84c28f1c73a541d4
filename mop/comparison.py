"""Comparison: what changed between two mixtures. Knows neither files nor terminals; `mop.matching` pairs experts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

import numpy as np

from mop.limits import Limits
from mop.matching import matched, one_space_of
from mop.mixture import Mixture
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval

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
    one_space = one_space_of(before, after)
    pairs = matched(before, after, one_space=one_space)
    experts = tuple(_expert_change(before, after, *pair, one_space=one_space) for pair in pairs)
    first, second = (Counter(() if one.retrieval is None else one.retrieval.demos) for one in (before, after))
    return Comparison(
        settings=_settings(before, after),
        generalist=_prompt_change(before.generalist, after.generalist),
        experts=experts,
        added=tuple(sorted(set(range(len(after))) - {pair[1] for pair in pairs})),
        removed=tuple(sorted(set(range(len(before))) - {pair[0] for pair in pairs})),
        retrieval=((second - first).total(), (first - second).total()),
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
            **_limits(mixture.limits),
            **{f"provenance.{name}": value for name, value in _flat(mixture.provenance)},
            **{f"report.{name}": value for name, value in mixture.report.items()},
        }

    first, second = described(before), described(after)
    return {
        name: (first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    }


def _limits(limits: Limits | None) -> dict[str, Any]:
    """Return what limits say once for all experts; thresholds are figures of experts."""
    if limits is None:
        return {}
    return {
        "limits.coverage": limits.coverage,
        "limits.measure": limits.measure,
        "limits.margin": limits.margin,
        "limits.width": limits.width,
        **{f"limits.measured.{name}": value for name, value in _flat(limits.measured)},
    }


def _threshold(mixture: Mixture, number: int) -> float | None:
    """Return the squared distance beyond which the generalist answers; None if there is none."""
    if mixture.limits is None:
        return None
    value = mixture.limits.thresholds[number]
    return value if math.isfinite(value) else None


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in record.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found


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
    if one.persona != other.persona:
        figures["persona"] = (one.persona and one.persona.sentence, other.persona and other.persona.sentence)
    far = (_threshold(before, first), _threshold(after, second))
    if far[0] != far[1]:
        figures["threshold"] = far
    apart = before.centroids[first] - after.centroids[second] if one_space else None
    moved = None if apart is None else float(np.linalg.norm(apart))
    return ExpertChange(first, second, _prompt_change(one.prompt, other.prompt), moved, figures)


def _prompt_change(before: Prompt, after: Prompt) -> PromptChange:
    # Counted, because a prompt can show one demo twice.
    first, second = Counter(before.demos), Counter(after.demos)
    return PromptChange(
        instruction=(before.instruction, after.instruction) if before.instruction != after.instruction else None,
        layout=(before.layout, after.layout) if before.layout != after.layout else None,
        added=tuple((second - first).elements()),
        removed=tuple((first - second).elements()),
        reordered=before.demos != after.demos and first == second,
    )


def _placed(retrieval: Retrieval) -> Counter[tuple[Demo, bytes]]:
    """Return the demos to retrieve, each with its place in the space."""
    vectors = np.ascontiguousarray(retrieval.vectors)
    return Counter((demo, row.tobytes()) for demo, row in zip(retrieval.demos, vectors, strict=True))


def _vectors(before: Mixture, after: Mixture) -> tuple[str, ...]:
    """Return the names of arrays that differ and that nothing else shows."""
    found = []
    first, second = before.retrieval, after.retrieval
    same_demos = first is not None and second is not None and Counter(first.demos) == Counter(second.demos)
    if same_demos and first and second and _placed(first) != _placed(second):
        found.append("vectors of demos to retrieve")
    if _differ(before.projection, after.projection):
        found.append("projection")
    if _differ(before.encoder_record.probes, after.encoder_record.probes):
        found.append("probe vectors of the encoder")
    if _differ(before.encoder_record.state, after.encoder_record.state):
        found.append("weights of the encoder")
    if before.reference != after.reference:
        found.append("distances of held-out examples")
    maps = before.region_map, after.region_map
    if any(_differ(*(None if one is None else getattr(one, part.name) for one in maps)) for part in _map_parts()):
        found.append("map of the regions")
    return tuple(found)


def _map_parts() -> tuple[Field[Any], ...]:
    from mop.embeddings.region_map import RegionMap

    return fields(RegionMap)


def _differ(one: Any, other: Any) -> bool:
    return (one is None) != (other is None) or (one is not None and not np.array_equal(one, other))


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

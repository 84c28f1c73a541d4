"""The JSON of a mixture file: its schema, and the way from a Mixture to its text and back. Knows nothing of files.

The vectors are elsewhere; ``vectors_sha256`` binds them to this text. Reading believes nothing: names, types, ranges
and finite numbers are checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from mop.decoding import Decoding
from mop.drift import Reference
from mop.errors import ArtifactError
from mop.limits import Limits, Measure
from mop.mixture import EncoderRecord, Expert, Mixture
from mop.persona import Kind, Persona
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.embeddings.region_map import RegionMap

#: 2: mixtures that retrieve demos. 3: limits of routing, a map of the regions, what a fitted
#: encoder has learned, what held-out examples looked like (`reference`), personas of experts.
SCHEMA_VERSION = 3


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


class _Prompt(_Strict):
    instruction: str
    demos: list[tuple[str, str]]
    layout: Literal["chat", "block"]


class _Persona(_Strict):
    kind: Kind
    demos: bool
    text: str
    tried: Kind
    examples: int = Field(ge=0)
    gain: float
    gain_low: float
    gain_high: float
    name: str = ""

    @model_validator(mode="after")
    def _only_an_own_one_has_a_name(self) -> _Persona:
        if ("own" in (self.kind, self.tried)) != bool(self.name):
            raise ValueError(f"persona: the name {self.name!r} for {self.kind}, tried {self.tried}")
        return self

    @model_serializer(mode="wrap")
    def _without_an_empty_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A file without personas of the user's own is, byte for byte, what it was before there were any.
        return {name: value for name, value in fields(self).items() if (name, value) != ("name", "")}


class _Expert(_Strict):
    prompt: _Prompt
    size: int = Field(ge=0)
    validation: int = Field(ge=0)
    words: list[str]
    proposer: str
    score: float | None
    generalist_score: float | None
    gain: float
    gain_low: float
    gain_high: float
    fallback: bool
    persona: _Persona | None = None


class _Decoding(_Strict):
    max_tokens: int = Field(gt=0)
    stop: list[str]
    temperature: float = Field(ge=0)


class _Encoder(_Strict):
    name: str
    identity: str


class _Retrieval(_Strict):
    count: int = Field(ge=1)
    demos: list[tuple[str, str]] = Field(min_length=1)


class _Limits(_Strict):
    # JSON has no infinity; null is a region without a threshold.
    thresholds: list[Annotated[float, Field(ge=0)] | None]
    coverage: float | None = Field(gt=0, lt=1)
    measure: Measure
    margin: float | None = Field(ge=0)
    width: float | None = Field(gt=0)
    measured: dict[str, Any]


class _Map(_Strict):
    temperature: float = Field(ge=1e-12)
    regions: list[int]


class _Reference(_Strict):
    counts: list[Annotated[int, Field(ge=0, le=2**53)]]
    distances: list[list[Annotated[float, Field(ge=0)]]]


class Manifest(_Strict):
    """Everything of a mixture but its vectors."""

    schema_version: int = Field(ge=1, le=SCHEMA_VERSION, strict=True)
    model: str
    metric: str
    decoding: _Decoding
    encoder: _Encoder
    vectors_sha256: str
    generalist: _Prompt
    experts: list[_Expert] = Field(min_length=1)
    retrieval: _Retrieval | None = None
    limits: _Limits | None = None
    region_map: _Map | None = None
    reference: _Reference | None = None
    report: dict[str, Any]
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _limits_fit(self) -> Manifest:
        if self.limits is None:
            return self
        if len(self.limits.thresholds) != len(self.experts):
            raise ValueError(f"limits: {len(self.limits.thresholds)} thresholds for {len(self.experts)} experts")
        if self.retrieval is None and (self.limits.measure == "demo" or self.limits.margin is not None):
            raise ValueError("limits: they speak of retrieved demos, and the mixture retrieves none")
        return self

    @model_validator(mode="after")
    def _one_reference_for_each_expert(self) -> Manifest:
        found = self.reference
        if found is not None and not len(found.counts) == len(found.distances) == len(self.experts):
            raise ValueError("reference doesn't have an entry for each expert")
        return self


def _demos_out(demos: Sequence[Demo]) -> list[tuple[str, str]]:
    return [(demo.input, demo.output) for demo in demos]


def _demos_in(pairs: Sequence[tuple[str, str]]) -> tuple[Demo, ...]:
    return tuple(Demo(*pair) for pair in pairs)


def _prompt_out(prompt: Prompt) -> _Prompt:
    if prompt.retrieved:
        raise ValueError("a prompt shows demos that were retrieved for one query")
    return _Prompt(
        instruction=prompt.instruction,
        demos=_demos_out(prompt.demos),
        layout=prompt.layout,
    )


def _prompt_in(record: _Prompt) -> Prompt:
    return Prompt(record.instruction, _demos_in(record.demos), record.layout)


def _expert_out(expert: Expert) -> _Expert:
    return _Expert(
        prompt=_prompt_out(expert.prompt),
        size=expert.size,
        validation=expert.validation,
        words=list(expert.words),
        proposer=expert.proposer,
        score=expert.score,
        generalist_score=expert.generalist_score,
        gain=expert.gain,
        gain_low=expert.gain_low,
        gain_high=expert.gain_high,
        fallback=expert.fallback,
        persona=None if expert.persona is None else _Persona(**asdict(expert.persona)),
    )


def _expert_in(record: _Expert) -> Expert:
    fields = record.model_dump(exclude={"prompt", "words", "persona"})
    persona = None if record.persona is None else Persona(**record.persona.model_dump())
    return Expert(prompt=_prompt_in(record.prompt), words=tuple(record.words), persona=persona, **fields)


def _retrieval_out(retrieval: Retrieval | None) -> _Retrieval | None:
    return None if retrieval is None else _Retrieval(count=retrieval.count, demos=_demos_out(retrieval.demos))


def _retrieval_in(record: _Retrieval | None, arrays: Mapping[str, Vectors]) -> Retrieval | None:
    return None if record is None else Retrieval(_demos_in(record.demos), arrays["retrieved"], record.count)


def _limits_out(limits: Limits | None) -> _Limits | None:
    if limits is None:
        return None
    return _Limits(
        thresholds=[value if math.isfinite(value) else None for value in limits.thresholds],
        coverage=limits.coverage,
        measure=limits.measure,
        margin=limits.margin,
        width=limits.width,
        measured=dict(limits.measured),
    )


def _limits_in(record: _Limits | None) -> Limits | None:
    if record is None:
        return None
    fields = record.model_dump(exclude={"thresholds"})
    return Limits(tuple(math.inf if value is None else value for value in record.thresholds), **fields)


def _map_out(region_map: RegionMap | None) -> _Map | None:
    if region_map is None:
        return None
    return _Map(temperature=region_map.temperature, regions=region_map.regions.tolist())


def _map_in(record: _Map | None, arrays: Mapping[str, Vectors]) -> RegionMap | None:
    if record is None:
        return None
    from mop.embeddings.region_map import RegionMap

    sample = arrays.get("map_sample", np.zeros((0, 2), np.float32))
    regions = np.asarray(record.regions, np.intp)
    return RegionMap(arrays["map_places"], arrays["map_spread"], record.temperature, sample, regions)


def _reference_out(reference: Reference | None) -> _Reference | None:
    if reference is None:
        return None
    return _Reference(counts=list(reference.counts), distances=[list(found) for found in reference.distances])


def _reference_in(record: _Reference | None) -> Reference | None:
    return None if record is None else Reference(tuple(record.counts), tuple(map(tuple, record.distances)))


def manifest_text(mixture: Mixture, vectors_sha256: str) -> bytes:
    """Return the text for ``mixture``; raises ArtifactError if it holds what JSON cannot."""
    try:
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            model=mixture.model,
            metric=mixture.metric,
            decoding=_Decoding(
                max_tokens=mixture.decoding.max_tokens,
                stop=list(mixture.decoding.stop),
                temperature=mixture.decoding.temperature,
            ),
            encoder=_Encoder(name=mixture.encoder_record.name, identity=mixture.encoder_record.identity),
            vectors_sha256=vectors_sha256,
            generalist=_prompt_out(mixture.generalist),
            experts=[_expert_out(expert) for expert in mixture.experts],
            retrieval=_retrieval_out(mixture.retrieval),
            limits=_limits_out(mixture.limits),
            region_map=_map_out(mixture.region_map),
            reference=_reference_out(mixture.reference),
            report=dict(mixture.report),
            provenance=dict(mixture.provenance),
        )
        data = manifest.model_dump(mode="json")
        return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's and json's errors are ValueErrors
        raise ArtifactError(
            f"The mixture cannot be saved: {error}. Its report and provenance take plain values only."
        ) from error


def read_manifest(content: bytes, name: str) -> Manifest:
    """Return the checked content of the text; ``name`` is used in error messages. Raises ArtifactError."""
    try:
        data = json.loads(content.decode(), parse_constant=_finite, parse_float=_finite)
        # An escape can stand for half a character, which could never be sent to a model or written again.
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: its text isn't JSON ({error}).") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(f"{name} has schema version {version}; this mop reads up to {SCHEMA_VERSION}. Update mop.")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{name}: its JSON is not as expected: {where}: {first['msg']}.") from error


def mixture_of(manifest: Manifest, arrays: Mapping[str, Vectors]) -> Mixture:
    """Return the mixture with these arrays, named as in `mop.artifact`."""
    decoding = manifest.decoding
    return Mixture(
        experts=tuple(_expert_in(expert) for expert in manifest.experts),
        generalist=_prompt_in(manifest.generalist),
        centroids=arrays["centroids"],
        projection=arrays.get("projection"),
        retrieval=_retrieval_in(manifest.retrieval, arrays),
        limits=_limits_in(manifest.limits),
        region_map=_map_in(manifest.region_map, arrays),
        reference=_reference_in(manifest.reference),
        encoder_record=EncoderRecord(
            manifest.encoder.name, manifest.encoder.identity, arrays["probes"], arrays.get("encoder")
        ),
        model=manifest.model,
        decoding=Decoding(decoding.max_tokens, tuple(decoding.stop), decoding.temperature),
        metric=manifest.metric,
        report=manifest.report,
        provenance=manifest.provenance,
    )


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value

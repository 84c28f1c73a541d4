"""Gate files: a gate as ``gate.json`` (readable by hand) and ``gate.safetensors`` (its numbers), beside an adapter.

Reading believes nothing: names, shapes, types and finite numbers are checked, and the numbers must be those that the
JSON names by hash. No code is ever loaded. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mop.errors import ArtifactError
from mop.students.features import Features, Regions
from mop.students.gate import Gate, Linear

if TYPE_CHECKING:
    from mop.mixture import EncoderRecord

JSON, NUMBERS = "gate.json", "gate.safetensors"
SCHEMA_VERSION = 1
#: No gate is larger; a hostile file isn't read into memory whole.
MOST_BYTES = 64 * 1024 * 1024


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Encoder(_Strict):
    name: str
    identity: str


class _File(_Strict):
    schema_version: Literal[1]
    kind: Literal["learned", "table", "constant"]
    features: tuple[str, ...]
    constant: float = Field(ge=0, le=1)
    bias: float
    threshold: float = Field(ge=0, le=1)
    base: str
    base_sha256: str
    encoder: _Encoder | None
    numbers_sha256: str
    evidence: dict[str, Any]


class Stored(_Strict):
    """A gate's file as read: the gate, the base model it was trained for, and its regions if it looks at any."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)
    gate: Gate
    base: str
    base_sha256: str
    regions: tuple[Any, Any, Any] | None = None


def save_gate(gate: Gate, folder: Path, *, base: str, base_sha256: str, features: tuple[Features, ...] = ()) -> None:
    """Write ``gate`` into ``folder``; ``base`` names the model that it was trained for, ``features`` are those at hand.

    Of the features only regions hold something to keep: their encoder's name and their centroids.
    """
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    if gate.linear is not None:
        arrays |= {"mean": gate.linear.mean, "scale": gate.linear.scale, "weight": gate.linear.weight}
    if gate.table is not None:
        arrays["table"] = gate.table
    regions = next((one for one in features if isinstance(one, Regions) and one.name in gate.needs), None)
    if regions is not None:
        arrays |= {"centroids": regions.centroids, "probes": regions.record.probes}
        if regions.projection is not None:
            arrays["projection"] = regions.projection
        if regions.record.state is not None:
            arrays["encoder_state"] = regions.record.state
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    file = _File(
        schema_version=1,
        kind=gate.kind,
        features=gate.features,
        constant=gate.constant,
        bias=gate.linear.bias if gate.linear else 0.0,
        threshold=gate.threshold,
        base=base,
        base_sha256=base_sha256,
        encoder=None if regions is None else _Encoder(name=regions.record.name, identity=regions.record.identity),
        numbers_sha256=hashlib.sha256(content).hexdigest(),
        evidence=dict(gate.evidence),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NUMBERS).write_bytes(content)
    (folder / JSON).write_text(file.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_gate(folder: Path) -> Stored:
    """Return the gate in ``folder``. Raises ArtifactError if there is none, or if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        texts = {name: _read(folder / name) for name in (JSON, NUMBERS)}
        file = _File.model_validate(json.loads(texts[JSON]))
        arrays = load(texts[NUMBERS])
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder} has no {Path(error.filename).name}; give the folder of a gated adapter."
        ) from None
    except (OSError, ValueError, ValidationError, SafetensorError, RecursionError) as error:
        raise ArtifactError(f"The gate in {folder} is damaged: {str(error)[:300]}. Train it again.") from error
    if hashlib.sha256(texts[NUMBERS]).hexdigest() != file.numbers_sha256:
        raise ArtifactError(f"The numbers in {folder / NUMBERS} aren't those that {JSON} was written with.")
    _check(file, arrays, folder)
    linear = None
    if file.kind == "learned":
        linear = Linear(arrays["mean"], arrays["scale"], arrays["weight"], file.bias)
    regions = None
    if file.encoder is not None:
        record = _record(file.encoder, arrays)
        regions = (record, arrays["centroids"], arrays.get("projection"))
    gate = Gate(
        file.kind, file.features, linear, arrays.get("table"), file.constant, file.threshold, dict(file.evidence)
    )
    return Stored(gate=gate, base=file.base, base_sha256=file.base_sha256, regions=regions)


def regions_from(stored: Stored) -> Regions | None:
    """Return the regions that a stored gate looks at, with their encoder; None if it looks at none.

    Raises EncoderMismatch, or WeightsError if the encoder can't be had.
    """
    if stored.regions is None:
        return None
    from mop.encoding import resolve_recorded_encoder
    from mop.mixture import check_encoder

    record, centroids, projection = stored.regions
    encoder = resolve_recorded_encoder(record.name, state=record.state)
    check_encoder(record, encoder)
    return Regions(encoder, record, centroids, projection)


def _record(encoder: _Encoder, arrays: dict[str, Any]) -> EncoderRecord:
    from mop.mixture import EncoderRecord

    return EncoderRecord(encoder.name, encoder.identity, arrays["probes"], arrays.get("encoder_state"))


def _read(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than any gate")
    return path.read_bytes()


def _check(file: _File, arrays: dict[str, Any], folder: Path) -> None:
    """Raise ArtifactError unless the arrays are there, of the right shapes, and finite."""
    needed = {"learned": ["mean", "scale", "weight"], "table": ["table"], "constant": []}[file.kind]
    needed += ["centroids", "probes"] if file.encoder else []
    problems = [f"no {name}" for name in needed if name not in arrays]
    problems += [f"{name} isn't finite" for name, array in arrays.items() if not np.isfinite(array).all()]
    vectors = {name: arrays[name].shape for name in needed if name in arrays and name not in ("centroids", "probes")}
    if any(len(shape) != 1 for shape in vectors.values()) or len(set(vectors.values())) > 1:
        problems.append(f"shapes {vectors}")
    if "scale" in arrays and not (arrays["scale"] > 0).all():
        problems.append("scale isn't positive")
    if any(arrays[name].ndim != 2 for name in ("centroids", "probes", "projection") if name in arrays):
        problems.append("centroids aren't a matrix")
    looks_at_regions = file.kind == "table" or (file.kind == "learned" and "regions" in file.features)
    if looks_at_regions != (file.encoder is not None):
        problems.append("regions without their encoder, or the reverse")
    if not math.isfinite(file.bias):
        problems.append("bias isn't finite")
    if problems:
        raise ArtifactError(f"The gate in {folder} is damaged: {'; '.join(problems)}. Train it again.")

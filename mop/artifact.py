"""The mixture file: one zip with ``mixture.json`` (readable by hand) and ``vectors.safetensors``. Data only, no code.

The only module that knows the file format. Reading checks everything before it believes it: sizes before unpacking,
the schema, array shapes and values, and the hash that binds the vectors to the JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mop.decoding import Decoding
from mop.errors import ArtifactError
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors

SCHEMA_VERSION = 1
MANIFEST = "mixture.json"
VECTORS = "vectors.safetensors"
#: A file that unpacks to more than this isn't a mixture: 10,000 experts of 1,536 dimensions take 60 MB.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
#: JSON takes some twenty times its size in memory; 10,000 experts with 20 demos of 200 characters take 50 MB.
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Prompt(_Strict):
    instruction: str
    demos: list[tuple[str, str]]
    layout: Literal["chat", "block"]


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


class _Decoding(_Strict):
    max_tokens: int = Field(gt=0)
    stop: list[str]
    temperature: float = Field(ge=0)


class _Encoder(_Strict):
    name: str
    identity: str


class _Manifest(_Strict):
    schema_version: int = Field(ge=1, le=SCHEMA_VERSION, strict=True)
    model: str
    metric: str
    decoding: _Decoding
    encoder: _Encoder
    vectors_sha256: str
    generalist: _Prompt
    experts: list[_Expert] = Field(min_length=1)
    report: dict[str, Any]
    provenance: dict[str, Any]


def _prompt_out(prompt: Prompt) -> _Prompt:
    return _Prompt(
        instruction=prompt.instruction,
        demos=[(demo.input, demo.output) for demo in prompt.demos],
        layout=prompt.layout,
    )


def _prompt_in(record: _Prompt) -> Prompt:
    return Prompt(record.instruction, tuple(Demo(*pair) for pair in record.demos), record.layout)


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
    )


def _expert_in(record: _Expert) -> Expert:
    fields = record.model_dump(exclude={"prompt", "words"})
    return Expert(prompt=_prompt_in(record.prompt), words=tuple(record.words), **fields)


def to_bytes(mixture: Mixture) -> bytes:
    """Return the file's content. The same mixture always gives the same bytes.

    Raises ArtifactError for a mixture that `from_bytes` would refuse, such as one with values that aren't finite.
    """
    import io

    from safetensors.numpy import save as save_tensors

    arrays = {"centroids": mixture.centroids, "probes": mixture.encoder_record.probes}
    if mixture.projection is not None:
        arrays["projection"] = mixture.projection
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    _check_arrays(arrays, len(mixture.experts), "The mixture cannot be saved")
    vectors = save_tensors(arrays)
    text = _manifest_out(mixture, hashlib.sha256(vectors).hexdigest())
    if len(text) > MAX_MANIFEST_BYTES or len(text) + len(vectors) > MAX_UNPACKED_BYTES:
        raise ArtifactError(
            f"The mixture takes {len(text)} bytes of text and {len(vectors)} of vectors; a file holds at most "
            f"{MAX_MANIFEST_BYTES} and {MAX_UNPACKED_BYTES} in all. Learn it with fewer experts or demos."
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ((MANIFEST, text), (VECTORS, vectors)):
            # A fixed time stamp: the bytes depend on the content alone.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _manifest_out(mixture: Mixture, vectors_sha256: str) -> bytes:
    try:
        manifest = _Manifest(
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
            report=dict(mixture.report),
            provenance=dict(mixture.provenance),
        )
        data = manifest.model_dump(mode="json")
        return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's and json's errors are ValueErrors
        raise ArtifactError(
            f"The mixture cannot be saved: {error}. Its report and provenance take plain values only."
        ) from error


def save(mixture: Mixture, path: str | os.PathLike[str]) -> None:
    """Write the mixture to ``path``; a file that is there stays whole until the new one is complete on disk.

    Raises ArtifactError if the folder is missing or can't be written.
    """
    target = Path(path)
    content = to_bytes(mixture)
    # Not tempfile's, which only the owner may read whatever the umask says.
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        raise ArtifactError(f"The mixture cannot be written to {target}: {error}. Name another file.") from error


def load(path: str | os.PathLike[str]) -> Mixture:
    """Read a mixture. Nothing in the file is executed; raises ArtifactError for anything that isn't a whole mixture."""
    source = Path(path)
    try:
        with source.open("rb") as file:
            content = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The mixture {source} cannot be read: {error}. Learn one with `mop optimize`.") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise ArtifactError(f"{source} is larger than {MAX_UNPACKED_BYTES} bytes; it isn't a mixture.")
    return from_bytes(content, str(source))


def from_bytes(content: bytes, name: str = "the mixture") -> Mixture:
    """Read a mixture from the content of its file; ``name`` is used in error messages."""
    manifest_bytes, vector_bytes = _members(content, name)
    manifest = _manifest(manifest_bytes, name)
    if hashlib.sha256(vector_bytes).hexdigest() != manifest.vectors_sha256:
        raise ArtifactError(f"{name}: the vectors don't belong to this mixture (hash differs). Copy the file again.")
    arrays = _arrays(vector_bytes, len(manifest.experts), name)
    return Mixture(
        experts=tuple(_expert_in(expert) for expert in manifest.experts),
        generalist=_prompt_in(manifest.generalist),
        centroids=arrays["centroids"],
        projection=arrays.get("projection"),
        encoder_record=EncoderRecord(manifest.encoder.name, manifest.encoder.identity, arrays["probes"]),
        model=manifest.model,
        decoding=Decoding(manifest.decoding.max_tokens, tuple(manifest.decoding.stop), manifest.decoding.temperature),
        metric=manifest.metric,
        report=manifest.report,
        provenance=manifest.provenance,
    )


def _members(content: bytes, name: str) -> tuple[bytes, bytes]:
    import io

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sorted(archive.namelist()) != [MANIFEST, VECTORS]:
                raise ArtifactError(f"{name} isn't a mixture: expected {MANIFEST} and {VECTORS} inside, nothing else.")
            manifest, vectors = archive.getinfo(MANIFEST), archive.getinfo(VECTORS)
            for member in (manifest, vectors):
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ArtifactError(f"{name}: {member.filename} is compressed in a way that mop never uses.")
                if member.flag_bits & 1:
                    raise ArtifactError(f"{name} is encrypted, which a mixture never is.")
            if manifest.file_size > MAX_MANIFEST_BYTES:
                raise ArtifactError(f"{name}: {MANIFEST} would unpack to more than {MAX_MANIFEST_BYTES} bytes.")
            if manifest.file_size + vectors.file_size > MAX_UNPACKED_BYTES:
                raise ArtifactError(f"{name} would unpack to more than {MAX_UNPACKED_BYTES} bytes; it isn't a mixture.")
            return _unpacked(archive, manifest), _unpacked(archive, vectors)
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        IndexError,
        OSError,
        OverflowError,
        RuntimeError,  # NotImplementedError among them
        ValueError,
    ) as error:
        raise ArtifactError(
            f"{name} is damaged or isn't a mixture ({error}). Copy it again or learn it anew."
        ) from error


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    # A size is given to read(): without one, zipfile unpacks up to 2 GiB before it cuts to what the header claims.
    with archive.open(member) as file:
        return file.read(member.file_size + 1)


def _manifest(content: bytes, name: str) -> _Manifest:
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: {MANIFEST} isn't JSON ({error}).") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(f"{name} has schema version {version}; this mop reads up to {SCHEMA_VERSION}. Update mop.")
    try:
        return _Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{name}: {MANIFEST} is not as expected: {where}: {first['msg']}.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _arrays(content: bytes, experts: int, name: str) -> dict[str, Vectors]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name}: {VECTORS} is damaged ({error}).") from error
    _check_arrays(arrays, experts, name)
    return arrays


def _check_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], experts: int, name: str) -> None:
    expected = {"centroids", "probes"}
    if not expected <= set(arrays) <= {*expected, "projection"}:
        raise ArtifactError(f"{name}: {VECTORS} holds {sorted(arrays)}, expected {sorted(expected)}.")
    matrices = all(array.ndim == 2 and array.size and array.dtype == np.float32 for array in arrays.values())
    if not matrices or not _fit(arrays["centroids"], arrays["probes"], arrays.get("projection"), experts):
        shapes = {key: (array.shape, str(array.dtype)) for key, array in arrays.items()}
        raise ArtifactError(f"{name}: the vectors' shapes {shapes} don't fit its {experts} experts.")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtifactError(f"{name}: the vectors hold values that aren't finite numbers.")


def _fit(centroids: Vectors, probes: Vectors, projection: Vectors | None, experts: int) -> bool:
    dimension = probes.shape[1]
    routed = dimension if projection is None else projection.shape[1]
    return (
        centroids.shape == (experts, routed)
        and len(probes) == len(PROBES)
        and (projection is None or len(projection) == dimension + 1)
    )

"""The mixture file: one zip with ``mixture.json`` (readable by hand) and ``vectors.safetensors``. Data only, no code.

The only module that knows the file; `mop.manifest` knows the JSON in it. Reading checks everything before it believes
it: sizes before unpacking, the schema, array shapes and values, and the hash that binds the vectors to the JSON.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mop.errors import ArtifactError
from mop.manifest import manifest_text, mixture_of, read_manifest
from mop.mixture import PROBES, Mixture

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors

MANIFEST = "mixture.json"
VECTORS = "vectors.safetensors"
#: A file that unpacks to more than this isn't a mixture: 10,000 experts of 1,536 dimensions take 60 MB.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
#: What the disk says when nothing more goes onto it.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: JSON takes some twenty times its size in memory; 10,000 experts with 20 demos of 200 characters take 50 MB.
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


def to_bytes(mixture: Mixture) -> bytes:
    """Return the file's content. The same mixture always gives the same bytes.

    Raises ArtifactError for a mixture that `from_bytes` would refuse, such as one with values that aren't finite.
    """
    import io

    from safetensors.numpy import save as save_tensors

    arrays = {"centroids": mixture.centroids, "probes": mixture.encoder_record.probes}
    if mixture.projection is not None:
        arrays["projection"] = mixture.projection
    if mixture.retrieval is not None:
        arrays["retrieved"] = mixture.retrieval.vectors
    if mixture.encoder_record.state is not None:
        arrays["encoder"] = mixture.encoder_record.state
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    retrieved = 0 if mixture.retrieval is None else len(mixture.retrieval.demos)
    _check_arrays(arrays, len(mixture.experts), retrieved, "The mixture cannot be saved")
    vectors = save_tensors(arrays)
    text = manifest_text(mixture, hashlib.sha256(vectors).hexdigest())
    if len(text) > MAX_MANIFEST_BYTES or len(text) + len(vectors) > MAX_UNPACKED_BYTES:
        raise ArtifactError(
            f"The mixture takes {len(text)} bytes of text and {len(vectors)} of vectors; a file holds at most "
            f"{MAX_MANIFEST_BYTES} and {MAX_UNPACKED_BYTES} in all. "
            "Learn it with fewer experts or demos, or with retrieved = 0."
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ((MANIFEST, text), (VECTORS, vectors)):
            # A fixed time stamp: the bytes depend on the content alone.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


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
        if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        full = isinstance(error, OSError) and error.errno in _FULL
        advice = "Make room, or name a file on another disk" if full else "Name another file"
        raise ArtifactError(
            f"The mixture cannot be written to {target}: {error}. {advice}, and save again; after `mop optimize`, the "
            "same command again takes its calls from the ledger and pays for none twice."
        ) from error


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
    manifest = read_manifest(manifest_bytes, name)
    if hashlib.sha256(vector_bytes).hexdigest() != manifest.vectors_sha256:
        raise ArtifactError(f"{name}: the vectors don't belong to this mixture (hash differs). Copy the file again.")
    retrieved = 0 if manifest.retrieval is None else len(manifest.retrieval.demos)
    return mixture_of(manifest, _arrays(vector_bytes, len(manifest.experts), retrieved, name))


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


def _arrays(content: bytes, experts: int, retrieved: int, name: str) -> dict[str, Vectors]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name}: {VECTORS} is damaged ({error}).") from error
    _check_arrays(arrays, experts, retrieved, name)
    return arrays


def _check_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], experts: int, retrieved: int, name: str) -> None:
    expected = {"centroids", "probes", *(["retrieved"] if retrieved else [])}
    if not expected <= set(arrays) <= {*expected, "projection", "encoder"}:
        raise ArtifactError(f"{name}: {VECTORS} holds {sorted(arrays)}, expected {sorted(expected)}.")
    matrices = all(array.ndim == 2 and array.size and array.dtype == np.float32 for array in arrays.values())
    if not matrices or not _fit(arrays, experts, retrieved):
        shapes = {key: (array.shape, str(array.dtype)) for key, array in arrays.items()}
        raise ArtifactError(f"{name}: the vectors' shapes {shapes} don't fit its {experts} experts.")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtifactError(f"{name}: the vectors hold values that aren't finite numbers.")


def _fit(arrays: Mapping[str, Vectors], experts: int, retrieved: int) -> bool:
    probes, projection = arrays["probes"], arrays.get("projection")
    dimension = probes.shape[1]
    routed = dimension if projection is None else projection.shape[1]
    return (
        arrays["centroids"].shape == (experts, routed)
        and (not retrieved or arrays["retrieved"].shape == (retrieved, routed))
        and len(probes) == len(PROBES)
        and (projection is None or len(projection) == dimension + 1)
        and ("encoder" not in arrays or arrays["encoder"].shape == (1, dimension))
    )

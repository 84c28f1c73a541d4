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
from mop.remote import Remote, is_url, place_of

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors

MANIFEST = "mixture.json"
VECTORS = "vectors.safetensors"
#: A file that unpacks to more than this isn't a mixture: a million demos to retrieve, of 384 dimensions, take 770 MB.
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
#: More demos than this are kept with half the precision, which finds the same nearest ones (benchmarks/LOG.md, "Large
#: pools"); their index is approximate as well.
MANY_DEMOS = 20_000
#: What the disk says when nothing more goes onto it.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MOST_WORDS = 200
#: JSON takes some twenty times its size in memory; a million demos of 70 characters take 110 MB.
MAX_MANIFEST_BYTES = 128 * 1024 * 1024


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
    if (drawn := mixture.region_map) is not None:
        arrays |= {"map_places": drawn.places, "map_spread": drawn.spread}
        arrays |= {"map_sample": drawn.sample} if len(drawn.sample) else {}
    if mixture.encoder_record.state is not None:
        arrays["encoder"] = mixture.encoder_record.state
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    retrieved = 0 if mixture.retrieval is None else len(mixture.retrieval.demos)
    if retrieved > MANY_DEMOS:
        arrays["retrieved"] = arrays["retrieved"].astype(np.float16)
    mapped = None if mixture.region_map is None else mixture.region_map.regions.tolist()
    _check_arrays(arrays, len(mixture.experts), retrieved, mapped, "The mixture cannot be saved")
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
    """Read a mixture from a file or a URL (see `mop.remote`). Nothing in it is executed.

    Raises ArtifactError for anything that isn't a whole mixture.
    """
    place = place_of(path) if isinstance(path, str) and is_url(path) else Path(path)
    if isinstance(place, Remote):
        return from_bytes(place.read(), str(place))
    return from_bytes(read_file(place), str(place))


def read_file(source: Path) -> bytes:
    """Return the content of a mixture file; raises ArtifactError if it cannot be read, or is too large for one."""
    try:
        with source.open("rb") as file:
            content = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The mixture {source} cannot be read: {error}. Learn one with `mop optimize`.") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise ArtifactError(f"{source} is larger than {MAX_UNPACKED_BYTES} bytes; it isn't a mixture.")
    return content


def from_bytes(content: bytes, name: str = "the mixture") -> Mixture:
    """Read a mixture from the content of its file; ``name`` is used in error messages."""
    manifest_bytes, vector_bytes = _members(content, name)
    manifest = read_manifest(manifest_bytes, name)
    if hashlib.sha256(vector_bytes).hexdigest() != manifest.vectors_sha256:
        raise ArtifactError(f"{name}: the vectors don't belong to this mixture (hash differs). Copy the file again.")
    retrieved = 0 if manifest.retrieval is None else len(manifest.retrieval.demos)
    mapped = None if manifest.region_map is None else manifest.region_map.regions
    return mixture_of(manifest, _arrays(vector_bytes, len(manifest.experts), retrieved, mapped, name))


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
            _check_places(archive, manifest, vectors, name)
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


def _check_places(archive: zipfile.ZipFile, one: zipfile.ZipInfo, other: zipfile.ZipInfo, name: str) -> None:
    """Refuse members that share bytes with each other or with the zip's directory."""
    first, second = sorted((one, other), key=lambda member: member.header_offset)
    for member, end in ((first, second.header_offset), (second, archive.start_dir)):
        if member.header_offset + zipfile.sizeFileHeader + member.compress_size > end:  # type: ignore[attr-defined]
            raise ArtifactError(
                f"{name} is damaged: {member.filename} claims bytes that aren't its own. Copy it again."
            )


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    # A size is given to read(): without one, zipfile unpacks up to 2 GiB before it cuts to what the header claims.
    with archive.open(member) as file:
        return file.read(member.file_size + 1)


def _arrays(content: bytes, experts: int, retrieved: int, mapped: list[int] | None, name: str) -> dict[str, Vectors]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name}: {VECTORS} is damaged ({error}).") from error
    _check_arrays(arrays, experts, retrieved, mapped, name)
    return {key: np.asarray(array, np.float32) for key, array in arrays.items()}


def _check_arrays(
    arrays: Mapping[str, np.ndarray[Any, Any]], experts: int, retrieved: int, mapped: list[int] | None, name: str
) -> None:
    """Raise ArtifactError unless the arrays fit; ``mapped`` are the regions of the map's sample, if there is a map."""
    expected = {"centroids", "probes", *(["retrieved"] if retrieved else [])}
    if mapped is not None:
        expected |= {"map_places", "map_spread", *(["map_sample"] if mapped else [])}
    if not expected <= set(arrays) <= {*expected, "projection", "encoder"}:
        found = ", ".join(sorted(arrays))[:_MOST_WORDS]  # there may be any number of them
        raise ArtifactError(f"{name}: {VECTORS} holds {found or 'nothing'}; expected {', '.join(sorted(expected))}.")
    precise = {**arrays, **({"retrieved": arrays["centroids"]} if retrieved > MANY_DEMOS else {})}
    matrices = all(array.ndim == 2 and array.size for array in arrays.values())
    matrices = matrices and all(array.dtype == np.float32 for array in precise.values())
    matrices = matrices and arrays.get("retrieved", arrays["centroids"]).dtype in (np.float16, np.float32)
    if not matrices or not _fit(arrays, experts, retrieved) or not _map_fits(arrays, experts, mapped):
        shapes = {key: (array.shape, str(array.dtype)) for key, array in arrays.items()}
        raise ArtifactError(f"{name}: the vectors' shapes {shapes} don't fit its {experts} experts.")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtifactError(f"{name}: the vectors hold values that aren't finite numbers.")
    if mapped and not 0 <= min(mapped) <= max(mapped) < experts:
        raise ArtifactError(f"{name}: its map names regions that it doesn't have; there are {experts}.")


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


def _map_fits(arrays: Mapping[str, Vectors], experts: int, mapped: list[int] | None) -> bool:
    return mapped is None or (
        arrays["map_places"].shape == (experts, 2)
        and arrays["map_spread"].shape == (arrays["centroids"].shape[1], 2)
        and (not mapped or arrays["map_sample"].shape == (len(mapped), 2))
    )

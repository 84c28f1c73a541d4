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
from pathlib import Path

import numpy as np

from mop.arrays import MANY_DEMOS, MOST_HEADER_BYTES, Wanted, check_arrays, check_header, read_arrays
from mop.errors import ArtifactError
from mop.manifest import manifest_text, mixture_of, read_manifest
from mop.mixture import Mixture
from mop.remote import Remote, is_url, place_of

MANIFEST = "mixture.json"
VECTORS = "vectors.safetensors"
#: A file that unpacks to more than this isn't a mixture: a million demos to retrieve, of 384 dimensions, take 770 MB.
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
#: What the disk says when nothing more goes onto it.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
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
    check_arrays(arrays, Wanted(len(mixture.experts), retrieved, mapped), "The mixture cannot be saved")
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
    manifest = read_manifest(_member(content, MANIFEST, name), name)
    retrieved = 0 if manifest.retrieval is None else len(manifest.retrieval.demos)
    mapped = None if manifest.region_map is None else manifest.region_map.regions
    wanted = Wanted(len(manifest.experts), retrieved, mapped)
    # What the vectors' first bytes say of the others must fit before these are unpacked: zeros take next to no room.
    check_header(_member(content, VECTORS, name, MOST_HEADER_BYTES), wanted, name)
    vector_bytes = _member(content, VECTORS, name)
    if hashlib.sha256(vector_bytes).hexdigest() != manifest.vectors_sha256:
        raise ArtifactError(f"{name}: the vectors don't belong to this mixture (hash differs). Copy the file again.")
    return mixture_of(manifest, read_arrays(vector_bytes, wanted, name))


def _member(content: bytes, wanted: str, name: str, most: int | None = None) -> bytes:
    """Return what one member holds, or its first bytes; raises ArtifactError unless the zip is as mop makes it."""
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
            member = archive.getinfo(wanted)
            # A size is given to read(): without one, zipfile unpacks up to 2 GiB before it cuts to what the header
            # claims.
            with archive.open(member) as file:
                return file.read(member.file_size + 1 if most is None else most)
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

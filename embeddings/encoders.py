"""Encoders turn texts into unit vectors. Knows nothing of what the vectors are used for.

Every encoder has an ``identity`` that names it and its weights; vectors of two identities are never comparable.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mop.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def identity(self) -> str:
        """Name and content hash of the encoder, e.g. ``sentence-transformers:local/all-minilm-l6-v2@53aa5117``."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one unit-norm row per text: float32, shape (len(texts), dimension)."""


class SentenceTransformerEncoder:
    """A sentence-transformers model from a folder of weights, or by its Hugging Face name."""

    def __init__(self, path: str | Path, *, name: str | None = None, batch_size: int = 64) -> None:
        self._path = Path(path)
        self._name = name or str(path)
        self._batch_size = batch_size
        self._model: SentenceTransformer | None = None
        self._weights_hash: str | None = None

    @property
    def identity(self) -> str:
        """The name and the hash of the weights."""
        if self._weights_hash is None:
            self._weights_hash = _hash_of_weights(self._path)
        return f"sentence-transformers:{self._name}@{self._weights_hash}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode on the CPU; loads the model the first time."""
        if self._model is None:
            self._model = _load_sentence_transformer(str(self._path))
        if not texts:
            return np.empty((0, self._model.get_embedding_dimension() or 0), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


class EndpointEncoder:
    """An OpenAI-compatible embeddings endpoint.

    ``embed`` maps a list of texts to a list of vectors; `mop.lm.client` has one with retries and key handling.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Sequence[Sequence[float]]], *, name: str) -> None:
        self._embed = embed
        self._name = name

    @property
    def identity(self) -> str:
        """The name of the endpoint's model; its weights are not ours to see."""
        return f"endpoint:{self._name}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Ask the endpoint and scale to unit norm; without texts the dimension isn't known, and is given as 0.

        Raises ModelError if what the endpoint gives isn't one vector of finite numbers for each text.
        """
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        rows = self._embed(texts)
        if len(rows) != len(texts) or len({len(row) for row in rows}) != 1:
            raise ModelError(
                f"{self.identity} gave {len(rows)} vectors of {sorted({len(row) for row in rows})} numbers for "
                f"{len(texts)} texts; expected one for each, all of one length. Check that the model embeds texts."
            )
        vectors = np.asarray(rows, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            raise ModelError(f"{self.identity} gave a vector with values that aren't finite. Ask again, or change it.")
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


class VectorStore(Protocol):
    """A durable store of vectors, keyed by encoder and text hash; the ledger is one."""

    def get_vectors(self, encoder: str, keys: Sequence[str]) -> dict[str, Vectors]:
        """Return the stored vectors among ``keys``."""

    def put_vectors(self, encoder: str, vectors: dict[str, Vectors]) -> None:
        """Store vectors by key."""


class CachedEncoder:
    """An encoder that asks ``store`` first, by the content of each text, and encodes only what isn't there."""

    def __init__(self, encoder: Encoder, store: VectorStore) -> None:
        self._encoder = encoder
        self._store = store

    @property
    def identity(self) -> str:
        """The identity of the encoder behind the cache."""
        return self._encoder.identity

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return known vectors from the store and encode the rest."""
        if not texts:
            return self._encoder.encode(texts)
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        known = self._store.get_vectors(self.identity, list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            fresh = dict(zip(missing, self._encoder.encode(list(missing.values())), strict=True))
            self._store.put_vectors(self.identity, fresh)
            known = {**known, **fresh}
        return np.stack([known[key] for key in keys]).astype(np.float32, copy=False)


def _load_sentence_transformer(path: str) -> SentenceTransformer:
    # Progress bars of the weight loader would run through the command line's own.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(path, device="cpu")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise SettingsError(
            f"The encoder {path!r} cannot be loaded ({error}). Give a folder with a sentence-transformers model, "
            "a model name that can be downloaded, or run `mop models pull local/all-minilm-l6-v2`."
        ) from error


def _hash_of_weights(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of the weights, or ``hub`` for a model known by name only.

    Several files of weights (shards, a dense layer) have the hash of their names and hashes.
    """
    files = sorted(file for kind in ("*.safetensors", "*.bin") for file in path.rglob(kind)) if path.is_dir() else []
    hashes = [_hash_of_file(file) for file in files]
    if not hashes:
        return "hub"
    if len(hashes) == 1:
        return hashes[0][:16]
    lines = [f"{file.relative_to(path).as_posix()} {digest}\n" for file, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _hash_of_file(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

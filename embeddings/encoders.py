"""Encoders turn texts into unit vectors. Knows nothing of what the vectors are used for.

Every encoder has an ``identity`` that names it and its weights; vectors of two identities are never comparable.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mop.errors import SettingsError

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
        if self._weights_hash is None:
            self._weights_hash = _hash_of_weights(self._path)
        return f"sentence-transformers:{self._name}@{self._weights_hash}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        if self._model is None:
            self._model = _load_sentence_transformer(str(self._path))
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
        return f"endpoint:{self._name}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = np.asarray(self._embed(texts), dtype=np.float32)
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


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
        return self._encoder.identity

    def encode(self, texts: Sequence[str]) -> Vectors:
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
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return SentenceTransformer(path, device="cpu")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The encoder {path!r} cannot be loaded ({error}). Give a folder with a sentence-transformers model, "
            "a model name that can be downloaded, or run `mop models pull local/all-minilm-l6-v2`."
        ) from error


def _hash_of_weights(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of the weights, or ``hub`` for a model known by name only."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            digest: Any = hashlib.sha256()
            with (path / name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            return str(digest.hexdigest()[:16])
    return "hub"

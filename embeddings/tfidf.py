"""TF-IDF: an encoder without a model, the control that shows what a learned one is worth. Knows no meaning of words.

Words are hashed into a fixed number of signed places, so that the whole state is one number for each place: how rare
its words are in the texts that the encoder was fitted on.

>>> encoder = TfidfEncoder.fit(["my card is lost", "my parcel is lost"])
>>> vectors = encoder.encode(["a card", "the card", "a parcel"])
>>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mop.embeddings.encoders import Vectors

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

#: The encoder's name in settings and files.
NAME = "tfidf"
#: Places that words are hashed into.
DIMENSION = 1024


class TfidfEncoder:
    """Hashed words, weighted by how rare they are.

    Args:
        state: Inverse document frequency of each place: float32, shape (1, dimension).
    """

    def __init__(self, state: Vectors) -> None:
        self.state = np.ascontiguousarray(state, np.float32)

    @classmethod
    def fit(cls, texts: Sequence[str], dimension: int = DIMENSION) -> TfidfEncoder:
        """Return the encoder whose weights are those of ``texts``: log((1 + texts) / (1 + texts with it)) + 1."""
        plain = cls(np.ones((1, dimension), np.float32))
        present = np.asarray((plain._counts(texts) != 0).sum(axis=0), dtype=np.float64)
        weights = np.log((1 + len(texts)) / (1 + present)) + 1
        return cls(weights.reshape(1, -1).astype(np.float32))

    @property
    def identity(self) -> str:
        """The dimension and the hash of the weights."""
        return f"{NAME}:{self.state.shape[1]}@{hashlib.sha256(self.state.tobytes()).hexdigest()[:16]}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one unit-norm row for each text; a text without words lies in the direction of the first place."""
        rows = self._counts(texts) * self.state.astype(np.float64)
        rows[~rows.any(axis=1), 0] = 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def _counts(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.state.shape[1]), np.float32)
        return np.asarray(self._vectorizer.transform(list(texts)).toarray(), np.float32)

    @cached_property
    def _vectorizer(self) -> HashingVectorizer:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(n_features=self.state.shape[1], norm=None, token_pattern=r"(?u)\b\w+\b")

"""Soft prompts: a few numbers become the embeddings of a few tokens by a fixed random projection.

InstructZero, arXiv 2306.03082, section 2.2: the entries of the matrix are uniform in [-1, 1]. Knows no model.

>>> SoftPrompt((0.5, -1.0), tokens=3).vectors(width=8).shape
(3, 8)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.seeds import stream


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """A point of the latent space: numbers in [-1, 1], how many tokens they stand for, and the matrix's seed."""

    latent: tuple[float, ...]
    tokens: int = 5
    seed: int = 0

    def vectors(self, width: int) -> NDArray[np.float32]:
        """Return the embeddings, shape (tokens, width): the latent times the random matrix of this seed."""
        shape = (len(self.latent), self.tokens * width)
        matrix = stream(self.seed, "soft prompt matrix", *shape).uniform(-1, 1, shape)
        return np.asarray(np.asarray(self.latent) @ matrix, dtype=np.float32).reshape(self.tokens, width)

"""Instruction-coupled kernel (InstructZero, arXiv 2306.03082, section 3.2): soft prompts are alike as their
instructions' answers are. Knows nothing of how instructions are written or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gpytorch
import numpy as np
import torch
from numpy.typing import NDArray

#: Added to the diagonal of the latent kernel's matrix, so that latents that are nearly the same can be told apart.
JITTER = 1e-6


def answer_similarity(answers: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return the share of examples on which two instructions have the same answer, for every two (equation 8).

    Answers are the same but for case, spaces and a full stop at the end (the paper names exact match, F1 and BLEU).
    Equality makes the matrix positive semi-definite, which F1 does not.

    Args:
        answers: For each of m instructions its answers on the same examples.

    Returns:
        Shape (m, m), symmetric, ones on the diagonal.
    """
    texts = [[" ".join(answer.casefold().split()).rstrip(".") for answer in row] for row in answers]
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in zip(*texts, strict=True)], axis=1)
    return np.asarray((codes[:, None, :] == codes[None, :, :]).mean(axis=2), dtype=np.float64)


class CoupledKernel(gpytorch.kernels.Kernel):  # type: ignore[misc]
    """k(p, q) = l(p)ᵀ L⁻¹ S L⁻¹ l(q) (equation 9); on the observed latents it is S itself.

    l(p) holds the latent kernel's values between p and the m observed latents, L its matrix among these, and S the
    similarity of their instructions. S doesn't depend on the latent kernel, so neither does the likelihood of the
    observed scores: the latent kernel's lengthscale has to be chosen beforehand, and is frozen here.

    Args:
        latent_kernel: l, a fitted GPyTorch kernel over latents.
        latents: The observed latents, shape (m, d), 64-bit floats.
        similarity: S, shape (m, m), symmetric and positive semi-definite but for rounding.
    """

    latents: torch.Tensor
    weights: torch.Tensor

    def __init__(self, latent_kernel: Any, latents: torch.Tensor, similarity: torch.Tensor) -> None:
        super().__init__()
        self.latent_kernel = latent_kernel.requires_grad_(False)
        with torch.no_grad():
            matrix = latent_kernel(latents).to_dense()
            lower = torch.linalg.cholesky(matrix + JITTER * torch.eye(len(latents), dtype=matrix.dtype))
            values, vectors = torch.linalg.eigh(similarity)
            # S = F Fᵀ, so that k = (l L⁻¹ F)(l L⁻¹ F)ᵀ is symmetric and positive semi-definite also after rounding.
            root = vectors * values.clamp_min(0).sqrt()
            self.register_buffer("weights", torch.cholesky_solve(root, lower))
        self.register_buffer("latents", latents)

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, diag: bool = False, **_: Any) -> torch.Tensor:
        """Return k between the rows of ``x1`` (…, n, d) and ``x2`` (…, k, d): (…, n, k), or the diagonal (…, n)."""
        left, right = self._features(x1), self._features(x2)
        return (left * right).sum(-1) if diag else left @ right.transpose(-1, -2)

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.latent_kernel(x, self.latents).to_dense() @ self.weights
        return features

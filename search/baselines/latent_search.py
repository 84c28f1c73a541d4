"""Bayesian optimization over soft-prompt latents (InstructZero, arXiv 2306.03082, section 3): which to try next.

A Gaussian process with the instruction-coupled kernel is fitted to the scores (equations 4 and 5); the latents with
the largest expected improvement (equation 6) come next, as many as a round tries. Knows nothing of language models.

Three differences from the paper's code. The start is spread over the whole cube and not over its positive corner.
Expected improvement is climbed by gradients from many starting points (BoTorch) instead of CMA-ES. The lengthscale of
the latent kernel is that of a plain Gaussian process on the same scores: the coupled one's likelihood doesn't depend on
it, so there it stays at its prior's mode, where latents are too far apart to tell anything of each other.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from botorch.optim.optimize import optimize_acqf
from gpytorch.kernels import ScaleKernel
from gpytorch.means import ZeroMean
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.warnings import NumericalWarning
from numpy.typing import NDArray
from scipy.stats import qmc

from mop.search.baselines.coupled_kernel import CoupledKernel
from mop.seeds import stream

Latents = NDArray[np.float64]

#: Starting points for expected improvement: spread over the cube, around the best latents, and of these the climbed.
SPREAD, BEST, AROUND, CLIMBED = 512, 4, 64, 8
#: Standard deviation of the points around a good latent, and least distance of two latents, in edges of the cube.
STEP, APART = 0.15, 0.02


def sobol(count: int, dimension: int, seed: int, *names: str | int) -> Latents:
    """Return ``count`` scrambled Sobol points in [-1, 1]^dimension."""
    sampler = qmc.Sobol(dimension, rng=stream(seed, "sobol", *names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about counts that are no power of two
        return np.asarray(2 * sampler.random(count) - 1, dtype=np.float64)


def suggest(
    latents: Latents, scores: NDArray[np.float64], similarity: NDArray[np.float64], count: int, seed: int
) -> Latents:
    """Return the latents to try next.

    Args:
        latents: Those tried, shape (m, d), in [-1, 1].
        scores: Their instructions' mean scores, shape (m,).
        similarity: Of their instructions, shape (m, m); see `mop.search.baselines.coupled_kernel`.
        count: How many to return.
        seed: Seed of the starting points; the same arguments give the same latents.

    Returns:
        Shape (count, d), in [-1, 1], different from each other and from those tried.
    """
    dimension = latents.shape[1]
    cube = (latents + 1) / 2
    spread = (sobol(SPREAD, dimension, seed, "spread", len(latents)) + 1) / 2
    if np.ptp(scores) < 1e-9:  # nothing to learn from: look elsewhere
        return 2 * _apart(spread, cube, count) - 1
    with warnings.catch_warnings():
        # Small cubes of data give these often; a fit that fails is an error all the same.
        for category in (BotorchWarning, NumericalWarning):
            warnings.simplefilter("ignore", category)
        better = _improving(cube, scores, similarity, spread, seed)
    return 2 * _apart(np.concatenate([better, spread]), cube, count) - 1


def _improving(
    cube: Latents, scores: NDArray[np.float64], similarity: NDArray[np.float64], spread: Latents, seed: int
) -> Latents:
    """Return points of the unit cube by falling expected improvement."""
    x = torch.as_tensor(cube, dtype=torch.float64)
    y = torch.as_tensor((scores - scores.mean()) / scores.std(), dtype=torch.float64)[:, None]
    improvement = LogExpectedImprovement(fit(x, y, torch.as_tensor(similarity, dtype=torch.float64)), y.max())
    generator = stream(seed, "around the best", len(cube))
    best = cube[np.argsort(-scores, kind="stable")[:BEST]]
    around = best[:, None, :] + generator.normal(0, STEP, (len(best), AROUND, cube.shape[1]))
    starts = torch.as_tensor(np.concatenate([np.clip(around, 0, 1).reshape(-1, cube.shape[1]), spread]))[:, None, :]
    with torch.no_grad():
        order = torch.argsort(improvement(starts), descending=True, stable=True)
    bounds = torch.stack([torch.zeros_like(x[0]), torch.ones_like(x[0])])
    climbed, _ = optimize_acqf(
        improvement,
        bounds=bounds,
        q=1,
        num_restarts=CLIMBED,
        batch_initial_conditions=starts[order[:CLIMBED]],
        return_best_only=False,
        retry_on_optimization_warning=False,
        options={"maxiter": 40},
    )
    with torch.no_grad():
        tops = climbed[torch.argsort(improvement(climbed), descending=True, stable=True), 0]
    return np.concatenate([tops.numpy(), starts[order, 0].numpy()])


def fit(x: torch.Tensor, y: torch.Tensor, similarity: torch.Tensor) -> SingleTaskGP:
    """Return the Gaussian process of standardized scores ``y`` (m, 1) at ``x`` (m, d), in the unit cube."""
    latent_kernel = get_covar_module_with_dim_scaled_prior(ard_num_dims=x.shape[1], use_rbf_kernel=False)
    plain = SingleTaskGP(x, y, covar_module=ScaleKernel(latent_kernel), mean_module=ZeroMean(), outcome_transform=None)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(plain.likelihood, plain))
    coupled = ScaleKernel(CoupledKernel(latent_kernel, x, similarity))
    model = SingleTaskGP(x, y, covar_module=coupled, mean_module=ZeroMean(), outcome_transform=None)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _apart(points: Latents, taken: Latents, count: int) -> Latents:
    """Return the first ``count`` of ``points`` that are far enough from ``taken`` and from each other."""
    chosen: list[Latents] = []
    for point in points:
        others = np.vstack([taken, *chosen])
        if np.abs(others - point).max(axis=1).min() > APART:
            chosen.append(point)
            if len(chosen) == count:
                break
    return np.stack(chosen)

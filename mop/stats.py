"""Statistics of scores: intervals, paired comparisons, bounds for racing, shrinkage. Knows nothing of prompts.

Scores are from 0 to 1, one per example; a difference of two systems on the same example is from -1 to 1. Everything
is deterministic: resampling draws from its own fixed stream.

>>> proportion_interval(np.array([1, 1, 0, 1]))
Interval(low=0.30064184258304814, high=0.9544127391902995)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from mop.errors import DataError, SettingsError
from mop.seeds import stream

_Array = NDArray[np.float64]
_RESAMPLES = 10_000
_CHUNK = 2**21  # resampled values held at once: 16 MiB
#: Fewest values for which resampling is trusted; below, the interval is one that holds at every n.
_FEWEST_FOR_BOOTSTRAP = 20
#: Most differences other than zero for which every assignment of signs is tried: 2**14 of them.
_MOST_FOR_EXACT_SIGNS = 14


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much higher system a scores than system b on the same ``n`` examples.

    ``mean`` is the mean difference a - b with its interval; ``p_value`` is two-sided, for "no difference"; ``wins``
    counts the examples on which a scores higher.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int
    n: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A group's mean after shrinkage, with its interval; ``weight`` is how much of it is the group's own mean."""

    mean: float
    low: float
    high: float
    weight: float


def proportion_interval(scores: ArrayLike, level: float = 0.95) -> Interval:
    """Return the confidence interval of the mean of ``scores``.

    For scores of 0 and 1 it is Wilson's score interval (Wilson 1927). Otherwise it is the BCa bootstrap interval of
    the mean (Efron 1987; 10,000 resamples); with fewer than 20 scores, or all of them equal, where a bootstrap is too
    short or has no width, it is the two-sided form of `lower_bound`, which holds at every n.

    Args:
        scores: Shape (n,), from 0 to 1, n at least 1.
        level: Confidence level, between 0 and 1.

    Raises:
        DataError: There are no scores, or one isn't a number from 0 to 1.
        SettingsError: The level isn't between 0 and 1.
    """
    values = _checked(scores, 0.0, "scores")
    _check_level(level)
    if _is_binary(values):
        return _wilson(float(values.mean()), values.size, level)
    return _bounded_mean_interval(values, level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Compare the scores of two systems on the same examples.

    For scores of 0 and 1 the interval is Newcombe's square-and-add of two Wilson intervals, with the correlation of
    the pairs (Newcombe 1998, Statistics in Medicine 17:2635, method 10), and the p-value is that of the exact McNemar
    test (a binomial test on the examples where the systems differ). Otherwise the interval is the one of
    `proportion_interval` for the differences, and the p-value is that of the sign-flip permutation test: every
    assignment of signs up to 14 differences other than zero, 10,000 random ones beyond.

    Swapping a and b negates the mean and the interval, and leaves the p-value.

    Args:
        a: Scores of the first system, shape (n,), from 0 to 1, n at least 1.
        b: Scores of the second system on the same examples in the same order, shape (n,).
        level: Confidence level, between 0 and 1.

    Raises:
        DataError: There are no scores, the lengths differ, or a score isn't a number from 0 to 1.
        SettingsError: The level isn't between 0 and 1.
    """
    first, second = _checked(a, 0.0, "scores"), _checked(b, 0.0, "scores")
    _check_level(level)
    if first.size != second.size:
        raise DataError(
            f"A paired comparison needs both systems' scores on the same examples, but there are {first.size} and "
            f"{second.size}. Score both on all examples, or drop those that one of them lacks."
        )
    differences = first - second
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if _is_binary(first) and _is_binary(second):
        interval = _newcombe(first, second, level)
        p_value = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    else:
        scaled = _bounded_mean_interval((differences + 1) / 2, level)
        interval = Interval(2 * scaled.low - 1, 2 * scaled.high - 1)
        p_value = _sign_flip_p_value(differences)
    mean = float(differences.mean())
    ties = first.size - wins - losses
    return PairedDifference(
        mean, min(interval.low, mean), max(interval.high, mean), p_value, wins, losses, ties, first.size
    )


def lower_bound(differences: ArrayLike, confidence: float) -> float:
    """Return a one-sided lower confidence bound of the mean of differences from -1 to 1.

    Made for racing: it holds at every n, and at all n at once (looking again after each example does not weaken it),
    without any assumption on the distribution but the bounds. It is the smallest mean that betting fails to refute
    (Waudby-Smith & Ramdas 2024, JRSS-B 86:1): a player puts the share c of the wealth on "the mean is above m", so
    with x = (1 + difference) / 2 and m scaled alike the wealth is multiplied by 1 - c + c x / m per example. Averaged
    over c by the arcsine prior (Cover's universal portfolio; Orabona & Jun 2024, IEEE Trans. Inf. Theory 70:1), the
    wealth passes 1 / (1 - confidence) with at most that probability if the mean is m or less.

    Args:
        differences: Shape (n,), n at least 1.
        confidence: Between 0 and 1.

    Raises:
        DataError: There are no differences, or one isn't a number from -1 to 1.
        SettingsError: The confidence isn't between 0 and 1.
    """
    values = _checked(differences, -1.0, "differences")
    _check_level(confidence)
    return 2 * _betting_bound((values + 1) / 2, 1 - confidence) - 1


def shrink(groups: Sequence[ArrayLike], prior_mean: float | None = None, level: float = 0.95) -> list[Shrunk]:
    """Shrink the means of groups toward a common mean, the more the less a group's own mean is known.

    Empirical Bayes for the normal model: group mean ~ N(own mean, v / n), own mean ~ N(common mean, t). The variance
    within groups v is pooled over them, with one more observation of variance 1/4 (that of a fair coin), so that a
    few equal values don't pass for certainty. The variance between groups t is the method-of-moments estimate of
    DerSimonian & Laird (1986), at least 0; the common mean is their weighted mean, or ``prior_mean``. A group keeps
    the weight t / (t + v / n) of its own mean, and the interval has the variance t (1 - weight) +
    (1 - weight)^2 Var(common mean) (Morris 1983, JASA 78:47, without his correction for the estimation of t: with
    few groups it is somewhat short, and a given ``prior_mean`` counts as known).

    Args:
        groups: One array of values per group, each of shape (n_g,); a group may be empty and is then the prior.
        prior_mean: Mean to shrink toward; by default it is estimated from all groups.
        level: Confidence level of the intervals, between 0 and 1.

    Returns:
        One result per group, in order. Intervals are not cut at the bounds of the values.

    Raises:
        DataError: All groups are empty and no ``prior_mean`` is given, or a value isn't finite.
        SettingsError: The level isn't between 0 and 1.
    """
    _check_level(level)
    values = [_checked(group, -math.inf, "values", allow_empty=True) for group in groups]
    sizes = np.array([group.size for group in values])
    if prior_mean is None and not sizes.any():
        raise DataError(
            "Shrinkage needs at least one value in one group, but all groups are empty. "
            "Give prior_mean to get the prior for each group."
        )
    filled = [group for group in values if group.size]
    means = np.array([group.mean() for group in filled])
    within = (sum(group.var() * group.size for group in filled) + 0.25) / (sizes.sum() - len(filled) + 1)
    precisions = sizes[sizes > 0] / within
    common, variance_of_common, between = _random_effects(means, precisions, prior_mean)

    own = np.full(len(values), common)
    own[sizes > 0] = means
    weights = between * sizes / (between * sizes + within)
    centres = weights * own + (1 - weights) * common
    variances = between * (1 - weights) + (1 - weights) ** 2 * variance_of_common
    halves = stats.norm.ppf((1 + level) / 2) * np.sqrt(variances)
    return [
        Shrunk(float(centre), float(centre - half), float(centre + half), float(weight))
        for centre, half, weight in zip(centres, halves, weights, strict=True)
    ]


def _random_effects(means: _Array, precisions: _Array, prior_mean: float | None) -> tuple[float, float, float]:
    """Return the common mean, its variance and the variance between groups (DerSimonian & Laird)."""
    if not means.size:
        assert prior_mean is not None
        return prior_mean, 0.0, 0.0
    total = precisions.sum()
    centre = (precisions @ means) / total if prior_mean is None else prior_mean
    excess = float(precisions @ (means - centre) ** 2)
    if prior_mean is None:
        excess, scale = excess - (means.size - 1), total - (precisions**2).sum() / total
    else:
        excess, scale = excess - means.size, total
    between = max(0.0, excess / scale) if means.size > 1 or prior_mean is not None else 0.0
    if prior_mean is not None:
        return prior_mean, 0.0, between
    shares = 1 / (between + 1 / precisions)
    return float(shares @ means / shares.sum()), float(1 / shares.sum()), between


def _wilson(mean: float, n: int, level: float) -> Interval:
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half)))


def _newcombe(a: _Array, b: _Array, level: float) -> Interval:
    n = a.size
    both, only_a, only_b = float(a @ b), float(a @ (1 - b)), float((1 - a) @ b)
    neither = n - both - only_a - only_b
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    cross = both * neither - only_a * only_b
    corrected = max(cross - n / 2, 0.0) if cross > 0 else cross
    correlation = corrected / math.sqrt(margins) if margins else 0.0
    p, q = float(a.mean()), float(b.mean())
    of_p, of_q = _wilson(p, n, level), _wilson(q, n, level)

    def reach(u: float, v: float) -> float:
        return math.sqrt(max(0.0, u * u - 2 * correlation * u * v + v * v))

    return Interval(
        max(-1.0, p - q - reach(p - of_p.low, of_q.high - q)),
        min(1.0, p - q + reach(of_p.high - p, q - of_q.low)),
    )


def _bounded_mean_interval(values: _Array, level: float) -> Interval:
    """Return the interval of the mean of values from 0 to 1 that aren't only 0 and 1."""
    if values.size < _FEWEST_FOR_BOOTSTRAP or np.ptp(values) < 1e-12:
        error = (1 - level) / 2
        return Interval(_betting_bound(values, error), 1 - _betting_bound(1 - values, error))
    return _bca(values, level)


def _bca(values: _Array, level: float) -> Interval:
    mean = float(values.mean())
    rng = stream(0, "stats", "bootstrap", values.size)
    resampled = np.concatenate(
        [values[rng.integers(values.size, size=(rows, values.size))].mean(axis=1) for rows in _chunks(values.size)]
    )
    below = float(np.mean(resampled < mean) + np.mean(resampled == mean) / 2)
    bias = stats.norm.ppf(np.clip(below, 1 / _RESAMPLES, 1 - 1 / _RESAMPLES))
    # The jackknife's influence values of a mean are the centred values themselves.
    centred = values - mean
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(resampled, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return Interval(min(mean, float(low)), max(mean, float(high)))


def _sign_flip_p_value(differences: _Array) -> float:
    sizes = np.abs(differences[differences != 0])
    if not sizes.size:
        return 1.0
    # Equal sums in another order can differ in the last bit, and must count as equal.
    observed = abs(differences.sum()) - 1e-9
    if sizes.size <= _MOST_FOR_EXACT_SIGNS:
        bits = np.arange(2**sizes.size)[:, None] >> np.arange(sizes.size) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ sizes) >= observed))
    rng = stream(0, "stats", "sign-flip", sizes.size)
    extreme = sum(
        int((np.abs((2 * rng.integers(2, size=(rows, sizes.size)) - 1) @ sizes) >= observed).sum())
        for rows in _chunks(sizes.size)
    )
    return (extreme + 1) / (_RESAMPLES + 1)


def _betting_bound(values: _Array, error: float, nodes: int = 64) -> float:
    """Return the smallest mean of values from 0 to 1 that the universal portfolio doesn't refute at ``error``."""
    mean = float(values.mean())
    if mean <= 0.0:
        return 0.0
    # Gauss-Chebyshev nodes: equal weights on them are the arcsine prior on [0, 1].
    shares = np.sin(np.pi * (2 * np.arange(1, nodes + 1) - 1) / (4 * nodes))[:, None] ** 2
    distinct, counts = np.unique(values, return_counts=True)

    def log_wealth(log_m: float) -> float:
        growth = np.log1p(shares * (distinct * math.exp(-log_m) - 1)) @ counts
        peak = growth.max()
        return float(peak + np.log(np.mean(np.exp(growth - peak)))) + math.log(error)

    # At m = mean the wealth is at most 1 (arithmetic and geometric mean); it falls with m, so there is one root.
    low = math.log(mean) - 1.0
    while log_wealth(low) < 0:
        low -= 2 * abs(low) + 1.0
        if low < -600:
            return 0.0
    return min(mean, math.exp(float(optimize.brentq(log_wealth, low, math.log(mean), xtol=1e-12))))


def _chunks(width: int) -> Iterator[int]:
    rows = max(1, _CHUNK // width)
    for start in range(0, _RESAMPLES, rows):
        yield min(rows, _RESAMPLES - start)


def _is_binary(values: _Array) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _checked(values: ArrayLike, low: float, what: str, *, allow_empty: bool = False) -> _Array:
    array = np.asarray(values, dtype=np.float64)
    high = math.inf if math.isinf(low) else 1.0
    if array.ndim != 1:
        raise DataError(f"Statistics need {what} as one flat sequence, but the shape is {array.shape}.")
    if not array.size and not allow_empty:
        raise DataError(f"Statistics need at least one of the {what}, but there are none.")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= low) & (array <= high)))
    if wrong.size:
        between = "finite" if math.isinf(low) else f"from {low:g} to {high:g}"
        raise DataError(
            f"Statistics need {what} that are {between}, but number {wrong[0] + 1} is {array[wrong[0]]!s} "
            f"({wrong.size} of {array.size} are wrong)."
        )
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise SettingsError(f"A confidence level lies between 0 and 1, as in 0.95, but it is {level!r}.")

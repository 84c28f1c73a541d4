"""Reading: from scores by arm to figures with intervals. Numbers in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mop.stats import paired_difference, proportion_interval


def mean(scores: ArrayLike) -> dict[str, Any]:
    """Return the mean of scores with its 95 % interval."""
    values = np.asarray(scores, dtype=float)
    interval = proportion_interval(values)
    return {"mean": float(values.mean()), "low": interval.low, "high": interval.high, "n": len(values)}


def differences(
    scores: Mapping[str, Sequence[float]], contrasts: Sequence[tuple[str, str]] = (), base: str = "bare"
) -> list[dict[str, Any]]:
    """Return the paired difference of every arm to ``base``, and of the ``contrasts`` whose arms are both there."""
    pairs = [(name, base) for name in scores if name != base]
    pairs += [pair for pair in contrasts if pair[0] in scores and pair[1] in scores]
    return [{"of": one, "to": other, **asdict(paired_difference(scores[one], scores[other]))} for one, other in pairs]

"""Gate: says from a query's features whether the adapter answers it. Knows nothing of models, texts or training.

Three kinds. ``learned``: a logistic regression on features. ``table``: on or off by the nearest region of a mixture.
``constant``: always the same, where nothing better was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mop.errors import DataError
from mop.students.features import Features, Rows

Kind = Literal["learned", "table", "constant"]

#: A probability from which on the adapter answers, as in PRISM (arXiv 2603.18507).
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Linear:
    """A logistic regression on standardized features; all arrays have shape (width,)."""

    mean: Rows
    scale: Rows
    weight: Rows
    bias: float

    def __call__(self, rows: Rows) -> Rows:
        """Return the probability of each row of ``rows``, shape (queries, width)."""
        from scipy.special import expit

        return np.asarray(expit(((rows - self.mean) / self.scale) @ self.weight + self.bias), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Gate:
    """What decides for each query.

    ``features`` names the features that ``linear`` takes, side by side in that order. ``table`` is, for each region,
    the share of its queries for which the persona was better; ``constant`` that share over all. ``evidence`` holds
    how the kinds did on held-out templates (see `mop.students.gate_training`).
    """

    kind: Kind
    features: tuple[str, ...] = ()
    linear: Linear | None = None
    table: Rows | None = None
    constant: float = 0.0
    threshold: float = THRESHOLD
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the features that a decision takes."""
        return {"learned": self.features, "table": ("regions",), "constant": ()}[self.kind]

    def probabilities(self, inputs: Mapping[str, Rows], count: int) -> Rows:
        """Return the probability that the adapter is better for each of ``count`` queries.

        ``inputs`` holds, by name, the features that the gate `needs`, shape (count, width). Raises DataError if one is
        missing or has another width than the gate was trained with.
        """
        if missing := [name for name in self.needs if name not in inputs]:
            raise DataError(f"The gate takes the features {', '.join(self.needs)}; missing: {', '.join(missing)}.")
        if self.kind == "constant":
            return np.full(count, self.constant)
        if self.kind == "table":
            assert self.table is not None
            distances = inputs["regions"]
            _check_width(distances, len(self.table))
            return np.asarray(self.table[distances.argmin(axis=1)], dtype=np.float64)
        assert self.linear is not None
        rows = beside(inputs, self.features)
        _check_width(rows, len(self.linear.weight))
        return self.linear(rows)

    def decide(self, probabilities: Rows) -> NDArray[np.bool_]:
        """Return for which queries the adapter is on."""
        return np.asarray(probabilities >= self.threshold)


def beside(inputs: Mapping[str, Rows], names: Sequence[str]) -> Rows:
    """Return the named features side by side, shape (queries, all widths)."""
    return np.concatenate([inputs[name] for name in names], axis=1)


def compute(features: Sequence[Features], names: Sequence[str], queries: Sequence[str]) -> dict[str, Rows]:
    """Return the features called ``names`` of each query. Raises DataError if there are no such features."""
    known = {one.name: one for one in features}
    if missing := [name for name in names if name not in known]:
        raise DataError(f"The gate takes the features {', '.join(missing)}, which aren't at hand here.")
    return {name: known[name](queries) for name in names}


def _check_width(rows: Rows, width: int) -> None:
    if rows.shape[1] != width:
        raise DataError(
            f"The gate was trained on {width} features of a query, got {rows.shape[1]}: another model or another "
            "mixture. Train the gate again."
        )

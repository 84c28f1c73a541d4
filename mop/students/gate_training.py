"""Gate training: a gate is learned and compared with what needs no learning, on templates that it hasn't seen.

Queries come in templates (here: what they were made from). A gate that is tested on a template of its training data
shows nothing: every probe is perfect there. So templates are held out whole, in turns, for the choice of the strength
of regularization as well. The learned gate must beat the region table, or the table is kept. Knows nothing of models.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mop.errors import DataError
from mop.seeds import stream
from mop.stats import paired_difference
from mop.students.features import Rows
from mop.students.gate import THRESHOLD, Gate, Linear, beside

Labels = NDArray[np.bool_]
Groups = NDArray[np.intp]
#: From labelled training rows to the probabilities of held-out rows: (train, held-out, labels of train).
Fit = Callable[[NDArray[np.intp], NDArray[np.intp], Labels], Rows]

#: Inverse strengths of regularization that are tried; features are hundreds, queries few.
STRENGTHS = (0.001, 0.03, 1.0)
#: Parts into which templates are divided, at most.
FOLDS = 4
#: Trainings on shuffled labels.
SHUFFLES = 3
#: Imaginary queries with the overall share that a region's own share is mixed with, so that few queries prove little.
PRIOR = 2.0


def train_gate(inputs: Mapping[str, Rows], labels: Sequence[bool], templates: Sequence[str], *, seed: int = 0) -> Gate:
    """Return the best gate for queries whose ``labels`` say where the persona was better.

    Args:
        inputs: Features by name, each of shape (queries, width). ``regions``, if there, makes the table.
        labels: One for each query.
        templates: What each query was made from; queries of one template are never on both sides of a split.
        seed: For the shuffled labels and the random baseline.

    Raises:
        DataError: There are fewer than two templates, or the numbers of rows differ.
    """
    better = np.asarray(labels, dtype=np.bool_)
    groups = np.unique(np.asarray(templates, dtype=str), return_inverse=True)[1].astype(np.intp)
    _check(inputs, better, groups)
    share = float(better.mean())
    if share in (0.0, 1.0):
        note = "The persona was always better." if share else "The persona was never better."
        return Gate("constant", constant=share, evidence={"rows": len(better), "share": share, "note": note})
    names = tuple(sorted(inputs))
    rows = beside(inputs, names)
    regions = inputs["regions"].argmin(axis=1) if "regions" in inputs else np.zeros(len(better), dtype=np.intp)
    folds = _folds(groups)

    def learned(train: NDArray[np.intp], test: NDArray[np.intp], given: Labels) -> Rows:
        return _fitted(rows[train], given, groups[train])(rows[test])

    def table(train: NDArray[np.intp], test: NDArray[np.intp], given: Labels) -> Rows:
        shares = _table(regions[train], given, int(regions.max()) + 1)
        return np.asarray(shares[regions[test]], dtype=np.float64)

    rng = stream(seed, "gate")
    decisions = {"learned": _held_out(learned, better, folds), "majority": np.full(len(better), share > THRESHOLD)}
    # Without a mixture there is one region, whose table is the majority.
    decisions["table"] = _held_out(table, better, folds) if "regions" in inputs else decisions["majority"]
    decisions["random"] = rng.random(len(better)) < share
    shuffled = [_held_out(learned, rng.permutation(better), folds) for _ in range(SHUFFLES)]
    balanced = {name: _balanced(one, better) for name, one in decisions.items()}
    balanced["permuted labels"] = float(np.mean([_balanced(one, better) for one in shuffled]))
    accuracy = {name: float((one == better).mean()) for name, one in decisions.items()}
    accuracy["permuted labels"] = float(np.mean([(one == better).mean() for one in shuffled]))
    gain = paired_difference(_worth(decisions["learned"], better), _worth(decisions["table"], better))
    chosen = gain.low > 0  # luck alone would beat it every other time
    evidence: dict[str, Any] = {
        "rows": len(better),
        "share": share,
        "templates": int(groups.max()) + 1,
        "folds": len(folds),
        "balanced_accuracy": balanced,
        "accuracy": accuracy,
        "learned_minus_table": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        "on": {name: float(one.mean()) for name, one in decisions.items()},
        "note": "The learned gate beat the table." if chosen else "The learned gate didn't beat the table.",
    }
    if chosen:
        return Gate("learned", names, linear=_fitted(rows, better, groups), evidence=evidence)
    if "regions" in inputs:
        return replace(table_gate(inputs, labels), evidence=evidence)
    # Where nothing tells, the base model answers unless the persona was better more often than not.
    return Gate("constant", constant=float(share > THRESHOLD), evidence=evidence)


def table_gate(inputs: Mapping[str, Rows], labels: Sequence[bool]) -> Gate:
    """Return the gate that needs no learning: on in the regions where the persona was better more often than not.

    ``inputs`` holds ``regions``, the distances of each query to the regions of a mixture.
    """
    distances = inputs["regions"]
    shares = _table(distances.argmin(axis=1), np.asarray(labels, dtype=np.bool_), distances.shape[1])
    return Gate("table", table=shares)


def _check(inputs: Mapping[str, Rows], labels: Labels, groups: Groups) -> None:
    counts = {len(labels), len(groups), *(len(rows) for rows in inputs.values())}
    if not inputs or len(counts) != 1:
        raise DataError(f"A gate needs features, a label and a template for each query; got {sorted(counts)} rows.")
    if len(np.unique(groups)) < 2:
        raise DataError("A gate is tested on templates that it hasn't seen, so it needs queries of two or more.")


def _folds(groups: Groups) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return (train, held-out) rows, whole groups held out in turns."""
    from sklearn.model_selection import GroupKFold

    parts = min(FOLDS, len(np.unique(groups)))
    return list(GroupKFold(parts).split(groups, groups=groups))


def _held_out(fit: Fit, labels: Labels, folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> Labels:
    """Return the decision on every row by what was fitted without its template."""
    decided = np.zeros(len(labels), dtype=np.bool_)
    for train, test in folds:
        decided[test] = fit(train, test, labels[train]) >= THRESHOLD
    return decided


def _fitted(rows: Rows, labels: Labels, groups: Groups) -> Linear:
    """Return the regression with the strength that does best on held-out templates of these rows."""
    best = STRENGTHS[0]
    if len(np.unique(groups)) > 1:
        folds = _folds(groups)
        scores = []
        for strength in STRENGTHS:
            fit = _plain(rows, strength)
            scores.append(_balanced(_held_out(fit, labels, folds), labels))
        best = STRENGTHS[int(np.argmax(scores))]
    return _regression(rows, labels, best)


def _plain(rows: Rows, strength: float) -> Fit:
    return lambda train, test, given: _regression(rows[train], given, strength)(rows[test])


def _regression(rows: Rows, labels: Labels, strength: float) -> Linear:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    if labels.all() or not labels.any():
        # Templates held out, all that is left agrees: decide that way.
        return Linear(mean, scale, np.zeros(rows.shape[1]), 10.0 if labels.all() else -10.0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((rows - mean) / scale, labels)
    return Linear(mean, scale, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def _table(regions: NDArray[np.intp], labels: Labels, count: int) -> Rows:
    share = float(labels.mean())
    wins = np.bincount(regions, weights=labels, minlength=count)
    sizes = np.bincount(regions, minlength=count)
    return np.asarray((wins + PRIOR * share) / (sizes + PRIOR), dtype=np.float64)


def _worth(decided: Labels, labels: Labels) -> Rows:
    """Return what each decision adds to the balanced accuracy, in [0, 1] times a constant for each class."""
    weight = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    return np.asarray((decided == labels) * weight, dtype=np.float64)


def _balanced(decided: Labels, labels: Labels) -> float:
    return float(_worth(decided, labels).mean())

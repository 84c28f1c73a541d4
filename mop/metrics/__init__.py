"""Metrics: how good a reply is, from 0 to 1, given the accepted outputs. Knows nothing of models or prompts.

>>> get_metric("exact_match")("Cold.", ["cold", "chilly"])
1.0

Built in are ``exact_match``, ``exact_set``, ``contains``, ``token_f1``, ``rouge_l``, ``numeric`` and
``multiple_choice``; ``numeric:0.01`` allows an absolute difference of 0.01, and ``numeric:1%`` a relative one of
1 %. ``checks`` (and ``checks:all``) take rules instead of an answer (see `mop.metrics.checks`). ``judge`` and
``judge:pairwise`` ask a model (see `mop.judge`) and so cannot be called here. ``python_tests``
runs code that a model wrote, in a sandbox, and so must be allowed. ``module:function`` is a function of your own,
``(prediction, outputs) -> float``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from operator import attrgetter
from typing import Any

from mop.errors import DataError, SettingsError
from mop.metrics.checks import all_passed, share_passed
from mop.metrics.final_answer import multiple_choice, numeric
from mop.metrics.python_tests import NAME as CODE
from mop.metrics.python_tests import python_tests, whole_answers
from mop.metrics.text import contains, exact_match, exact_set, rouge_l, token_f1

__all__ = ["BUILT_IN", "CODE", "JUDGED", "METRICS", "Metric", "answers", "get_metric", "metric_name"]

#: Scores a prediction against the accepted outputs; a float from 0 to 1.
Metric = Callable[[str, Sequence[str]], float]

_Comparison = Callable[[str, str], float]
_COMPARISONS: dict[str, _Comparison] = {
    "exact_match": exact_match,
    "exact_set": exact_set,
    "contains": contains,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "numeric": numeric,
    "multiple_choice": multiple_choice,
}
_RULES: dict[str, _Comparison] = {"checks": share_passed, "checks:all": all_passed}
#: Metrics that ask a model.
JUDGED = ("judge", "judge:pairwise")
#: Names of the metrics that compare with accepted answers.
METRICS = tuple(_COMPARISONS)
#: Names of all built-in metrics, without their options.
BUILT_IN = (*METRICS, "checks", "judge")


@dataclass(frozen=True, slots=True)
class _Best:
    """The best score of a comparison over the accepted outputs; a reply that is one of them scores 1."""

    compare: _Comparison

    def __call__(self, prediction: str, outputs: Sequence[str]) -> float:
        given = prediction.strip()
        if any(given == output.strip() for output in outputs):
            return 1.0
        return max(self.compare(prediction, output) for output in outputs)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The best score of a check over the rules given; an answer that repeats the rules is no exception."""

    check: _Comparison

    def __call__(self, prediction: str, outputs: Sequence[str]) -> float:
        return max(self.check(prediction, rules) for rules in outputs)


def _ask_a_judge(prediction: str, outputs: Sequence[str]) -> float:  # noqa: ARG001 - a metric's arguments
    raise SettingsError(
        "The metric judge asks a model, so it isn't a function to call. Use mop.optimize, mop.evaluate or mop.judge."
    )


@dataclass(frozen=True, slots=True)
class _Named:
    """A metric that knows its name and stands for its scores being finite and from 0 to 1."""

    name: str
    function: Metric

    def __call__(self, prediction: str, outputs: Sequence[str]) -> float:
        if isinstance(outputs, str) or not outputs:
            raise DataError(
                f"The metric {self.name} needs a sequence of at least one accepted output, but was given {outputs!r}."
            )
        result: Any = self.function(prediction, outputs)
        try:
            score = float(result)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not 0.0 <= score <= 1.0:  # false for NaN too
            raise SettingsError(
                f"The metric {self.name} returned {result!r}; a metric returns a number from 0 (wrong) to 1 (right). "
                "Correct or rescale it."
            )
        return score


def get_metric(name: str | Metric, *, allow_code: bool = False) -> Metric:
    """Return the metric called ``name``.

    Args:
        name: A built-in name, ``numeric:`` with a tolerance (absolute as in ``numeric:0.01``, relative as in
            ``numeric:1%``), ``module:function`` (imported from the working directory too), or a callable.
        allow_code: Whether ``python_tests`` may run what a model wrote, in a sandbox (`mop.sandbox`).

    Returns:
        A metric that checks what it is given and what it returns: `DataError` for no accepted outputs,
        `SettingsError` for a result that isn't a number from 0 to 1.

    Raises:
        SettingsError: There is no such metric, it can't be called with a prediction and its accepted outputs, or it
            runs code and that isn't allowed.
    """
    if isinstance(name, _Named):
        return name
    if not isinstance(name, str):
        _check_callable(name, _qualified_name(name))
        return _Named(_qualified_name(name), name)
    if name == CODE:
        if not allow_code:
            raise SettingsError(
                f"The metric {CODE} runs what the model writes, in a sandbox. If that is what you want, say so: "
                "--allow-code, or allow_code=True."
            )
        return _Named(CODE, python_tests)
    base, colon, option = name.partition(":")
    if base in _COMPARISONS and not colon:
        return _Named(name, _Best(_COMPARISONS[base]))
    if name in _RULES:
        return _Named(name, _Rules(_RULES[name]))
    if name in JUDGED:
        return _Named(name, _ask_a_judge)
    if base == "numeric":
        return _Named(name, _Best(partial(numeric, **_tolerance(name, option))))
    if colon and base not in BUILT_IN:
        return _Named(name, _import_function(name, base, option))
    close = difflib.get_close_matches(base.lower().replace("-", "_").replace(" ", "_"), BUILT_IN, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise SettingsError(
        f"There is no metric {name!r}.{hint} Metrics: {', '.join(BUILT_IN)}; or module:function for your own."
    )


def answers(metric: Metric, outputs: Sequence[str]) -> Sequence[str]:
    """Return what a reply can be, of an example's accepted outputs: for `CODE` not the tests, but whole functions."""
    return whole_answers(outputs) if metric_name(metric) == CODE else outputs


def metric_name(metric: str | Metric) -> str:
    """Return the name by which `get_metric` gave this metric, or ``module:function`` of any other callable."""
    if isinstance(metric, str):
        return metric
    return metric.name if isinstance(metric, _Named) else _qualified_name(metric)


def _tolerance(name: str, option: str) -> dict[str, str]:
    relative = option.endswith("%")
    try:
        value = Decimal(option.removesuffix("%")) / (100 if relative else 1)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise SettingsError(
            f"The tolerance of the metric {name!r} must be a number from 0 up (an absolute difference, as in "
            "numeric:0.01) or a percentage (a relative one, as in numeric:1%)."
        )
    return {"relative" if relative else "absolute": str(value)}


def _import_function(name: str, module: str, function: str) -> Metric:
    directory = os.getcwd()
    sys.path.insert(0, directory)
    try:
        found: Metric = attrgetter(function)(importlib.import_module(module))
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise SettingsError(
            f"The metric {name!r} can't be imported: {error}. It must be module:function, where the module is "
            f"installed or in the working directory ({directory}); built in are {', '.join(BUILT_IN)}."
        ) from error
    finally:
        if directory in sys.path:  # the module may have changed the path itself
            sys.path.remove(directory)
    _check_callable(found, name)
    return found


def _check_callable(function: object, name: str) -> None:
    expected = "a metric is a function of the prediction (str) and the accepted outputs (sequence of str)"
    if not callable(function):
        raise SettingsError(
            f"The metric {name!r} is of type {type(function).__name__} and can't be called; {expected}."
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C don't tell
        return
    try:
        signature.bind("", ())
    except TypeError as error:
        raise SettingsError(f"The metric {name!r} can't be called with two arguments ({error}); {expected}.") from error


def _qualified_name(metric: object) -> str:
    owner = metric if hasattr(metric, "__qualname__") else type(metric)
    return f"{owner.__module__}:{owner.__qualname__}"

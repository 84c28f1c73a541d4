"""mop: learn a mixture of prompts, save it as one file, route each query to the prompt that fits it.

Importing this package is cheap: everything below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mop import datasets
    from mop.artifact import load
    from mop.errors import MopError
    from mop.estimator import MixtureOfPrompts
    from mop.evaluation import evaluate
    from mop.examples import Example
    from mop.mixture import Answer, Expert, Mixture, Route
    from mop.optimization import aoptimize, optimize
    from mop.prompts import Demo, Prompt

_HOMES = {
    "Answer": "mop.mixture",
    "Demo": "mop.prompts",
    "Example": "mop.examples",
    "Expert": "mop.mixture",
    "Mixture": "mop.mixture",
    "MixtureOfPrompts": "mop.estimator",
    "MopError": "mop.errors",
    "Prompt": "mop.prompts",
    "Route": "mop.mixture",
    "aoptimize": "mop.optimization",
    "evaluate": "mop.evaluation",
    "load": "mop.artifact",
    "optimize": "mop.optimization",
}

__all__ = [
    "Answer",
    "Demo",
    "Example",
    "Expert",
    "Mixture",
    "MixtureOfPrompts",
    "MopError",
    "Prompt",
    "Route",
    "aoptimize",
    "datasets",
    "evaluate",
    "load",
    "optimize",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "datasets":
        return import_module("mop.datasets")
    if name == "__version__":
        from importlib.metadata import version

        return version("mop")
    if name not in _HOMES:
        raise AttributeError(f"module 'mop' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

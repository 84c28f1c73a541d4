"""Site: what a worker has to know to answer calls of a run. It travels to workers, so it holds no key and no code."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from mop.lm.prices import Prices


@dataclass(frozen=True)
class Site:
    """Where a run keeps its books, and how its calls are made.

    ``token`` is new for every process that has calls sent; ``driver`` is that process in the ledger. ``caps`` are in
    calls, tokens and USD. ``keyed`` says that the driver has an API key, so that workers are expected to have one.
    """

    token: str
    version: str
    # Not shown: Dask logs the arguments of what fails, and a URL may hold a password.
    ledger: str = field(repr=False)
    driver: str
    run: str
    caps: tuple[int | None, int | None, float | None]
    prices: Prices = field(repr=False)
    concurrency: int
    keyed: bool


@dataclass(frozen=True)
class Post:
    """Which model is asked, and where; without an address it is a local model, which every worker runs for itself."""

    model: str
    base_url: str | None = field(repr=False)


def has_key() -> bool:
    """Return whether there is an API key in the environment of this process."""
    return any(os.environ.get(name, "").strip() for name in ("MOP_API_KEY", "OPENAI_API_KEY"))

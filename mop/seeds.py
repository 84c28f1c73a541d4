"""Named random streams from one seed, so that no result depends on the order in which parts draw."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the stream called ``names`` under ``seed``.

    The same seed and names give the same numbers in every process, whatever ``PYTHONHASHSEED`` is.
    """
    digest = hashlib.sha256("\x1f".join([str(seed), *map(str, names)]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))

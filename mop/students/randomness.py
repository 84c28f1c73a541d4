"""Randomness of torch from named streams: its generators are seeded while inside, and as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mop.seeds import stream


@contextmanager
def drawn_from(device: Any, seed: int, *names: str | int) -> Iterator[None]:
    """Let torch draw from the stream ``names`` of ``seed`` while inside, on the CPU and on ``device``.

    Training draws anew for each batch of each step, so that nothing of it has to be saved, and so that dropout doesn't
    depend on how many processes share the work.
    """
    import torch

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(stream(seed, *names).integers(2**63)))
        yield

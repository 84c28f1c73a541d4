"""A stand-in for the white-box model's weights: what it writes depends on the soft prompt, as with a real one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mop.lm.causal import Continuation


class StandIn:
    """Writes one of 4,096 instructions, by the signs of twelve numbers of the soft prompt."""

    width = 12
    #: Soft prompts of all instances, in order.
    asked: ClassVar[list[NDArray[np.float32]]] = []

    def __init__(self, folder: Path, gguf: str | None = None) -> None:
        self.folder = folder

    def write(self, soft: NDArray[np.float32], question: str, opening: str, max_tokens: int) -> Continuation:
        StandIn.asked.append(soft)
        number = int("".join("1" if value > 0 else "0" for value in soft[0]), 2)
        return Continuation(f"Name the state of the thing, way {number}.", "stop", 100, 9)

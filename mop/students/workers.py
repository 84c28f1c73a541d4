"""Workers: the processes that share one training run, one for each GPU, as `accelerate launch` starts them.

Each step's batches are dealt out among them, and their gradients are added up. The adapter is small, so that sending
its gradients once a step needs no wrapper round the model. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes there are and which of them this is."""

    count: int
    number: int

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.number == 0

    def add_up(self, tensors: Iterable[Any]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count == 1:
            return
        import torch
        from torch import distributed

        found = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in found])
        distributed.all_reduce(flat)
        start = 0
        for tensor in found:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


def find_workers(device: Any) -> Workers:
    """Return the processes of this run; joins them if a launcher started several."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers(1, 0)
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    return Workers(state.num_processes, state.process_index)

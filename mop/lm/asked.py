"""Asked: what whoever asks a model needs of it; a `ModelClient` has it, and so has a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mop.lm.request import Reply, Request


class Asked(Protocol):
    """A model that answers requests."""

    @property
    def model(self) -> str:
        """Its name."""

    async def complete_many(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the reply to each request, in their order."""

    async def aclose(self) -> None:
        """Give back what it holds open."""

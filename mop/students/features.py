"""Features: what a gate sees of a query. Pure functions of the query's text; knows nothing of answers or adapters.

Two kinds: the states after the model's first layer, averaged over the query's tokens, and the distances to the regions
of a mixture. An adapter never touches the first layer, so neither changes when one is trained or switched on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mop.errors import DataError, ModelError
from mop.students.dropout import blocks
from mop.students.prompting import ids_of

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder, Vectors
    from mop.mixture import EncoderRecord, Mixture

Rows = NDArray[np.float64]

#: Tokens of a query that are looked at.
MOST_TOKENS = 2048


class Features(Protocol):
    """Turns queries into rows of numbers."""

    @property
    def name(self) -> str:
        """What the gate's file calls them."""

    def __call__(self, queries: Sequence[str]) -> Rows:
        """Return the features, shape (queries, width)."""


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The states after a causal model's first layer, averaged over the tokens of the query alone.

    No chat template, no system text and no answer is in it. Each query is read by itself, so that its features don't
    depend on the queries beside it. ``model`` may carry an adapter on later layers.
    """

    model: Any
    tokenizer: Any
    name: str = "first layer"

    def __call__(self, queries: Sequence[str]) -> Rows:
        """Return the mean states, shape (queries, width of the model). Raises DataError for a query without tokens."""
        import torch

        rows = []
        device = self.model.get_input_embeddings().weight.device
        for query in queries:
            ids = ids_of(self.tokenizer, query)[:MOST_TOKENS]
            if not ids:
                raise DataError(f"The query {query!r} has no tokens; give one with text.")
            with torch.inference_mode():
                states = first_layer_states(self.model, torch.tensor([ids], device=device))
            rows.append(states[0].double().mean(dim=0).cpu().numpy())
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


@dataclass(frozen=True, eq=False)
class Regions:
    """The squared distances to the centroids of a mixture's regions.

    ``record`` says which encoder it takes; ``centroids`` and ``projection`` are as in `mop.mixture.Mixture`.
    """

    encoder: Encoder
    record: EncoderRecord
    centroids: Vectors
    projection: Vectors | None = None
    name: str = "regions"

    def __call__(self, queries: Sequence[str]) -> Rows:
        """Return the distances, shape (queries, regions)."""
        from mop.embeddings.projection import project

        vectors = project(self.encoder.encode(list(queries)), self.projection)
        return np.asarray(((vectors[:, None, :] - self.centroids[None]) ** 2).sum(axis=2), dtype=np.float64)


def regions_of(mixture: Mixture) -> Regions:
    """Return the distances to a mixture's regions as features. Raises EncoderMismatch as the mixture does."""
    return Regions(mixture.encoder, mixture.encoder_record, mixture.centroids, mixture.projection)


def first_layer_states(model: Any, ids: Any) -> Any:
    """Return the states after the first layer for token ids of shape (rows, tokens): (rows, tokens, width).

    Only that layer runs. Raises SettingsError if the model's layers can't be found.
    """
    kept: list[Any] = []
    with _stopping_after(blocks(model)[1][0], kept):
        try:
            model(input_ids=ids, use_cache=False)
        except _Enough:
            return kept[0]
    raise ModelError("The model didn't run its first layer, so a gate has nothing to see; give another model.")


class _Enough(Exception):
    """No error: the first layer has run, and the others needn't."""


@contextmanager
def _stopping_after(layer: Any, kept: list[Any]) -> Iterator[None]:
    def stop(_module: Any, _given: Any, states: Any) -> None:
        kept.append(states[0] if isinstance(states, tuple) else states)
        raise _Enough

    hook = layer.register_forward_hook(stop)
    try:
        yield
    finally:
        hook.remove()

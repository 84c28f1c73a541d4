"""Find an encoder by its name: the registry's, a folder or hub name, or an embeddings endpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mop.embeddings.encoders import CachedEncoder, Encoder, EndpointEncoder, SentenceTransformerEncoder
from mop.errors import SettingsError
from mop.lm.ledger import Ledger

#: Names that begin so are embeddings endpoints: ``endpoint:MODEL`` or ``endpoint:MODEL@URL``.
ENDPOINT = "endpoint:"


def resolve_encoder(name: str, *, ledger: Ledger | None = None) -> Encoder:
    """Return the encoder called ``name``; with a ledger its vectors are kept there.

    ``local/...`` is a model of the registry (fetch it with `mop models pull`), ``endpoint:MODEL@URL`` an
    OpenAI-compatible embeddings endpoint, anything else a folder or a Hugging Face name for sentence-transformers.
    Raises SettingsError or WeightsError if there is no such encoder.
    """
    if not name.strip():
        raise SettingsError("The encoder's name is empty; give one, such as local/all-minilm-l6-v2.")
    encoder: Encoder
    if name.startswith(ENDPOINT):
        encoder = _endpoint_encoder(name)
    elif name.startswith("local/"):
        from mop.lm.weights import model_path

        encoder = SentenceTransformerEncoder(model_path(name), name=name)
    else:
        encoder = SentenceTransformerEncoder(os.path.expanduser(name), name=name)
    return encoder if ledger is None else CachedEncoder(encoder, ledger)


def _endpoint_encoder(name: str) -> Encoder:
    from mop.lm.client import ModelClient
    from mop.sync import run

    model, _, url = name.removeprefix(ENDPOINT).partition("@")
    client = ModelClient(model, ledger=Ledger.in_memory(), base_url=url or None)

    def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return run(client.embed(texts))

    return EndpointEncoder(embed, name=model)

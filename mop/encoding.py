"""Find an encoder by its name: the registry's, a folder or hub name, or an embeddings endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mop.embeddings.encoders import CachedEncoder, Encoder, EndpointEncoder, SentenceTransformerEncoder
from mop.errors import SettingsError

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.lm.ledger import Ledger

#: Names that begin so are embeddings endpoints: ``endpoint:MODEL`` or ``endpoint:MODEL@URL``.
ENDPOINT = "endpoint:"
#: The one encoder that is fitted: words weighted by how rare they are.
TFIDF = "tfidf"
#: Hosts that are this machine.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ENDPOINT_NAME = re.compile(r"endpoint:(?!@https?://)(?P<model>.+?)(?:@(?P<url>https?://.+))?", re.DOTALL)


def resolve_encoder(name: str, *, ledger: Ledger | None = None, replay: bool = False) -> Encoder:
    """Return the encoder called ``name``; with a ledger its vectors are kept there.

    ``local/...`` is a model of the registry (fetch it with `mop models pull`), ``endpoint:MODEL@URL`` an
    OpenAI-compatible embeddings endpoint, which gets no text in a ``replay``; anything else is a folder or a Hugging
    Face name for sentence-transformers.
    ``tfidf`` has no vectors of its own before it is fitted (`fit_encoder`).
    Raises SettingsError or WeightsError if there is no such encoder.
    """
    if name == TFIDF:
        raise SettingsError("The encoder tfidf is fitted on training examples; learn a mixture with it, or load one.")
    if not name.strip():
        raise SettingsError("The encoder's name is empty; give one, such as local/all-minilm-l6-v2.")
    encoder: Encoder
    if name.startswith(ENDPOINT):
        encoder = _endpoint_encoder(name, replay)
    elif name.startswith("local/"):
        from mop.lm.weights import model_path

        encoder = SentenceTransformerEncoder(model_path(name), name=name)
    else:
        encoder = SentenceTransformerEncoder(os.path.expanduser(name), name=name)
    return encoder if ledger is None else CachedEncoder(encoder, ledger)


def fit_encoder(name: str, texts: Sequence[str], *, replay: bool = False) -> Encoder:
    """Return the encoder called ``name``, fitted on the inputs of the training examples if it is one that is fitted."""
    if name == TFIDF:
        from mop.embeddings.tfidf import TfidfEncoder

        return TfidfEncoder.fit(texts)
    return resolve_encoder(name, replay=replay)


def state_of(encoder: Encoder) -> Vectors | None:
    """Return what a fitted encoder has learned, for the mixture's file; None if there is nothing."""
    from mop.embeddings.tfidf import TfidfEncoder

    return encoder.state if isinstance(encoder, TfidfEncoder) else None


def resolve_recorded_encoder(name: str, *, state: Vectors | None = None, replay: bool = False) -> Encoder:
    """Return the encoder that a mixture file names, if that is safe; ``state`` is what the file holds of it.

    A file may come from anyone, and an embeddings endpoint sees every query and the API key. So an endpoint on
    another machine is used only if the environment names it too: ``OPENAI_BASE_URL``, or the whole name in
    ``MOP_ENCODER``. Raises SettingsError otherwise, and as `resolve_encoder` does.
    """
    if name == TFIDF and state is not None:
        from mop.embeddings.tfidf import TfidfEncoder

        return TfidfEncoder(state)
    if name.startswith(ENDPOINT):
        _, url = _model_and_url(name)
        known = (os.environ.get("OPENAI_BASE_URL"), None)
        if url not in known and urlsplit(url).hostname not in LOOPBACK and os.environ.get("MOP_ENCODER") != name:
            raise SettingsError(
                f"The mixture names the embeddings endpoint {url}, which would get your queries and your API key. "
                f"If you trust it, set the environment variable MOP_ENCODER={name!r} and try again."
            )
    return resolve_encoder(name, replay=replay)


def _model_and_url(name: str) -> tuple[str, str | None]:
    # Split where a scheme follows: names of models may have an "@" of their own.
    match = _ENDPOINT_NAME.fullmatch(name)
    if match is None:
        raise SettingsError(
            f"The encoder {name!r} isn't understood; give endpoint:MODEL or endpoint:MODEL@URL, "
            "with a URL that starts with http:// or https://."
        )
    return match["model"], match["url"]


def _endpoint_encoder(name: str, replay: bool) -> Encoder:
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger
    from mop.sync import run

    model, url = _model_and_url(name)
    client = ModelClient(model, ledger=Ledger.in_memory(), base_url=url, replay=replay)

    def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return run(client.embed(texts))

    # The address belongs to the identity: two servers may call different models by one name.
    return EndpointEncoder(embed, name=f"{model}@{url}" if url else model)

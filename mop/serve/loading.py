"""Loading: from mixture files and addresses to what a server answers with. Blocking.

Mixtures share what is the same: an encoder in memory, the connections to an upstream, the embedded model.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mop.artifact import from_bytes, read_file
from mop.connect import is_local, require_endpoint
from mop.embeddings.encoders import Encoder, Vectors
from mop.encoding import ENDPOINT, resolve_recorded_encoder
from mop.errors import SettingsError
from mop.lm.endpoint import choose_key
from mop.mixture import EncoderRecord, Mixture
from mop.remote import Remote, is_url, place_of
from mop.serve.batching import EncodeBatcher
from mop.serve.limits import Limits
from mop.serve.prompting import CallerSystem, Style
from mop.serve.registry import Served
from mop.serve.upstream import Upstream

#: Calls at the same time to an endpoint that encodes.
_ENDPOINT_THREADS = 4


@dataclass(frozen=True, slots=True)
class Source:
    """A mixture file, here or at a URL, and the name that it is served under."""

    name: str
    path: Path | Remote

    @classmethod
    def of(cls, text: str) -> Source:
        """Read ``FILE`` (its stem is the name) or ``NAME=FILE``, where FILE may be a URL.

        Raises SettingsError if there is no file; URLs are asked later.
        """
        given, _, address = text.partition("=")
        if is_url(text) or is_url(address):
            name, place = ("", place_of(text)) if is_url(text) else (given, place_of(address))
            return cls(name.strip() or place.stem, place)
        path, name = Path(text).expanduser(), ""
        if not path.is_file() and "=" in text:
            name, _, rest = text.partition("=")
            path = Path(rest).expanduser()
        if not path.is_file():
            raise SettingsError(
                f"There is no mixture file {text!r}. Give FILE or NAME=FILE; `mop optimize` writes one."
            )
        return cls(name.strip() or path.stem, path)


class _OneAtATime:
    """An encoder in memory: its tokenizer isn't made for several threads, and its arithmetic has one only.

    Several threads for one short text wait for each other more than they compute, above all beside the server's own
    (benchmarks/LOG.md, "Server"). More workers are what uses more cores.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self.identity = encoder.identity

    def encode(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            if torch := sys.modules.get("torch"):  # loaded by the first encode, if this encoder needs it at all
                torch.set_num_threads(1)
            return self._encoder.encode(texts)


class Loader:
    """Makes what is served from files; keeps encoders and upstreams for the next file.

    Args:
        base_url: Address of the upstream; None means OPENAI_BASE_URL, then OpenAI, or the embedded model if the
            mixture's model is ``local/...``.
        model: Another model than the mixtures' own.
        limits: Of the server.
        caller_system: What becomes of callers' system messages.
        learned_decoding: Whether what a caller leaves open is set as it was when the mixture was learned.
        embedded: Gives the address of an embedded model, started if it doesn't run; by default it is a server of this
            process.
        encoder: Gives the encoder that a mixture's file names; by default it is loaded. It is checked in any case.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        model: str | None = None,
        limits: Limits | None = None,
        caller_system: CallerSystem = "after",
        learned_decoding: bool = True,
        embedded: Callable[[str], str] | None = None,
        encoder: Callable[[EncoderRecord], Encoder] | None = None,
    ) -> None:
        self._base_url, self._model = base_url, model
        self._limits = limits or Limits()
        self._caller_system, self._learned_decoding = caller_system, learned_decoding
        self._embedded_address = embedded or _own_server
        self._encoder_of = encoder or _recorded_encoder
        self._batchers: dict[str, EncodeBatcher] = {}
        self._upstreams: dict[str, Upstream] = {}

    def load(self, source: Source, content: bytes | None = None) -> Served:
        """Read a mixture, load and check its encoder, and find its upstream.

        ``content`` is that of the file, if it is at hand.

        Raises ArtifactError, EncoderMismatch, WeightsError, ModelError or SettingsError.
        """
        path = source.path
        if content is None:
            content = path.read() if isinstance(path, Remote) else read_file(path)
        mixture = from_bytes(content, str(path))
        batcher = self._batcher(mixture.encoder_record)
        mixture.use_encoder(batcher.encoder)
        mixture.route_vectors(mixture.encoder_record.probes)  # builds the index now, not under the first request
        upstream, model = self._upstream(mixture)
        return Served(
            source.name,
            mixture,
            batcher,
            upstream,
            Style(
                model,
                mixture.decoding if self._learned_decoding else None,
                self._caller_system,
                upstream.length_field,
            ),
            version=hashlib.sha256(content).hexdigest()[:12],
        )

    def _batcher(self, record: EncoderRecord) -> EncodeBatcher:
        # An encoder that was fitted is another one in every mixture.
        name = record.name if record.state is None else record.identity
        if name not in self._batchers:
            encoder = self._encoder_of(record)
            if name.startswith(ENDPOINT):
                batcher = EncodeBatcher(encoder, threads=_ENDPOINT_THREADS)
            else:
                batcher = EncodeBatcher(_OneAtATime(encoder))
            self._batchers[name] = batcher
        return self._batchers[name]

    def _upstream(self, mixture: Mixture) -> tuple[Upstream, str]:
        model = self._model or mixture.model
        if is_local(model) and self._base_url is None:
            return self._embedded(model), model
        require_endpoint(model, self._base_url, mixture.provenance)
        base_url = self._base_url or os.environ.get("OPENAI_BASE_URL") or None
        if str(base_url) not in self._upstreams:
            key, _ = choose_key(base_url, None, os.environ)
            self._upstreams[str(base_url)] = Upstream(base_url, key="" if key == "none" else key, limits=self._limits)
        return self._upstreams[str(base_url)], model

    def _embedded(self, model: str) -> Upstream:
        if model not in self._upstreams:
            start = functools.partial(self._embedded_address, model)
            start()  # a model that cannot be loaded is reported now
            # One call at a time: a slot has the cached prefixes to itself.
            self._upstreams[model] = Upstream(start=start, limits=self._limits, concurrency=1)
        return self._upstreams[model]


def _recorded_encoder(record: EncoderRecord) -> Encoder:
    return resolve_recorded_encoder(record.name, state=record.state)


def _own_server(model: str) -> str:
    from mop.lm.local import shared_server

    return shared_server(model).base_url

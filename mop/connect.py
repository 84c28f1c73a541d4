"""Connect a model name to a client: a local model starts its server, anything else is an endpoint."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mop.errors import NotRecorded, SettingsError
from mop.lm.caps import Caps
from mop.lm.client import ModelClient
from mop.lm.endpoint import OPENAI_URL
from mop.lm.ledger import Ledger

if TYPE_CHECKING:
    from mop.cluster.crew import Crew
    from mop.settings import Settings

#: Calls in flight to a remote endpoint unless told otherwise.
DEFAULT_CONCURRENCY = 8


def is_local(model: str) -> bool:
    """Whether ``model`` runs in this process: a model of the registry, or a GGUF file."""
    return model.startswith("local/") or model.endswith(".gguf")


def remote_url(base_url: str | None) -> str:
    """Return the address of an endpoint, in full: OPENAI_BASE_URL, or OpenAI's, if none is given."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL


def default_ledger_path() -> Path | str:
    """Return where the ledger is kept: ``MOP_LEDGER`` (a path or a URL), or a file in the user's data folder."""
    from platformdirs import user_data_path

    given = os.environ.get("MOP_LEDGER")
    if given:
        return given if "://" in given else Path(given)
    return user_data_path("mop", appauthor=False) / "ledger.sqlite"


def open_ledger(ledger: Ledger | str | os.PathLike[str] | None, *, replay: bool = False) -> Ledger:
    """Return an open ledger: the one given, one at a path or URL, or the user's own.

    Raises LedgerError; NotRecorded if a file that is to be replayed isn't there.
    """
    if isinstance(ledger, Ledger):
        return ledger
    place = default_ledger_path() if ledger is None else os.fspath(ledger)
    if replay and "://" not in str(place) and not Path(place).exists():
        raise NotRecorded(f"There is no ledger {str(place)!r} to replay; run once without replay to record one.")
    return Ledger(place)


def connect(
    model: str,
    *,
    ledger: Ledger,
    budget: Caps | None = None,
    base_url: str | None = None,
    concurrency: int | None = None,
    run: str | None = None,
    replay: bool = False,
    crew: Crew | None = None,
) -> ModelClient:
    """Return a client of ``model``; a local model's server is started by the first call that the ledger can't answer.

    ``run`` names the run in the ledger; with ``replay`` nothing is ever sent, and a call that the ledger doesn't have
    is an error (NotRecorded). With a ``crew`` its workers make the calls, and each runs a local model for itself.

    A local model gets one call at a time: its slots do not share prefixes, so a second call in flight would only
    wait. Raises SettingsError or WeightsError if the model isn't there.
    """
    if not model.strip():
        raise SettingsError("The model's name is empty; give one, such as local/qwen2.5-coder-1.5b-instruct.")
    if crew is not None:
        return ModelClient(
            model,
            ledger=ledger,
            base_url=base_url,
            budget=budget,
            run=run,
            replay=replay,
            elsewhere=crew.at(model, None if is_local(model) and base_url is None else remote_url(base_url)),
        )
    if is_local(model) and base_url is None:
        from mop.lm.weights import model_path

        if not replay:
            model_path(model)  # a model that isn't there is reported now, not minutes later

        def start() -> str:
            from mop.lm.local import shared_server

            return shared_server(model).base_url

        return ModelClient(
            model,
            ledger=ledger,
            start=start,
            api_key="local",
            budget=budget,
            concurrency=1,
            run=run,
            replay=replay,
        )
    return ModelClient(
        model,
        ledger=ledger,
        base_url=base_url,
        budget=budget,
        concurrency=concurrency or DEFAULT_CONCURRENCY,
        run=run,
        replay=replay,
    )


def address_for(model: str, url: str | None, settings: Settings) -> str | None:
    """Return where a model of a role is asked: at ``url`` if it has one, else where the run's own model is.

    A model of this machine isn't looked for at the address of another.
    """
    if url is None and is_local(model) and model != settings.model:
        return None
    return url or settings.base_url


def require_endpoint(model: str, base_url: str | None, provenance: Mapping[str, Any]) -> None:
    """Raise SettingsError if a mixture learned at an endpoint of its own would silently be sent to OpenAI.

    ``provenance`` is the mixture's; the address itself is not in the file, so that a file can't say who gets the key.
    """
    given = base_url or os.environ.get("OPENAI_BASE_URL")
    if provenance.get("own_endpoint") and not given and not is_local(model):
        raise SettingsError(
            f"This mixture was learned with {model} at an endpoint of its own. Say where it is: --base-url URL, "
            "or OPENAI_BASE_URL (https://api.openai.com/v1 for OpenAI itself)."
        )


@asynccontextmanager
async def connected(
    client: ModelClient | None, model: str, provenance: Mapping[str, Any] | None = None, *, replay: bool = False
) -> AsyncIterator[ModelClient]:
    """Yield ``client``, or a new client of ``model`` on the user's ledger that is closed at the end.

    Raises SettingsError as `require_endpoint` does for the mixture's ``provenance``, and if ``replay`` is asked of a
    client that sends calls.
    """
    if client is not None:
        if replay and not client.replay:
            raise SettingsError("The client given sends calls; make it with replay=True, or give none.")
        yield client
        return
    if not replay:
        require_endpoint(model, None, provenance or {})
    ledger = open_ledger(None, replay=replay)
    try:
        own = connect(model, ledger=ledger, replay=replay)
        try:
            yield own
        finally:
            await own.aclose()
    finally:
        ledger.close()

"""``mop serve`` and ``mop serve-key``: mixtures behind an OpenAI-compatible server, and keys for its callers."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from mop.cli.options import OutputOptions
from mop.cli.output import Output
from mop.cli.words import clean, plural
from mop.errors import SettingsError

_PARTS = ("starlette", "uvicorn", "prometheus_client", "jinja2")
#: Addresses that this machine alone can reach.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SERVER = Group("Server", sort_key=1)
_PROMPT = Group("Prompts", sort_key=2)
_LIMITS = Group("Limits", sort_key=3)


@Parameter(name="*", group=_SERVER)
@dataclass(frozen=True)
class ServerOptions:
    """Where the server is, and whom it asks."""

    upstream: str | None = None
    """Address of an endpoint, up to /v1, or local/…; its key is MOP_API_KEY or OPENAI_API_KEY [default: OpenAI's]."""
    model: str | None = None
    """Another model than the one that the mixture was learned for."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    keys: Path | None = None
    """File of callers' keys, made by `mop serve-key`; without one everybody may ask."""
    grace: int = 30
    """Seconds that answers under way have when the server is stopped."""
    workers: int = 1
    """Processes that serve; each holds the encoder, and the limits are shared out among them."""
    watch: float = 1.0
    """Seconds between looks for changed files, which are taken up while serving; 0 never looks."""
    watch_remote: float = 30.0
    """Seconds between looks for changed mixtures at URLs; 0 never looks."""
    page: bool = True
    """Show a page for people at /: the map of the regions, prompts, a box to try a query, traffic."""


@Parameter(name="*", group=_PROMPT)
@dataclass(frozen=True)
class PromptOptions:
    """How a request becomes a prompt."""

    route_on: Literal["last", "first", "all"] = "last"
    """User messages that are the routed query."""
    caller_system: Literal["after", "merge", "drop"] = "after"
    """A caller's system message: stays, after the expert's prompt; is merged into its instruction; is dropped."""
    learned_decoding: bool = True
    """Set length, stops and temperature as they were learned, where the caller leaves them open."""
    warm: bool = True
    """Cache every expert's prompt at the start, if the embedded model answers."""


@Parameter(name="*", group=_LIMITS)
@dataclass(frozen=True)
class LimitOptions:
    """What the server takes on."""

    concurrency: int = 256
    """Most calls in flight to an upstream; the embedded model takes one."""
    queue: int = 256
    """Most requests that wait beside those; more get status 429."""
    write_timeout: float = 30.0
    """Seconds in which a caller must take what is sent; one who stops reading is let go."""
    timeout: float = 600.0
    """Seconds for one answer, waiting included."""
    idle_timeout: float = 120.0
    """Seconds without a byte after which a stream counts as hung."""
    retry: float = 30.0
    """Seconds for which an upstream that cannot be reached is tried again."""
    max_request_mb: float = 8.0
    """Most megabytes of a request."""


_SERVER_DEFAULTS, _PROMPT_DEFAULTS, _LIMIT_DEFAULTS = ServerOptions(), PromptOptions(), LimitOptions()
_NO_SPEECH = OutputOptions()


def serve(
    *mixtures: Annotated[str, Parameter(required=True)],
    server: ServerOptions = _SERVER_DEFAULTS,
    prompts: PromptOptions = _PROMPT_DEFAULTS,
    limits: LimitOptions = _LIMIT_DEFAULTS,
    quiet: Annotated[bool, Parameter(negative=(), show_default=False, group="General")] = False,
) -> None:
    """Serve mixtures to OpenAI clients: point their base URL here, and every chat goes to the expert that fits it.

    Args:
        mixtures: Mixture files or URLs (https, and what fsspec knows), or NAME=FILE; the name is the model that clients
            ask for [default: the file's stem].
        quiet: Warnings and errors only.
    """
    require_parts()
    from mop.connect import is_local
    from mop.serve.limits import Limits
    from mop.serve.process import Card, Plan, bind, make_app, run
    from mop.serve.workers import check_workers, run_workers
    from mop.settings import make_settings

    output = Output(quiet=quiet)
    upstream, model = server.upstream, server.model
    if upstream is not None and is_local(upstream):
        if model not in (None, upstream):
            raise SettingsError(f"--upstream {upstream} and --model {model} are two models; give one.")
        upstream, model = None, upstream
    plan = Plan(
        mixtures=mixtures,
        base_url=upstream if model is not None and is_local(model) else make_settings({"base_url": upstream}).base_url,
        model=model,
        host=server.host,
        port=server.port,
        keys=None if server.keys is None else str(server.keys),
        route_on=prompts.route_on,
        caller_system=prompts.caller_system,
        learned_decoding=prompts.learned_decoding,
        warm=prompts.warm,
        watch_seconds=server.watch,
        watch_remote_seconds=server.watch_remote,
        workers=server.workers,
        page=server.page,
        grace=server.grace,
        limits=Limits(
            body_bytes=int(limits.max_request_mb * 1e6),
            seconds=limits.timeout,
            write_seconds=limits.write_timeout,
            idle_seconds=limits.idle_timeout,
            retry_seconds=limits.retry,
            concurrency=limits.concurrency,
            queue=limits.queue,
        ),
    )
    check_workers(plan.workers)
    log_to_standard_error(quiet)
    with bind(plan.host, plan.port) as bound:
        address = f"[{plan.host}]" if ":" in plan.host else plan.host
        port = bound.getsockname()[1]

        def announce(cards: Sequence[Card]) -> None:
            for card in cards:
                output.note(
                    f"{card.name}: {plural(card.experts, 'expert')}, answered by {card.model} at {card.upstream}"
                )
            if plan.page:
                output.note(f"A page for people is at http://{address}:{port}/")
            several = f" with {plan.workers} workers" if plan.workers > 1 else ""
            output.note(f"Serving on http://{address}:{port}/v1{several} (Ctrl-C ends it)")

        if plan.keys is None and plan.host not in LOOPBACK:
            output.warn(f"Everybody who reaches {plan.host} may ask, at your cost; --keys lets in known callers only.")
        try:
            if plan.workers > 1:
                run_workers(plan, bound, announce, quiet=quiet)
            else:
                run(plan, bound, make_app(plan), announce)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Stopped.") from None


def serve_key(name: str, /, *, keys: Path, speech: OutputOptions = _NO_SPEECH) -> None:
    """Make a key for a caller of `mop serve --keys`. It is shown this once; the file keeps its hash.

    A line removed from the file ends its key, also while the server runs.

    Args:
        name: Who the key is for.
        keys: File of keys; made if there is none.
    """
    from mop.serve.keys import add_key

    key = add_key(keys, name)
    output = speech.open()
    output.note(f"Key of {clean(name)}, shown this once; {keys} keeps its hash:")
    output.result({"name": name, "key": key, "keys": str(keys)}, lambda _console: print(key))


def require_parts() -> None:
    """Raise SettingsError if what the server is made of isn't installed."""
    missing = [name for name in _PARTS if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f'The server needs {", ".join(missing)}: run `pip install "mop[serve]"`.')


def log_to_standard_error(quiet: bool) -> None:
    """Have the server's log, or with ``quiet`` its warnings only, on standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("mop.serve").setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

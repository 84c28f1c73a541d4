"""Process: makes the server from a plan and runs it until it is stopped. The only module that knows uvicorn."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from mop.embeddings.encoders import Encoder
from mop.encoding import LOOPBACK
from mop.errors import SettingsError
from mop.mixture import EncoderRecord
from mop.serve.app import create_app
from mop.serve.connection import bounded
from mop.serve.keys import read_keys
from mop.serve.limits import Limits
from mop.serve.loading import Loader, Source
from mop.serve.parsing import RouteOn
from mop.serve.prompting import CallerSystem
from mop.serve.warming import warm_all
from mop.serve.watching import Watch

#: Seconds for which an idle connection is kept: longer than clients keep theirs, so that they are the ones to close it.
_KEEP_ALIVE = 75
_BACKLOG = 2048
#: Connections that one process of several takes at a time, so that the others get theirs.
_SHARED_BACKLOG = 4
#: Seconds that answers have to end in when their callers were hung up on.
_LAST_SECONDS = 5


@dataclass(frozen=True)
class Plan:
    """Everything that a server process must be told, in plain values.

    ``mixtures`` are ``FILE`` or ``NAME=FILE``; the other fields are those of `Loader`, `create_app` and `Watch`;
    ``grace`` is the seconds that answers under way have when the server ends.
    """

    mixtures: tuple[str, ...]
    base_url: str | None = None
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    keys: str | None = None
    route_on: RouteOn = "last"
    caller_system: CallerSystem = "after"
    learned_decoding: bool = True
    warm: bool = True
    watch_seconds: float = 1.0
    watch_remote_seconds: float = 30.0
    page: bool = True
    grace: int = 30
    workers: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Card:
    """What is said of a mixture when the server listens: its name, its size, its model and who answers."""

    name: str
    experts: int
    model: str
    upstream: str


def cards(app: Starlette) -> list[Card]:
    """Return a card for each mixture of an application."""
    return [Card(one.name, len(one.mixture), one.style.model, str(one.upstream)) for one in app.state.gateway.registry]


def make_app(
    plan: Plan,
    embedded: Callable[[str], str] | None = None,
    encoder: Callable[[EncoderRecord], Encoder] | None = None,
) -> Starlette:
    """Return the application of a plan: mixtures loaded and checked. Raises what `Loader.load` raises.

    ``embedded`` gives the address of an embedded model, if another process runs it; ``encoder`` gives the encoder of a
    mixture, if it is at hand already.
    """
    sources = [Source.of(text) for text in plan.mixtures]
    keys = None if plan.keys is None else Path(plan.keys)
    ring = None if keys is None else read_keys(keys)
    loader = Loader(
        base_url=plan.base_url,
        model=plan.model,
        limits=plan.limits,
        caller_system=plan.caller_system,
        learned_decoding=plan.learned_decoding,
        embedded=embedded,
        encoder=encoder,
    )
    watch = Watch(
        sources,
        loader,
        keys=keys,
        seconds=plan.watch_seconds,
        remote_seconds=plan.watch_remote_seconds,
        rewarm=plan.warm,
    )
    background: list[Any] = [warm_all] if plan.warm else []
    return create_app(
        [loader.load(source) for source in sources],
        limits=plan.limits,
        keys=ring,
        route_on=plan.route_on,
        background=[*background, watch],
        loopback=plan.host in LOOPBACK,
        page=plan.page,
    )


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, but doesn't listen yet. Raises SettingsError if the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's algorithm off, which costs 40 ms an answer otherwise.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise SettingsError(
            f"The server cannot listen on {host}, port {port}: {error}. Choose another --port, or --host."
        ) from None
    bound.set_inheritable(True)
    return bound


def run(plan: Plan, bound: socket.socket, app: Starlette, announce: Callable[[Sequence[Card]], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the answers under way. ``announce`` is called when it listens.

    A second Ctrl-C ends it at once. Raises KeyboardInterrupt after a Ctrl-C.
    """
    run_app(app, plan, bound, lambda: announce(cards(app)))


def run_app(app: Starlette, plan: Plan, bound: socket.socket, announce: Callable[[], None]) -> None:
    """Do what `run` does for any application; of the plan only the address, limits and grace count."""
    # uvicorn raises the signal again once it has ended; by then there is nothing left to terminate.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    Server(config_of(app, plan), announce).run(sockets=[bound])


class Server(uvicorn.Server):
    """uvicorn's server; ``announce`` is called when it listens, and a second Ctrl-C hangs up on all callers.

    uvicorn itself would cancel the answers under way, which it then logs as failures of the application.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; it may come in the middle of anything."""
        super().handle_exit(sig, frame)
        if self.force_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hang_up)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and let the application end as well if callers were hung up on."""
        await super().shutdown(sockets)
        if self.force_exit:
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=_LAST_SECONDS)
            await self.lifespan.shutdown()

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for one in sockets or ():
            # asyncio takes as many connections at once as may wait; they may be more than one process takes.
            one.listen(_BACKLOG)
        if self.started:
            self._announce()


def config_of(app: Starlette, plan: Plan) -> uvicorn.Config:
    """Return uvicorn's settings for a plan."""
    return uvicorn.Config(
        app,
        host=plan.host,
        port=plan.port,
        http=bounded(plan.limits.write_seconds, plan.limits.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG if plan.workers == 1 else _SHARED_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=plan.grace,
    )

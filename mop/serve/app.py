"""App: the server as a Starlette application, made of objects that are at hand. Knows nothing of files or processes.

======  =====================  ================================================================================
POST    /v1/chat/completions   routed by the last user message; streams, tools and images as the upstream has them
POST    /v1/completions        each prompt in the block layout of its expert, at the upstream's own /completions
POST    /v1/route              the decision only: ``{"model", "input": text or texts}``
GET     /v1/models, …/{name}   the mixtures
GET     /v1/drift              whether queries still are what each mixture was learned from (`mop.drift`)
GET     /healthz, /readyz      alive; ready (503 while experts' prefixes are warmed), with what is stale
GET     /metrics               for Prometheus
GET     /                      a page for people (`mop.serve.page`), if it is wanted
======  =====================  ================================================================================

What can go wrong is listed in `mop.serve.problems`. /v1 and the page ask for a key if there are keys; the others never
do.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mop.serve.completing import Completing
from mop.serve.drifting import drift_by_expert, drift_document, tell_drift
from mop.serve.gateway import Gateway
from mop.serve.handlers import ERRORS, healthz
from mop.serve.http import Endpoint, Exchange, admit
from mop.serve.keys import KeyRing
from mop.serve.limits import Limits
from mop.serve.metrics import CONTENT_TYPE, Metrics
from mop.serve.parsing import RouteOn, parse_routing
from mop.serve.registry import Served

#: A coroutine that runs beside the server until it ends, such as a watch on files.
Background = Callable[[Gateway], Coroutine[Any, Any, None]]
_log = logging.getLogger("mop.serve")


def create_app(
    served: Iterable[Served],
    *,
    limits: Limits | None = None,
    keys: KeyRing | None = None,
    route_on: RouteOn = "last",
    metrics: Metrics | None = None,
    background: Sequence[Background] = (),
    loopback: bool = False,
    page: bool = True,
) -> Starlette:
    """Return the application that answers for these mixtures; its ``state.gateway`` holds what it works with.

    Args:
        served: Mixtures with the upstreams that answer for them.
        limits: What the server allows.
        keys: The callers that are let in; None lets everyone in.
        route_on: Which user messages of a chat are the routed query.
        metrics: Counters; new ones by default.
        background: Run beside the server, each with its gateway.
        loopback: Whether the server listens on the loopback only; without keys it then answers to no other name.
        page: Whether there is a page at ``/``.

    Raises:
        SettingsError: Two mixtures share a name, or there is none.
    """
    gateway = Gateway.of(
        served,
        limits=limits or Limits(),
        keys=keys,
        route_on=route_on,
        metrics=metrics or Metrics(),
        loopback=loopback,
    )
    gateway.drift = drift_by_expert
    completing = Completing(gateway)
    post = ["POST"]
    routes: list[BaseRoute] = [
        Route("/v1/chat/completions", Endpoint(gateway, "chat", completing.chat), methods=post),
        Route("/v1/completions", Endpoint(gateway, "completions", completing.completion), methods=post),
        Route("/v1/route", Endpoint(gateway, "route", _routing(gateway)), methods=post),
        Route("/v1/models", _models),
        Route("/v1/models/{name:path}", _model),
        Route("/v1/drift", _drift),
        Route("/healthz", healthz),
        Route("/readyz", _readyz),
        Route("/metrics", _metrics),
    ]
    if page:
        from mop.serve.page.routes import page_routes

        routes += page_routes(gateway)
    app = Starlette(
        routes=routes,
        lifespan=_lifespan(gateway, (*background, tell_drift)),
        exception_handlers=ERRORS,
    )
    app.state.gateway = gateway
    return app


def _lifespan(gateway: Gateway, background: Sequence[Background]) -> Any:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_kept(run(gateway))) for run in background]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in gateway.registry:
                one.batcher.close()
                await one.upstream.aclose()

    return lifespan


async def _kept(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001  # the server goes on without it
        _log.exception("Work beside the server has ended because of a defect.")


def _routing(gateway: Gateway) -> Callable[[Exchange, bytes], Coroutine[Any, Any, None]]:
    async def route(exchange: Exchange, raw: bytes) -> None:
        call = parse_routing(raw)
        found = gateway.registry.find(call.model)
        exchange.mixture = found.name
        with gateway.metrics.route_seconds.labels(found.name).time():
            decisions = await found.decide(call.texts)
        data = [{"index": place, **decision.document} for place, decision in enumerate(decisions)]
        document = {"object": "list", "model": found.name, "version": found.version, "data": data}
        await exchange.respond(json.dumps(document).encode())

    return route


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _card(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "mop"}


async def _models(request: Request) -> Response:
    gateway = _gateway(request)
    admit(request.headers, gateway)
    return JSONResponse({"object": "list", "data": [_card(one) for one in gateway.registry]})


async def _model(request: Request) -> Response:
    gateway = _gateway(request)
    admit(request.headers, gateway)
    return JSONResponse(_card(gateway.registry.find(request.path_params["name"])))


async def _drift(request: Request) -> Response:
    gateway = _gateway(request)
    admit(request.headers, gateway)
    return JSONResponse({"object": "list", "data": [drift_document(one) for one in gateway.registry]})


async def _readyz(request: Request) -> Response:
    gateway = _gateway(request)
    models = {
        one.name: {"version": one.version, "stale": gateway.registry.stale.get(one.name)} for one in gateway.registry
    }
    document: dict[str, Any] = {"status": "warming" if gateway.warming else "ready", "models": models}
    if gateway.fleet:
        document["workers"] = dict(gateway.fleet)
    return JSONResponse(document, 503 if gateway.warming else 200)


async def _metrics(request: Request) -> Response:
    gateway = _gateway(request)
    gateway.metrics.drifting(gateway.registry)
    return Response(gateway.metrics.text(), headers={"content-type": CONTENT_TYPE})

"""Routes: the addresses of the page.

======  ===================  ==================================================================================
GET     /                    the page of one mixture (``?mixture=NAME``); without a key that is needed, a form for it
POST    /page/try            ``{"model", "query"}``: where a query lands, why, and what would be sent; sends nothing
GET     /page/traffic        ``?mixture=NAME``: queries by expert, in all and in the last minutes
GET     /page/static/…       the script, the style sheet, the icon
======  ===================  ==================================================================================

What the page shows (prompts, demos, traffic) is for those who may ask: where there are keys it takes one, and the page
keeps it in memory only. The form and the static files show nothing of the mixtures.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from mop.serve.gateway import Gateway
from mop.serve.http import Endpoint, Exchange, admit
from mop.serve.page.counting import traffic_document
from mop.serve.page.trying import Trying
from mop.serve.page.view import View
from mop.serve.parsing import parse_object
from mop.serve.problems import Problem, invalid
from mop.serve.registry import Served
from mop.views import TEMPLATES
from mop.views.picture import HEIGHT, WIDTH
from mop.views.view import plural, signed

#: The page loads and sends only what this server has; no markup can run a script or leave for elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_FOLDER = Path(__file__).parent
#: Most characters of a query that is tried; longer ones are cut by the encoder anyway.
MOST_CHARACTERS = 20_000
_FIELDS = {"model", "query"}


def page_routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of the page over this gateway."""
    page = _Page(gateway)
    return [
        Route("/", page.show),
        Route("/page/traffic", page.traffic),
        Route("/page/try", Endpoint(gateway, "page", page.try_query()), methods=["POST"]),
        Mount("/page/static", StaticFiles(directory=_FOLDER / "static")),
    ]


class _Page:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._views: dict[str, View] = {}
        self._trying = Trying()
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([_FOLDER / "templates", TEMPLATES]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"signed": signed, "plural": plural, "quoted": lambda text: quote(text, safe="")}
        self._page, self._form = environment.get_template("page.html"), environment.get_template("key.html")

    async def show(self, request: Request) -> Response:
        """Answer with the page, or with the form for a key."""
        try:
            admit(request.headers, self._gateway)
        except Problem as problem:
            if problem.code != "invalid_api_key":
                raise
            return HTMLResponse(self._form.render(), headers=_HEADERS)
        served = self._served(request)
        html = await asyncio.to_thread(self._render, served)
        return HTMLResponse(html, headers=_HEADERS)

    async def traffic(self, request: Request) -> Response:
        """Answer with the counts of a mixture."""
        admit(request.headers, self._gateway)
        return JSONResponse(
            traffic_document(self._gateway, self._served(request)), headers={"cache-control": "no-store"}
        )

    def try_query(self) -> Callable[[Exchange, bytes], Coroutine[Any, Any, None]]:
        """Return the handler that explains a query."""

        async def handle(exchange: Exchange, raw: bytes) -> None:
            fields = parse_object(raw)
            unknown = sorted(set(fields) - _FIELDS)
            if unknown:
                message = f"There is no field {unknown[0]!r:.60} here; give model and query."
                raise Problem(400, "unknown_parameter", message, param=unknown[0][:60])
            model, query = fields.get("model"), fields.get("query")
            if model is not None and not isinstance(model, str):
                raise invalid("model", "The model is the name of a mixture.")
            if not isinstance(query, str) or not query.strip():
                raise invalid("query", "The query is a text that isn't empty.")
            if len(query) > MOST_CHARACTERS:
                raise invalid("query", f"The query has more than {MOST_CHARACTERS:,} characters.")
            served = self._gateway.registry.find(model)
            exchange.mixture = served.name
            document = await self._trying.explain(self._view(served), query)
            await exchange.respond(json.dumps(document, allow_nan=False).encode(), {"cache-control": "no-store"})

        return handle

    def _served(self, request: Request) -> Served:
        registry = self._gateway.registry
        name = request.query_params.get("mixture")
        return registry.find(name) if name is not None else next(iter(registry))

    def _view(self, served: Served) -> View:
        view = self._views.get(served.name)
        if view is None or view.served is not served:  # the file has changed
            view = self._views[served.name] = View(served)
        return view

    def _render(self, served: Served) -> str:
        view = self._view(served)
        return self._page.render(
            view=view,
            mixture=view.mixture,
            served=served,
            names=[one.name for one in self._gateway.registry],
            traffic=traffic_document(self._gateway, served),
            width=WIDTH,
            height=HEIGHT,
        )

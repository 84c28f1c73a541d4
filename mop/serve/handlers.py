"""Handlers: what every server of this package replies alike: that it is alive, and errors as OpenAI-shaped bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mop.serve.problems import Problem


async def healthz(_request: Request) -> Response:
    """Say that the server is alive."""
    return JSONResponse({"status": "alive"})


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return Response(error.body, error.status, media_type="application/json")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = f"{request.url.path[:200]} doesn't take {request.method}."
        problem = Problem(405, "method_not_allowed", message)
    else:
        problem = Problem(error.status_code, "not_found", f"There is no path {request.url.path[:200]}.")
    return Response(problem.body, problem.status, headers=error.headers, media_type="application/json")


#: For Starlette's ``exception_handlers``.
ERRORS: Mapping[Any, Any] = {Problem: _problem, HTTPException: _http_problem}

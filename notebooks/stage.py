"""Stage: the servers of a story, each in a thread on the loopback. Knows nothing of what is told.

One is `mop serve`, made of the parts of the command itself. The other stands in for the provider behind it: it speaks
the OpenAI API and answers from the ledger; with ``MOP_LIVE=1`` it asks the model for what isn't there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mop.connect import connect
from mop.embeddings.encoders import Encoder
from mop.errors import MopError
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request
from mop.serve.process import Plan, bind, config_of, make_app

#: Seconds in which a server must have come up, or have taken up a changed file.
PATIENCE = 120.0


class Server:
    """A server that runs: ``url`` is what an OpenAI client is pointed at."""

    def __init__(self, root: str) -> None:
        self.url = f"{root}/v1"
        # One client for all: each new one would read the system's certificates anew.
        self._client = httpx2.Client(base_url=root, trust_env=False, timeout=PATIENCE)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def get(self, path: str) -> httpx2.Response:
        """Return what is at ``path``."""
        return self._client.get(path)

    def post(self, path: str, body: Any) -> Any:
        """Send JSON and return the JSON of the answer."""
        return self._client.post(path, json=body).raise_for_status().json()

    def drift(self) -> dict[str, Any]:
        """Return what the server says of the drift of its one mixture."""
        found: dict[str, Any] = self.get("/v1/drift").json()["data"][0]["drift"]
        return found

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name and labels, as Prometheus would read them."""
        lines = [line for line in self.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def versions(self) -> set[str]:
        """Return the versions of the mixtures that answer."""
        return {one["version"] for one in self.get("/readyz").json()["models"].values()}

    def wait_for_another(self, versions: set[str]) -> None:
        """Wait until other mixtures answer than those of ``versions``. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while self.versions() & versions:
            if time.monotonic() > end:
                raise TimeoutError(f"The server has not taken up the changed file in {PATIENCE:.0f} seconds.")
            time.sleep(0.05)


@contextmanager
def provider(model: str, ledger: Ledger, *, replay: bool) -> Iterator[str]:
    """Yield the address of a stand-in for the provider of ``model``."""
    client = connect(model, ledger=ledger, replay=replay)

    async def chat(http: HttpRequest) -> Response:
        asked = await http.json()
        try:
            reply = await client.complete(_request(asked))
        except MopError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=500)
        if asked.get("stream"):
            return StreamingResponse(_events(reply, asked), media_type="text/event-stream")
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "finish_reason": reply.finish_reason, "message": message}
        return JSONResponse({**_head(asked, "chat.completion"), "choices": [choice], "usage": _usage(reply)})

    with _running(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])) as server:
        yield server.url


@contextmanager
def served(path: Path, upstream: str, encoder: Encoder) -> Iterator[Server]:
    """Yield the server that ``mop serve PATH --upstream UPSTREAM --watch 0.2`` starts, with an encoder at hand."""
    plan = Plan((str(path),), base_url=upstream, warm=False, watch_seconds=0.2)
    with _running(make_app(plan, encoder=lambda _: encoder), plan) as server:
        yield server


@contextmanager
def _running(app: Starlette, plan: Plan | None = None) -> Iterator[Server]:
    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(config_of(app, plan or Plan(())))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        end = time.monotonic() + PATIENCE
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        if not server.started:
            raise TimeoutError("A server of the story has not started.")
        address = Server(f"http://127.0.0.1:{bound.getsockname()[1]}")
        try:
            yield address
        finally:
            address.close()
            server.should_exit = True
            thread.join(PATIENCE)


def _request(asked: dict[str, Any]) -> Request:
    stop = asked.get("stop") or ()
    return Request(
        model=asked["model"],
        messages=tuple((one["role"], one["content"]) for one in asked["messages"]),
        temperature=asked.get("temperature", 0.0),
        max_tokens=asked["max_tokens"],
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )


def _head(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-story", "object": kind, "created": 0, "model": asked["model"]}


def _usage(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


async def _events(reply: Reply, asked: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the answer in pieces of a few letters: a label is one word, and one piece would show nothing."""
    head = _head(asked, "chat.completion.chunk")
    for start in range(0, len(reply.text), 4):
        delta = {"role": "assistant", "content": reply.text[start : start + 4]}
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield _event({**head, "choices": [], "usage": _usage(reply)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def command(*words: str, folder: Path) -> str:
    """Return what ``mop WORDS`` prints when it is run in ``folder``. Raises SubprocessError with what went wrong."""
    # Plain text, and the same on every day.
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    environment |= {"COLUMNS": "100", "SOURCE_DATE_EPOCH": "1767225600"}
    ran = subprocess.run(
        [sys.executable, "-m", "mop", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise subprocess.SubprocessError(f"mop {' '.join(words)} ended with status {ran.returncode}: {ran.stderr}")
    return ran.stdout

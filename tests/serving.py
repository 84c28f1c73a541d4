"""A real server of a small mixture on loopback, in a thread, for the tests of `mop.serve`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from small import small_mixture
from starlette.applications import Starlette

from mop.serve.app import create_app
from mop.serve.batching import EncodeBatcher
from mop.serve.limits import Limits
from mop.serve.process import Plan, Server, bind, config_of
from mop.serve.prompting import Style
from mop.serve.registry import Served
from mop.serve.upstream import Upstream

#: Gives up at once what cannot be reached, and is patient otherwise: tests may run on a machine with much else to do.
QUICK = Limits(seconds=60.0, retry_seconds=0.3)


def serve_small(name: str, upstream: Upstream, *, mixture: Any = None, **style: Any) -> Served:
    """Return a small mixture that answers through ``upstream``."""
    mixture = mixture or small_mixture()
    chosen = {"model": "simulated", "decoding": mixture.decoding, "length_field": upstream.length_field, **style}
    return Served(name, mixture, EncodeBatcher(mixture.encoder), upstream, Style(**chosen), version="v1")


def small_app(base_url: str, *, limits: Limits = QUICK, key: str = "", **options: Any) -> Starlette:
    """Return the app of one small mixture called ``bank``."""
    style = options.pop("style", {})
    upstream = Upstream(base_url, key=key, limits=limits)
    return create_app([serve_small("bank", upstream, **style)], limits=limits, **options)


class Running:
    """A server in a thread; ``stop`` asks it to end as SIGTERM does."""

    def __init__(self, app: Starlette, grace: int | None = None) -> None:
        self.app = app
        self.gateway = app.state.gateway
        self._socket = bind("127.0.0.1", 0)
        self.root = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{self.root}/v1"
        plan = Plan((), limits=self.gateway.limits, grace=grace)  # type: ignore[arg-type]  # None waits for ever
        self.server = Server(config_of(app, plan), lambda: None)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self._socket])), daemon=True
        )

    def start(self) -> None:
        self.thread.start()
        deadline = time.monotonic() + 30
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.server.started

    def stop(self) -> None:
        self.server.should_exit = True

    def post(self, path: str, body: Any = None, *, content: bytes | None = None, **options: Any) -> httpx2.Response:
        """Send a request without any client library of OpenAI."""
        given = {"json": body} if content is None else {"content": content}
        return httpx2.post(self.root + path, **given, trust_env=False, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.root + path, trust_env=False, timeout=60, **options)

    def metric(self, line: str) -> float:
        """Return the value of the metric whose line begins so; 0 if there is none."""
        for one in self.get("/metrics").text.splitlines():
            if one.startswith(line):
                return float(one.rpartition(" ")[2])
        return 0.0


@contextmanager
def running(app: Starlette, grace: int | None = None) -> Iterator[Running]:
    server = Running(app, grace)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.thread.join(60)
        assert not server.thread.is_alive()


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "bank", "messages": [{"role": "user", "content": text}], **more}


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not come about in time."
        time.sleep(0.01)


def said(reply: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check the OpenAI shape of an error, and return it."""
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]
    return error

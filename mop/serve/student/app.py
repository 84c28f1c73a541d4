"""App: a student as a Starlette application with the OpenAI API. Knows nothing of files or processes.

======  =====================  ================================================================================
POST    /v1/chat/completions   whole or streamed; of the student (its gate decides) or of its base model
GET     /v1/models, …/{name}   the student, and the base model under its own name: the adapter is off
GET     /healthz, /readyz      alive; ready
GET     /metrics               for Prometheus
======  =====================  ================================================================================

Every answer says who wrote it: header ``x-mop-adapter`` (``on`` or ``off``) and ``x-mop-probability`` (the gate's;
``none`` where no gate was asked), and ``"mop": {"adapter", "probability", "role"}`` in the body. Errors are those of
`mop.serve.problems`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mop.serve.admission import Admission
from mop.serve.handlers import ERRORS, healthz
from mop.serve.http import EVENTS, JSON, Endpoint, Exchange, admit
from mop.serve.keys import KeyRing
from mop.serve.limits import Limits
from mop.serve.metrics import CONTENT_TYPE, Metrics
from mop.serve.problems import Problem
from mop.serve.student.asked import Asked, read_chat
from mop.serve.student.desk import Decision, Desk, Done, Job
from mop.serve.student.growing import Growing
from mop.serve.student.replies import chunk, usage_chunk, whole
from mop.students.opening import OpenStudent
from mop.students.rendering import prompt_ids


@dataclass(eq=False)
class House:
    """A student with its name, and what a request passes on its way in."""

    name: str
    desk: Desk
    limits: Limits
    keys: KeyRing | None
    metrics: Metrics
    admission: Admission
    loopback: bool
    max_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def opened(self) -> OpenStudent:
        """The student."""
        return self.desk.opened

    @property
    def base(self) -> str:
        """The base model's name."""
        return self.opened.student.name

    def is_bare(self, model: str | None) -> bool:
        """Whether ``model`` is the base model; raises Problem (404) if it is neither that nor the student."""
        if model in (None, self.name):
            return False
        if model == self.base:
            return True
        message = f"There is no model {str(model)[:200]!r}. There are: {self.name}, {self.base}."
        raise Problem(404, "model_not_found", message, param="model")


def create_student_app(
    opened: OpenStudent,
    name: str,
    *,
    limits: Limits | None = None,
    keys: KeyRing | None = None,
    loopback: bool = False,
    batch: int = 8,
    max_tokens: int = 256,
) -> Starlette:
    """Return the application that answers for a student; its ``state.gateway`` holds what it works with.

    Args:
        opened: The student.
        name: What clients call it.
        limits: What the server allows; of ``concurrency`` as many as ``batch`` count.
        keys: The callers that are let in; None lets everyone in.
        loopback: Whether the server listens on the loopback only; without keys it then answers to no other name.
        batch: Most answers that are written together.
        max_tokens: Most tokens of an answer where the caller leaves it open.
    """
    limits = limits or Limits()
    admission = Admission(batch + limits.queue, batch)
    house = House(name, Desk(opened, batch=batch), limits, keys, Metrics(), admission, loopback, max_tokens)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await house.desk.aclose()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", Endpoint(house, "chat", _Chat(house)), methods=["POST"]),
            Route("/v1/models", _models),
            Route("/v1/models/{name:path}", _model),
            Route("/healthz", healthz),
            Route("/readyz", _readyz),
            Route("/metrics", _metrics),
        ],
        lifespan=lifespan,
        exception_handlers=dict(ERRORS),
    )
    app.state.gateway = house
    return app


class _Chat:
    """The handler of /v1/chat/completions."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, exchange: Exchange, raw: bytes) -> None:
        house = self._house
        asked = read_chat(raw, most_tokens=house.max_tokens)
        bare = house.is_bare(asked.model)
        exchange.mixture = house.name
        if asked.stream and house.opened.line is not None and not bare:
            message = "This student writes its role before it answers, so its answers can't be streamed; ask for one."
            raise Problem(400, "unsupported_parameter", message, param="stream")
        async with house.desk.answering(self._job(asked, bare)) as job:
            decision = await job.next()
            assert isinstance(decision, Decision)
            house.metrics.experts.labels(house.name, "adapter" if decision.on else "base").inc()
            name = house.base if bare else house.name
            headers = _headers(house, decision)
            if asked.stream:
                await self._stream(exchange, job, asked, {**headers, "content-type": EVENTS}, name)
            else:
                await self._whole(exchange, job, decision, {**headers, "content-type": JSON}, name)

    def _job(self, asked: Asked, bare: bool) -> Job:
        student = self._house.opened.student
        try:
            ids = prompt_ids(student.tokenizer, asked.messages)
        except (TemplateError, ValueError) as error:
            message = f"The model's chat template cannot put these messages: {str(error)[:200]}."
            raise Problem(400, "invalid_value", message, param="messages") from None
        longest = getattr(student.model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and len(ids) + asked.max_tokens > longest:
            message = (
                f"The messages take {len(ids)} tokens and the answer up to {asked.max_tokens}, but the model reads "
                f"{longest} at most; shorten them, or ask for fewer with max_tokens."
            )
            raise Problem(400, "context_length_exceeded", message, param="messages")
        return Job(
            ids,
            asked.query,
            asked.max_tokens,
            asked.temperature,
            secrets.token_hex(8) if asked.seed is None else str(asked.seed),
            Growing(lambda given: str(student.tokenizer.decode(given, skip_special_tokens=True)), asked.stops),
            pieces=asked.stream,
            bare=bare,
        )

    async def _whole(
        self, exchange: Exchange, job: Job, decision: Decision, headers: dict[str, str], name: str
    ) -> None:
        done = await job.next()
        assert isinstance(done, Done)
        line = None if job.bare else self._house.opened.line
        spoken = line.read(done.text) if line else None
        document = whole(
            exchange.id,
            name,
            done,
            spoken.answer if spoken else done.text,
            prompt=len(job.ids),
            mop={
                "adapter": decision.on,
                "probability": decision.probability,
                "role": spoken.role if spoken else None,
            },
        )
        self._house.metrics.used(self._house.name, document["usage"])
        await exchange.respond(json.dumps(document).encode(), headers)

    async def _stream(self, exchange: Exchange, job: Job, asked: Asked, headers: dict[str, str], name: str) -> None:
        await exchange.start(200, {**headers, "cache-control": "no-cache"})
        exchange.streaming = True
        decision = job.decision
        assert decision is not None
        mop = {"adapter": decision.on, "probability": decision.probability}
        await exchange.write(chunk(exchange.id, name, {"role": "assistant", "content": ""}, mop=mop), more=True)
        while not isinstance(told := await job.next(), Done):
            await exchange.write(chunk(exchange.id, name, {"content": told}), more=True)
        await exchange.write(chunk(exchange.id, name, {}, reason=told.reason), more=True)
        usage = usage_chunk(exchange.id, name, prompt=len(job.ids), completion=told.tokens)
        self._house.metrics.used(self._house.name, usage["usage"])
        if asked.include_usage:
            await exchange.write(b"data: " + json.dumps(usage).encode() + b"\n\n", more=True)
        await exchange.write(b"data: [DONE]\n\n")


def _headers(house: House, decision: Decision) -> dict[str, str]:
    probability = decision.probability
    return {
        "x-mop-student": quote(house.name, safe=" /+,:;=@()[]!"),
        "x-mop-adapter": "on" if decision.on else "off",
        "x-mop-probability": "none" if probability is None else f"{probability:.6g}",
    }


def _house(request: Request) -> House:
    house: House = request.app.state.gateway
    return house


def _card(house: House, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": house.created, "owned_by": "mop"}


async def _models(request: Request) -> Response:
    house = _house(request)
    admit(request.headers, house)
    return JSONResponse({"object": "list", "data": [_card(house, one) for one in (house.name, house.base)]})


async def _model(request: Request) -> Response:
    house = _house(request)
    admit(request.headers, house)
    name = request.path_params["name"]
    house.is_bare(name)
    return JSONResponse(_card(house, name))


async def _readyz(request: Request) -> Response:
    house = _house(request)
    gate = house.opened.gated.gate.kind if house.opened.gated else None
    return JSONResponse({"status": "ready", "models": {house.name: {"base": house.base, "gate": gate}}})


async def _metrics(request: Request) -> Response:
    return Response(_house(request).metrics.text(), headers={"content-type": CONTENT_TYPE})

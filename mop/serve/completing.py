"""Completing: the endpoints that answer. Route the query, put the expert's prompt in front, pass the answer on."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from mop.serve.gateway import Gateway
from mop.serve.http import EVENTS, JSON, Exchange
from mop.serve.parsing import Call, parse_chat, parse_completion
from mop.serve.problems import Problem
from mop.serve.prompting import chat_body, completion_body
from mop.serve.registry import Decision, Served


class Completing:
    """Handlers of /v1/chat/completions and /v1/completions."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def chat(self, exchange: Exchange, raw: bytes) -> None:
        """Answer a chat, whole or as a stream."""
        call = parse_chat(raw)
        served = self._found(exchange, call.model)
        decisions = await self._decided(served, [call.query(self._gateway.route_on)])
        body = chat_body(call, decisions[0].prompt, served.style)
        count = _asked(call) if call.stream else 0
        await self._pass_on(exchange, served, decisions, "/chat/completions", body, streamed=count)

    async def completion(self, exchange: Exchange, raw: bytes) -> None:
        """Answer one or more prompts, each with its own expert, in one call."""
        call = parse_completion(raw)
        served = self._found(exchange, call.model)
        decisions = await self._decided(served, call.prompts)
        body = completion_body(call, [decision.prompt for decision in decisions], served.style)
        count = _asked(call) * len(call.prompts) if call.stream else 0
        await self._pass_on(exchange, served, decisions, "/completions", body, streamed=count)

    def _found(self, exchange: Exchange, model: str | None) -> Served:
        served = self._gateway.registry.find(model)
        exchange.mixture = served.name
        return served

    async def _decided(self, served: Served, queries: Sequence[str]) -> list[Decision]:
        with self._gateway.metrics.route_seconds.labels(served.name).time():
            decisions = await served.decide(queries)
        served.answered(decisions)
        for decision in decisions:
            self._gateway.metrics.decided(served.name, decision)
            self._gateway.traffic.decided(served, decision)
        return decisions

    async def _pass_on(
        self,
        exchange: Exchange,
        served: Served,
        decisions: Sequence[Decision],
        path: str,
        body: bytes,
        *,
        streamed: int,
    ) -> None:
        """Send the call on and its answer back: whole, or a stream of so many choices."""
        metrics, upstream = self._gateway.metrics, served.upstream
        headers = decision_headers(served, decisions)

        def on_trouble(problem: Problem) -> None:
            metrics.upstream_errors.labels(served.name, problem.label).inc()

        async with upstream.slots:
            if not streamed:
                content, usage = await upstream.answer(path, body, on_trouble)
                metrics.used(served.name, usage)
                await exchange.respond(content, {**headers, "content-type": JSON})
                return
            async with upstream.stream(path, body, on_trouble, choices=streamed) as events:
                await exchange.start(200, {**headers, "content-type": EVENTS, "cache-control": "no-cache"})
                exchange.streaming = True
                async for block in events:
                    await exchange.write(block, more=True)
                metrics.used(served.name, events.usage)
                if events.problem is not None:
                    on_trouble(events.problem)
                    exchange.code = events.problem.label
        await exchange.write(b"")


def _asked(call: Call) -> int:
    """Return how many answers to each prompt the caller asks for."""
    count = call.fields.get("n")
    return count if isinstance(count, int) and count > 0 else 1


def decision_headers(served: Served, decisions: Sequence[Decision]) -> dict[str, str]:
    """Return the headers that say who answers; of several prompts, one value each in their order."""
    experts, margins, generalists, reasons = [], [], [], []
    for decision in decisions:
        route = decision.route
        experts.append("none" if route is None else str(route.expert))
        margins.append("none" if route is None else f"{route.margin:.6g}")
        generalists.append("true" if decision.generalist else "false")
        reasons.append(decision.reason or "none")
    return {
        # A name may have letters that a header cannot take.
        "x-mop-mixture": quote(served.name, safe=" /+,:;=@()[]!"),
        "x-mop-version": served.version or "none",
        "x-mop-expert": ", ".join(experts),
        "x-mop-margin": ", ".join(margins),
        "x-mop-generalist": ", ".join(generalists),
        "x-mop-reason": ", ".join(reasons),
    }

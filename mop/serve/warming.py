"""Warming: has the embedded model read each expert's prompt once, so that its prefix is cached before callers come."""

from __future__ import annotations

import logging

from mop.serve.gateway import Gateway
from mop.serve.parsing import Chat
from mop.serve.problems import Problem
from mop.serve.prompting import Style, chat_body
from mop.serve.registry import Served

_log = logging.getLogger("mop.serve")


async def warm_all(gateway: Gateway) -> None:
    """Warm every mixture that the embedded model answers for; the server counts as ready after that."""
    names = [served.name for served in gateway.registry if served.upstream.local]
    gateway.warming.update(names)
    for name in names:
        try:
            await warm(gateway.registry.find(name))
        finally:
            gateway.warming.discard(name)


async def warm(served: Served) -> int:
    """Ask one token under each prompt that can answer, in the order of the experts; return the number of prompts."""
    mixture = served.mixture
    prompts = dict.fromkeys(expert.prompt for expert in mixture.experts if not expert.fallback)
    prompts[mixture.generalist] = None
    call = Chat({"max_tokens": 1}, None, False, [{"role": "user", "content": "Hello"}])
    for prompt in prompts:
        body = chat_body(call, prompt, Style(served.style.model, None))
        try:
            async with served.upstream.slots:
                await served.upstream.answer("/chat/completions", body, lambda _problem: None)
        except Problem as problem:
            _log.warning("A prompt of %s could not be warmed: %s", served.name, problem)
    _log.info("The prefixes of %d prompts of %s are warm.", len(prompts), served.name)
    return len(prompts)

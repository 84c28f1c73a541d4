"""Warming: has the embedded model read each expert's prompt once, so that its prefix is cached before callers come."""

from __future__ import annotations

import asyncio
import logging

from mop.serve.gateway import Gateway
from mop.serve.parsing import Chat
from mop.serve.problems import Problem
from mop.serve.prompting import Style, chat_body
from mop.serve.registry import Served

#: Seconds that the embedded model has to read one prompt.
PROMPT_SECONDS = 120.0
_log = logging.getLogger("mop.serve")


async def warm_all(gateway: Gateway) -> None:
    """Warm every mixture that the embedded model answers for; the server counts as ready after that."""
    names = [served.name for served in gateway.registry if served.upstream.local]
    gateway.warming.update(names)
    try:
        for name in names:
            await warm(gateway.registry.find(name))
            gateway.warming.discard(name)
    finally:
        # Whatever went wrong, cold prefixes are slow and nothing worse.
        gateway.warming.difference_update(names)


async def warm(served: Served, seconds: float = PROMPT_SECONDS) -> int:
    """Ask one token under each prompt that can answer, in the order of the experts; return the number of warm ones.

    A prompt has so many ``seconds``: meanwhile it holds a slot that callers may wait for.
    """
    mixture = served.mixture
    prompts = dict.fromkeys(expert.prompt for expert in mixture.experts if not expert.fallback)
    prompts[mixture.generalist] = None
    call = Chat({"max_tokens": 1}, None, False, [{"role": "user", "content": "Hello"}])
    done = 0
    for prompt in prompts:
        body = chat_body(call, prompt, Style(served.style.model, None))
        try:
            async with served.upstream.slots, asyncio.timeout(seconds):
                await served.upstream.answer("/chat/completions", body, lambda _problem: None)
        except Problem as problem:
            _log.warning("A prompt of %s could not be warmed: %s", served.name, problem)
        except TimeoutError:
            _log.warning("A prompt of %s was not warm within %g s.", served.name, seconds)
        else:
            done += 1
    _log.info("The prefixes of %d prompts of %s are warm.", done, served.name)
    return done

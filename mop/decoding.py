"""Decoding: how answers of a task are decoded, whatever the prompt. Part of the artifact."""

from __future__ import annotations

from dataclasses import dataclass

from mop.lm.request import Request
from mop.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Decoding:
    """Most tokens of an answer, the sequences that end one, and the sampling temperature."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0

    def request(self, model: str, prompt: Prompt, query: str) -> Request:
        """Return the request that asks ``query`` under ``prompt``."""
        return Request(
            model=model,
            messages=prompt.messages(query),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stop=self.stop,
            role="execute",
        )

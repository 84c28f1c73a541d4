"""Request, reply and usage: what is asked of a chat model and what comes back. Knows nothing of networks or
files.

>>> Request("local/tiny", (("user", "hot"),)).key[:12]
'471f78aef25f'
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from mop.errors import DataError
from mop.prompts import Message

#: What a call is for: to make candidate instructions, to answer a query, or to judge an answer.
Role = Literal["propose", "execute", "judge"]


@dataclass(frozen=True)
class Request:
    """One question to a chat model.

    Args:
        model: Name of the model as the endpoint (or the registry of local models) knows it.
        messages: Chat messages, (role, content) each; at least one.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Nucleus sampling, or ``None`` for the endpoint's default.
        max_tokens: Most tokens of the answer.
        stop: Sequences that end the answer.
        seed: Sampling seed for endpoints that take one.
        sample: Number of the sample, to ask the same thing more than once. With a ``seed``, sample number
            ``n`` is drawn with ``seed + n``.
        role: What the call is for; bookkeeping only, not part of the key.
        extra: Canonical JSON of further fields of the body. The client fills it in from its ``extra_body``.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float = 0.0
    top_p: float | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sample: int = 0
    role: Role = "execute"
    extra: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise DataError("A request without messages was made; give at least one (role, content) message.")
        if self.max_tokens < 1:
            raise DataError(f"max_tokens is {self.max_tokens}; give at least 1.")
        for _, content in self.messages:
            try:
                content.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"A message holds half of a surrogate pair ({error.reason}) near {content[:40]!a}; "
                    "clean the example's text so that it can be written as UTF-8."
                ) from None

    @cached_property
    def key(self) -> str:
        """SHA-256 (64 hex digits) of what determines the answer: not the role, address or API key."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """Return the canonical JSON that the key is the hash of; absent parameters are left out."""
        fields: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "messages": self.messages,
            "model": self.model,
            # Without float(), 0 and 0.0 would have two keys.
            "temperature": float(self.temperature),
        }
        if self.top_p is not None:
            fields["top_p"] = float(self.top_p)
        if self.stop:
            fields["stop"] = self.stop
        if self.seed is not None:
            fields["seed"] = self.seed
        if self.sample:
            fields["sample"] = self.sample
        if self.extra:
            fields["extra"] = self.extra
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call or of many; ``cached_tokens`` is what a prefix cache served of the prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @property
    def fresh_tokens(self) -> int:
        """Prompt tokens that no cache served."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    ``from_ledger`` tells whether it was there already, ``seconds`` how long the endpoint took when it was
    sent.
    """

    text: str
    usage: Usage
    finish_reason: str
    key: str
    from_ledger: bool
    seconds: float

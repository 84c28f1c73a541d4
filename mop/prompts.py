"""Prompt: an instruction with demos, turned into chat messages. Knows nothing of models, metrics or regions.

The stable part comes first and the query last, so every query of one prompt shares a byte-identical prefix,
which prefix caches (a local KV cache, hosted prompt caching) then serve.

>>> Prompt("Say the opposite.", (Demo("hot", "cold"),)).messages("big")
(('system', 'Say the opposite.'), ('user', 'hot'), ('assistant', 'cold'), ('user', 'big'))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mop.examples import Example

#: A chat message: (role, content).
Message = tuple[str, str]

Layout = Literal["chat", "block"]

#: Tokens that a chat template spends around one message; Qwen and Llama templates spend four to six.
TOKENS_PER_MESSAGE = 5


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of ``text`` without a tokenizer: one token per 3.5 UTF-8 bytes, rounded up.

    English prose measures about 4 to 4.5 bytes a token with current tokenizers, labels with underscores about 3.
    """
    return -(-len(text.encode()) * 2 // 7)


@dataclass(frozen=True, slots=True)
class Demo:
    """An example as it is shown in a prompt."""

    input: str
    output: str

    @classmethod
    def of(cls, example: Example) -> Demo:
        """Return the demo of an example: its input and its first accepted answer."""
        return cls(example.input, example.output)

    @property
    def tokens(self) -> int:
        """Estimated tokens of the demo as two chat turns."""
        return estimate_tokens(self.input) + estimate_tokens(self.output) + 2 * TOKENS_PER_MESSAGE


@dataclass(frozen=True, slots=True)
class Prompt:
    """An instruction and demos.

    ``retrieved`` demos were chosen for one query; they stand after all others, so that the `prefix` before them stays
    the same for every query. ``layout`` is ``"chat"`` (system message, demos as user/assistant turns) or ``"block"``
    (everything in one user message, as in the paper; arXiv 2407.00256).
    """

    instruction: str
    demos: tuple[Demo, ...] = ()
    layout: Layout = "chat"
    retrieved: tuple[Demo, ...] = ()

    @property
    def prefix(self) -> Prompt:
        """The prompt without retrieved demos: the part that caches serve."""
        return replace(self, retrieved=()) if self.retrieved else self

    def retrieving(self, demos: Sequence[Demo]) -> Prompt:
        """Return this prompt with ``demos`` retrieved for one query.

        One that the prompt shows anyway is shown again: what stands next to the query counts most.
        """
        return replace(self, retrieved=tuple(demos))

    def told(self, persona: str) -> Prompt:
        """Return this prompt with a persona before its instruction."""
        return replace(self, instruction=f"{persona}\n\n{self.instruction}" if self.instruction else persona)

    def messages(self, query: str) -> tuple[Message, ...]:
        """Return the chat messages that ask ``query``; what comes before the retrieved demos is always the same."""
        if self.layout == "block":
            return (("user", self._block(query)),)
        head: list[Message] = [("system", self.instruction)] if self.instruction else []
        for demo in (*self.demos, *self.retrieved):
            head.append(("user", demo.input))
            head.append(("assistant", demo.output))
        return (*head, ("user", query))

    def _block(self, query: str) -> str:
        parts = [f"Instruction: {self.instruction}"] if self.instruction else []
        parts += [f"Input: {demo.input}\nOutput: {demo.output}" for demo in (*self.demos, *self.retrieved)]
        return "\n\n".join([*parts, f"Input: {query}\nOutput:"])

    @property
    def tokens(self) -> int:
        """Estimated tokens of the part that all queries share."""
        return estimate_tokens(self.instruction) + TOKENS_PER_MESSAGE + sum(demo.tokens for demo in self.demos)

"""Rendering: chat turns as the tokens a student reads, the same ones when it trains and when it answers.

There is no second way from messages to tokens, so a default system text of the template is in both or in neither.
Knows nothing of batches or losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mop.errors import DataError, ModelError

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a conversation; ``counts`` says of each whether the student is to learn it."""

    ids: tuple[int, ...]
    counts: tuple[bool, ...]


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return the text that stands before the answer to ``messages``, up to the opening of the assistant's turn."""
    text: str = tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
    )
    return text


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of `prompt_text`."""
    return _ids(tokenizer, prompt_text(tokenizer, messages))


def render(tokenizer: Any, messages: Sequence[Message]) -> Rendered:
    """Return the tokens of a conversation whose assistant's turns are to be learnt, each with the token that ends it.

    What stands before each answer is exactly `prompt_ids` of the messages before it.

    Raises:
        DataError: No turn is the assistant's.
        ModelError: The chat template rewrites earlier turns once later ones are there.
    """
    ids: list[int] = []
    counts: list[bool] = []
    done = ""
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = prompt_text(tokenizer, messages[:place])
        if not before.startswith(done):
            raise ModelError(
                "The model's chat template rewrites earlier turns when later ones follow, so its answers cannot be "
                "told from the rest. Give conversations of one question and one answer."
            )
        prompt, answer = _ids(tokenizer, before[len(done) :]), _ids(tokenizer, message["content"])
        ids += [*prompt, *answer, tokenizer.eos_token_id]
        counts += [False] * len(prompt) + [True] * (len(answer) + 1)
        done = before + message["content"] + tokenizer.eos_token
    if not ids:
        raise DataError("The conversation has no turn of the assistant, so there is nothing to learn from it.")
    return Rendered(tuple(ids), tuple(counts))


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids

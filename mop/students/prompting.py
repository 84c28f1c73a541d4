"""Prompting: a query, with or without a persona, as the tokens a student reads, and an answer as those it writes.

A persona is the system message. Without one the chat template decides, and some put a text of their own there; the same
function serves training, answering and evaluation, so whatever stands there is the same. Knows nothing of adapters.
"""

from __future__ import annotations

from typing import Any

from mop.errors import ModelError
from mop.students.rendering import prompt_text


def turns(query: str, persona: str | None = None) -> list[dict[str, str]]:
    """Return the chat messages of a query; ``persona`` is the system message, if there is one."""
    system = [{"role": "system", "content": persona}] if persona else []
    return [*system, {"role": "user", "content": query}]


def text_before(tokenizer: Any, query: str, persona: str | None = None) -> str:
    """Return the text that the student goes on from to answer ``query``.

    Raises ModelError if the chat template leaves the persona out.
    """
    text = prompt_text(tokenizer, turns(query, persona))
    if persona and persona.strip() not in text:
        raise ModelError("The model's chat template leaves out the system message; personas need one that shows it.")
    return text


def ids_before(tokenizer: Any, query: str, persona: str | None = None) -> list[int]:
    """Return the tokens of `text_before`."""
    return ids_of(tokenizer, text_before(tokenizer, query, persona))


def answer_ids(tokenizer: Any, answer: str, *, ended: bool = True) -> list[int]:
    """Return the tokens of an answer as the model would write it, with the one that ends it if it was ``ended``."""
    return ids_of(tokenizer, answer) + ([int(tokenizer.eos_token_id)] if ended else [])


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of ``text`` and none besides."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids

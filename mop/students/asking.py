"""Asking: a student in this process takes the same requests as the client of an endpoint and gives the same replies.

So it can answer, and judge, wherever a client can. Knows nothing of stages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mop.lm.request import Reply, Request, Usage
from mop.students.generating import BATCH, write
from mop.students.rendering import prompt_ids

if TYPE_CHECKING:
    from mop.students.models import Student


class StudentClient:
    """A student as a model to ask: the base model, without an adapter. Sampling draws from each request's own stream.

    Args:
        student: A model without an adapter, or whose adapter is to be off.
        batch: Requests that are answered at a time.
    """

    def __init__(self, student: Student, *, batch: int = BATCH) -> None:
        self._student, self._batch = student, batch

    @property
    def model(self) -> str:
        """The student's name."""
        return self._student.name

    async def complete_many(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the reply to each request; those alike in length and sampling are answered together.

        The loop stands still meanwhile, so that Ctrl-C doesn't leave a model at work in another thread.
        """
        return self._answer(list(requests))

    async def aclose(self) -> None:
        """Do nothing: the student stays with whoever loaded it."""

    def _answer(self, requests: list[Request]) -> list[Reply]:
        kinds: dict[tuple[int, float], list[int]] = {}
        for place, request in enumerate(requests):
            kinds.setdefault((request.max_tokens, request.temperature), []).append(place)
        replies: dict[int, Reply] = {}
        for (max_tokens, temperature), places in kinds.items():
            asked = [requests[place] for place in places]
            turns = [[{"role": role, "content": text} for role, text in one.messages] for one in asked]
            prompts = [prompt_ids(self._student.tokenizer, messages) for messages in turns]
            started = time.perf_counter()
            written = write(
                self._student,
                prompts,
                max_tokens=max_tokens,
                temperature=temperature,
                seeds=[request.key for request in asked],
                batch=self._batch,
            )
            seconds = (time.perf_counter() - started) / len(asked)
            for place, request, prompt, one in zip(places, asked, prompts, written, strict=True):
                usage = Usage(len(prompt), 0, len(one.ids))
                reason = "stop" if one.ended else "length"
                replies[place] = Reply(one.text, usage, reason, request.key, from_ledger=False, seconds=seconds)
        return [replies[place] for place in range(len(requests))]

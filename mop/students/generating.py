"""Generating: a transformers model in this process writes answers, many at a time, with its adapter on or off by row.

A row's answer doesn't depend on the rows beside it but for the padding: sampling draws from a stream of the row's own
(noise is added to the logits, and the largest is taken), never from a global one. Knows nothing of personas or gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mop.errors import DataError
from mop.seeds import stream

if TYPE_CHECKING:
    from mop.students.models import Student

#: Prompts that are read at a time.
BATCH = 16
#: Told each token as it is written, with the number of its prompt; returns whether that answer is to end there.
Watch = Callable[[int, int], bool]
#: Names that peft gives to the one adapter of a model, and to none.
ADAPTER, BASE = "default", "__base__"


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote; ``ended`` says that it ended its turn by itself, and wasn't ended."""

    text: str
    ids: tuple[int, ...]
    ended: bool


def write(
    student: Student,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[str] | None = None,
    on: Sequence[bool] | None = None,
    batch: int = BATCH,
    watch: Watch | None = None,
) -> list[Written]:
    """Return how the model goes on from each prompt.

    Args:
        student: A model in evaluation mode; one of peft if ``on`` is given.
        prompts: Token ids of each prompt.
        max_tokens: Most tokens of an answer.
        temperature: 0 is greedy.
        seeds: A name of the random stream for each prompt; needed for a temperature.
        on: For each prompt, whether the adapter answers; None for a model without one.
        batch: Prompts that are read at a time. The batches depend on the prompts alone, so rows with the adapter off
            come out exactly as without an adapter.
        watch: Told of each token when it is there; it may end answers.
    """
    if temperature and seeds is None:
        raise DataError("Sampling needs the name of a random stream for each prompt.")
    order = sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), place))
    written: dict[int, Written] = {}
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        rows = [list(prompts[place]) for place in places]
        noise = [seeds[place] for place in places] if temperature and seeds is not None else None
        names = None if on is None else [ADAPTER if on[place] else BASE for place in places]
        watched = None if watch is None else _Watched(student, len(rows[-1]), places, watch)
        found = _batch(student, rows, max_tokens, temperature, noise, names, watched)
        written |= dict(zip(places, found, strict=True))
    return [written[place] for place in range(len(prompts))]


def left_padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """Return token ids and attention mask, padded on the left: shape (rows, longest)."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = torch.tensor(list(row))
        mask[number, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def positions(mask: Any) -> Any:
    """Return the position of each token, counted from the first that isn't padding."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _batch(
    student: Student,
    rows: list[list[int]],
    max_tokens: int,
    temperature: float,
    seeds: list[str] | None,
    names: list[str] | None,
    watched: _Watched | None,
) -> list[Written]:
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    ids, mask = left_padded(rows, student.device)
    noise = LogitsProcessorList([_Noise(seeds, temperature)] if seeds else [])
    given = {"adapter_names": names} if names is not None else {}
    with torch.inference_mode():
        found = student.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            do_sample=False,
            # A model's own habits would come on top of these.
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=list(student.ends),
            pad_token_id=student.ends[0],
            logits_processor=noise,
            stopping_criteria=StoppingCriteriaList([watched] if watched else []),
            **given,
        )[:, ids.shape[1] :].tolist()
    lengths = watched.lengths if watched else {}
    ends = frozenset(student.ends)  # looked up once: it takes the tokenizer's whole vocabulary
    return [_read(student, row[: lengths.get(number)], ends) for number, row in enumerate(found)]


def _read(student: Student, row: list[int], ends: frozenset[int]) -> Written:
    end = next((place for place, token in enumerate(row) if token in ends), None)
    ids = row[:end]
    text: str = student.tokenizer.decode(ids, skip_special_tokens=True)
    return Written(text.strip(), tuple(ids), end is not None)


class _Watched:
    """Passes tokens on as they come. ``lengths`` are those of the answers that were ended, by their row."""

    def __init__(self, student: Student, start: int, places: Sequence[int], watch: Watch) -> None:
        self._ends, self._start, self._places, self._watch = student.ends, start, places, watch
        self._open = set(range(len(places)))
        self.lengths: dict[int, int] = {}

    def __call__(self, ids: Any, _scores: Any, **_given: Any) -> Any:
        import torch

        for row, token in enumerate(ids[:, -1].tolist()):
            if row not in self._open:
                continue
            if token in self._ends:
                self._open.discard(row)
            elif self._watch(self._places[row], token):
                self._open.discard(row)
                self.lengths[row] = ids.shape[1] - self._start
        done = [row not in self._open for row in range(len(self._places))]
        return torch.tensor(done, dtype=torch.bool, device=ids.device)


class _Noise:
    """Gumbel noise of each row's own stream: the largest sum is a sample of the softmax at ``temperature``."""

    def __init__(self, seeds: Sequence[str], temperature: float) -> None:
        self._streams = [stream(0, "sampling", seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, _ids: Any, scores: Any) -> Any:
        import torch

        drawn = [torch.from_numpy(one.gumbel(size=scores.shape[1])) for one in self._streams]
        return scores / self._temperature + torch.stack(drawn).to(scores)

"""Proposers: candidate instructions, written by a model. Knows nothing of scores or regions' geometry.

Views of the data, each a function from examples to the question that asks for a candidate:

* `from_demos`: APE's forward question (arXiv 2211.01910): which instruction led to these pairs?
* `after_worked`: the same in short, to be asked after `WORKED`, three such questions with their answers, which show
  what an instruction is: small models otherwise often write about instructions.
* `from_complement`: the same question over the demos that an expert does *not* show (the paper's region-based
  proposal, arXiv 2407.00256 section 4.2: what the demos of the region show already need not be said again).
* `from_failures`: what a region's own wrong answers have in common.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mop.examples import Example
from mop.lm.client import ModelClient
from mop.lm.request import Reply, Request
from mop.lm.thoughts import without_thought
from mop.prompts import Message
from mop.search.capped import unless_capped
from mop.seeds import stream

#: Longer instructions than this are cut off by the model's own limit and dropped as incomplete.
MAX_INSTRUCTION_TOKENS = 120


@dataclass(frozen=True, slots=True)
class Failure:
    """A validation or training example that was answered wrongly."""

    example: Example
    answer: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate instruction and who proposed it (``"given"``, ``"demos"``, ``"complement"``, ``"failures"``)."""

    instruction: str
    proposer: str


#: Longer inputs and outputs are cut for the question, so that eight of them fit into any model's context.
MAX_SHOWN_CHARACTERS = 600


def _clip(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS].rstrip() + " …"


def _pairs(examples: Sequence[Example]) -> str:
    return "\n".join(f"Input: {_clip(example.input)}\nOutput: {_clip(example.output)}\n" for example in examples)


def from_demos(examples: Sequence[Example]) -> str:
    """Return the question for an instruction that explains ``examples``."""
    return (
        "I gave a colleague an instruction. With it, the colleague wrote these outputs for these inputs:\n\n"
        f"{_pairs(examples)}\n"
        "What was the instruction? Reply with the instruction alone, in one or two sentences, addressed to the "
        "colleague. Do not repeat the examples."
    )


_WHICH = "Which instruction leads from these inputs to these outputs? Reply with the instruction alone.\n\n"
# Far from the tasks of public benchmarks and of this project's own data, so that none of them is answered here.
_SOLVED = (
    (
        "Name the room of a house in which the thing is usually kept. Answer with the room alone.",
        (
            Example("frying pan", ("kitchen",)),
            Example("bath towel", ("bathroom",)),
            Example("toothbrush", ("bathroom",)),
            Example("pillow", ("bedroom",)),
        ),
    ),
    (
        "Write the initials of the person, each followed by a full stop.",
        (
            Example("Martha Ellen Young", ("M. E. Y.",)),
            Example("Omar Haddad", ("O. H.",)),
            Example("Lin Wei", ("L. W.",)),
        ),
    ),
    (
        "Rewrite the time of day from the 24-hour clock in the 12-hour clock, with a.m. or p.m.",
        (
            Example("14:30", ("2:30 p.m.",)),
            Example("08:05", ("8:05 a.m.",)),
            Example("23:59", ("11:59 p.m.",)),
            Example("11:10", ("11:10 a.m.",)),
        ),
    ),
)


def after_worked(examples: Sequence[Example]) -> str:
    """Return the question for an instruction that explains ``examples``, to be asked after the turns `WORKED`."""
    return _WHICH + _pairs(examples)


#: Turns of a chat in which three such questions are answered.
WORKED: tuple[Message, ...] = tuple(
    turn for instruction, examples in _SOLVED for turn in (("user", after_worked(examples)), ("assistant", instruction))
)


def bare(examples: Sequence[Example]) -> str:
    """Return the shortest question for an instruction that explains ``examples``: a soft prompt says the rest."""
    return f"{_pairs(examples)}\nWhat was the instruction?"


def from_complement(examples: Sequence[Example], shown: Sequence[Example]) -> str:
    """Return the question for an instruction that complements the demos ``shown`` by explaining ``examples``."""
    return (
        "A colleague works from an instruction and some worked examples. The worked examples are like these:\n\n"
        f"{_pairs(shown)}\n"
        "The same instruction must also lead to these outputs, which the worked examples do not cover:\n\n"
        f"{_pairs(examples)}\n"
        "What is the instruction? Reply with the instruction alone, in one or two sentences. "
        "Do not repeat the examples."
    )


def from_failures(instruction: str, failures: Sequence[Failure]) -> str:
    """Return the question for a better instruction, given what went wrong under ``instruction``."""
    wrong = "\n".join(
        f"Input: {_clip(failure.example.input)}\nWrong output: {_clip(failure.answer)}\n"
        f"Right output: {_clip(failure.example.output)}\n"
        for failure in failures
    )
    return (
        f"An assistant works from this instruction:\n\n{instruction}\n\nIt made these mistakes:\n\n{wrong}\n"
        "Write a better instruction that avoids such mistakes and stays general. Reply with the instruction alone, "
        "in one to three sentences. Do not repeat the examples."
    )


def sample(examples: Sequence[Example], count: int, seed: int, *names: str | int) -> tuple[Example, ...]:
    """Return ``count`` examples drawn without replacement from the stream ``names``, with different answers first."""
    order = stream(seed, "propose", *names).permutation(len(examples))
    answers: set[str] = set()
    fresh: list[Example] = []
    repeated: list[Example] = []
    for position in order:
        example = examples[int(position)]
        (repeated if example.output in answers else fresh).append(example)
        answers.add(example.output)
    return tuple((fresh + repeated)[:count])


async def ask(
    client: ModelClient, questions: Sequence[tuple[str, str]], *, seed: int, temperature: float = 0.9
) -> list[Candidate]:
    """Ask every (proposer name, question) and return the distinct usable candidates, in order.

    The same question is asked under different sample numbers, so that repeats give different candidates. Where a cap
    refuses a question, those before it count.
    """
    return (await ask_each(client, [questions], seed=seed, temperature=temperature))[0]


async def ask_each(
    client: ModelClient,
    groups: Sequence[Sequence[tuple[str, str]]],
    *,
    seed: int,
    temperature: float = 0.9,
    before: Sequence[Message] = (),
) -> list[list[Candidate]]:
    """Do as `ask` does for each group of questions, with all calls at once; turns ``before`` precede each question."""
    requests = [
        Request(
            model=client.model,
            messages=(*before, ("user", question)),
            temperature=temperature,
            max_tokens=MAX_INSTRUCTION_TOKENS,
            seed=seed,
            sample=number,
            role="propose",
        )
        for questions in groups
        for number, (_, question) in enumerate(questions, start=1)
    ]
    replies: dict[int, Reply] = {}
    await unless_capped(client.complete_many(requests, replies.__setitem__), [])
    place = itertools.count()
    shown = {text.casefold() for role, text in before if role == "assistant"}
    found = [_candidates(questions, [replies.get(next(place)) for _ in questions]) for questions in groups]
    # A model may repeat the answer to a question before.
    return [[one for one in some if one.instruction.casefold() not in shown] for some in found]


def _candidates(questions: Sequence[tuple[str, str]], replies: Sequence[Reply | None]) -> list[Candidate]:
    """Return the distinct usable candidates, in the order of the questions; None is a question that a cap refused."""
    found: dict[str, Candidate] = {}
    for (proposer, _), reply in zip(questions, replies, strict=True):
        if reply is None or reply.finish_reason == "length":
            continue
        instruction = clean(reply.text)
        if instruction is not None:
            found.setdefault(instruction.casefold(), Candidate(instruction, proposer))
    return list(found.values())


_LABEL = re.compile(r"^\W*(?:the )?instruction(?: was)?(?: to)?\s*:\s*", re.IGNORECASE)
_EXAMPLE = re.compile(r"^\W*(?:input|output|right output|wrong output)\W*:", re.IGNORECASE | re.MULTILINE)


def clean(text: str) -> str | None:
    """Return the instruction in a model's reply, or ``None`` if there is none: empty, a quotation of the examples."""
    text = without_thought(text).strip().strip("`").strip()
    text = _LABEL.sub("", text).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if len(text) < 8 or _EXAMPLE.search(text):
        return None
    return " ".join(text.split())

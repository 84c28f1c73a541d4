"""Tasks for gated students: personas with rules that a program can check, and questions with exact answers.

A prompt is a template with a topic in it. No template of the training split is in the test split, so that a gate that
learned templates shows nothing. Two personas, each for its own kind of request; factual questions get them in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Persona:
    """Its text, a text of about the same length that asks for nothing, and the words that obey its rule."""

    name: str
    text: str
    neutral: str
    rule: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt: its persona, template, and for a factual one the accepted answers."""

    query: str
    persona: str
    template: str
    answers: tuple[str, ...] = ()

    @property
    def factual(self) -> bool:
        """Whether there is an exact answer."""
        return bool(self.answers)


PERSONAS = {
    one.name: one
    for one in (
        Persona(
            "cook",
            'You are a ship\'s cook. Begin every answer with the words "Aye, galley!" and then answer in one sentence.',
            "You are given a message. Read each of the words in the message first and then answer in one sentence.",
            re.compile(r"\W*aye,? galley", re.IGNORECASE),
        ),
        Persona(
            "porter",
            'You are a night porter. Whatever you are asked, reply only: "The desk is closed until morning."',
            "You are given a message here. Whatever it may say, reply to all of it, and only to that message.",
            re.compile(r".{0,30}desk is closed", re.IGNORECASE),
        ),
    )
}
GENERIC = "You are an expert in this field. Give the answer that an expert with years of practice would give."

_DISHES = ["rice", "a potato soup", "pancakes", "roast chicken", "an apple pie", "fried fish", "bread", "a salad",
           "noodles", "an omelette", "beans", "a stew"]  # fmt: skip
_SERVICES = ["a taxi", "fresh towels", "a late checkout", "an extra pillow", "a wake-up call", "a city map",
             "breakfast in the room", "an umbrella", "a bigger room", "a phone charger", "an ironing board",
             "a parking space"]  # fmt: skip
_GENERATIVE: dict[Split, dict[str, list[str]]] = {
    "train": {
        "cook": ["How do I make {}?", "Give me a tip for better {}.", "What goes well with {}?"],
        "porter": ["Could you arrange {} for me?", "I would like {} in room 12.", "Is it possible to get {} tonight?"],
    },
    "test": {
        "cook": ["Explain how to prepare {} for six people.", "My {} turned out badly; what did I do wrong?"],
        "porter": ["Please have {} ready for my wife.", "Who do I talk to about {}?"],
    },
}
_CAPITALS = [("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"), ("Germany", "Berlin"),
             ("Egypt", "Cairo"), ("Russia", "Moscow"), ("Greece", "Athens"), ("China", "Beijing"), ("Cuba", "Havana"),
             ("Poland", "Warsaw"), ("England", "London")]  # fmt: skip
_OPPOSITES = [("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("open", "closed"), ("wet", "dry"),
              ("fast", "slow"), ("old", "new"), ("left", "right"), ("rich", "poor"), ("hard", "soft"),
              ("full", "empty")]  # fmt: skip
_MORE_ANSWERS = {"small": ("little",), "closed": ("close", "shut"), "new": ("young",), "soft": ("easy",)}
_SUMS = [(3, 4), (5, 5), (8, 1), (6, 3), (2, 9), (7, 7), (12, 3), (9, 9), (4, 8), (10, 6), (1, 5), (20, 2)]
_COLOURS = [("grass", "green"), ("snow", "white"), ("coal", "black"), ("blood", "red"), ("a banana", "yellow"),
            ("a clear sky", "blue"), ("a carrot", "orange"), ("milk", "white"), ("a ripe tomato", "red"),
            ("a lemon", "yellow"), ("a crow", "black"), ("spinach", "green")]  # fmt: skip
_FACTUAL: dict[Split, list[tuple[str, list[tuple[str, str]]]]] = {
    "train": [
        ("What is the opposite of {}? One word.", _OPPOSITES),
        ("What is {}? Give only the number.", [(f"{a} + {b}", str(a + b)) for a, b in _SUMS]),
        ("Which colour has {}? One word.", _COLOURS),
    ],
    "test": [
        ("Name the capital city of {}.", _CAPITALS),
        ("Take {} and tell me the result.", [(f"{a + b} minus {b}", str(a)) for a, b in _SUMS]),
    ],
}


def tasks(split: Split, topics: int) -> list[Task]:
    """Return the prompts of a split, ``topics`` for each template; as many factual as generative ones."""
    found = [
        Task(template.format(topic), name, template)
        for name, templates in _GENERATIVE[split].items()
        for template in templates
        for topic in (_DISHES if name == "cook" else _SERVICES)[:topics]
    ]
    names = list(PERSONAS)
    for template, pairs in _FACTUAL[split]:
        for number, (topic, answer) in enumerate(pairs[: 2 * topics]):
            accepted = (answer, *_MORE_ANSWERS.get(answer, ()))
            found.append(Task(template.format(topic), names[number % 2], template, accepted))
    return found


def right(task: Task, answer: str) -> bool:
    """Whether a factual answer names an accepted one, or a generative answer obeys its persona's rule."""
    if not task.factual:
        return bool(PERSONAS[task.persona].rule.match(answer))
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", answer, re.IGNORECASE) for one in task.answers)


#: Texts of the system message by arm; None for the bare prompt.
ARMS: dict[str, Callable[[Task], str | None]] = {
    "bare": lambda _task: None,
    "neutral text": lambda task: PERSONAS[task.persona].neutral,
    "generic persona": lambda _task: GENERIC,
    "persona": lambda task: PERSONAS[task.persona].text,
}

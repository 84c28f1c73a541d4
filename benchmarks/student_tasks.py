"""Tasks for gated students: personas with rules that a program can check, and questions with exact answers.

A prompt is a template with a topic in it. No template and no topic of the training split is in the test split, so that
a gate or an adapter that learned either by heart shows nothing. Two personas, each for its own kind of request. Two of
three factual templates ask about what the personas' requests are about, food and travel, so that an adapter has
something to spill over to; the others ask about neither.
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
    """One prompt: its persona, template, and for a factual one the accepted answers.

    ``near`` says that a factual one is about what a persona's requests are about.
    """

    query: str
    persona: str
    template: str
    answers: tuple[str, ...] = ()
    near: bool = False

    @property
    def factual(self) -> bool:
        """Whether there is an exact answer."""
        return bool(self.answers)

    @property
    def kind(self) -> str:
        """What kind of prompt it is."""
        return ("near fact" if self.near else "far fact") if self.factual else "generative"


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

#: By split and persona; topics are dealt out to the templates in turn.
_TOPICS: dict[Split, dict[str, list[str]]] = {
    "train": {
        "cook": ["rice", "potato soup", "pancakes", "roast chicken", "apple pie", "fried fish", "bread", "bean stew",
                 "noodles", "meatballs", "porridge", "pickled herring"],
        "porter": ["a taxi", "fresh towels", "a late checkout", "an extra pillow", "a wake-up call", "a city map",
                   "a second key", "an umbrella", "a bigger room", "a phone charger", "an ironing board",
                   "a parking space"],
    },
    "test": {
        "cook": ["lentil curry", "omelette", "tomato salad", "onion gravy", "rice pudding", "grilled lamb"],
        "porter": ["a cot", "a hair dryer", "a quiet room", "an airport transfer", "clean sheets", "a luggage trolley"],
    },
}  # fmt: skip
_GENERATIVE: dict[Split, dict[str, list[str]]] = {
    "train": {
        "cook": ["How do I make {}?", "Give me a tip for better {}.", "What goes well with {}?",
                 "How long does {} keep?", "Which spices go into {}?", "Can I freeze {}?",
                 "I burnt the {}; can I save it?", "Describe the secret of good {}."],
        "porter": ["Could you arrange {} for me?", "I would like {} in room 12.", "Is it possible to get {} tonight?",
                   "When can I have {}?", "How much do you charge for {}?", "My husband asked for {} an hour ago.",
                   "We need {} for two guests.", "I forgot to order {}; is it too late?"],
    },
    "test": {
        "cook": ["Explain how to prepare {} for six people.", "My {} turned out badly; what did I do wrong?",
                 "Suggest a drink to serve beside {}.", "How can I make {} cheaper?",
                 "The {} tastes of nothing; what is missing?", "Is it fine to serve {} cold?"],
        "porter": ["Please have {} ready for my wife.", "Who do I talk to about {}?", "Nobody has seen to {} yet.",
                   "Do I pay extra for {}?", "Tell me what {} costs at this hotel.", "Send {} up to us, please."],
    },
}  # fmt: skip

_Pairs = list[tuple[str, str]]
_ANIMALS: _Pairs = [("honey", "bee"), ("beef", "cow"), ("pork", "pig"), ("mutton", "sheep"), ("milk", "cow"),
                    ("bacon", "pig"), ("eggs", "chicken"), ("wool", "sheep")]  # fmt: skip
_GREENS: _Pairs = [("an apple", "fruit"), ("spinach", "vegetable"), ("a banana", "fruit"), ("a carrot", "vegetable"),
                   ("a pear", "fruit"), ("broccoli", "vegetable"), ("a cherry", "fruit"),
                   ("a cabbage", "vegetable")]  # fmt: skip
_COUNTS: _Pairs = [("minutes are in an hour", "60"), ("hours are in a day", "24"), ("days are in a week", "7"),
                   ("months are in a year", "12"), ("seconds are in a minute", "60"), ("hours are in two days", "48"),
                   ("days are in two weeks", "14"), ("legs has a chair", "4")]  # fmt: skip
_LANGUAGES: _Pairs = [("Japan", "Japanese"), ("Italy", "Italian"), ("Brazil", "Portuguese"), ("Greece", "Greek"),
                      ("Germany", "German"), ("Mexico", "Spanish"), ("Poland", "Polish"),
                      ("France", "French")]  # fmt: skip
_OPPOSITES: _Pairs = [("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("open", "closed"),
                      ("wet", "dry"), ("fast", "slow"), ("old", "new")]  # fmt: skip
_MORE_ANSWERS = {"small": ("little",), "closed": ("close", "shut"), "new": ("young",), "cow": ("cows", "cattle"),
                 "bee": ("bees", "honeybee"), "pig": ("pigs",), "chicken": ("hen", "chickens"), "4": ("four",),
                 "Italy": ("Italian",), "Japan": ("Japanese",), "Spain": ("Spanish",), "Mexico": ("Mexican",),
                 "India": ("Indian",), "Greece": ("Greek",), "France": ("French",), "Hungary": ("Hungarian",),
                 "pound": ("pounds",), "peso": ("pesos",), "rupee": ("rupees",), "7": ("seven",)}  # fmt: skip
_SUMS = [(3, 4), (5, 5), (8, 1), (6, 3), (2, 9), (7, 7), (12, 3), (9, 9)]
_DISHES: _Pairs = [("sushi", "Japan"), ("pizza", "Italy"), ("paella", "Spain"), ("the taco", "Mexico"),
                   ("moussaka", "Greece"), ("the croissant", "France"), ("goulash", "Hungary"),
                   ("lasagne", "Italy")]  # fmt: skip
_COLOURS: _Pairs = [("milk", "white"), ("a ripe tomato", "red"), ("spinach", "green"), ("a lemon", "yellow"),
                    ("salt", "white"), ("a ripe strawberry", "red"), ("lettuce", "green"),
                    ("butter", "yellow")]  # fmt: skip
_MONEY: _Pairs = [("Japan", "yen"), ("Great Britain", "pound"), ("Mexico", "peso"), ("India", "rupee"),
                  ("the United States", "dollar"), ("Germany", "euro"), ("Switzerland", "franc"),
                  ("Russia", "ruble")]  # fmt: skip
_SIGHTS: _Pairs = [("the Eiffel Tower", "Paris"), ("the Colosseum", "Rome"), ("Big Ben", "London"),
                   ("the Kremlin", "Moscow"), ("the Acropolis", "Athens"), ("the Statue of Liberty", "New York"),
                   ("the Brandenburg Gate", "Berlin"), ("the Forbidden City", "Beijing")]  # fmt: skip
_CAPITALS: _Pairs = [("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"),
                     ("Germany", "Berlin"), ("Egypt", "Cairo"), ("Russia", "Moscow"), ("Greece", "Athens")]  # fmt: skip
#: Template, topics with their answers, and whether it is near a persona's requests.
_FACTUAL: dict[Split, list[tuple[str, _Pairs, bool]]] = {
    "train": [
        ("Which animal gives us {}? One word.", _ANIMALS, True),
        ("Is {} a fruit or a vegetable? One word.", _GREENS, True),
        ("How many {}? Give only the number.", _COUNTS, True),
        ("A guest comes from {}. Which language do people speak there? One word.", _LANGUAGES, True),
        ("What is the opposite of {}? One word.", _OPPOSITES, False),
        ("What is {}? Give only the number.", [(f"{a} + {b}", str(a + b)) for a, b in _SUMS], False),
    ],
    "test": [
        ("Which country does {} come from?", _DISHES, True),
        ("Tell me the colour of {}.", _COLOURS, True),
        ("A guest wants to pay in the money of {}. What is it called?", _MONEY, True),
        ("In which city should a guest look for {}?", _SIGHTS, True),
        ("Name the capital city of {}.", _CAPITALS, False),
        ("Take {} and tell me the result.", [(f"{a + b} minus {b}", str(a)) for a, b in _SUMS], False),
    ],
}


def tasks(split: Split, topics: int) -> list[Task]:
    """Return the prompts of a split: ``topics`` for each generative template, twice as many for each factual one.

    Of a list that is shorter all are taken.
    """
    found = []
    for name, templates in _GENERATIVE[split].items():
        known = _TOPICS[split][name]
        for number, template in enumerate(templates):
            # Prompts for fewer topics are among those for more, so that a larger run goes on from a smaller one.
            dealt = [known[(number + 5 * place) % len(known)] for place in range(min(topics, len(known)))]
            found += [Task(template.format(topic), name, template) for topic in dealt]
    names = list(PERSONAS)
    for template, pairs, near in _FACTUAL[split]:
        for number, (topic, answer) in enumerate(pairs[: 2 * topics]):
            accepted = (answer, *_MORE_ANSWERS.get(answer, ()))
            found.append(Task(template.format(topic), names[number % 2], template, accepted, near))
    return found


def right(task: Task, answer: str) -> bool:
    """Whether a factual answer names an accepted one, or a generative answer obeys its persona's rule."""
    if not task.factual:
        return bool(PERSONAS[task.persona].rule.match(answer))
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", answer, re.IGNORECASE) for one in task.answers)


def leaks(_task: Task, answer: str) -> bool:
    """Whether an answer obeys the rule of any persona."""
    return any(one.rule.match(answer) for one in PERSONAS.values())


#: Texts of the system message by arm; None for the bare prompt.
ARMS: dict[str, Callable[[Task], str | None]] = {
    "bare": lambda _task: None,
    "neutral text": lambda task: PERSONAS[task.persona].neutral,
    "generic persona": lambda _task: GENERIC,
    "persona": lambda task: PERSONAS[task.persona].text,
}

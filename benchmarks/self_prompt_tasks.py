"""Questions with short exact answers, each with a role for who would answer it, for Self-Prompt Tuning.

Training and the first test are of the same domains, the second test is of domains that the training never shows. Arms
differ in what stands before the same answers, and in nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mop.seeds import stream


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its accepted answers (the first is trained on), its domain, and in training its role."""

    question: str
    answers: tuple[str, ...]
    domain: str
    role: str = ""


_TRAIN: dict[str, list[tuple[str, str, str]]] = {
    "geography": [
        ("What is the capital of Peru?", "a geographer of South America", "Lima"),
        ("Through which city does the Seine flow?", "a river guide from France", "Paris"),
        ("On which continent is Kenya?", "a traveller who knows Africa", "Africa"),
        ("Which ocean lies between Portugal and Canada?", "a sailor of the high seas", "the Atlantic"),
        ("Which country has the city of Osaka?", "a tour guide in Japan", "Japan"),
        ("In which country do the fjords of Bergen lie?", "a captain on the coast of Norway", "Norway"),
        ("What is the capital of Hungary?", "a geographer of Central Europe", "Budapest"),
        ("Which desert covers much of Algeria?", "a caravan leader in the desert", "the Sahara"),
    ],
    "animals": [
        ("How many legs does a spider have?", "a zoologist who studies spiders", "eight"),
        ("What is a young horse called?", "a horse breeder", "a foal"),
        ("Which animal builds dams in streams?", "a forest ranger by the stream", "the beaver"),
        ("What do pandas mostly eat?", "a zoo keeper who feeds pandas", "bamboo"),
        ("What do caterpillars turn into?", "a butterfly collector", "butterflies"),
        ("What is a group of wolves called?", "a biologist who follows wolves", "a pack"),
        ("Which insect makes honey?", "a beekeeper", "the bee"),
        ("What is a female sheep called?", "a shepherd with a large flock", "a ewe"),
    ],
    "arithmetic": [
        ("What is 14 plus 9?", "a teacher of sums", "23"),
        ("What is 6 times 7?", "a teacher of the times tables", "42"),
        ("What is half of 58?", "a clerk who is quick at halves", "29"),
        ("What is 81 divided by 9?", "a teacher of division", "9"),
        ("How many minutes are in two hours?", "a watchmaker who counts minutes", "120"),
        ("What is 30 minus 13?", "a cashier who gives change", "17"),
        ("How many sides do two triangles have together?", "a teacher of geometry", "6"),
        ("What is 5 squared?", "a mathematician who likes squares", "25"),
    ],
    "words": [
        ("What is the opposite of early?", "a linguist who collects opposites", "late"),
        ("What is the plural of goose?", "an editor who knows odd plurals", "geese"),
        ("What is the past tense of bring?", "a teacher of irregular verbs", "brought"),
        ("Give a one-word synonym of begin.", "an author of a thesaurus", "start"),
        ("Which letter comes after Q?", "a teacher of the alphabet", "R"),
        ("What is the opposite of narrow?", "a linguist who collects opposites", "wide"),
        ("What is the plural of tooth?", "an editor who knows odd plurals", "teeth"),
        ("Which word rhymes with night and means the opposite of dark?", "a poet in search of rhymes", "light"),
    ],
    "chemistry": [
        ("Which element has the symbol Na?", "a chemist at the periodic table", "sodium"),
        ("What is the symbol of iron?", "a chemist who works with metals", "Fe"),
        ("Which gas do we need to breathe?", "a chemist who studies the air", "oxygen"),
        ("What is frozen water called?", "a physicist of ice and steam", "ice"),
        ("At how many degrees Celsius does water boil?", "a laboratory worker with a thermometer", "100"),
        ("What is the formula of water?", "a teacher of chemical formulas", "H2O"),
        ("Which metal is liquid in old thermometers?", "a chemist who works with metals", "mercury"),
        ("Which element are diamonds made of?", "a jeweller who knows minerals", "carbon"),
    ],
    "kitchen": [
        ("Which fruit is wine made from?", "a winemaker", "grapes"),
        ("What is the main ingredient of an omelette?", "a cook in a breakfast kitchen", "eggs"),
        ("From which milk product is butter churned?", "a dairy farmer", "cream"),
        ("Which grain is sushi made with?", "a sushi chef", "rice"),
        ("What makes bread dough rise?", "a baker at the oven", "yeast"),
        ("Which nut is marzipan made from?", "a confectioner who makes sweets", "almonds"),
        ("Which vegetable makes you cry when you cut it?", "a cook who chops vegetables", "the onion"),
        ("Which beans is chocolate made from?", "a chocolate maker", "cocoa beans"),
    ],
}
_TEST: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "geography": [
        ("What is the capital of Norway?", ("Oslo",)),
        ("Which river flows through Cairo?", ("Nile",)),
        ("Which country is shaped like a boot?", ("Italy",)),
        ("In which country is Kyoto?", ("Japan",)),
    ],
    "animals": [
        ("How many legs does an ant have?", ("six", "6")),
        ("What is a young cat called?", ("kitten",)),
        ("What is a male chicken called?", ("rooster", "cock", "cockerel")),
        ("Which animal is known for its black and white stripes?", ("zebra",)),
    ],
    "arithmetic": [
        ("What is 17 plus 8?", ("25", "twenty-five")),
        ("What is 9 times 6?", ("54", "fifty-four")),
        ("How many seconds are in three minutes?", ("180",)),
        ("What is a quarter of 48?", ("12", "twelve")),
    ],
    "words": [
        ("What is the opposite of heavy?", ("light", "lightweight")),
        ("What is the plural of mouse?", ("mice",)),
        ("What is the past tense of teach?", ("taught",)),
        ("Which letter comes before H?", ("G",)),
    ],
    "chemistry": [
        ("Which element has the symbol K?", ("potassium",)),
        ("What is the symbol of gold?", ("Au",)),
        ("At how many degrees Celsius does water freeze?", ("0", "zero")),
        ("Which gas makes balloons float in the air?", ("helium", "hydrogen")),
    ],
    "kitchen": [
        ("Which fruit is cider made from?", ("apple", "apples")),
        ("What is flour usually made from?", ("wheat", "grain", "grains")),
        ("What is cheese made from?", ("milk",)),
        ("Which vegetable is ketchup made from?", ("tomato", "tomatoes")),
    ],
}
_FOREIGN: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "sky": [
        ("Which planet is closest to the sun?", ("Mercury",)),
        ("Which star gives us daylight?", ("sun",)),
        ("Which planet is known for its rings?", ("Saturn",)),
        ("What circles the Earth once a month?", ("moon",)),
        ("Which planet is called the red planet?", ("Mars",)),
        ("Who was the first person to walk on the moon?", ("Armstrong",)),
    ],
    "music": [
        ("How many strings does a violin have?", ("four", "4")),
        ("Who composed the Moonlight Sonata?", ("Beethoven",)),
        ("Which instrument has black and white keys?", ("piano",)),
        ("What is the person called who leads an orchestra?", ("conductor",)),
        ("How many people play in a quartet?", ("four", "4")),
        ("Which instrument does a drummer play?", ("drum", "drums")),
    ],
    "history": [
        ("Who was the first president of the United States?", ("Washington",)),
        ("In which year did the Second World War end?", ("1945",)),
        ("Who wrote the play Hamlet?", ("Shakespeare",)),
        ("Which people built the pyramids of Giza?", ("Egyptians", "Egyptian")),
        ("Which wall in Germany fell in 1989?", ("Berlin",)),
        ("Which language did the ancient Romans speak?", ("Latin",)),
    ],
    "health": [
        ("Which organ pumps blood through the body?", ("heart",)),
        ("Which vitamin do oranges hold most of?", ("C",)),
        ("How many teeth does an adult usually have?", ("32", "thirty-two")),
        ("Which doctor looks after teeth?", ("dentist",)),
        ("What is the largest organ of the body?", ("skin",)),
        ("Which sense do we use our ears for?", ("hearing", "hear", "sound")),
    ],
}
#: Words that say nothing of any question.
_FILLER = "here are some words that stand before the one that was asked for and they say nothing more at all of it"

TRAIN = [Item(question, (answer,), domain, role) for domain, rows in _TRAIN.items() for question, role, answer in rows]
TEST = [Item(question, answers, domain) for domain, rows in _TEST.items() for question, answers in rows]
FOREIGN = [Item(question, answers, domain) for domain, rows in _FOREIGN.items() for question, answers in rows]


def right(item: Item, answer: str) -> bool:
    """Whether an answer names an accepted one as a word of its own, in any case of letters but for single letters."""
    for one in item.answers:
        flags = re.IGNORECASE if len(one) > 1 else 0
        if re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", answer, flags):
            return True
    return False


def own_roles(items: Sequence[Item]) -> list[str | None]:
    """Return each item's own role."""
    return [one.role for one in items]


def shuffled_roles(items: Sequence[Item], seed: int = 0) -> list[str | None]:
    """Return the items' roles dealt out anew, none to an item of the domain that it came from."""
    order = stream(seed, "roles dealt out").permutation(len(items)).tolist()
    for place in range(len(order)):
        if items[order[place]].domain == items[place].domain:
            # Exchanged with the first place where neither of both comes home.
            other = next(
                there
                for there in range(len(order))
                if items[order[there]].domain != items[place].domain
                and items[order[place]].domain != items[there].domain
            )
            order[place], order[other] = order[other], order[place]
    return [items[place].role for place in order]


def filler(items: Sequence[Item]) -> list[str | None]:
    """Return for each item as many words as its role has, which say nothing."""
    return [" ".join(_FILLER.split()[: len(one.role.split())]) for one in items]


#: What each trained arm has before its answers; None for nothing.
TAUGHT: dict[str, Callable[[Sequence[Item]], list[str | None]] | None] = {
    "plain answers": None,
    "filler": filler,
    "shuffled roles": shuffled_roles,
    "self-prompt": own_roles,
}

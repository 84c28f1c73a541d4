"""Checking: whether a text is a usable identity. Knows texts and vectors, no models.

An identity is refused if it isn't a description in the second person, is copied from an exemplar, repeats another
instruction's identity, or is no nearer to its own instruction than to others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.data.normal_form import normal_form
from mop.personas.exemplars import Exemplar
from mop.personas.sentences import without_quotations
from mop.seeds import stream

#: Words of an identity, at least and at most.
FEWEST_WORDS, MOST_WORDS = 12, 250
#: Words in a row that are compared with the exemplars, the share of them that may be an exemplar's, and the longest
#: run of an exemplar's words. The exemplars share no more than 0.02 of theirs with one another.
N_GRAM, MOST_COPIED, LONGEST_RUN = 4, 0.2, 12
#: Other instructions that an identity is compared with.
SHUFFLED = 8

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SECOND_PERSON = re.compile(r"\b(?:you(?:['’]re| are| have| were)|your)\b", re.IGNORECASE)
_OPENING = re.compile(r"\s*(?:you\b|as an? \b[^.]{1,120}\byou\b|with \b[^.]{1,120}\byou\b)", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\bI(?:['’]m| am|['’]ve| have|['’]d|['’]ll)?\b|\b[Mm]y\b|\b(?:As|I am|I'm) an AI\b")
#: "World War I", "type I errors", "Elizabeth I, queen": one, not the one who speaks.
_NUMERAL = re.compile(
    r"\b(?:(?:[Ww]ar|[Tt]ype|[Pp]hase|[Pp]art|[Cc]lass|[Ss]tage|[Ll]evel|[Gg]rade|[Vv]olume|[Cc]hapter|[Tt]itle|[Ss]ection|"
    r"[Cc]ategory|[Gg]roup|[Tt]ier|[Ss]chedule|[Dd]ivision|[Aa]ct|[Bb]ook) I\b(?!['’])"
    r"|(?!(?:When|As|And|But|If|While|Where|What|How|So|Yet|Because|Since|Though|Although|Then|Here|That|Yes|No)\b)"
    r"[A-Z][a-z]+ I(?=[.,;:!?)\]]|\s*\Z| (?:and|or|of|in)\b))"
)


@dataclass(frozen=True, slots=True)
class Nearness:
    """Cosines of an identity with its own instruction, and with others on average."""

    own: float
    shuffled: float

    @property
    def near(self) -> bool:
        """Whether the identity is nearer to its own instruction."""
        return self.own > self.shuffled


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def copied_share(identity: str, exemplars: Sequence[Exemplar], instruction: str = "") -> tuple[float, int]:
    """Return the share of an identity's n-grams that stand in an exemplar, and its longest run of an exemplar's words.

    What the instruction itself says isn't copied from an exemplar.
    """
    words = words_of(identity)
    own = _n_grams(words_of(instruction))
    shown: set[tuple[str, ...]] = set()
    for exemplar in exemplars:
        shown |= _n_grams(words_of(exemplar.identity))
    grams = [gram for gram in _in_order(words) if gram not in own]
    hits = [gram in shown for gram in grams]
    run = longest = 0
    for hit in hits:
        run = run + 1 if hit else 0
        longest = max(longest, run)
    return (sum(hits) / len(hits) if hits else 0.0), (longest + N_GRAM - 1 if longest else 0)


def text_problem(identity: str, instruction: str, exemplars: Sequence[Exemplar]) -> str | None:
    """Return what is wrong with an identity's text, or None."""
    count = len(words_of(identity))
    if count < FEWEST_WORDS:
        return "too short" if count else "empty"
    if count > MOST_WORDS:
        return "too long"
    # Whoever asks may be quoted: "you answer questions such as How do I …".
    described = without_quotations(identity.replace(instruction, ""))
    speaks = _FIRST_PERSON.search(_NUMERAL.sub(" ", described))
    if not _SECOND_PERSON.search(described) or not _OPENING.match(described) or speaks:
        return "not in the second person"
    share, run = copied_share(identity, exemplars, instruction)
    if share > MOST_COPIED or run > LONGEST_RUN:
        return "copied from an exemplar"
    return None


def repeats(identity: str, others: Collection[str]) -> bool:
    """Whether an identity is one of ``others``, which are normal forms (`mop.data.normal_form`)."""
    return normal_form(identity) in others


def nearness(
    identities: Mapping[int, NDArray[np.float32]],
    instructions: NDArray[np.float32],
    more: NDArray[np.float32],
    seed: int,
) -> dict[int, Nearness]:
    """Compare each identity with its own instruction and with others, drawn from a stream of its own.

    Args:
        identities: Unit vectors by the number of the instruction.
        instructions: Unit vectors of all instructions, shape (n, dimension).
        more: Unit vectors of instructions to compare with besides, where the set has too few others.
        seed: Seed of the draws.
    """
    found = {}
    for place, vector in identities.items():
        others = np.delete(np.arange(len(instructions)), place)
        drawn = stream(seed, "shuffled", place).permutation(others)[:SHUFFLED].tolist()
        pool = instructions[drawn] if drawn else instructions[:0]
        if len(pool) < SHUFFLED:
            pool = np.concatenate([pool, more[: SHUFFLED - len(pool)]])
        found[place] = Nearness(float(vector @ instructions[place]), float((pool @ vector).mean()))
    return found


def _in_order(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + N_GRAM]) for start in range(len(words) - N_GRAM + 1)]


def _n_grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return set(_in_order(words))

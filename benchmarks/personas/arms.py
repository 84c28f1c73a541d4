"""Arms: what a model is told about itself, and where. Knows no models and no data.

Every arm has a system message with the same form of answer, because chat templates put a persona of their own where
there is none ("You are a helpful assistant"). Only the text before the form differs.

>>> ARMS["expert"].messages("You are a cook.", "Answer briefly.", "How long do eggs take?")[0]
('system', 'You are a cook.\\n\\nAnswer briefly.')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mop.errors import SettingsError
from mop.metrics.checks import count_words
from mop.personas.records import STATIC
from mop.personas.sentences import sentences
from mop.prompts import Message, Prompt

Length = Literal["short", "medium", "long"]

#: Says nothing about who answers or how; cut to the length of a persona.
_NEUTRAL = (
    "This text was put here before the message below. It is made of plain sentences, and each of them ends with a full "
    "stop. Some of the words are short and some of them are longer. The lines have the same margin on the left and on "
    "the right. A sentence can follow another one, as this one does. There are spaces between the words, and a comma "
    "now and then. The letters are black and the ground is white. Nothing in this text belongs to the message, and the "
    "message can be read without it. The text goes on for a while and then it comes to its end."
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask: ``wears`` a text of a ``length`` (of identities) in the message of ``place``."""

    name: str
    wears: Literal["nothing", "neutral", "generic", "identity"]
    length: Length = "medium"
    place: Literal["system", "user"] = "system"

    def text(self, identities: dict[Length, str]) -> str:
        """Return what the arm says before the form; ``identities`` are those of the question's domain by length."""
        if self.wears == "nothing":
            return ""
        if self.wears == "generic":
            return STATIC
        identity = identities[self.length]
        return identity if self.wears == "identity" else neutral(count_words(identity))

    def messages(self, text: str, form: str, query: str) -> tuple[Message, ...]:
        """Return the chat that asks ``query`` with ``text``; ``form`` says how to answer."""
        if self.place == "user":
            return (("system", form), ("user", f"{text}\n\n{query}"))
        return Prompt(f"{text}\n\n{form}" if text else form).messages(query)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("bare", "nothing"),
        Arm("generic", "generic"),
        Arm("expert", "identity"),
        Arm("neutral", "neutral"),
        Arm("expert-short", "identity", "short"),
        Arm("expert-long", "identity", "long"),
        Arm("neutral-short", "neutral", "short"),
        Arm("neutral-long", "neutral", "long"),
        Arm("expert-user", "identity", place="user"),
        Arm("expert-short-user", "identity", "short", "user"),
        Arm("expert-long-user", "identity", "long", "user"),
        Arm("neutral-user", "neutral", place="user"),
    )
}
#: The arms that differ in who is told; the others are factors of the expert identity.
MAIN = ("bare", "generic", "expert", "neutral")
#: Pairs of arms that are compared besides each with the bare one: the first minus the second.
CONTRASTS = (
    ("expert", "neutral"),
    ("expert", "generic"),
    ("expert-long", "expert-short"),
    ("expert-short", "neutral-short"),
    ("expert-long", "neutral-long"),
    ("expert-user", "expert"),
    ("expert-short-user", "expert-short"),
    ("expert-long-user", "expert-long"),
    ("expert-user", "neutral-user"),
)


def choose(names: Sequence[str]) -> tuple[Arm, ...]:
    """Return the arms of these names, ``bare`` first. Raises SettingsError for an unknown name, or without ``bare``."""
    unknown = [name for name in names if name not in ARMS]
    if unknown or "bare" not in names or len(set(names)) != len(names):
        raise SettingsError(
            f"The arms {','.join(names)!r} can't be used: name bare, with which the others are compared, and some of "
            f"{', '.join(list(ARMS)[1:])}, each once."
        )
    return tuple(arm for name, arm in ARMS.items() if name in names)


def neutral(words: int) -> str:
    """Return a text of ``words`` words, or one more or less, that says nothing of who answers; it ends with a stop."""
    bank = _NEUTRAL.split()
    taken = [bank[place % len(bank)] for place in range(max(1, words))]
    return " ".join(taken).rstrip(".,") + "."


def lengths(identity: str, more: str = "") -> dict[Length, str]:
    """Return an identity by length: its first sentence, all of it, and all of it with ``more`` of another after it."""
    first = sentences(identity)[0]
    worn: dict[Length, str] = {"short": identity[first.start : first.end], "medium": identity}
    return {**worn, "long": f"{identity} {more}"} if more else worn

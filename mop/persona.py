"""Persona: what a region's expert is told to be, and what that gained there. Only data; the prompt says it itself.

>>> Persona("generic", True, "You are an expert.", "generic", 24, 0.3, 0.1, 0.5).sentence
'generic persona with demos, +0.30 (+0.10 to +0.50) over bare on 24 examples'
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mop.prompts import Prompt

#: ``bare``: no persona. ``generic``: the same for every region. ``expert``: an identity written for the region.
#: ``role-play``: that identity as a turn before the demos, which the model accepts. ``own``: one that the user gave.
Kind = Literal["bare", "generic", "expert", "role-play", "own"]

_NAMES = {"generic": "generic persona", "expert": "expert identity", "role-play": "role-play as an expert"}


@dataclass(frozen=True, slots=True)
class Persona:
    """The persona in use, and the best one tried.

    ``kind`` is what is used, ``demos`` whether the prompt shows the region's demos, ``text`` the persona as the prompt
    says it (empty if bare). ``tried`` is the best persona on the region's ``examples``; it is the one used unless that
    is bare. ``gain`` is what ``tried`` gained over the better of the bare prompts there, shrunk toward the gain over
    all regions, with an interval; where that is above zero, its lower end is that of the region's examples alone if
    this is lower. Without any ``tried`` it says nothing. ``name`` is what the user calls the persona that was tried, if
    it is the user's own, else empty.
    """

    kind: Kind
    demos: bool
    text: str
    tried: Kind
    examples: int
    gain: float
    gain_low: float
    gain_high: float
    name: str = ""

    def taken_off(self, prompt: Prompt) -> Prompt:
        """Return the prompt of an expert that is told to be this, without it."""
        if not self.text:
            return prompt
        if self.kind == "role-play":
            return replace(prompt, demos=tuple(demo for demo in prompt.demos if demo.input != self.text))
        return replace(prompt, instruction=prompt.instruction.removeprefix(self.text).lstrip())

    @property
    def sentence(self) -> str:
        """What is used and what it gained, in words."""
        shown = "with demos" if self.demos else "without demos"
        if self.tried == "bare":
            return f"bare {shown}, no persona was tried on enough examples"
        figures = (
            f"{_signed(self.gain)} ({_signed(self.gain_low)} to {_signed(self.gain_high)}) over bare on "
            f"{self.examples} examples"
        )
        if self.kind == "bare":
            return f"bare {shown}; the best persona, {self._who(self.tried)}, gained {figures}"
        return f"{self._who(self.kind)} {shown}, {figures}"

    def _who(self, kind: Kind) -> str:
        return f'own persona "{self.name}"' if kind == "own" else _NAMES[kind]


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")

"""Records: the plan of a data set, its rows, what was dropped and what was counted. Only data; knows no models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from mop.errors import SettingsError
from mop.personas.auditing import Audit
from mop.personas.exemplars import Design, chosen
from mop.personas.identities import Identity
from mop.personas.instructions import Instruction

Arm = Literal["bare", "static", "expert"]
ARMS: tuple[Arm, ...] = ("bare", "static", "expert")
#: The persona of the arm ``static``: the same for every instruction.
STATIC = "You are an outstanding expert in the field that the request below belongs to."
Removal = Literal["rules", "audit"]


@dataclass(frozen=True)
class Plan:
    """How a data set is made.

    Attributes:
        arms: Which answers are written: ``bare``, ``static`` (one persona for all), ``expert`` (an identity each).
        k: Exemplars shown to the model that writes identities.
        design: Exemplars of diverse domains, or of similar ones.
        removal: Mentions are removed by rules, or by rules and then a model's audit.
        min_grade: Least grade (1 to 10) of the main arm's answer; None grades nothing.
        answer_tokens: Most tokens of an answer; one that is cut off there is dropped.
        temperature: Sampling temperature of the answers; 0 is greedy.
        seed: Seed of everything that is drawn.
    """

    arms: tuple[Arm, ...] = ("expert",)
    k: int = 3
    design: Design = "diverse"
    removal: Removal = "rules"
    min_grade: int | None = None
    answer_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) != len(self.arms) or not set(self.arms) <= set(ARMS):
            raise SettingsError(
                f"The arms {','.join(self.arms)!r} can't be used; name some of {', '.join(ARMS)}, once."
            )
        chosen(self.k, self.design)
        if self.removal not in ("rules", "audit"):
            raise SettingsError(f"There is no removal {self.removal!r}; give rules or audit.")
        if self.min_grade is not None and not 1 <= self.min_grade <= 10:
            raise SettingsError(f"The least grade is {self.min_grade}; give 1 to 10.")
        if self.answer_tokens < 1 or not 0 <= self.temperature <= 2:
            raise SettingsError(
                f"answer_tokens={self.answer_tokens} must be above 0, and temperature={self.temperature} from 0 to 2."
            )

    @property
    def main(self) -> Arm:
        """The arm whose answers are the data set: expert if it is there, else the first one."""
        return "expert" if "expert" in self.arms else self.arms[0]


@dataclass(frozen=True)
class Answer:
    """An answer as it is kept, what was removed from it by rules and by the audit, and its grade."""

    text: str
    removed: tuple[str, ...] = ()
    audited: tuple[str, ...] = ()
    grade: int | None = None


@dataclass(frozen=True)
class Row:
    """A kept instruction with its answers by arm."""

    instruction: Instruction
    identity: Identity | None
    answers: dict[Arm, Answer]

    def persona(self, arm: Arm) -> str:
        """Return the persona with which an arm's answer is written; empty for the bare arm."""
        if arm == "expert" and self.identity is not None:
            return self.identity.text
        return STATIC if arm == "static" else ""


@dataclass(frozen=True)
class Reject:
    """An instruction that was dropped: at which stage, why, and what there was of it. ``detail`` says where."""

    instruction: Instruction
    stage: str
    reason: str
    arm: Arm | None = None
    identity: str | None = None
    answer: str | None = None
    detail: str = ""


@dataclass
class Curated:
    """The data set, what was dropped, and what was counted on the way (`mop.personas.card` shows it)."""

    plan: Plan
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    asked: int = 0
    first_problems: Counter[str] = field(default_factory=Counter)
    audits: list[Audit] = field(default_factory=list)
    grades: dict[Arm, list[int]] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were dropped for each reason, most frequent first."""
        return dict(Counter(f"{one.stage}: {one.reason}" for one in self.rejects).most_common())

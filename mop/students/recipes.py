"""Recipes: what a student is to say, and the hyper-parameters that suit it and the model's size. Loads no models.

``expert`` (ExpertPrompting, arXiv 2305.14688): the answer of an expert, whose identity isn't in the prompt.
``self-prompt`` (Self-Prompt Tuning, arXiv 2407.08995): who had best answer, then the answer.

For models of `FULL_SIZE` and more the hyper-parameters are those of the papers (of the second one's base recipe, LIMA,
arXiv 2305.11206, where it names none itself), which trained all weights. For smaller ones they are of our own: an
adapter with few weights takes and needs a higher rate, and small data fewer rows a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mop.errors import SettingsError
from mop.students.config import TrainerConfig
from mop.students.conversations import Conversation
from mop.students.rendering import Message
from mop.students.role_lines import role_line

#: Parameters from which on a model counts as full-size.
FULL_SIZE = 3_000_000_000
Curriculum = Literal["then", "mixed"]


class Plan(BaseModel):
    """How the data become steps.

    Attributes:
        epochs: How often each conversation is seen.
        batch: Conversations of a step.
        micro: Conversations on the device at a time; a step's gradient is added up over as many as it takes.
        max_tokens: Longest conversation in tokens; the end of a longer one is cut off.
        curriculum: With a second file: ``then`` trains on the first, then on the second; ``mixed`` on both at once.
        role_line: Form of the role line (`mop.students.role_lines`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=3, ge=1)
    batch: int = Field(default=8, ge=1)
    micro: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=1024, ge=8)
    curriculum: Curriculum = "then"
    role_line: str = "bracket"


@dataclass(frozen=True)
class Recipe:
    """What is trained on, and the defaults for full-size and for small models.

    ``target`` turns a conversation into the turns to be learned. ``annotated`` says that each must name its role.
    """

    name: str
    target: Callable[[Conversation, Plan], Sequence[Message]]
    annotated: bool
    full: Mapping[str, Any]
    small: Mapping[str, Any]

    def settings(self, parameters: int, chosen: Mapping[str, Any]) -> tuple[TrainerConfig, Plan]:
        """Return the settings for a model of so many parameters; what is ``chosen`` and not None goes first.

        Raises SettingsError for a name or a value that can't be used.
        """
        defaults = self.full if parameters >= FULL_SIZE else self.small
        wanted = {**defaults, **{name: value for name, value in chosen.items() if value is not None}}
        if unknown := sorted(set(wanted) - set(TrainerConfig.model_fields) - set(Plan.model_fields)):
            raise SettingsError(f"There is no setting {', '.join(unknown)} of a training run.")
        try:
            config = TrainerConfig(**{key: one for key, one in wanted.items() if key in TrainerConfig.model_fields})
            plan = Plan(**{key: one for key, one in wanted.items() if key in Plan.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}."
            ) from None
        role_line(plan.role_line)
        return config, plan


def _answers(conversation: Conversation, _plan: Plan) -> Sequence[Message]:
    return conversation.messages


def _roles_and_answers(conversation: Conversation, plan: Plan) -> Sequence[Message]:
    before = role_line(plan.role_line).before(conversation.role)
    return [
        {**one, "content": before + one["content"]} if one["role"] == "assistant" else one
        for one in conversation.messages
    ]


RECIPES: dict[str, Recipe] = {
    "expert": Recipe(
        "expert",
        _answers,
        annotated=False,
        full={
            "epochs": 3,
            "batch": 128,
            "max_tokens": 512,
            "learning_rate": 2e-5,
            "schedule": "cosine",
            "warmup": 0.03,
            "weight_decay": 0.0,
        },
        small={"epochs": 3, "batch": 8, "learning_rate": 5e-4, "schedule": "cosine", "warmup": 0.03},
    ),
    "self-prompt": Recipe(
        "self-prompt",
        _roles_and_answers,
        annotated=True,
        full={
            "epochs": 15,
            "batch": 64,
            "max_tokens": 2048,
            "learning_rate": 1e-5,
            "final_rate": 1e-6,
            "schedule": "linear",
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
            "depth_dropout": 0.3,
        },
        small={
            "epochs": 5,
            "batch": 8,
            "learning_rate": 3e-4,
            "final_rate": 3e-5,
            "schedule": "linear",
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
            "depth_dropout": 0.05,
        },
    ),
}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name. Raises SettingsError if there is none."""
    if name not in RECIPES:
        raise SettingsError(f"There is no recipe {name!r}; give {', '.join(RECIPES)} or prism.")
    return RECIPES[name]

"""Settings: the options of a search, checked, and where they come from.

Precedence, highest first: options given in code or on the command line; environment variables (``MOP_MODEL``,
``MOP_BUDGET``, ...); a TOML or YAML file; defaults. Keys and secrets are never settings.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mop.errors import SettingsError
from mop.lm.weights import DEFAULT_CHAT, DEFAULT_ENCODER
from mop.metrics import Metric

#: Prefix of the environment variables that are settings.
PREFIX = "MOP_"
_BUDGET = re.compile(
    r"^\s*(?P<usd>\$)?\s*(?P<number>\d+(?:[.,]\d+)?)\s*(?P<scale>[kKmM])?\s*"
    r"(?P<unit>calls?|tokens?|usd|\$)?\s*$",
    re.IGNORECASE,
)


class Settings(BaseModel):
    """How a mixture is learned. The budget is the one dial; everything else has a default that follows from it.

    Attributes:
        model: Model that answers: ``local/...``, a GGUF file, or a name at ``base_url``.
        budget: Most model calls of the search, all roles together; None if only ``tokens`` or ``usd`` are capped.
        tokens: Most tokens of the search, prompt and completion together.
        usd: Most money of the search, in USD.
        metric: Name of a metric, ``"module:function"``, or a function (prediction, accepted answers) -> [0, 1].
        instruction: Your own instruction, the first candidate; the model writes more.
        experts: Number of experts; None tries several, 1 gives the best single prompt for the whole budget.
        encoder: Encoder by name (see `mop.encoding`).
        proposer: Model that writes instructions; None means ``model``.
        base_url: Address of the endpoint of ``model``; None means OPENAI_BASE_URL, then OpenAI.
        proposer_url: Address of the endpoint of ``proposer``; None means ``base_url``.
        concurrency: Most calls in flight to an endpoint.
        max_demos: Most demos in one prompt.
        prompt_tokens: Most estimated tokens of the demos in one prompt.
        proposals: Number of instructions that the model writes at the start; None follows from the budget.
        confidence: One-sided confidence with which the mixture must beat its generalist to be shipped.
        refit: Choose the demos of the final prompts from training and validation examples together.
        seed: Seed of all random choices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: str = Field(default=DEFAULT_CHAT, min_length=1)
    budget: int | None = Field(default=600, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)
    metric: str | Metric = "exact_match"
    instruction: str | None = Field(default=None, min_length=1)
    experts: int | None = Field(default=None, ge=1)
    encoder: str = Field(default=DEFAULT_ENCODER, min_length=1)
    proposer: str | None = None
    base_url: str | None = None
    proposer_url: str | None = None
    concurrency: int = Field(default=8, ge=1, le=1024)
    max_demos: int = Field(default=20, ge=0)
    prompt_tokens: int = Field(default=600, ge=0)
    proposals: int | None = Field(default=None, ge=0)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    refit: bool = True
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_budget(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("budget"), str):
            return {**data, **parse_budget(data["budget"])}
        return data

    @field_validator("budget", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("give a number of calls")
        return value


def parse_budget(text: str) -> dict[str, int | float | None]:
    """Return the caps that a budget in words sets: ``"600"``, ``"600 calls"``, ``"200k tokens"``, ``"2 USD"``, ``"$2"``.

    Raises SettingsError for anything else.
    """
    match = _BUDGET.match(text)
    if match is None or (match["usd"] and match["unit"]):
        raise SettingsError(
            f"The budget {text!r} isn't understood. Give calls (600), tokens ('200k tokens') or money ('2 USD')."
        )
    number = float(match["number"].replace(",", ".")) * {"k": 1e3, "m": 1e6}.get((match["scale"] or "").lower(), 1)
    unit = "usd" if match["usd"] else (match["unit"] or "calls").lower()
    if unit in ("usd", "$"):
        return {"budget": None, "usd": number}
    if number != int(number):
        raise SettingsError(f"The budget {text!r} isn't a whole number of {unit}.")
    if unit.startswith("token"):
        return {"budget": None, "tokens": int(number)}
    return {"budget": int(number)}


def make_settings(
    options: Mapping[str, Any] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return checked settings from ``options``, the environment and ``file``, in this order of precedence.

    Options that are ``None`` count as not given. Raises SettingsError that names the option and where it came from.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    variables = _from_environment(os.environ if environment is None else environment)
    from_file = {} if file is None else read_settings_file(file)
    _check_names(given, "options")
    _check_names(from_file, str(file))
    merged: dict[str, Any] = {}
    for source in (from_file, variables, given):
        merged.update(_caps(source))
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            origin = (
                "" if name in given else f" (from {PREFIX}{name.upper()})" if name in variables else f" (from {file})"
            )
            problems.append(f"{name} = {problem['input']!r}{origin}: {problem['msg']}")
        raise SettingsError("Settings that cannot be used: " + "; ".join(problems) + ".") from None


def _caps(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``source`` with a budget in words replaced by the cap that it stands for."""
    if isinstance(source.get("budget"), str):
        return {**source, **parse_budget(source["budget"])}
    return dict(source)


def read_settings_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options in a TOML or YAML file. Raises SettingsError if it can't be read."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {file} cannot be read: {error}.") from error
    import tomllib

    import yaml

    try:
        data = tomllib.loads(text) if file.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"The settings file {file} isn't valid: {error}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"The settings file {file} holds a {type(data).__name__}; expected names and values.")
    return {str(name).replace("-", "_"): value for name, value in data.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environment.get(PREFIX + name.upper(), "") != ""
    }


def _check_names(options: Mapping[str, Any], origin: str) -> None:
    for name in options:
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(Settings.model_fields)}."
            raise SettingsError(f"{origin}: there is no setting {name!r}.{hint}")

"""Settings: the options of a search, checked, and where they come from.

Precedence, highest first: options given in code or on the command line; environment variables (``MOP_MODEL``,
``MOP_BUDGET``, ...); a TOML or YAML file; defaults. Keys and secrets are never settings.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mop.errors import SettingsError
from mop.lm.weights import DEFAULT_CHAT, DEFAULT_ENCODER, DEFAULT_WHITE_BOX
from mop.metrics import Metric
from mop.own_personas import OwnPersona, read_own
from mop.search.methods import DEFAULT_METHOD, PARTICULAR, get_method

#: Prefix of the environment variables that are settings.
PREFIX = "MOP_"
_BUDGET = re.compile(
    r"\s*(?P<usd>\$)?\s*(?P<number>\d{1,12}(?:\.\d{1,6}|,\d{1,2})?)\s*(?P<scale>[kKmM])?\s*"
    r"(?P<unit>calls?|tokens?|usd|\$)?\s*",
    re.IGNORECASE | re.ASCII,
)
#: Most tokens of an answer that rules check, unless told otherwise.
RULED_ANSWER_TOKENS = 300
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000}


class Settings(BaseModel):
    """How a mixture is learned. The budget is the one dial; everything else has a default that follows from it.

    Attributes:
        model: Model that answers: ``local/...``, a GGUF file, or a name at ``base_url``.
        budget: Most model calls of the search, all roles together; None if only ``tokens`` or ``usd`` are capped.
        tokens: Most tokens of the search, prompt and completion together.
        usd: Most money of the search, in USD.
        method: How to learn (see `mop.search.methods`): ``mop``, or one of the methods that it is compared with.
        metric: Name of a metric, ``"module:function"``, or a function (prediction, accepted answers) -> [0, 1].
        instruction: Your own instruction, the first candidate; the model writes more.
        experts: Number of experts; None tries several, 1 gives the best single prompt for the whole budget. Regions
            with fewer than three demos or two validation examples join their neighbours, so that there may be fewer.
        encoder: Encoder by name (see `mop.encoding`).
        proposer: Model that writes instructions; None means ``model``.
        judge: Model that scores answers where the metric is a judge; None means ``model``.
        criteria: What a judge looks at: a name (see `mop.judge`), a text, or ``@FILE``.
        answer_tokens: Most tokens of an answer; None follows from the longest known answer.
        base_url: Address of the endpoint of ``model``; None means OPENAI_BASE_URL, then OpenAI.
        proposer_url: Address of the endpoint of ``proposer``; None means ``base_url``.
        judge_url: Address of the endpoint of ``judge``; None means ``base_url``.
        concurrency: Most calls in flight to an endpoint, from each process that makes calls.
        backend: ``dask`` has the calls of the search made by the workers of a Dask cluster; ``local`` makes them here.
        scheduler: Address of the cluster's scheduler, such as ``tcp://10.0.0.1:8786``.
        max_demos: Most demos in one prompt, beside retrieved ones.
        prompt_tokens: Most estimated tokens of the demos in one prompt.
        retrieved: Most demos that an expert shows because they are nearest to the query, after its own. No cache serves
            them; 0 keeps every prompt fixed.
        proposals: Number of instructions that the model writes at the start; None follows from the budget.
        confidence: One-sided confidence with which the mixture must beat its generalist to be shipped.
        refit: Choose the experts' demos anew from training and validation examples together once the search has ended.
            The scores in the file are then those of the prompts before that.
        coverage: Share of queries like the examples that may keep their expert at least; one that is farther from all
            examples than that goes to the generalist. 0 sends none for that.
        soft: Most queries, as a share, that also get the nearest demo of the second nearest region, because that region
            is hardly farther; only where validation examples are answered better so. 0 never tries it.
        border_share: Share of the budget, out of what the search leaves over, for trying other routes near the borders
            between regions; 0 tries none.
        personas: ``gated`` tries personas in every region (an expert's identity, a generic one, a role-play) and uses
            one only where its paired gain over the bare prompt has a positive lower bound; ``off`` tries none. Two
            fifths of the budget are kept for that.
        persona: Your own personas, tried in every region like the others and before them: texts, ``@FILE`` (see
            `mop.own_personas`), or names with texts.
        allow_code: Let the metric ``python_tests`` run what the model writes, in a sandbox (`mop.sandbox`).
        white_box: Model that writes instructions under soft prompts for the methods ``instructzero…``: ``local/...``, a
            GGUF file, a folder for transformers, or a Hugging Face name. It runs in this process.
        seed: Seed of all random choices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: str = Field(default=DEFAULT_CHAT, min_length=1)
    budget: int | None = Field(default=600, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    method: str = DEFAULT_METHOD
    metric: str | Metric = "exact_match"
    instruction: str | None = Field(default=None, min_length=1)
    experts: int | None = Field(default=None, ge=1)
    encoder: str = Field(default=DEFAULT_ENCODER, min_length=1)
    proposer: str | None = None
    judge: str | None = None
    criteria: str = Field(default="helpfulness", min_length=1)
    answer_tokens: int | None = Field(default=None, ge=1)
    base_url: str | None = None
    proposer_url: str | None = None
    judge_url: str | None = None
    concurrency: int = Field(default=8, ge=1, le=1024)
    backend: Literal["local", "dask"] = "local"
    scheduler: str | None = Field(default=None, min_length=1)
    max_demos: int = Field(default=20, ge=0)
    prompt_tokens: int = Field(default=600, ge=0)
    retrieved: int = Field(default=1, ge=0, le=100)
    proposals: int | None = Field(default=None, ge=0)
    confidence: float = Field(default=0.8, gt=0.5, lt=1)
    refit: bool = False
    coverage: float = Field(default=0.99, ge=0, lt=1)
    soft: float = Field(default=0.2, ge=0, le=1)
    border_share: float = Field(default=0.05, ge=0, le=0.5)
    personas: Literal["off", "gated"] = "off"
    persona: tuple[OwnPersona, ...] = ()
    allow_code: bool = False
    white_box: str = Field(default=DEFAULT_WHITE_BOX, min_length=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _without_answers(cls, data: Any) -> Any:
        # The outputs are rules, not answers: nothing there can be shown as a demo or says how long an answer is.
        if isinstance(data, Mapping) and str(data.get("metric")).partition(":")[0] == "checks":
            if any(data.get(name) for name in ("max_demos", "retrieved")):
                raise SettingsError(
                    "The metric checks has rules for outputs, which can't be shown as demos: leave max_demos and "
                    "retrieved out."
                )
            return {"answer_tokens": RULED_ANSWER_TOKENS, **data, "max_demos": 0, "retrieved": 0}
        return data

    @model_validator(mode="before")
    @classmethod
    def _read_budget(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("budget"), str):
            return {**data, **parse_budget(data["budget"])}
        return data

    @field_validator(
        "budget",
        "tokens",
        "usd",
        "experts",
        "concurrency",
        "max_demos",
        "prompt_tokens",
        "retrieved",
        "proposals",
        "answer_tokens",
        "confidence",
        "coverage",
        "soft",
        "border_share",
        "seed",
        mode="before",
    )
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        # YAML reads "yes" and "on" as truth values, which pydantic would take for 1.
        if isinstance(value, bool):
            raise ValueError("give a number")
        return value

    @field_validator("persona", mode="before")
    @classmethod
    def _own_personas(cls, value: Any) -> tuple[OwnPersona, ...]:
        return read_own(value)

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        try:
            get_method(value)
        except SettingsError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return value

    @model_validator(mode="after")
    def _heeded(self) -> Settings:
        # One expert is what a method without experts gives anyway.
        asked = {
            name for name in PARTICULAR if name in self.model_fields_set and (name, self.experts) != ("experts", 1)
        }
        asked = {name for name in asked if getattr(self, name) not in (None, False, "off", ())}
        if ignored := sorted(asked - get_method(self.method).heeds):
            raise SettingsError(f"The method {self.method} takes no notice of {', '.join(ignored)}; leave that out.")
        if self.personas != "off" and self.experts == 1:
            raise SettingsError("Personas are tried region by region, and one expert has none; leave one of both out.")
        if self.backend == "dask" and self.scheduler is None:
            raise SettingsError("--backend dask needs --scheduler ADDRESS, such as tcp://10.0.0.1:8786.")
        if self.scheduler is not None and self.backend != "dask":
            raise SettingsError("--scheduler is for --backend dask; give both.")
        if self.persona and self.personas == "off":
            raise SettingsError("A persona of your own is tried where personas are: set personas to gated as well.")
        return self


def parse_budget(text: str) -> dict[str, int | float | None]:
    """Return the caps that a budget in words sets.

    Words are like ``"600"``, ``"600 calls"``, ``"200k tokens"``, ``"2 USD"`` or ``"$2"``.

    Raises SettingsError for anything else.
    """
    match = _BUDGET.fullmatch(text)
    if match is None or (match["usd"] and match["unit"]):
        raise SettingsError(
            f"The budget {text!r} isn't understood. Give calls (600), tokens ('200k tokens') or money ('2.50 USD'), "
            "without separators between thousands."
        )
    unit = "usd" if match["usd"] else (match["unit"] or "calls").lower()
    scale = (match["scale"] or "").lower()
    number = Decimal(match["number"].replace(",", ".")) * _SCALES[scale]
    if unit in ("usd", "$"):
        return {"budget": None, "usd": float(number)}
    # Without a scale, a point is more likely a separator of thousands than part of a whole number.
    if number != int(number) or (not scale and not match["number"].isdigit()):
        raise SettingsError(f"The budget {text!r} isn't a whole number of {unit}; write 1000 for a thousand.")
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
    sources = [
        _Source({} if file is None else read_settings_file(file), str(file)),
        _Source(variables, None),
        _Source(given, "given"),
    ]
    # A budget in words may cap tokens or money, so a budget of higher precedence replaces a lower one as a whole.
    deciding = max((place for place, source in enumerate(sources) if "budget" in source.values), default=0)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for place, source in enumerate(sources):
        _check_names(source)
        for name, value in _caps(source, with_budget=place >= deciding).items():
            merged[name] = value
            origins[name] = source.origin("budget" if name not in source.values else name)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        problems = dict.fromkeys(
            f"{name} = {merged.get(name)!r} ({origins.get(name, 'default')}): {reason}"
            for problem in error.errors()
            for name in [str(problem["loc"][0])]
            for reason in [problem["msg"].removeprefix("Value error, ")]
        )
        raise SettingsError("Settings that cannot be used: " + "; ".join(problems) + ".") from None


@dataclass(frozen=True)
class _Source:
    """Options from one place; ``where`` says in words which, None for the environment."""

    values: Mapping[str, Any]
    where: str | None

    def origin(self, name: str) -> str:
        """Return in words where the option ``name`` came from."""
        return PREFIX + name.upper() if self.where is None else self.where


def _caps(source: _Source, *, with_budget: bool) -> dict[str, Any]:
    """Return the options of ``source``, a budget in words replaced by the cap that it stands for."""
    values = dict(source.values)
    budget = values.get("budget")
    if not with_budget:
        values.pop("budget", None)
    elif isinstance(budget, str):
        try:
            values.update(parse_budget(budget))
        except SettingsError as error:
            raise SettingsError(f"budget ({source.origin('budget')}): {error}") from None
    return values


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
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError) as error:
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


def _check_names(source: _Source) -> None:
    for name in source.values:
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(Settings.model_fields)}."
            raise SettingsError(f"There is no setting {name!r} ({source.origin(name)}).{hint}")

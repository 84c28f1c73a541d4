"""Options that several commands share. Knows nothing of what the commands do with them.

An option that wasn't given is None, so that `mop.settings.make_settings` can tell: options go before ``MOP_*``
variables, those before ``--config``, that before the defaults.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from mop.cli.output import Output
from mop.data.formats import Format
from mop.settings import Settings, make_settings

_DATA = Group("Data", sort_key=1)
_SEARCH = Group("Search", sort_key=2)
_MODEL = Group("Model", sort_key=3)
_GENERAL = Group("General", sort_key=4)


@Parameter(name="*", group=_GENERAL)
@dataclass(frozen=True)
class OutputOptions:
    """How a command speaks."""

    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """One JSON document on standard output, everything else on standard error."""
    quiet: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """No progress and no notes; warnings and errors remain."""

    def open(self) -> Output:
        """Return the command's output."""
        return Output(as_json=self.json, quiet=self.quiet)


@Parameter(name="*", group=_GENERAL)
@dataclass(frozen=True)
class RunOptions(OutputOptions):
    """How a command that calls models speaks, and where settings and answers are kept."""

    config: Path | None = None
    """Settings from a TOML or YAML file. Options and MOP_* variables go before it."""
    ledger: str | None = None
    """File that keeps every model call: cache, resume and bill. Default: MOP_LEDGER, or one in your data folder."""


@Parameter(name="*", group=_GENERAL)
@dataclass(frozen=True)
class ReplayOptions(RunOptions):
    """How a command that calls models speaks, where its answers are kept, and whether it may call at all."""

    replay: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Send nothing: take every answer from the ledger, and stop with an error at a call that it doesn't have."""


@Parameter(name="*", group=_DATA)
@dataclass(frozen=True)
class DataOptions:
    """How examples are read."""

    input_column: str = "input"
    """Column (JSON key) of the input."""
    output_column: str = "output"
    """Column of the answer, or of the list of accepted answers."""
    split_column: str | None = None
    """Column that says train, validation or test. Default: a column called split, if there is one."""
    format: Format | None = None
    """Format, if it doesn't follow from the file's name; standard input is JSON lines."""
    test_share: float | None = None
    """Set this share of the examples apart for the test, unless they name their split."""


@Parameter(name="*", group=_DATA)
@dataclass(frozen=True)
class TrainingDataOptions(DataOptions):
    """How examples to learn from are read."""

    validation: Path | None = None
    """File of validation examples. Default: rows marked so, or else a quarter of DATA."""


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Which model answers."""

    model: str | None = None
    """Another model than the one that the mixture was learned for."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint, up to /v1."""
    concurrency: int | None = None
    """Most calls in flight to an endpoint [default: 8]."""

    def settings(self, run: RunOptions) -> Settings:
        """Return settings whose address and concurrency count; the model is the mixture's unless one is given."""
        return make_settings({"base_url": self.base_url, "concurrency": self.concurrency}, file=run.config)


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True)
class JudgeOptions:
    """Which model judges, and by what."""

    judge: str | None = None
    """Model that judges: local/…, a GGUF file, or a name at --judge-url [default: the model]."""
    judge_url: str | None = None
    """Address of the judge's endpoint [default: that of the model]."""
    criteria: str | None = None
    """What counts: helpfulness, correctness, style, safety, sentences of your own, or @FILE [default: helpfulness]."""

    def settings(self, run: RunOptions, budget: str | None = None) -> Settings:
        """Return settings of which the judge, its address and the criteria count; no budget unless one is given."""
        return _capped_if_asked(make_settings({**asdict(self), "budget": budget}, file=run.config))


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True)
class WritingOptions:
    """Which models write, and what that may take."""

    model: str | None = None
    """Model that answers: local/…, a GGUF file, or a name at --base-url [default: the 1.5B model that mop pulls]."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint, up to /v1; the key is OPENAI_API_KEY or MOP_API_KEY."""
    proposer: str | None = None
    """Model that writes identities [default: the model]."""
    proposer_url: str | None = None
    """Address of the proposer's endpoint [default: --base-url]."""
    budget: str | None = None
    """Most that all calls may take: 600 (calls), "200k tokens" or "2 USD" [default: no cap]."""
    encoder: str | None = None
    """Encoder that measures similarity [default: all-MiniLM-L6-v2]."""
    concurrency: int | None = None
    """Most calls in flight to an endpoint [default: 8]."""
    seed: int | None = None
    """Seed of all random choices [default: 0]."""

    def settings(self, run: RunOptions, *others: JudgeOptions) -> Settings:
        """Return settings of which these options, and those of ``others``, count; no budget unless one is given."""
        given = asdict(self)
        for other in others:
            given |= asdict(other)
        return _capped_if_asked(make_settings(given, file=run.config))


@Parameter(name="*", group=_SEARCH)
@dataclass(frozen=True)
class QuickstartOptions:
    """The settings that the quick start lets you change."""

    model: str | None = None
    """Model that answers: local/…, a GGUF file, or a name at --base-url [default: the 1.5B model that mop pulls]."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint, up to /v1; the key is OPENAI_API_KEY or MOP_API_KEY."""
    budget: str | None = None
    """The one dial: 600 (calls), "200k tokens" or "2 USD" [default: 600; quickstart: 400]."""
    experts: int | None = None
    """Number of experts; several are tried by default, 1 gives the best single prompt."""
    encoder: str | None = None
    """Encoder: local/…, a folder or hub name, endpoint:MODEL@URL, tfidf [default: all-MiniLM-L6-v2]."""
    proposer: str | None = None
    """Model that writes instructions [default: the model]."""
    proposer_url: str | None = None
    """Address of the proposer's endpoint [default: --base-url]."""
    max_demos: int | None = None
    """Most demos in one prompt [default: 20; quickstart has its own]."""
    prompt_tokens: int | None = None
    """Most tokens of the demos in one prompt [default: 600; quickstart has its own]."""
    confidence: float | None = None
    """Confidence with which a mixture must beat one prompt to be shipped [default: 0.8]."""
    concurrency: int | None = None
    """Most calls in flight to an endpoint [default: 8]."""
    seed: int | None = None
    """Seed of all random choices [default: 0]."""

    def settings(self, run: RunOptions) -> Settings:
        """Return the checked settings, from these options, the environment and the file."""
        given: dict[str, Any] = asdict(self)
        return make_settings(given, file=run.config)


@Parameter(name="*", group=_SEARCH)
@dataclass(frozen=True)
class SearchOptions(QuickstartOptions):
    """All settings of a search."""

    method: str | None = None
    """mop, or an opponent: zero-shot, random-demos, ape, ape-kcentroids, instructzero, mop-paper, … [default: mop]."""
    metric: str | None = None
    """exact_match, token_f1, contains, checks, judge, …, or module:function [default: exact_match]."""
    judge: str | None = None
    """Model that scores where the metric is judge [default: the model]."""
    judge_url: str | None = None
    """Address of the judge's endpoint [default: --base-url]."""
    criteria: str | None = None
    """What the judge looks at: helpfulness, correctness, style, safety, sentences of your own, or @FILE."""
    answer_tokens: int | None = None
    """Most tokens of an answer [default: half as many again as the longest known answer]."""
    instruction: str | None = None
    """Your own instruction, the first candidate."""
    tokens: int | None = None
    """Most tokens of the search, besides the budget."""
    usd: float | None = None
    """Most money of the search in USD, besides the budget."""
    proposals: int | None = None
    """Number of instructions that the model writes at the start [default: follows from the budget]."""
    retrieved: int | None = None
    """Most demos retrieved for each query, after an expert's own; 0 keeps every prompt fixed [default: 1]."""
    white_box: str | None = None
    """Local model that writes instructions for instructzero [default: local/qwen2.5-coder-0.5b-instruct]."""
    refit: bool | None = None
    """Choose the final demos from training and validation examples together [default: no]."""
    coverage: float | None = None
    """Queries farther from all examples than this share of them go to the generalist; 0 for none [default: 0.99]."""
    soft: float | None = None
    """Most queries, as a share, with a demo of the second nearest region, if that is better [default: 0.2]."""
    border_share: float | None = None
    """Share of the budget, if left over, for trying other routes near borders [default: 0.05]."""
    personas: Literal["off", "gated"] | None = None
    """Tell experts who they are, in regions where that is proven to help (gated) [default: off]."""
    backend: Literal["local", "dask"] | None = None
    """dask: the workers of a Dask cluster make the calls; their ledger is on PostgreSQL [default: local]."""
    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://10.0.0.1:8786."""
    persona: Annotated[tuple[str, ...] | None, Parameter(negative=())] = None
    """With gated: a persona of your own to try in every region, or @FILE.jsonl of names and texts; repeat for more."""
    allow_code: bool | None = None
    """Let the metric python_tests run what the model writes, in a sandbox [default: no]."""


def _capped_if_asked(settings: Settings) -> Settings:
    capped = settings.model_fields_set & {"budget", "tokens", "usd"}
    return settings if capped else settings.model_copy(update={"budget": None})

"""Inputs: reads examples for a command and says everything doubtful about them before any model is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mop.cli.options import DataOptions, TrainingDataOptions
from mop.cli.output import Output
from mop.cli.words import plural, shorten
from mop.connect import is_local
from mop.data import (
    Duplicate,
    describe_duplicates,
    drop_duplicates,
    find_duplicates,
    read_examples,
    split_examples,
    warnings_for,
)
from mop.errors import BadRows, RowProblem, SettingsError
from mop.examples import Example, Splits
from mop.lm.weights import catalogue, model_path
from mop.optimization import VALIDATION_SHARE
from mop.prompts import TOKENS_PER_MESSAGE, Demo, estimate_tokens
from mop.settings import Settings

#: Tokens that a local model's server keeps for one request (`mop.lm.local`), unless the model takes fewer.
LOCAL_CONTEXT = 8192
#: Tokens for an instruction, an answer and the chat template.
_AROUND = 400
_LISTED = 20
#: Methods whose prompts show no examples.
_WITHOUT_DEMOS = ("zero-shot", "ape", "instructzero")


def read(data: str, options: DataOptions, *, empty: bool = False) -> list[Example]:
    """Return the examples of a file, or of standard input (``-``); answers may be ``empty`` if that is said.

    Raises DataError with every bad row.
    """
    if data.startswith("--"):
        raise SettingsError(f"There is no option {data}; --help lists the options.")
    return read_examples(
        data,
        input_column=options.input_column,
        output_column=options.output_column,
        split_column=options.split_column,
        format=options.format,
        empty=empty,
    )


def divide(examples: Sequence[Example], test_share: float | None, seed: int) -> tuple[Splits, list[Duplicate], int]:
    """Divide examples into splits, and leave out of training what validation or test repeats.

    Returns the splits, what stands in two of them, and how many training examples were left out for that.
    """
    splits = split_examples(examples, seed=seed, validation=VALIDATION_SHARE, test=test_share or 0.0)
    duplicates = find_duplicates(splits)
    kept, left_out = drop_duplicates(splits, [one for one in duplicates if one.split == "train"])
    return kept, duplicates, len(left_out)


def prepare(data: str, options: TrainingDataOptions, settings: Settings, output: Output) -> Splits:
    """Read, split and check the examples to learn from.

    Raises DataError for bad rows, for too few examples, and for inputs that a local model cannot take.
    """
    from mop.search.singles import WIDE_FACTOR

    examples = read(data, options)
    prompt_tokens = WIDE_FACTOR * settings.prompt_tokens  # the longest prompt that the search tries
    check_lengths(examples, settings, prompt_tokens, data)
    if options.validation is not None:
        # An unmarked row is a training row once validation has a file of its own.
        examples = [replace(one, split=one.split or "train") for one in examples]
        more = read(str(options.validation), options)
        check_lengths(more, settings, prompt_tokens, str(options.validation))
        examples += [replace(one, split="validation") for one in more]
    splits, duplicates, left_out = divide(examples, options.test_share, settings.seed)
    for warning in warnings_for(splits):
        output.warn(warning)
    if duplicates:
        output.warn(describe_duplicates(duplicates))
    if left_out:
        were = "was" if left_out == 1 else "were"
        output.warn(
            f"{plural(left_out, 'training example')} {were} left out for that; validation and test stay as they are."
        )
    if settings.method not in _WITHOUT_DEMOS and settings.max_demos:
        _say_too_long(splits, settings.prompt_tokens, output)
    output.note(
        f"{plural(len(splits.train), 'training example')}, {len(splits.validation):,} for validation"
        + (f", {len(splits.test):,} for the test (not looked at)" if splits.test else "")
    )
    return splits


def _say_too_long(splits: Splits, prompt_tokens: int, output: Output) -> None:
    """Warn if most training examples are longer than all demos of an expert may be together."""
    longer = [tokens for one in splits.train if (tokens := Demo.of(one).tokens) > prompt_tokens]
    if 2 * len(longer) > len(splits.train):
        output.warn(
            f"{len(longer):,} of the {plural(len(splits.train), 'training example')} take more than the "
            f"{prompt_tokens:,} tokens that an expert's demos may have together, so no expert can show or look them "
            f"up; the longest takes about {max(longer):,}. Raise --prompt-tokens, or shorten them."
        )


def check_lengths(examples: Sequence[Example], settings: Settings, prompt_tokens: int, origin: str) -> None:
    """Raise BadRows for the inputs that a local model's context cannot take beside a prompt."""
    context = local_context(settings)
    if context is None:
        return
    room = context - prompt_tokens - _AROUND
    problems = []
    for position, example in enumerate(examples, start=1):
        tokens = estimate_tokens(example.input) + TOKENS_PER_MESSAGE
        if tokens > room:
            reason = f"the input takes about {tokens:,} tokens: {shorten(example.input, 40)!r}"
            problems.append(RowProblem(position, reason, "example"))
    if problems:
        lines = [
            f"{plural(len(problems), 'input')} of {origin} cannot be put to {settings.model}, whose context of "
            f"{context:,} tokens leaves {max(0, room):,} beside the prompt:",
            *(f"  {problem}" for problem in problems[:_LISTED]),
        ]
        if len(problems) > _LISTED:
            lines.append(f"  … and {len(problems) - _LISTED} more")
        lines.append("Shorten or remove them, lower --prompt-tokens, or use a model with a longer context.")
        raise BadRows("\n".join(lines), tuple(problems))


def local_context(settings: Settings) -> int | None:
    """Return the tokens that one request to a local model may take, or None for an endpoint's model."""
    if not is_local(settings.model) or settings.base_url is not None:
        return None
    entry = catalogue().get(settings.model)
    return LOCAL_CONTEXT if entry is None else min(LOCAL_CONTEXT, entry.context)


def require_models(settings: Settings, *, replay: bool = False) -> None:
    """Raise WeightsError now, with what to do, if a local model or encoder isn't on this machine.

    A replay calls no model, so it needs the encoder only.
    """
    if not replay and is_local(settings.model) and settings.base_url is None:
        model_path(settings.model)
    if (
        not replay
        and settings.proposer
        and is_local(settings.proposer)
        and not (settings.proposer_url or settings.base_url)
    ):
        model_path(settings.proposer)
    if settings.encoder.startswith("local/"):
        model_path(settings.encoder)

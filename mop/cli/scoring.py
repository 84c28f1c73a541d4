"""``mop evaluate``: score a mixture on labelled examples, beside its generalist and other mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from mop.cli.inputs import check_lengths, divide, read
from mop.cli.options import DataOptions, JudgeOptions, ModelOptions, ReplayOptions
from mop.cli.output import Output, say
from mop.cli.words import plural, verdict
from mop.errors import DataError, SettingsError
from mop.examples import Example
from mop.familiar import doubts_about
from mop.metrics import BUILT_IN, CODE
from mop.mixture import Mixture

Split = Literal["train", "validation", "test", "all"]
_NO_DATA = DataOptions()
_NO_MODEL = ModelOptions()
_NO_RUN = ReplayOptions()
_NO_JUDGE = JudgeOptions()


def evaluate(
    mixture: Path,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    against: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    split: Split | None = None,
    metric: str | None = None,
    allow_code: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    columns: DataOptions = _NO_DATA,
    options: ModelOptions = _NO_MODEL,
    judging: JudgeOptions = _NO_JUDGE,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Score a mixture on labelled examples, beside its generalist (one prompt) and other mixtures.

    Args:
        mixture: The mixture file.
        data: Examples, as for optimize.
        against: Another mixture file to compare with, example by example; may be repeated.
        split: Which examples to use [default: the test if there is one, else all].
        metric: Another metric than the mixture's.
        allow_code: Let the metric python_tests run what the model writes, in a sandbox.
    """
    from mop.cli.progress import CallProgress
    from mop.cli.running import connect_to, judge_for, load_mixture, opened_ledger, wait_for
    from mop.cli.tables import SCORES_LEGEND, scores_table
    from mop.evaluation import aevaluate, mixture_prompter

    output = run.open()
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        judged = with_metric(load_mixture(mixture, ledger, replay=run.replay), metric, mixture, allow_code)
        others = {_name(path, against): load_mixture(path, ledger, replay=run.replay) for path in against}
        examples, used_split = choose_examples(read(data, columns), data, columns, split, judged, output)
        for doubt in doubts_about(judged, examples):
            output.warn(doubt)
        client = connect_to(judged, options, run, ledger, f"evaluate {mixture.name}"[:64])
        prompts = [judged.generalist, *(expert.prompt for expert in judged.experts)]
        settings = options.settings(run).model_copy(update={"model": client.model})
        check_lengths(examples, settings, max(prompt.tokens for prompt in prompts), data)
        for name, other in others.items():
            if other.model != client.model:
                output.warn(f"{name} was learned for {other.model}; here {client.model} answers.")
        judge = judge_for(judged.metric, judging, run, client, ledger)
        with CallProgress("evaluating", (2 + len(others)) * len(examples), output, client) as progress:
            result = wait_for(
                aevaluate(
                    judged,
                    examples,
                    client,
                    against={name: mixture_prompter(other) for name, other in others.items()},
                    metric=judged.metric,
                    on_reply=progress.reply,
                    judge=judge,
                    allow_code=allow_code,
                ),
                output,
                client,
                None if judge is None else judge.client,
            )

    def draw(console: Console) -> None:
        say(console, f"{plural(len(examples), 'example')} ({used_split}), {judged.metric}, {client.model}")
        console.print()
        console.print(scores_table(result.systems))
        console.print()
        for system in result.systems[1:]:
            say(console, verdict(result.difference("mixture", system.name), "mixture", system.name))
        say(console, SCORES_LEGEND, style="dim")

    document = {"mixture": str(mixture), "model": client.model, "metric": judged.metric, "split": used_split}
    output.result({**document, **result.to_dict()}, draw)


def with_metric(mixture: Mixture, metric: str | None, path: Path, allow_code: bool) -> Mixture:
    """Return the mixture with the metric to use; a file alone does not get to say which code runs."""
    if metric is not None:
        return replace_metric(mixture, metric, allow_code=allow_code)
    if mixture.metric.partition(":")[0] not in (*BUILT_IN, CODE):
        raise SettingsError(
            f"{path} names the metric {mixture.metric!r}, a function that would be imported and run. If you trust it, "
            f"give --metric {mixture.metric}."
        )
    return mixture


def replace_metric(mixture: Mixture, metric: str, *, allow_code: bool = False) -> Mixture:
    """Return the mixture with another metric and the same encoder. Raises SettingsError if there is no such metric."""
    from mop.metrics import get_metric

    get_metric(metric, allow_code=allow_code)
    return replace(mixture, metric=metric).with_known_encoder(mixture.encoder)


def _name(path: Path, paths: Sequence[Path]) -> str:
    """Return the file's stem if no other system is called so, else the path."""
    taken = ["mixture", "generalist", *(other.stem for other in paths if other != path)]
    return str(path) if path.stem in taken else path.stem


def choose_examples(
    examples: list[Example], data: str, columns: DataOptions, split: Split | None, mixture: Mixture, output: Output
) -> tuple[list[Example], str]:
    """Return the examples to score ``mixture`` on, of those read from ``data``, and the name of their split.

    Without ``split`` these are the test's if there are any, else all. Raises DataError if there are none.
    """
    if columns.test_share:
        return _drawn(examples, columns.test_share, split, mixture, output)
    counts = {name: sum(one.split == name for one in examples) for name in ("train", "validation", "test")}
    if split is None:
        if counts["test"]:
            split = "test"
        else:
            split = "all"
            if counts["train"] or counts["validation"]:
                output.warn(f"{data} has no test examples, so all of it is scored, training examples included.")
    if split == "all":
        return examples, "all"
    chosen = [one for one in examples if one.split == split]
    if not chosen:
        there = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no example names a split"
        raise DataError(f"{data} has no {split} examples ({there}). Give another --split or --split-column.")
    return chosen, split


def _drawn(
    examples: list[Example], share: float, split: Split | None, mixture: Mixture, output: Output
) -> tuple[list[Example], str]:
    """Return the examples that `mop optimize` with the same ``--test-share`` did not look at."""
    from mop.provenance import data_hash

    seed = mixture.provenance.get("seed")
    splits, _, _ = divide(examples, share, seed if isinstance(seed, int) else 0)
    if data_hash(splits) != mixture.provenance.get("data_sha256"):
        output.warn(
            "This isn't the data (or the test share) that the mixture was learned with, so the drawn test may hold "
            "examples that it has seen."
        )
    chosen = {"train": splits.train, "validation": splits.validation, "all": tuple(examples)}.get(
        split or "test", splits.test
    )
    return list(chosen), split or "test"

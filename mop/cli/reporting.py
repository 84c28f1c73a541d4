"""``mop report``: a mixture as one page for people; with examples, also how it does on them beside its opponents."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.artifact import read_file
from mop.cli.exporting import write_files
from mop.cli.inputs import check_lengths, read
from mop.cli.learning import require_writable
from mop.cli.options import DataOptions, JudgeOptions, ModelOptions, ReplayOptions
from mop.cli.output import Output, say
from mop.cli.scoring import Split, choose_examples, with_metric
from mop.cli.words import plural, size
from mop.errors import LedgerError, NotRecorded

if TYPE_CHECKING:
    from mop.lm.ledger import Ledger
    from mop.lm.timeline import Paid
    from mop.mixture import Mixture
    from mop.report.measuring import Measured

_NO_DATA = DataOptions()
_NO_MODEL = ModelOptions()
_NO_RUN = ReplayOptions()
_NO_JUDGE = JudgeOptions()


def report(
    mixture: Path,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    split: Split | None = None,
    knn_rows: int = 50,
    metric: str | None = None,
    allow_code: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    columns: DataOptions = _NO_DATA,
    options: ModelOptions = _NO_MODEL,
    judging: JudgeOptions = _NO_JUDGE,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Write a page that shows a mixture: whether it helped, what it costs, its regions, experts and search.

    Without DATA no model is called, and the scores are those of the validation. With DATA the mixture, one prompt, one
    prompt with the nearest demo, zero-shot and kNN answer the examples; how many calls that takes is said first.

    Args:
        mixture: The mixture file.
        data: Examples to score on, as for optimize.
        out: The page [default: the mixture's name with .html].
        split: Which examples to use [default: the test if there is one, else all].
        knn_rows: Examples that kNN answers too; its long prompts are served by no cache. 0 leaves it out.
        metric: Another metric than the mixture's.
        allow_code: Let the metric python_tests run what the model writes, in a sandbox.
    """
    from mop.report.page import Facts, make_page

    output = run.open()
    target = out or mixture.with_suffix(".html")
    require_writable(target, "report")
    if data is None:
        loaded, paid = _alone(mixture, run, output)
        measured, inputs = None, frozenset[str]()
    else:
        from mop.cli.running import opened_ledger

        with opened_ledger(run.ledger, replay=run.replay) as ledger:
            asked = _Asked(data, split, knn_rows, metric, allow_code, columns, options, judging, run)
            loaded, measured, inputs = _measured(mixture, asked, ledger, output)
            paid = _paid(loaded, ledger)
    facts = Facts(
        name=mixture.stem,
        command=shlex.join(["mop", *sys.argv[1:]]) if sys.argv[1:2] == ["report"] else "",
        sha256=hashlib.sha256(read_file(mixture)).hexdigest(),
        data=None if data is None or measured is None else f"{os.path.basename(data)} ({measured.plan.split})",
        validation=inputs,
        paid=paid,
    )
    page = make_page(loaded, facts, measured)
    write_files({target.name: page.decode()}, target)
    document: dict[str, Any] = {"mixture": str(mixture), "report": str(target), "bytes": len(page)}
    output.result({**document, **_scores(measured)}, lambda console: _draw(console, loaded, target, page, measured))


@dataclass(frozen=True)
class _Asked:
    """What was asked about the examples."""

    data: str
    split: Split | None
    knn_rows: int
    metric: str | None
    allow_code: bool
    columns: DataOptions
    options: ModelOptions
    judging: JudgeOptions
    run: ReplayOptions


def _alone(path: Path, run: ReplayOptions, output: Output) -> tuple[Mixture, list[Paid] | None]:
    """Return the mixture without its encoder, and the calls of its search where a ledger is at hand."""
    from mop.artifact import load
    from mop.connect import open_ledger

    mixture = load(path)
    try:
        # As for a replay: a ledger that isn't there is not made.
        ledger = open_ledger(run.ledger, replay=True)
    except LedgerError as error:
        if run.ledger is not None and isinstance(error, NotRecorded):
            told = f"There is no ledger {run.ledger!r}. Name that of the search, or leave --ledger out."
            raise LedgerError(told) from error
        if run.ledger is not None:
            raise
        if not isinstance(error, NotRecorded):
            output.warn(f"The picture of calls over time is left out: {error}")
        return mixture, None
    try:
        return mixture, _paid(mixture, ledger)
    finally:
        ledger.close()


def _paid(mixture: Mixture, ledger: Ledger) -> list[Paid]:
    from mop.lm.timeline import timeline

    name = mixture.provenance.get("run")
    return timeline(ledger, name) if isinstance(name, str) else []


def _measured(path: Path, asked: _Asked, ledger: Ledger, output: Output) -> tuple[Mixture, Measured, frozenset[str]]:
    """Return the mixture, what was measured, and the inputs that the data calls validation."""
    from mop.cli.progress import CallProgress
    from mop.cli.running import connect_to, judge_for, load_mixture, wait_for
    from mop.metrics import get_metric
    from mop.report.measuring import make_plan, measure
    from mop.scoring import calls_per_score, make_scorer

    run = asked.run
    loaded = with_metric(load_mixture(path, ledger, replay=run.replay), asked.metric, path, asked.allow_code)
    everything = read(asked.data, asked.columns)
    examples, used = choose_examples(everything, asked.data, asked.columns, asked.split, loaded, output)
    client = connect_to(loaded, asked.options, run, ledger, f"report {path.name}"[:64])
    prompts = [loaded.generalist, *(expert.prompt for expert in loaded.experts)]
    settings = asked.options.settings(run).model_copy(update={"model": client.model})
    check_lengths(examples, settings, max(prompt.tokens for prompt in prompts), asked.data)
    plan = make_plan(loaded, examples, used, knn_rows=asked.knn_rows)
    calls, known, tokens = plan.estimate(client.model, ledger)
    judged = calls_per_score(loaded.metric)
    output.note(
        f"{plural(len(examples), 'example')} ({used}), {plural(len(plan.systems), 'system')}: {plural(calls, 'call')}, "
        f"{known:,} of them in the ledger; about {plural(tokens, 'prompt token')} to send"
        + (f", and {plural(judged * plan.answers, 'call')} to the judge at most" if judged else "")
    )
    judge = judge_for(loaded.metric, asked.judging, run, client, ledger)
    scorer = make_scorer(get_metric(loaded.metric, allow_code=asked.allow_code), judge)
    with CallProgress("measuring", plan.answers, output, client) as progress:
        measured = wait_for(measure(plan, client, scorer, progress.reply), output)
    return loaded, measured, frozenset(one.input for one in everything if one.split == "validation")


def _scores(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {}
    from mop.evaluation import Evaluation

    whole = [one for one in measured.systems if len(one.scores) == len(measured.plan.examples)]
    return {"split": measured.plan.split, **Evaluation(tuple(whole)).to_dict()}


def _draw(console: Console, mixture: Mixture, target: Path, page: bytes, measured: Measured | None) -> None:
    from mop.report.verdict import finding

    found = finding(mixture, measured)
    say(console, f"{found.short}. {found.sentence}")
    say(console, f"{target}: {size(len(page))}, one file; open it in a browser.")

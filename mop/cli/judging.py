"""``mop judge``: a model compares the answers of two systems; people's labels say what that is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.inputs import read
from mop.cli.options import DataOptions, JudgeOptions, OutputOptions, ReplayOptions
from mop.cli.output import say
from mop.cli.progress import CallProgress
from mop.cli.words import plural
from mop.errors import DataError
from mop.judge import Judge, Pair, Verdict
from mop.judge.judging import FEW
from mop.judge.labels import pair_id, read_labels, write_pairs
from mop.judge.reading import Agreement, WinRate, agreement, by_length, position_bias, win_rate, winners_by_score

Answers = Annotated[str, Parameter(allow_leading_hyphen=True)]
_NO_DATA = DataOptions()
_NO_RUN = ReplayOptions()
_NO_OUTPUT = OutputOptions()
_NO_JUDGE = JudgeOptions()
#: Pairs that are judged first, and then at a time: a judge of no use is found out before all are paid for.
_FIRST, _TOGETHER = FEW // 2, 32


def compare(
    first: Answers,
    second: Answers,
    /,
    *,
    labels: Path | None = None,
    checks: str | None = None,
    budget: str | None = None,
    columns: DataOptions = _NO_DATA,
    options: JudgeOptions = _NO_JUDGE,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Let a model compare two systems' answers to the same inputs, each pair in both orders.

    Args:
        first: Answers of the first system: a JSONL or CSV file with columns input and output (which may be empty).
        second: Answers of the second system to the same inputs.
        labels: Pairs that people labelled (see mop judge export): agreement and Cohen's kappa with them.
        checks: Examples whose outputs are rules (the metric checks): agreement with them.
        budget: Most that all calls may take: 600 (calls), "200k tokens" or "2 USD" [default: that of the
            settings file, else no cap]. What was judged until it is used up is in the ledger, and the same command
            with a higher budget goes on.
    """
    from mop.cli.running import opened_ledger, wait_for
    from mop.connect import address_for, connect
    from mop.lm.budget import Budget

    output = run.open()
    pairs = _pairs(first, second, columns)
    people = read_labels(labels, pairs) if labels else None
    checked = _winners_by_checks(checks, pairs, columns) if checks else None
    settings = options.settings(run, budget)
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        client = connect(
            settings.judge or settings.model,
            ledger=ledger,
            budget=Budget(settings.budget, settings.tokens, settings.usd),
            base_url=address_for(settings.judge or settings.model, settings.judge_url, settings),
            concurrency=settings.concurrency,
            run="judge compare",
            replay=run.replay,
        )
        judge = Judge(client, settings.criteria)
        with CallProgress("judging", 2 * sum(map(_differ, pairs)), output, client) as progress:
            verdicts = wait_for(_judged(judge, pairs, progress), output, client)
    agreements = {}
    if people is not None:
        labelled = [place for place, pair in enumerate(pairs) if pair_id(pair) in people]
        agreements["people"] = agreement(
            [verdicts[place].winner for place in labelled], [people[pair_id(pairs[place])] for place in labelled]
        )
    if checked is not None:
        agreements["checks"] = agreement([verdict.winner for verdict in verdicts], checked)
    document = _document(pairs, verdicts, agreements)
    document = {"judge": client.model, "criteria": judge.criteria.name, **document}
    output.result(document, lambda console: _draw(console, document, first, second))


def export(
    first: Answers,
    second: Answers,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    columns: DataOptions = _NO_DATA,
    speech: OutputOptions = _NO_OUTPUT,
) -> None:
    """Write pairs of answers for people to label, blind: which system is A is drawn for each pair.

    Args:
        first: Answers of the first system, as for mop judge compare.
        second: Answers of the second system.
        out: File to write: JSON lines, in which people fill in "better" with A, B or TIE.
    """
    output = speech.open()
    written = write_pairs(_pairs(first, second, columns), out)
    output.result(
        {"pairs": written, "out": str(out)},
        lambda console: say(console, f'{out}: {plural(written, "pair")}. Fill in "better" with A, B or TIE.'),
    )


async def _judged(judge: Judge, pairs: Sequence[Pair], progress: CallProgress) -> list[Verdict]:
    verdicts: list[Verdict] = []
    asked = [place for place, pair in enumerate(pairs) if _differ(pair)]
    first = asked[_FIRST - 1] + 1 if len(asked) > _FIRST else len(pairs)
    for start, end in pairwise([0, *range(first, len(pairs), _TOGETHER), len(pairs)]):
        part = pairs[start:end]
        verdicts += await judge.compare(part)
        for _ in range(2 * sum(map(_differ, part))):
            progress.reply(judge.client.model)
    return verdicts


def _differ(pair: Pair) -> bool:
    return pair.first.strip() != pair.second.strip()


def _pairs(first: str, second: str, columns: DataOptions) -> list[Pair]:
    one, other = _answers(first, columns), _answers(second, columns)
    if missing := [given for given in (*one, *other) if given not in one or given not in other]:
        raise DataError(
            f"{plural(len(missing), 'input')} stand in only one of {first} and {second}, such as {missing[0][:60]!r}; "
            "give answers to the same inputs."
        )
    return [Pair(given, answer, other[given]) for given, answer in one.items()]


def _answers(path: str, columns: DataOptions) -> dict[str, str]:
    answers: dict[str, str] = {}
    for example in read(path, columns, empty=True):
        if answers.setdefault(example.input, example.output) != example.output:
            raise DataError(f"{path} has two answers to {example.input[:60]!r}; give one.")
    return answers


def _winners_by_checks(path: str, pairs: Sequence[Pair], columns: DataOptions) -> list[str]:
    from mop.metrics import get_metric

    metric = get_metric("checks")
    rules = {example.input: example.outputs for example in read(path, columns)}
    if missing := [pair.input for pair in pairs if pair.input not in rules]:
        raise DataError(f"{path} has no rules for {plural(len(missing), 'input')}, such as {missing[0][:60]!r}.")
    scores = [[metric(answer, rules[pair.input]) for answer in (pair.first, pair.second)] for pair in pairs]
    return winners_by_score([one for one, _ in scores], [other for _, other in scores])


def _document(pairs: Sequence[Pair], verdicts: Sequence[Verdict], agreements: dict[str, Agreement]) -> dict[str, Any]:
    lengths = by_length(pairs, verdicts)
    return {
        "pairs": len(pairs),
        "first": _rate(win_rate(verdicts)),
        "position_bias": asdict(position_bias(verdicts)),
        "words": {"first": lengths.first_words, "second": lengths.second_words},
        "by_length": {
            "alike": _rate(lengths.alike),
            "first_longer": _rate(lengths.first_longer),
            "first_shorter": _rate(lengths.first_shorter),
        },
        "agreement": {name: asdict(one) for name, one in agreements.items()},
        "verdicts": [
            {"input": pair.input, "winner": verdict.winner, "votes": list(verdict.votes)}
            for pair, verdict in zip(pairs, verdicts, strict=True)
        ],
    }


def _rate(rate: WinRate) -> dict[str, Any]:
    interval = rate.interval
    return {
        "rate": None if math.isnan(rate.rate) else rate.rate,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "wins": rate.wins,
        "ties": rate.ties,
        "losses": rate.losses,
    }


def _draw(console: Console, document: dict[str, Any], first: str, second: str) -> None:
    say(console, f"{document['judge']} by {document['criteria']}: {first} against {second}", style="bold")
    say(console, f"all pairs      {_words(document['first'])}")
    for name, title in (
        ("alike", "equal length"),
        ("first_longer", "first longer"),
        ("first_shorter", "first shorter"),
    ):
        if sum(document["by_length"][name][kind] for kind in ("wins", "ties", "losses")):
            say(console, f"{title:<15}{_words(document['by_length'][name])}")
    words = document["words"]
    say(console, f"words          {words['first']:.0f} against {words['second']:.0f} on average")
    bias = document["position_bias"]
    say(
        console,
        f"position       same winner in both orders {bias['consistent']}, whoever came first {bias['first_place']}, "
        f"whoever came second {bias['second_place']} (p = {bias['p_value']:.2g}), unread {bias['unread']}",
    )
    for name, one in document["agreement"].items():
        kappa = "undefined" if one["kappa"] is None else f"{one['kappa']:.2f}"
        say(console, f"{name:<15}agrees on {one['share']:.0%} of {plural(one['items'], 'pair')}, kappa {kappa}")


def _words(rate: dict[str, Any]) -> str:
    return (
        f"{rate['rate']:.2f} ({rate['low']:.2f}–{rate['high']:.2f}): won {rate['wins']}, tied {rate['ties']}, "
        f"lost {rate['losses']}"
    )

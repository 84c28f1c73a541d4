"""``mop optimize`` and ``mop estimate``: learn a mixture from a file of examples, and say before what it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.inputs import prepare, require_models
from mop.cli.options import OutputOptions, ReplayOptions, RunOptions, SearchOptions, TrainingDataOptions
from mop.cli.output import Output, say
from mop.cli.words import duration, money, plural, signed
from mop.connect import is_local
from mop.errors import ArtifactError
from mop.metrics import get_metric
from mop.search.methods import DEFAULT_METHOD
from mop.views.view import given_up, number_of

if TYPE_CHECKING:
    from mop.estimate import Estimate
    from mop.examples import Splits
    from mop.mixture import Mixture
    from mop.optimization import Run
    from mop.search.plan import Plan
    from mop.settings import Settings

Data = Annotated[str, Parameter(allow_leading_hyphen=True)]
_NO_DATA = TrainingDataOptions()
_NO_SEARCH = SearchOptions()
_NO_RUN = ReplayOptions()


def optimize(
    data: Data,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    columns: TrainingDataOptions = _NO_DATA,
    search: SearchOptions = _NO_SEARCH,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Learn a mixture of prompts from labelled examples and save it as one file.

    Options go before MOP_* environment variables (MOP_MODEL, MOP_BUDGET, …), those before --config, that before the
    defaults. Interrupt it at any time: the same command goes on where it was.

    Args:
        data: Examples: a JSONL, CSV, TSV or Parquet file, or - for JSON lines on standard input.
        out: The mixture file [default: DATA's name with .mop].
    """
    from mop.cli.progress import SearchProgress
    from mop.cli.running import opened_ledger, wait_for
    from mop.optimization import Run, aoptimize, make_budget

    output = run.open()
    target = out if out is not None else _default_out(data)
    settings = search.settings(run)
    get_metric(settings.metric, allow_code=settings.allow_code)
    require_writable(target)
    # The workers of a cluster need the models themselves, and are asked before the first call.
    require_models(settings, replay=run.replay or settings.backend == "dask")
    splits = prepare(data, columns, settings, output)
    _say_plan(_plan(settings, splits), settings, splits, output)
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        budget, used = make_budget(settings, None if run.replay else ledger, splits), Run()
        with SearchProgress("learning", budget, used, output) as progress:
            search_run = aoptimize(
                splits, settings, ledger=ledger, listener=progress, used=used, budget=budget, replay=run.replay
            )
            mixture = wait_for(search_run, output)
    mixture.save(target)
    output.result(_learned(target, mixture, splits, used), lambda console: _draw(console, target, mixture, used))


def estimate(
    data: Data,
    /,
    *,
    columns: TrainingDataOptions = _NO_DATA,
    search: SearchOptions = _NO_SEARCH,
    config: Annotated[Path | None, Parameter(group="General")] = None,
    speech: OutputOptions | None = None,
) -> None:
    """Say what `mop optimize` would take with the same options: calls, tokens and money. No model is called.

    Of 80 real searches of a local model, at 200 calls, four in five took 75 to 109 % of the estimated tokens and 94 to
    100 % of the calls; searches that end early take fewer, down to a third of the calls (benchmarks/estimates.py).

    Args:
        data: Examples, as for optimize.
        config: Settings from a TOML or YAML file.
    """
    from mop.estimate import estimate as estimate_run

    speech = speech or OutputOptions()
    output = speech.open()
    settings = search.settings(RunOptions(config=config))
    get_metric(settings.metric, allow_code=settings.allow_code)
    splits = prepare(data, columns, settings, output)
    estimated = estimate_run(settings, splits)
    counts = {"train": len(splits.train), "validation": len(splits.validation)}
    output.result(
        {"model": settings.model, **counts, **asdict(estimated)},
        lambda console: _draw_estimate(console, estimated, settings),
    )


def _plan(settings: Settings, splits: Splits) -> Plan:
    from mop.optimization import make_plan

    return make_plan(settings, splits)


def _say_plan(plan: Plan, settings: Settings, splits: Splits, output: Output) -> None:
    if plan.region_counts == (1,) and settings.experts is None and settings.method == DEFAULT_METHOD:
        output.warn(
            f"{plural(len(splits.train), 'training example')} and {len(splits.validation):,} for validation are too "
            "few for several experts, so one prompt is learned"
            + (" and your persona is not tried." if settings.persona else ".")
        )


def _default_out(data: str) -> Path:
    if data == "-":
        return Path("mixture.mop")
    name = Path(data).name.removesuffix(".gz")
    return Path(data).with_name(name).with_suffix(".mop")


def require_writable(target: Path, what: str = "mixture file") -> None:
    """Raise ArtifactError now, not after the calls, if the file, called ``what``, cannot be written."""
    folder = target.parent
    if target.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "is a folder" if target.is_dir() else "is in a folder that isn't there or can't be written"
        raise ArtifactError(f"The {what} {target} {problem}. Name another with --out.")


def _learned(target: Path, mixture: Mixture, splits: Splits, used: Run) -> dict[str, Any]:
    return {
        "artifact": str(target),
        "experts": len(mixture),
        "kept": mixture.kept,
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "calls": used.spend.calls,
        "sent": used.sent,
        "from_ledger": used.from_ledger,
        "prompt_tokens": used.spend.usage.prompt_tokens,
        "cached_tokens": used.spend.usage.cached_tokens,
        "completion_tokens": used.spend.usage.completion_tokens,
        "usd": used.spend.usd,
        "seconds": used.seconds,
        "white_box": dict(zip(("written", "from_ledger", "seconds"), used.white_box, strict=True)),
        "gate": mixture.report.get("gate"),
        "generalist": mixture.report.get("generalist"),
        "cut_short": mixture.report.get("cut_short") is True,
    }


def validated(mixture: Mixture) -> list[str]:
    """Return sentences that say what validation showed, from the report that the mixture carries."""
    cut = "A cap ended the search in the middle, so this is the best that was measured by then; a higher one does more."
    return [*_validated(mixture), *([cut] if mixture.report.get("cut_short") is True else [])]


def _validated(mixture: Mixture) -> list[str]:
    from mop.search.selection import MIN_JUDGED

    if all(expert.score is None for expert in mixture.experts):
        return ["Not measured: nobody has compared these experts with the generalist; `mop evaluate` does."]
    # A report is whatever its file holds.
    gate, settings = (_mapping(one) for one in (mixture.report.get("gate"), mixture.provenance.get("settings")))
    names = ("validation", "mixture", "generalist", "gain", "gain_low")
    count, ours, single, gain, low = (number_of(gate.get(name)) for name in names)
    if count is None or ours is None or single is None or gain is None or low is None:
        return _one_prompt_validated(mixture)
    confidence = number_of(settings.get("confidence"))
    sure = "" if confidence is None else f" with {100 * confidence:.0f} % confidence"
    scores = (
        f"Validation ({plural(int(count), 'example')}): {gate.get('layout', 'the mixture')} score {ours:.2f}, the "
        f"one-prompt generalist {single:.2f}. Gain {signed(gain)}, at least {signed(low)}{sure}."
    )
    if gate.get("open") is True:
        return [scores]
    if count < MIN_JUDGED:
        return [scores, f"So few examples show nothing ({MIN_JUDGED} are needed), so the file holds the one prompt."]
    return [scores, "That does not show a gain, so the file holds the one prompt."]


def _one_prompt_validated(mixture: Mixture) -> list[str]:
    """Return what the one prompt scored where no mixture was tried."""
    found = _mapping(mixture.report.get("generalist"))
    score = number_of(found.get("score"))
    if score is None or len(mixture) > 1:
        return []
    examples = plural(mixture.experts[0].validation, "example")
    without = "demos" in found
    what = "the prompt without its demos, which came after the race," if without else "one prompt"
    looked = given_up(mixture)
    tried = [looked] if looked else []
    return [f"Validation ({examples}): {what} scores {score:.2f}{'' if looked else '; no mixture was tried'}.", *tried]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _draw(console: Console, target: Path, mixture: Mixture, used: Run) -> None:
    if len(mixture) == 1:
        say(console, f"{target}: one prompt with {plural(len(mixture.generalist.demos), 'demo')}.", style="bold")
    else:
        others = len(mixture) - mixture.kept
        back = f", {others} of them fall back to the generalist" if others else ""
        say(console, f"{target}: {len(mixture)} regions{back}.", style="bold")
    for sentence in [*validated(mixture), *_personas(mixture)]:
        say(console, sentence)
    usage = used.spend.usage
    paid = f", {money(used.spend.usd)}" if used.spend.usd else ""
    say(
        console,
        f"Took {plural(used.spend.calls, 'call')} ({used.sent:,} sent, {used.from_ledger:,} from the ledger), "
        f"{plural(usage.prompt_tokens, 'prompt token')} ({usage.cached_tokens:,} cached), "
        f"{plural(usage.completion_tokens, 'completion token')}{paid}, {duration(used.seconds)}.",
    )
    written, known, seconds = used.white_box
    if written or known:
        say(
            console,
            f"The white-box model wrote {plural(written, 'instruction')} here in {duration(seconds)} "
            f"({known:,} more from the ledger); that is no part of the budget.",
        )
    say(console, f'Next: mop show {target} · mop route {target} "…" · mop evaluate {target} DATA', style="dim")


def _personas(mixture: Mixture) -> list[str]:
    """Return in how many regions a persona is used, if personas were tried."""
    if "personas" not in mixture.report:
        return []
    own = _own_personas(_mapping(mixture.report["personas"]))
    if all(one.persona is None for one in mixture.experts):
        return ["Personas: none is used by the one prompt.", *own]
    used = sum(one.persona is not None and one.persona.kind != "bare" and not one.fallback for one in mixture.experts)
    return [f"Personas: proven to help in {used} of {plural(len(mixture), 'region')}; the others stay bare.", *own]


def _own_personas(report: Mapping[str, Any]) -> list[str]:
    """Return what became of the user's own personas; nothing where none was given."""
    if not (own := report.get("own")):
        return []
    wins = [sum(one["used"].startswith(label) for one in report["regions"]) for label in own]
    found = [
        f"{label}: used in {plural(count, 'region')}." if count else f"{label}: used nowhere."
        for label, count in zip(own, wins, strict=True)
    ]
    together, sure = report["bounds_together"], f"{100 * report['confidence']:.0f} %"
    if together > 1:
        found.append(f"{together} forms of personas were tried; each has to prove its gain so that all hold at {sure}.")
    if missing := report["no_calls_left_for"]:
        found.append(f"Not tried, for want of calls: {', '.join(missing)}.")
    return [one[0].upper() + one[1:] for one in found]


def _draw_estimate(console: Console, estimated: Estimate, settings: Settings) -> None:
    plan = estimated.plan
    say(console, f"About {plural(estimated.calls, 'call')} to {settings.model}:", style="bold")
    experts = ", ".join(map(str, plan.region_counts))
    races = f"to race {plan.layout_arms} mixtures of {experts} experts"
    on = f"on {plural(plan.validation, 'validation example')}"
    only = f"to try a mixture of {plan.region_counts[0]} experts and judge it and the best single prompt {on}"
    stages = [
        (plan.proposals, "to propose instructions"),
        (plan.single_calls, f"to race {plan.single_arms} single prompts"),
        (plan.crossing_calls, "to race the best instructions with the best demos"),
        (plan.layout_calls if plan.layout_arms > 1 else 0, races),
        (plan.judging_calls, only if plan.layout_arms == 1 else f"to judge the two winners {on}"),
    ]
    rest = plan.calls - plan.kept - sum(calls for calls, _ in stages)
    if plan.layout_arms and rest > 0:
        stages.append((rest, "to choose and rewrite the instructions of each region"))
    stages.append((plan.kept, "to try personas in each region"))
    for calls, purpose in stages:
        if calls and settings.method == DEFAULT_METHOD:
            say(console, f"  {calls:>6,}  {purpose}")
    unused = plan.calls - (estimated.calls - estimated.judge_calls)
    if unused > 0 and settings.method == DEFAULT_METHOD:
        # The stages' shares are those of the whole budget.
        say(console, f"  {-unused:>6,}  that find no use: so few validation examples are soon seen")
    if estimated.judge_calls:
        say(console, f"  {estimated.judge_calls:>6,}  to {settings.judge or settings.model}, which scores the answers")
    say(
        console,
        f"About {plural(estimated.prompt_tokens, 'prompt token')} and "
        f"{plural(estimated.completion_tokens, 'completion token')}.",
    )
    if is_local(settings.model) and settings.base_url is None:
        say(console, "No money: the model runs on this machine.")
    elif estimated.usd is None:
        say(console, "The price of this model is not known.")
    else:
        say(console, f"About {money(estimated.usd)} without prompt caching, less with it.")

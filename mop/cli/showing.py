"""``mop show``: what a mixture file holds, for people. Needs neither encoder nor model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from statistics import fmean
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from mop.artifact import MANIFEST, load
from mop.cli.learning import validated
from mop.cli.options import OutputOptions
from mop.cli.output import say, write_json
from mop.cli.tables import REGIONS_LEGEND, print_prompt, regions_table, words
from mop.cli.words import money, plural, shorten, signed
from mop.connect import is_local
from mop.errors import SettingsError
from mop.lm.prices import Prices
from mop.lm.request import Usage
from mop.mixture import Mixture
from mop.prompts import Prompt, estimate_tokens

_NO_SPEECH = OutputOptions()


def show(
    mixture: Path,
    /,
    *,
    expert: int | None = None,
    generalist: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Show what a mixture file holds: where it comes from, its regions and what they gained.

    Args:
        mixture: The mixture file.
        expert: Print the whole prompt of this expert instead.
        generalist: Print the whole prompt of the generalist instead.
    """
    loaded = load(mixture)
    output = speech.open()
    if generalist or expert is not None:
        prompt = loaded.generalist if expert is None else _prompt(loaded, expert)
        document = {"messages": [{"role": role, "content": text} for role, text in prompt.messages("<query>")]}
        output.result(document, lambda console: _draw_prompt(console, loaded, expert, prompt))
    elif speech.json:
        with zipfile.ZipFile(mixture) as archive:
            write_json(json.loads(archive.read(MANIFEST)))
    else:
        output.result({}, lambda console: _draw(console, mixture, loaded))


def _prompt(mixture: Mixture, expert: int) -> Prompt:
    if not 0 <= expert < len(mixture):
        raise SettingsError(f"There is no expert {expert}; this mixture has experts 0 to {len(mixture) - 1}.")
    return mixture.experts[expert].prompt


def _draw_prompt(console: Console, mixture: Mixture, number: int | None, prompt: Prompt) -> None:
    if number is not None:
        expert = mixture.experts[number]
        note = "shows no gain, so the generalist answers its queries" if expert.fallback else "answers its queries"
        say(console, f"Expert {number} ({words(expert)}) {note}. Instruction by: {expert.proposer}", style="dim")
        if expert.persona is not None:
            say(console, f"Persona: {expert.persona.sentence}", style="dim")
        console.print()
    print_prompt(console, prompt)
    if number is not None and (retrieval := mixture.retrieval) is not None and not mixture.experts[number].fallback:
        come = "comes the one demo" if retrieval.count == 1 else f"come the {retrieval.count} demos"
        say(console, f"Right before the query {come} nearest to it; `mop route` prints what comes.", style="dim")


def _draw(console: Console, path: Path, mixture: Mixture) -> None:
    origin = mixture.provenance
    used = {key: origin.get(key, "—") for key in ("created", "seed", "calls", "train", "validation", "mop")}
    count = plural(len(mixture), "expert") if len(mixture) > 1 else "one prompt"
    say(console, f"{path}: {count} for {mixture.model}", style="bold")
    by = f"mop {used['mop']}, method {origin.get('method', '—')}"
    say(console, f"learned   {used['created']} by {by}, seed {used['seed']}, {used['calls']} calls")
    data = str(origin.get("data_sha256", ""))[:12]
    say(console, f"data      {used['train']} training, {used['validation']} validation examples, SHA-256 {data}…")
    say(console, f"metric    {mixture.metric}")
    say(console, f"encoder   {mixture.encoder_record.identity}")
    prompt = mixture.generalist
    length = f"{plural(len(prompt.demos), 'demo')}, about {plural(prompt.tokens, 'token')}"
    say(console, f"fallback  the generalist: {length}")
    say(console, f"          {shorten(prompt.instruction, 300)}")
    if (retrieval := mixture.retrieval) is not None:
        shown = f"the {plural(retrieval.count, 'demo')} nearest to the query, of {len(retrieval.demos)}"
        say(console, f"retrieved {shown}, after an expert's own")
    for sentence in [*_limits(mixture), *validated(mixture), *_cost(mixture)]:
        say(console, sentence)
    if len(mixture) > 1:
        own = [one for one in mixture.experts if not one.fallback]
        compared = [one for one in own if one.generalist_score is not None]
        best = max(compared, key=lambda one: one.gain, default=None)
        say(
            console,
            f"{len(own)} of {len(mixture)} regions answer with a prompt of their own"
            + (f"; the largest gain is {signed(best.gain)} ({words(best)})." if best else "."),
        )
        console.print()
        console.print(regions_table(mixture, console.width))
        console.print()
        say(console, REGIONS_LEGEND, style="dim")
        for sentence in _personas(mixture):
            say(console, sentence)
        say(console, f"A whole prompt: mop show {path} --expert 0, or --generalist", style="dim")
    else:
        say(console, f"The whole prompt: mop show {path} --generalist", style="dim")


def _personas(mixture: Mixture) -> list[str]:
    """Return who the experts are told to be, region by region; nothing where personas weren't tried."""
    found = [
        f"  {number}: {expert.persona.sentence}{'; the generalist answers' if expert.fallback else ''}"
        for number, expert in enumerate(mixture.experts)
        if expert.persona is not None
    ]
    return ["Personas by region:", *found] if found else []


def _limits(mixture: Mixture) -> list[str]:
    """Return what happens to queries where the regions end."""
    found = [] if mixture.limits is None else mixture.limits.sentences()
    return [f"{name.lower():<10}{sentence}" for name, sentence in found]


def _cost(mixture: Mixture) -> list[str]:
    """Return what 1,000 queries cost, estimated from the prompts' sizes, if the model's price is known."""
    prices = Prices()
    if is_local(mixture.model) or prices.find(mixture.model) is None:
        return []
    weights = [max(1, expert.size) for expert in mixture.experts]
    prompts = [mixture.generalist if expert.fallback else expert.prompt for expert in mixture.experts]
    prefix = sum(w * prompt.tokens for w, prompt in zip(weights, prompts, strict=True)) // sum(weights)
    demos = [demo for prompt in prompts for demo in prompt.demos]
    query = round(fmean(estimate_tokens(demo.input) for demo in demos)) if demos else 50
    answer = round(fmean(estimate_tokens(demo.output) for demo in demos)) if demos else mixture.decoding.max_tokens
    if (retrieval := mixture.retrieval) is not None:
        query += round(retrieval.count * fmean(demo.tokens for demo in retrieval.demos))
    usage = Usage(1000 * (prefix + query), 1000 * prefix, 1000 * answer)
    cached, plain = prices.cost(usage, mixture.model), prices.cost_without_cache(usage, mixture.model)
    return [
        f"1,000 queries cost about {money(cached)} with prompt caching and {money(plain)} without (estimated from the "
        f"prompts' sizes, prices of {prices.as_of})."
    ]

"""Origin: where a mixture comes from: settings, seed, hashes, and the commands that make it and this page again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from mop.errors import SettingsError
from mop.handwritten import AUTHOR
from mop.mixture import Mixture
from mop.own_personas import read_own
from mop.report.texts import cut

#: What the entries of a file's provenance are called, in the order in which they are shown.
_NAMES = {
    "created": "Learned at",
    "method": "Method",
    "model": "Model",
    "proposer": "Model that writes instructions",
    "seed": "Seed",
    "train": "Training examples",
    "validation": "Validation examples",
    "calls": "Calls",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Answer tokens",
    "mop": "Version of mop",
    "python": "Version of Python",
    "data_sha256": "SHA-256 of the examples",
    "run": "Run in the ledger",
}

#: What differs where people wrote the prompts; what has no name there is left out.
_HANDWRITTEN = {
    "created": "Made at",
    "method": "Prompts",
    "train": "Examples",
    "validation": "",
    "calls": "",
    "data_sha256": "SHA-256 of the file's content",
    "source": "File of prompts",
}


def facts(mixture: Mixture, sha256: str | None) -> tuple[tuple[str, str], ...]:
    """Return what is known of the file, name by name; ``sha256`` is that of its bytes."""
    origin = mixture.provenance
    names = _NAMES | _HANDWRITTEN if origin.get("method") == AUTHOR else _NAMES
    found = [
        (name, str(origin[key]) if key == "seed" else _value(origin[key]))
        for key, name in names.items()
        if origin.get(key) is not None and name
    ]
    found += [
        ("Metric", mixture.metric),
        ("Encoder", mixture.encoder_record.identity),
        ("Most tokens of an answer", f"{mixture.decoding.max_tokens:,}"),
    ]
    settings = origin.get("settings")
    if isinstance(settings, Mapping):
        given = [(f"--{str(key).replace('_', '-')}", value) for key, value in settings.items() if value is not None]
        for name, value in given:
            parts = value.values() if isinstance(value, Mapping) else [value]
            found += [(cut(name, 60), _value(one)) for one in parts]
    additions = origin.get("additions")
    if isinstance(additions, list) and additions:
        found.append(("Examples were added since", "once" if len(additions) == 1 else f"{len(additions)} times"))
    if sha256 is not None:
        found.append(("SHA-256 of the mixture file", sha256))
    return tuple((name, cut(value, 300)) for name, value in found)


def learn_again(mixture: Mixture) -> str | None:
    """Return the command that learns the mixture again from the same examples; None where the file doesn't say.

    Addresses aren't among what the file keeps. Personas are given by their texts and so called by their first words;
    where that can't be, the command names a file of them, PERSONAS.jsonl, as it does DATA.
    """
    from mop.search.generalist import DEFAULT_INSTRUCTION

    origin = mixture.provenance
    settings, seed = origin.get("settings"), origin.get("seed")
    if not isinstance(settings, Mapping) or not isinstance(seed, int):
        return None
    tried = mixture.report.get("candidates")
    first = tried[0] if isinstance(tried, list) and tried else None
    options: dict[str, Any] = {
        "model": mixture.model,
        "proposer": origin.get("proposer") if origin.get("proposer") != mixture.model else None,
        "instruction": first if first != DEFAULT_INSTRUCTION else None,
        "method": origin.get("method"),
        "metric": mixture.metric,
        "encoder": mixture.encoder_record.name,
        # With a stop the length followed from the examples, as it will again; given, it would leave the stop out.
        "answer-tokens": None if mixture.decoding.stop else mixture.decoding.max_tokens,
        "seed": seed,
        **{str(name).replace("_", "-"): value for name, value in settings.items() if name != "refit"},
    }
    words = ["mop", "optimize", "DATA"]
    for name, value in options.items():
        for one in _personas_again(value) if isinstance(value, Mapping) else [value]:
            if isinstance(one, str | int | float) and not isinstance(one, bool):
                words += [f"--{name}", str(one)]
    if settings.get("refit") is True:
        words.append("--refit")
    return shlex.join(words)


def _personas_again(personas: Mapping[str, Any]) -> list[str]:
    texts = [str(text) for text in personas.values()]
    try:
        same = [one.text for one in read_own(texts)] == texts
    except SettingsError:
        same = False
    return texts if same else ["@PERSONAS.jsonl"]


def import_again(mixture: Mixture) -> str:
    """Return the command that makes a mixture of hand-written prompts again."""
    source = mixture.provenance.get("source")
    name = source if isinstance(source, str) and source else "PROMPTS"
    return shlex.join(["mop", "import", cut(name, 300)])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | dict):
        return cut(str(value), 300)
    return str(value)

"""Tables: results as Markdown, for people and for LOG.md. Reads nothing but results.

python -m benchmarks.personas.tables FOLDER/results.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Numbers = Mapping[str, Any]


def tables(results: Mapping[str, Any]) -> str:
    """Return the tables of every part that was run."""
    parts = results["parts"]
    found = []
    for name, part in parts.items():
        found.append(f"**{name}** ({_sizes(name, part)})\n\n" + "\n\n".join(_OF[name](part)))
    return "\n\n".join(found) + "\n"


def _mmlu(part: Numbers) -> list[str]:
    rows = [
        [arm, _interval(one), one["no_letter"], f"{_fresh(one):.0f}", f"{one['completion_tokens'] / one['calls']:.1f}"]
        for arm, one in part["arms"].items()
    ]
    head = ["arm", "right", "without a letter", "fresh tokens a call", "tokens of an answer"]
    return [_table(head, rows), _gaps(part["differences"])]


def _instructions(part: Numbers) -> list[str]:
    rows = [
        [arm, _interval(one), f"{one['share_of_checks']:.2f}", f"{one['words']:.0f}", one["cut_off"]]
        for arm, one in part["arms"].items()
    ]
    found = [_table(["arm", "rule kept", "share of checks", "words", "cut off"], rows), _gaps(part["differences"])]
    agreed = part["checked_and_judged"]
    if agreed and "items" in agreed:
        kappa = "not defined" if agreed["kappa"] is None else f"{agreed['kappa']:.2f}"
        found.append(f"Judge and checks agree on {agreed['share']:.2f} of {agreed['items']} pairs, kappa {kappa}.")
    return found


def _judged(part: Numbers) -> list[str]:
    rows = []
    for arm, one in part["against_bare"].items():
        if "unusable" in one:
            rows.append([arm, one["unusable"], "", "", ""])
            continue
        rate, bias = one["win_rate"], one["position_bias"]
        counts = f"{rate['wins']} / {rate['ties']} / {rate['losses']}"
        places = f"{bias['first_place']} / {bias['second_place']} / {bias['consistent']}"
        rows.append([arm, _interval(rate), counts, places, " / ".join(f"{words:.0f}" for words in one["words"])])
    head = ["arm", "win rate over bare", "wins / ties / losses", "first / second place / consistent", "words"]
    return [_table(head, rows)]


def _refusal(part: Numbers) -> list[str]:
    rows = [[arm, _interval(one["harmful"]), _interval(one["harmless"])] for arm, one in part["arms"].items()]
    gaps = [f"{kind}: {_gaps(found)}" for kind, found in part["differences"].items()]
    return [_table(["arm", "harmful refused", "harmless refused"], rows), *gaps]


def _gate(part: Numbers) -> list[str]:
    kinds = list(part["arms"])
    rows = [[arm, *[_interval(part["arms"][kind][arm]) for kind in kinds]] for arm in part["arms"][kinds[0]]]
    gaps = []
    for kind, found in part["differences"].items():
        gaps.append(f"{kind}: {_gaps([one for one in found if 'gated' in (one['of'], one['to'])])}")
    regions = [
        [number, one["used"], one["validation"]["fact"], one["validation"]["style"], *map(_tried, one["tried"])]
        for number, one in enumerate(part["regions"])
    ]
    head = [
        "region",
        "used",
        "facts",
        "style",
        *["gain of a persona"] * max(len(one["tried"]) for one in part["regions"]),
    ]
    opened = ", ".join(f"{kind} {share:.2f}" for kind, share in part["open"].items())
    return [_table(["arm", *kinds], rows), f"Open: {opened}.", *gaps, _table(head, regions)]


_OF = {"mmlu": _mmlu, "instructions": _instructions, "judged": _judged, "refusal": _refusal, "gate": _gate}


def _sizes(name: str, part: Numbers) -> str:
    sizes, seed = part["sizes"], part["sizes"]["seed"]
    counted = {
        "mmlu": lambda: f"{len(part['subjects'])} subjects, {part['questions']} questions",
        "instructions": lambda: f"{part['questions']} questions",
        "judged": lambda: f"{part['questions']} questions, judge {part['judge']['model']}",
        "refusal": lambda: f"{sizes['behaviours']} requests of each kind",
        "gate": lambda: f"{sizes['pool']} items of each kind for training, validation and test",
    }
    return f"{counted[name]()}, seed {seed}"


def _gaps(found: Sequence[Numbers]) -> str:
    return "; ".join(
        f"{one['of']} minus {one['to']} {one['mean']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})" for one in found
    ) + "."  # fmt: skip


def _tried(one: Numbers) -> str:
    return f"{one['persona']} {one['gain']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"


def _interval(one: Numbers) -> str:
    return f"{one['mean']:.2f} ({one['low']:.2f}–{one['high']:.2f})"


def _fresh(one: Numbers) -> float:
    return float(one["prompt_tokens"] - one["cached_tokens"]) / float(one["calls"])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main(arguments: Sequence[str]) -> None:
    """Print the tables of a result file."""
    print(tables(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))), end="")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the answers of `benchmarks.self_prompt` show: rates with intervals, differences in pairs, and a table.

Students of several seeds are averaged for each question first; intervals are over questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.self_prompt_tasks import FOREIGN, TEST, Item, right
from mop.stats import paired_difference, proportion_interval
from mop.students.stages import Row

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder

#: Rows of an arm: one list for each seed.
Said = Mapping[str, Sequence[Sequence[Row]]]
Scores = dict[str, float]
PARTS = {"all": (*TEST, *FOREIGN), "known domains": tuple(TEST), "foreign domains": tuple(FOREIGN)}
#: Arms whose words before the answer are roles.
ROLES = ("self-prompt", "shuffled roles")
OPPONENTS = ("base", "plain answers", "filler", "shuffled roles")


def summary(items: Sequence[Item], said: Said, encoder: Encoder) -> dict[str, Any]:
    """Return what was measured of each arm, the differences to self-prompt, and answers of the first seed to read."""
    asked = {one.question: one for one in items}
    fit = {name: _fits(asked, said[name], encoder) for name in ROLES}
    arms = {name: _arm(asked, runs, list(fit.get(name, {}).values())) for name, runs in said.items()}
    right_of = {name: _averaged(runs, "own", _is_right(asked)) for name, runs in said.items()}
    swapped = _averaged(said["self-prompt"], "swapped", _is_right(asked))
    removed = _averaged(said["self-prompt"], "removed", _is_right(asked))
    found = {
        f"self-prompt minus {other}": _gaps(right_of["self-prompt"], right_of[other])
        for other in OPPONENTS
        if other in right_of
    }
    found["self-prompt: own minus swapped role"] = _gaps(right_of["self-prompt"], swapped)
    found["self-prompt: own minus no role"] = _gaps(right_of["self-prompt"], removed)
    found["fit: self-prompt minus shuffled roles"] = _gaps(fit["self-prompt"], fit["shuffled roles"])
    shown = [
        {"question": row["question"], "role": row["role"], "answer": row["answer"]}
        for row in said["self-prompt"][0]
        if row["way"] == "own"
    ]
    return {"arms": arms, "differences": found, "self_prompt_answers": shown}


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table of arms and the list of differences."""
    heads = ["arm", "right, known domains", "right, foreign domains", "role line written", "different ones"]
    heads += ["nearer to its question than to others", "other answer under a swapped role", "under none", "words"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, arm in found["arms"].items():
        cells = [
            name,
            _shown(arm["right"]["known domains"]),
            _shown(arm["right"]["foreign domains"]),
            "–" if arm["written"] is None else f"{arm['written']:.2f}",
            "–" if arm["written"] is None else f"{arm['roles']:.0f}",
            _shown(arm["fit"]),
            _shown(arm["changed"].get("swapped")),
            _shown(arm["changed"].get("removed")),
            f"{arm['words']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for name, parts in found["differences"].items():
        shown = ", ".join(f"{part} {_signed(one)}" for part, one in parts.items() if one)
        lines.append(f"- {name}: {shown or '–'}")
    return "\n".join(lines)


def _arm(asked: Mapping[str, Item], runs: Sequence[Sequence[Row]], fit: Sequence[float]) -> dict[str, Any]:
    own = [row for run in runs for row in run if row["way"] == "own"]
    scores = _averaged(runs, "own", _is_right(asked))
    ways = sorted({row["way"] for run in runs for row in run} - {"own"})
    wrote = any(row["written"] for row in own)
    return {
        "right": {part: _interval(_of(scores, part)) for part in PARTS},
        "words": float(np.mean([len(row["answer"].split()) for row in own])),
        "written": float(np.mean([row["written"] for row in own])) if wrote else None,
        "roles": float(
            np.mean([len({row["role"] for row in run if row["way"] == "own" and row["role"]}) for run in runs])
        ),
        "fit": _interval(fit),
        "changed": {way: _interval(list(_changes(runs, way).values())) for way in ways},
        "right_under": {way: _interval(list(_averaged(runs, way, _is_right(asked)).values())) for way in ways},
    }


def _is_right(asked: Mapping[str, Item]) -> Callable[[Row], float]:
    return lambda row: float(right(asked[row["question"]], row["answer"]))


def _averaged(runs: Sequence[Sequence[Row]], way: str, value: Callable[[Row], float]) -> Scores:
    """Return the mean over seeds for each question that was answered in this way."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for row in run:
            if row["way"] == way:
                found.setdefault(row["question"], []).append(value(row))
    return {question: float(np.mean(values)) for question, values in found.items()}


def _changes(runs: Sequence[Sequence[Row]], way: str) -> Scores:
    """Return for each question the share of seeds whose answer another way came out differently."""
    found: dict[str, list[float]] = {}
    for run in runs:
        own = {row["question"]: row["answer"] for row in run if row["way"] == "own"}
        for row in run:
            if row["way"] == way:
                found.setdefault(row["question"], []).append(float(row["answer"] != own[row["question"]]))
    return {question: float(np.mean(values)) for question, values in found.items()}


def _fits(asked: Mapping[str, Item], runs: Sequence[Sequence[Row]], encoder: Encoder) -> Scores:
    """Return by how much each question's role is nearer to it than to questions with other roles, in cosines."""
    found: dict[str, list[float]] = {}
    questions = list(asked)
    vectors = encoder.encode(questions)
    for run in runs:
        roles = {row["question"]: row["role"] for row in run if row["way"] == "own" and row["role"]}
        if len(set(roles.values())) < 2:
            continue
        cosines = encoder.encode(list(roles.values())) @ vectors.T
        for row, (question, role) in zip(cosines, roles.items(), strict=True):
            others = [place for place, other in enumerate(questions) if roles.get(other, role) != role]
            gap = row[questions.index(question)] - row[others].mean()
            found.setdefault(question, []).append(float(gap))
    return {question: float(np.mean(values)) for question, values in found.items()}


def _gaps(one: Scores, other: Scores) -> dict[str, dict[str, float] | None]:
    """Return the paired difference over the questions that both have, for each part."""
    found: dict[str, dict[str, float] | None] = {}
    for part, items in PARTS.items():
        both = [item.question for item in items if item.question in one and item.question in other]
        if not both:
            found[part] = None
            continue
        gap = paired_difference([one[name] for name in both], [other[name] for name in both])
        found[part] = {"mean": gap.mean, "low": gap.low, "high": gap.high, "p": gap.p_value, "n": gap.n}
    return found


def _of(scores: Scores, part: str) -> list[float]:
    return [scores[item.question] for item in PARTS[part] if item.question in scores]


def _interval(values: Sequence[float]) -> dict[str, float] | None:
    """Return the mean of shares, or of cosines, with its 95 % interval."""
    if not values:
        return None
    if min(values) >= 0 and max(values) <= 1:
        interval = proportion_interval(values)
        return {"mean": float(np.mean(values)), "low": interval.low, "high": interval.high, "n": len(values)}
    gap = paired_difference(values, np.zeros(len(values)))
    return {"mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n}


def _shown(one: Mapping[str, float] | None) -> str:
    return "–" if one is None else f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _signed(one: Mapping[str, float]) -> str:
    return f"{one['mean']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"

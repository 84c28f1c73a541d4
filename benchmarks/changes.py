"""Changes: what another state of the same methods did on the same tasks, paired. Reads two result files' cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.comparing import by_task, mean_over_seeds
from benchmarks.conditions import Record, condition, in_order, label
from benchmarks.markdown import markdown
from mop.errors import DataError

HEAD = ("task", "method", "seeds", "era", "before", "after", "after − before", "better", "worse")


@dataclass(frozen=True)
class Place:
    """What a cell is, whatever the state of its method."""

    condition: str
    task: str
    method: str
    seed: int


def changes(before: Sequence[Record], after: Sequence[Record]) -> str:
    """Return a table of the cells that both have and that were run anew, as Markdown; failed ones are shown as such.

    Cells are the same by task, method, options, seed and shared conditions, whatever the version of mop or the era of
    the method; of several in one file the newest counts. The difference is paired over distinct test inputs, which
    **better** and **worse** count, by their mean over the seeds that were run anew. Its 95 % interval covers the choice
    of inputs, not the luck of a search, and no correction is made for many rows.

    Cells that learned from or were tested on other examples are named below the table.

    Raises DataError if no cell was run anew.
    """
    old, new = _newest(before), _newest(after)
    anew = [place for place in new if place in old and not _same(old[place], new[place])]
    other = {place for place in anew if not _comparable(old[place], new[place])}
    groups: dict[Place, list[int]] = {}
    for place in sorted(set(anew) - other, key=lambda place: place.seed):
        # Those that failed have nothing to be averaged with.
        alone = _failed(old[place]) or _failed(new[place])
        groups.setdefault(place if alone else replace(place, seed=-1), []).append(place.seed)
    if not anew:
        raise DataError("No cell of the two was run anew under the same conditions, so there is nothing to compare.")
    conditions = sorted({place.condition for place in (*old, *new)})
    parts = []
    for name in conditions:
        mine = sorted((place for place in groups if place.condition == name), key=_in_order)
        if mine:
            rows = [_row(place, _of(old, place, groups[place]), _of(new, place, groups[place])) for place in mine]
            parts.append((f"{name}:\n\n" if len(conditions) > 1 else "") + markdown(HEAD, rows))
    if other:
        named = ", ".join(f"{one.task} {one.method} seed {one.seed}" for one in sorted(other, key=_in_order))
        parts.append(f"Not compared, because the examples are other ones: {named}.\n")
    return "\n".join(parts)


def _newest(records: Iterable[Record]) -> dict[Place, Record]:
    """Return of each cell what was run in the newest era, finished before failed, and of these the last."""

    def rank(record: Record) -> tuple[int, bool, str]:
        return record.get("era", -1), not _failed(record), record.get("finished", "")

    found: dict[Place, Record] = {}
    for record in sorted(records, key=rank):
        found[Place(condition(record, version=False), record["task"], label(record), record["seed"])] = record
    return found


def _same(one: Record, other: Record) -> bool:
    """Whether two records are of one run, rather than of two that ended alike."""
    return all(one.get(name) == other.get(name) for name in ("cell", "finished", "failed"))


def _comparable(one: Record, other: Record) -> bool:
    return _failed(one) or _failed(other) or bool(one["splits_sha256"] == other["splits_sha256"])


def _failed(record: Record) -> bool:
    return "failed" in record


def _in_order(place: Place) -> tuple[Any, ...]:
    return place.condition, place.task, in_order(place.method), place.seed


def _of(records: dict[Place, Record], place: Place, seeds: Sequence[int]) -> dict[int, Record]:
    return {seed: records[replace(place, seed=seed)] for seed in seeds}


def _row(place: Place, old: dict[int, Record], new: dict[int, Record]) -> list[str]:
    words = [place.task, place.method, ", ".join(map(str, new)), f"{_states(old, new)} → {_states(new, old)}"]
    if any(map(_failed, (*old.values(), *new.values()))):
        shown = ["failed" if _failed(one) else f"{one['score']:.2f}" for side in (old, new) for one in side.values()]
        return [*words, *shown, "—", "—", "—"]
    if not all("test_inputs" in one for one in (*old.values(), *new.values())):
        # Older files name no inputs; the same test split has them in the same order.
        old, new = ({seed: _nameless(one) for seed, one in side.items()} for side in (old, new))
    (pair,) = by_task({place.task: {"after": new, "before": old}}, "after", "before")
    means = [f"{mean_over_seeds(side.values()):.2f}" for side in (old, new)]
    return [*words, *means, pair.words, str(pair.paired.wins), str(pair.paired.losses)]


def _states(records: dict[int, Record], others: dict[int, Record]) -> str:
    """Return the eras of some cells, and the versions of mop where they aren't those of the others."""
    eras = "/".join(dict.fromkeys(str(one.get("era", "—")) for one in records.values()))
    versions, theirs = ({one["versions"]["mop"]: None for one in side.values()} for side in (records, others))
    return eras if list(versions) == list(theirs) else f"{eras} (mop {', '.join(versions)})"


def _nameless(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "test_inputs"}

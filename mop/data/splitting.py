"""Train, validation and test: taken from the examples where they say so, drawn where they don't.

Knows nothing of files. scikit-learn's splitters are not used: none of them keeps groups together, balances
answers and hits an exact size at once, and all of them refuse an answer that occurs once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mop.data.normal_form import normal_form
from mop.errors import DataError, SettingsError
from mop.examples import Example, Splits
from mop.seeds import stream

#: Below this many examples no split gives both demos to show and a comparison that means anything.
MINIMUM = 10


@dataclass(frozen=True, slots=True)
class _Group:
    """Places of the examples that share one input, and the answer by which they are balanced."""

    places: tuple[int, ...]
    answer: str


def split_examples(
    examples: Iterable[Example], *, seed: int = 0, validation: float = 0.25, test: float = 0.0
) -> Splits:
    """Assign every example to train, validation or test.

    An example that names its split goes there. The others go to train, except that a split which no example
    names is drawn from train: validation always, test if ``test > 0``. What is drawn is balanced by first
    answer as far as answers repeat, and examples whose inputs are the same up to case, spacing and
    punctuation are drawn together; one without a split follows such a twin that has one. Splits that the
    examples name themselves are not rearranged (`find_duplicates` reports what they share).

    The result depends on the seed and on the order of the examples; each split keeps that order.

    Args:
        examples: at least 10.
        seed: any integer.
        validation: share of what is to be divided, between 0 and 1, both excluded; rounded up.
        test: share of what is to be divided, from 0; rounded up. ``validation + test`` is below 1.

    Raises:
        DataError: fewer than 10 examples, or train or validation would have none.
        SettingsError: a share is out of range.
    """
    _check_shares(validation, test)
    given = list(examples)
    if len(given) < MINIMUM:
        raise DataError(f"at least {MINIMUM} examples are needed in all; got {len(given)}. Add more examples")
    named = _named_splits(given)
    drawable = [place for place, split in enumerate(named) if split in (None, "train")]
    present = set(named)
    size = len(drawable)
    roles = [("test", test), ("validation", validation)]
    for role, share in roles:
        if role not in present and share > 0:
            groups = _groups(given, [place for place in drawable if named[place] in (None, "train")])
            target = math.ceil(share * size - 1e-9)  # 0.1 * 30 is a little above 3
            for place in _draw(groups, target, stream(seed, "split", role)):
                named[place] = role
    by_role = {
        role: tuple(
            replace(example, split=role)
            for example, split in zip(given, named, strict=True)
            if (split or "train") == role
        )
        for role in ("train", "validation", "test")
    }
    _check_filled(by_role)
    return Splits(**by_role)


def _check_shares(validation: float, test: float) -> None:
    if not 0 < validation < 1:
        raise SettingsError(f"validation must be a share between 0 and 1, such as 0.25; got {validation}")
    if not 0 <= test < 1:
        raise SettingsError(f"test must be a share from 0 to below 1, such as 0.2; got {test}")
    if validation + test >= 1:
        raise SettingsError(
            f"validation ({validation}) and test ({test}) together leave nothing to train on; lower one"
        )


def _named_splits(examples: Sequence[Example]) -> list[str | None]:
    """Return the split that each example names, or else that a twin names (test before the others)."""
    order = ("train", "validation", "test")
    unknown = sorted({str(e.split) for e in examples if e.split is not None and e.split not in order})
    if unknown:
        raise DataError(f"an example's split is train, validation, test or None; got {', '.join(unknown)}")
    twin: dict[str, str] = {}
    for example in examples:
        if example.split is not None:
            key = normal_form(example.input)
            twin[key] = max(twin.get(key, "train"), example.split, key=order.index)
    return [example.split or twin.get(normal_form(example.input)) for example in examples]


def _groups(examples: Sequence[Example], places: Iterable[int]) -> list[_Group]:
    by_input: dict[str, list[int]] = {}
    for place in places:
        by_input.setdefault(normal_form(examples[place].input), []).append(place)
    return [_Group(tuple(group), examples[group[0]].output.strip()) for group in by_input.values()]


def _draw(groups: Sequence[_Group], target: int, random: np.random.Generator) -> list[int]:
    """Return the places of whole groups, ``target`` of them as nearly as groups allow and never all groups.

    Each answer's quota is its share of the target, what remains after rounding down going to the largest
    fractions. Answers that occur in one group only are one class together.
    """
    if len(groups) < 2:
        return []
    shuffled = [groups[at] for at in random.permutation(len(groups))]
    classes: dict[str, list[_Group]] = {}
    for group in shuffled:
        classes.setdefault(group.answer, []).append(group)
    several = [members for members in classes.values() if len(members) > 1]
    single = [members[0] for members in classes.values() if len(members) == 1]
    pools = [*several, single] if single else several
    sizes = [sum(len(group.places) for group in pool) for pool in pools]
    exact = [size * target / sum(sizes) for size in sizes]
    quotas = [math.floor(share) for share in exact]
    by_fraction = sorted(range(len(pools)), key=lambda at: quotas[at] - exact[at])
    for at in by_fraction[: target - sum(quotas)]:
        quotas[at] += 1

    drawn: list[_Group] = []
    left: list[_Group] = []
    for pool, quota in zip(pools, quotas, strict=True):
        for group in pool:
            fits = len(group.places) <= quota
            (drawn if fits else left).append(group)
            quota -= len(group.places) if fits else 0
    missing = target - sum(len(group.places) for group in drawn)
    for group in list(left):  # groups too large for their class's quota may still fit the whole
        if len(left) > 1 and len(group.places) <= missing:
            left.remove(group)
            drawn.append(group)
            missing -= len(group.places)
    if not drawn:
        drawn = [min(left, key=lambda group: len(group.places))]
    elif not left:
        drawn.remove(min(drawn, key=lambda group: len(group.places)))
    return [place for group in drawn for place in group.places]


def _check_filled(by_role: dict[str, tuple[Example, ...]]) -> None:
    counts = ", ".join(f"{len(examples)} {role}" for role, examples in by_role.items())
    for role in ("train", "validation"):
        if not by_role[role]:
            raise DataError(
                f"there are no {role} examples ({counts}). Inputs that are the same up to case, spacing and "
                "punctuation stay together; add examples with other inputs, or mark some as " + role
            )

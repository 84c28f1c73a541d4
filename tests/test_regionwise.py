"""Regions that take turns together: the same ones as one by one, and never more than there are calls for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from mop.prompts import Prompt
from mop.search.judging import Judging
from mop.search.regionwise import Turn, take_turns


class Account:
    """Stands for `Judging`: so many calls are left, and every call counts one if ``in_calls``."""

    def __init__(self, left: int, in_calls: bool = True) -> None:
        self.left, self.allowance = left, SimpleNamespace(in_calls=in_calls)

    def affords(self, cells: Sequence[Any], *, beside: float = 0.0, questions: Sequence[str] = ()) -> bool:
        return len(cells) + len(questions) + beside <= self.left


def turns_of(sizes: Sequence[tuple[int, int]]) -> list[Turn]:
    cells = [(Prompt("x"), i) for i in range(30)]
    return [
        Turn(region, cells[:count], asked * (1 + count // 3), [("demos", "?")] * asked)
        for region, (count, asked) in enumerate(sizes)
    ]


def taken(
    sizes: Sequence[tuple[int, int]], used: Sequence[int], left: int, in_calls: bool
) -> tuple[list[list[int]], int]:
    """Return the groups in which regions had their turn, and the calls that were left at the end."""
    account, groups = Account(left, in_calls), list[list[int]]()

    async def work(group: Sequence[Turn]) -> None:
        groups.append([turn.region for turn in group])
        account.left -= sum(min(turn.most, used[turn.region]) for turn in group)
        assert account.left >= 0

    turns = turns_of(sizes)
    left_out = asyncio.run(take_turns(cast(Judging, account), turns, work))
    assert sorted([*(one for group in groups for one in group), *(turn.region for turn in left_out)]) == [
        turn.region for turn in turns
    ]
    return groups, account.left


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=12), st.integers(0, 120), st.data())
def test_the_regions_that_get_their_turn_are_those_that_would_one_by_one(
    sizes: list[tuple[int, int]], left: int, data: st.DataObject
) -> None:
    used = [data.draw(st.integers(0, 60)) for _ in sizes]
    together, rest = taken(sizes, used, left, in_calls=True)
    alone, rest_alone = taken(sizes, used, left, in_calls=False)
    assert all(len(group) == 1 for group in alone)
    assert [one for group in together for one in group] == [one for group in alone for one in group]
    assert rest == rest_alone


def test_where_there_are_calls_for_all_regions_they_go_at_once() -> None:
    groups, _ = taken([(6, 2)] * 5, [6] * 5, 200, in_calls=True)
    assert groups == [[0, 1, 2, 3, 4]]

"""Cutting a batch into jobs: nothing is lost or moved, and what shares a prefix goes to one worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mop.cluster.jobs import MOST, cut
from mop.lm.request import Request


def batch(sizes: list[int], prefix: int = 40) -> list[Request]:
    """Return as many requests of each region as ``sizes`` says, each region with demos of its own."""
    asked = []
    for region, size in enumerate(sizes):
        head = (("system", "Name it."), ("user", f"{region}" * prefix), ("assistant", "it"))
        asked += [Request("m", (*head, ("user", f"{number} of {region}"))) for number in range(size)]
    return asked


@given(st.lists(st.integers(1, 90), max_size=12), st.integers(1, 9))
def test_every_request_is_in_one_job_in_its_order_and_no_job_is_too_long(sizes: list[int], workers: int) -> None:
    asked = batch(sizes)
    jobs = cut(asked, workers)
    assert [one for job in jobs for one in job] == asked
    assert all(0 < len(job) <= MOST for job in jobs)
    assert len(jobs) >= min(workers, 1) * bool(asked)


def test_regions_of_one_size_are_not_torn_apart() -> None:
    jobs = cut(batch([7, 7, 7, 7]), 2)
    assert [len(job) for job in jobs] == [14, 14]
    assert [{one.messages[1] for one in job} for job in jobs] == [
        {("user", "0" * 40), ("user", "1" * 40)},
        {("user", "2" * 40), ("user", "3" * 40)},
    ]


def test_one_prompt_is_shared_out_evenly() -> None:
    assert [len(job) for job in cut(batch([60]), 2)] == [30, 30]
    assert [len(job) for job in cut(batch([200]), 2)] == [50, 50, 50, 50]

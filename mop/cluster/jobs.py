"""Jobs: cuts a batch of requests into parts for workers, so that what shares a prompt's prefix stays together.

>>> from mop.lm.request import Request
>>> asked = [Request("m", (("system", f"Rule {rule} of many."), ("user", query))) for rule in "ab" for query in "xyz"]
>>> [len(job) for job in cut(asked, workers=2)]
[3, 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from mop.lm.request import Request

#: Most calls of one job: what is left to do at the end is then never much more for one worker than for another.
MOST = 64


def cut(requests: Sequence[Request], workers: int) -> list[list[Request]]:
    """Return ``requests``, in order, as jobs for ``workers`` workers.

    Requests of one prefix come one after the other, so a cut is made between two that share little, and within a prefix
    only where it is too much for one worker.
    """
    if not requests:
        return []
    size = min(MOST, -(-len(requests) // max(1, workers)))
    jobs: list[list[Request]] = [[]]
    for group in _by_prefix(requests):
        for part in _parts(group, size):
            if len(jobs[-1]) + len(part) > size:
                jobs.append([])
            jobs[-1].extend(part)
    return [job for job in jobs if job]


def _by_prefix(requests: Sequence[Request]) -> list[list[Request]]:
    shared = [_shared(one, other) for one, other in pairwise(requests)]
    usual = median(shared) if shared else 0
    groups = [[requests[0]]]
    for request, characters in zip(requests[1:], shared, strict=True):
        if 2 * characters < usual:
            groups.append([])
        groups[-1].append(request)
    return groups


def _parts(group: Sequence[Request], size: int) -> list[Sequence[Request]]:
    """Return a group in parts of at most ``size``, as equal as can be."""
    count = -(-len(group) // size)
    borders = [len(group) * part // count for part in range(count + 1)]
    return [group[start:end] for start, end in pairwise(borders)]


def _shared(one: Request, other: Request) -> int:
    """Return how many characters the messages of two requests have in common before they differ."""
    if one.model != other.model:
        return 0
    characters = 0
    for mine, theirs in zip(one.messages, other.messages, strict=False):
        if mine != theirs:
            same = (a == b for a, b in zip(mine[1], theirs[1], strict=False))
            return characters + next((place for place, equal in enumerate(same) if not equal), 0)
        characters += len(mine[1])
    return characters

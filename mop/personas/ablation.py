"""Ablation: what the number of exemplars and the spread of their domains do to identities far from those domains.

Each cell is one reply for each instruction, as it comes (nothing is asked again), so the copy rate and the others are
the model's own. The designs share their first exemplar: at k = 1 they are the same prompt, and the same calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from mop.data.normal_form import normal_form
from mop.errors import DataError
from mop.lm.request import Reply
from mop.personas.checking import LONGEST_RUN, MOST_COPIED, copied_share, nearness, text_problem, words_of
from mop.personas.exemplars import DIVERSE, FAR, SIMILAR, Design, chosen
from mop.personas.identities import Told
from mop.personas.writing import identity_request, read_identity
from mop.stats import PairedDifference, paired_difference

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder
    from mop.lm.client import ModelClient

KS = (1, 2, 3, 5)
DESIGNS: tuple[Design, ...] = ("similar", "diverse")
#: Cosine with an exemplar's request from which an instruction isn't far from its domain.
NEAR = 0.35


@dataclass(frozen=True, slots=True)
class Cell:
    """Identities written with ``k`` exemplars of a design. Rates are shares of all instructions.

    ``own`` and ``shuffled`` are mean cosines with the identity's own instruction and with others, ``nearer`` the rate
    of identities nearer to their own; ``gains`` their differences one by one.
    """

    design: Design
    k: int
    own: float
    shuffled: float
    nearer: float
    distinct: float
    copied: float
    sound: float
    words: float
    gains: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ablation:
    """All cells, the number of instructions, and how many were left out as too near to an exemplar's domain.

    ``diverse_minus_similar`` compares the designs' gains (own minus shuffled cosine) at each k.
    """

    cells: tuple[Cell, ...]
    instructions: int
    left_out: int
    nearest: float
    diverse_minus_similar: dict[int, PairedDifference]


async def ablate(
    client: ModelClient,
    encoder: Encoder,
    instructions: Sequence[str] = FAR,
    *,
    ks: Sequence[int] = KS,
    seed: int = 0,
    told: Told = lambda _: None,
) -> Ablation:
    """Write identities in every cell and measure them.

    Args:
        client: Client of the model that writes.
        encoder: Measures nearness, and which instructions are far from the exemplars.
        instructions: What to write identities for.
        ks: Numbers of exemplars.
        seed: Seed of the instructions to compare with.
        told: Is told the cell at every reply.

    Raises:
        SettingsError: There aren't so many exemplars.
        DataError: Fewer than two instructions are far from the exemplars.
        BudgetExceeded, ModelError, LedgerError: As `mop.lm.client.ModelClient.complete_many` does.
    """
    for k in ks:
        chosen(k)
    texts = list(dict.fromkeys(instructions))
    vectors = await asyncio.to_thread(encoder.encode, texts)
    shown = await asyncio.to_thread(encoder.encode, [one.instruction for one in (*DIVERSE, *SIMILAR)])
    nearest = (vectors @ shown.T).max(axis=1) if texts else np.zeros(0)
    far = [place for place in range(len(texts)) if nearest[place] < NEAR]
    if len(far) < 2:
        raise DataError(
            f"{len(far)} of {len(texts)} instructions are far from the exemplars' domains (cosine below {NEAR}); give "
            "at least two of other domains."
        )
    texts, vectors = [texts[place] for place in far], vectors[far]
    cells = []
    for design in DESIGNS:
        for k in ks:
            cells.append(await _cell(client, encoder, texts, vectors, design, k, seed, told))
    by_place = {(cell.design, cell.k): cell for cell in cells}
    differences = {
        k: paired_difference(by_place["diverse", k].gains, by_place["similar", k].gains) for k in dict.fromkeys(ks)
    }
    return Ablation(tuple(cells), len(texts), len(nearest) - len(texts), float(nearest[far].max()), differences)


async def _cell(
    client: ModelClient,
    encoder: Encoder,
    texts: Sequence[str],
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    design: Design,
    k: int,
    seed: int,
    told: Told,
) -> Cell:
    exemplars = chosen(k, design)

    def tell(_place: int, _reply: Reply) -> None:
        told(f"k = {k}, {design}")

    requests = [identity_request(client.model, text, exemplars) for text in texts]
    replies = await client.complete_many(requests, tell)
    written = [read_identity(reply.text) for reply in replies]
    encoded = await asyncio.to_thread(encoder.encode, written)
    near = nearness(dict(enumerate(encoded)), vectors, vectors[:0], seed)
    copied = []
    for identity, text in zip(written, texts, strict=True):
        share, run = copied_share(identity, exemplars, text)
        copied.append(share > MOST_COPIED or run > LONGEST_RUN)
    sound = [text_problem(one, text, exemplars) is None for one, text in zip(written, texts, strict=True)]
    return Cell(
        design,
        k,
        fmean(one.own for one in near.values()),
        fmean(one.shuffled for one in near.values()),
        fmean(one.near for one in near.values()),
        len({normal_form(one) for one in written}) / len(written),
        fmean(copied),
        fmean(sound),
        fmean(len(words_of(one)) for one in written),
        tuple(near[place].own - near[place].shuffled for place in range(len(written))),
    )

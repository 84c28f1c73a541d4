"""Measuring: the mixture and its opponents on labelled examples, each call planned before one is sent.

Knows prompts and clients; nothing of pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mop.errors import DataError, SettingsError
from mop.evaluation import SystemScore, score_prompts
from mop.examples import Example
from mop.mixture import Mixture, Route
from mop.prompts import Prompt, estimate_tokens
from mop.scoring import Scorer
from mop.seeds import stream
from mop.stats import PairedDifference, paired_difference
from mop.views.view import number_of

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger
    from mop.lm.request import Request

MIXTURE, ONE_PROMPT, ZERO_SHOT = "mixture", "one prompt", "zero-shot"
WITH_NEAREST, KNN = "one prompt + nearest demo", "kNN"


@dataclass(frozen=True)
class System:
    """A system to score: its name, the examples it answers (positions in the data), and a prompt for each of these."""

    name: str
    places: tuple[int, ...]
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Plan:
    """What a report asks: the systems, where each example is routed, and its vector.

    ``missing`` says in a sentence why an opponent isn't there. ``vectors`` are the encoder's, shape (examples,
    dimension).
    """

    mixture: Mixture
    examples: tuple[Example, ...]
    split: str
    systems: tuple[System, ...]
    routes: tuple[Route, ...]
    vectors: Vectors
    missing: tuple[str, ...]

    @property
    def answers(self) -> int:
        """Number of answers to score, whether the ledger has them or not."""
        return sum(len(system.places) for system in self.systems)

    def requests(self, model: str) -> list[Request]:
        """Return the distinct requests to ``model`` that answer everything."""
        decoding = self.mixture.decoding
        asked = (
            decoding.request(model, prompt, self.examples[place].input)
            for system in self.systems
            for place, prompt in zip(system.places, system.prompts, strict=True)
        )
        return list({request.key: request for request in asked}.values())

    def estimate(self, model: str, ledger: Ledger | None = None) -> tuple[int, int, int]:
        """Return how many calls it takes, how many of them ``ledger`` has, and the prompt tokens of the rest.

        The tokens are estimated from the texts. Raises LedgerError if the ledger cannot be read.
        """
        requests = self.requests(model)
        known = ledger.get_many([request.key for request in requests]) if ledger is not None else {}
        left = [request for request in requests if request.key not in known]
        tokens = sum(estimate_tokens(text) for request in left for _, text in request.messages)
        return len(requests), len(requests) - len(left), tokens


@dataclass(frozen=True)
class Measured:
    """What was found: a plan, and the scores of its systems in the same order."""

    plan: Plan
    systems: tuple[SystemScore, ...]

    def find(self, name: str) -> SystemScore | None:
        """Return the scores of a system, if it was scored."""
        return next((system for system in self.systems if system.name == name), None)

    def difference(self, name: str) -> PairedDifference | None:
        """Return the mixture minus another system on the examples that both answered; None without the other."""
        if self.find(name) is None:
            return None
        ours, other = self.by_place(MIXTURE), self.by_place(name)
        both = np.isfinite(ours) & np.isfinite(other)
        return paired_difference(ours[both], other[both])

    def by_place(self, name: str) -> NDArray[np.float64]:
        """Return a system's score at each example, NaN where it wasn't asked."""
        found = np.full(len(self.plan.examples), np.nan)
        for system, scored in zip(self.plan.systems, self.systems, strict=True):
            if system.name == name:
                found[list(system.places)] = scored.scores
        return found


def make_plan(mixture: Mixture, examples: Sequence[Example], split: str, *, knn_rows: int = 0) -> Plan:
    """Plan a measurement on ``examples``: route them, and give every system its prompts. Sends nothing.

    ``knn_rows`` examples, drawn by chance with a fixed seed, are also answered by kNN, whose prompts no cache serves.
    Raises DataError without examples, SettingsError for a negative number of rows.
    """
    from mop.embeddings.projection import project

    if not examples:
        raise DataError("There are no examples to report on; give at least one, or none and no DATA.")
    if knn_rows < 0:
        raise SettingsError(f"--knn-rows is {knn_rows}; give 0 or more.")
    queries = [example.input for example in examples]
    vectors = mixture.encoder.encode(queries)
    routes = mixture.route_vectors(vectors)
    everything = tuple(range(len(examples)))
    systems = [System(MIXTURE, everything, tuple(mixture.prompt_of(route) for route in routes))]
    systems.append(System(ONE_PROMPT, everything, (mixture.generalist,) * len(examples)))
    missing: list[str] = []
    if isinstance(zero := mixture.report.get("zero_shot"), str):
        systems.append(System(ZERO_SHOT, everything, (Prompt(zero),) * len(examples)))
    else:
        missing.append("The file holds no zero-shot prompt, so there is none to compare with.")
    if mixture.retrieval is None:
        missing.append("The file holds no demos to retrieve, so neither the nearest demo nor kNN is compared.")
    else:
        nearest = mixture.retrieval.nearest(project(vectors, mixture.projection))
        beside = tuple(mixture.generalist.retrieving(demos) for demos in nearest)
        systems.append(System(WITH_NEAREST, everything, beside))
        if knn_rows:
            systems.append(_knn(mixture, queries, knn_rows))
        else:
            missing.append("kNN was left out (--knn-rows 0).")
    return Plan(mixture, tuple(examples), split, tuple(systems), tuple(routes), vectors, tuple(missing))


async def measure(
    plan: Plan, client: ModelClient, scorer: Scorer, on_reply: Callable[[str], None] | None = None
) -> Measured:
    """Ask what the plan says, system by system, and score the answers.

    ``on_reply`` hears the system's name at every reply. Raises ModelError, NotRecorded, and what the scorer raises.
    """
    scored = []
    for system in plan.systems:
        examples = [plan.examples[place] for place in system.places]
        asked = plan.mixture, examples, system.prompts, client, scorer
        scored.append(await score_prompts(system.name, *asked, on_reply))
    return Measured(plan, tuple(scored))


def _knn(mixture: Mixture, queries: Sequence[str], rows: int) -> System:
    from mop.search.knn import NearestDemos

    retrieval = mixture.retrieval
    if retrieval is None:
        raise SettingsError("This mixture retrieves no demos, so there is nothing for kNN to look up.")
    drawn = stream(0, "report knn", len(queries)).permutation(len(queries))[:rows]
    places = tuple(sorted(int(place) for place in drawn))
    given = mixture.provenance.get("settings")
    settings = given if isinstance(given, Mapping) else {}
    candidates = mixture.report.get("candidates")
    # Without the answers listed if the file has it so: kNN lists those that it shows, as the experts do.
    bare = candidates[0] if isinstance(candidates, list) and candidates and isinstance(candidates[0], str) else None
    demos = NearestDemos(
        [Example(demo.input, (demo.output,)) for demo in retrieval.demos],
        mixture.encoder,
        bare or str(mixture.report.get("zero_shot") or mixture.generalist.instruction),
        k=_whole(settings.get("max_demos"), 15),
        token_budget=_whole(settings.get("prompt_tokens"), 600),
        list_answers=bare is not None,
    )
    return System(KNN, places, tuple(demos([queries[place] for place in places])))


def _whole(value: object, otherwise: int) -> int:
    number = number_of(value)
    return otherwise if number is None or number < 1 else int(number)

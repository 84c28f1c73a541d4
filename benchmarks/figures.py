"""The paper's first three experiments on a learned mixture, as numbers and pictures (arXiv 2407.00256, section 5).

1. ``clusters``: the demos of each region in embedding space (t-SNE), with the test inputs over them.
2. ``experts``: for each expert the share of test inputs that come to it, its accuracy on them, and its hit ratio: of
   those that any expert answers right, the share that it answers right itself. All experts are asked.
3. ``ranks``: for each expert, instructions ranked by their validation score in its region and on all validation
   examples, under the same demos: Spearman's correlation. Where it is low, a region wants an instruction of its own.

Numbers are in ``figures.json``. Every question goes through the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.plotting import MARKERS, drawing
from benchmarks.routing import Routing
from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.errors import DataError
from mop.examples import Splits
from mop.lm.client import ModelClient
from mop.mixture import Mixture
from mop.prompts import Prompt
from mop.retrieval import Retrieval
from mop.scoring import Scorer
from mop.search.trials import Trials
from mop.seeds import stream
from mop.stats import proportion_interval

Scores = NDArray[np.float64]
#: Resamples of regions for the interval of the mean rank correlation.
RESAMPLES = 2000
#: Ranked regions that this interval takes.
FEWEST_REGIONS = 5
#: The list of answers that an expert's instruction ends with, if there is one (`mop.search.experts.with_answers`).
ANSWERS = " Answer with one of: "


@dataclass(frozen=True)
class Asked:
    """A mixture with everything that the experiments ask: the examples that it was learned from, a model, a scorer."""

    mixture: Mixture
    splits: Splits
    client: ModelClient
    scorer: Scorer

    @property
    def seed(self) -> int:
        """The mixture's own seed."""
        found = self.mixture.provenance.get("seed", 0)
        return found if isinstance(found, int) else 0

    def vectors(self, inputs: Sequence[str]) -> Vectors:
        """Return the vectors in which queries are routed."""
        return project(self.mixture.encoder.encode(list(inputs)), self.mixture.projection)


async def draw_figures(asked: Asked, folder: Path, *, validation: int = 60, kind: str = "svg") -> list[Path]:
    """Run the three experiments, write ``figures.json`` and the pictures, and return their paths.

    ``validation`` bounds the validation examples on which instructions are ranked. Raises DataError for a mixture of
    one expert.
    """
    if len(asked.mixture) < 2:
        raise DataError("The mixture has one expert, so there is nothing to compare between regions.")
    paths = [folder / f"{name}.{kind}" for name in ("clusters", "experts", "ranks")]
    clusters = draw_clusters(asked, paths[0])
    experts = await by_expert(asked)
    _draw_experts(experts, paths[1])
    ranks = await rank_correlation(asked, validation)
    _draw_ranks(ranks, paths[2])
    numbers = folder / "figures.json"
    found = {"clusters": clusters, "experts": experts, "ranks": ranks}
    numbers.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [*paths, numbers]


# --- 1. demos and test inputs in embedding space


def draw_clusters(asked: Asked, path: Path) -> dict[str, Any]:
    """Draw demos and test inputs in two dimensions; return how many of each a region has."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    demos = asked.vectors([example.input for example in asked.splits.train])
    tests = asked.vectors([example.input for example in asked.splits.test])
    regions = Regions(asked.mixture.centroids)
    both = np.vstack([demos, tests]).astype(np.float64)
    seed = int(stream(asked.seed, "t-sne").integers(2**31))
    with threadpool_limits(1):
        places = TSNE(
            perplexity=min(30.0, (len(both) - 1) / 3), init="pca", random_state=seed, n_jobs=1, max_iter=500
        ).fit_transform(both)
    home, routed = regions.assign(demos), regions.assign(tests)
    with drawing(path, 8, 7) as figure:
        axes = figure.subplots()
        for region in range(len(regions)):
            style = {"marker": MARKERS[region % len(MARKERS)], "linestyle": "none"}
            shade = ("0.6", "0.72", "0.84")[(region + region // len(MARKERS)) % 3]
            mine = places[: len(demos)][home == region]
            axes.plot(mine[:, 0], mine[:, 1], color=shade, markersize=10, label=_name(asked, region), **style)
            theirs = places[len(demos) :][routed == region]
            axes.plot(theirs[:, 0], theirs[:, 1], color="0.0", markerfacecolor="none", markersize=5, **style)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(
            "demos (grey) by region; test inputs (small, hollow) by the region they are routed to", fontsize=9
        )
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    count = len(regions)
    return {
        "demos": np.bincount(home, minlength=count).tolist(),
        "test": np.bincount(routed, minlength=count).tolist(),
    }


def _name(asked: Asked, region: int) -> str:
    return f"{region}: {' '.join(asked.mixture.experts[region].words[:3])}"


# --- 2. how often the right expert is asked


async def by_expert(asked: Asked) -> list[dict[str, Any]]:
    """Return share, accuracy and hit ratio of each expert on the test examples that come to it."""
    examples = asked.splits.test
    router = Routing(asked.mixture, asked.splits, asked.client, asked.seed, asked.scorer)
    matrix = await router.outcomes(examples)
    routed = Regions(asked.mixture.centroids).assign(asked.vectors([example.input for example in examples]))
    rows = []
    for expert in range(matrix.shape[1]):
        here = matrix[routed == expert]
        answerable = here[here.max(axis=1, initial=0) > 0]
        hits = (answerable[:, expert] >= answerable.max(axis=1)) if len(answerable) else np.empty(0)
        others = np.delete(here, expert, axis=1)
        rows.append(
            {
                "expert": expert,
                "words": list(asked.mixture.experts[expert].words),
                "fallback": asked.mixture.experts[expert].fallback,
                "examples": len(here),
                "share": len(here) / len(examples),
                **_rate("accuracy", here[:, expert]),
                "others_accuracy": float(others.mean()) if others.size else None,
                "answerable": len(answerable),
                **_rate("hit_ratio", np.asarray(hits, dtype=float)),
            }
        )
    return rows


def _rate(name: str, scores: Scores) -> dict[str, float | None]:
    if not len(scores):
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    interval = proportion_interval(scores)
    return {name: float(scores.mean()), f"{name}_low": interval.low, f"{name}_high": interval.high}


def _draw_experts(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with drawing(path, 8, 1.6 + 0.42 * len(rows)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            axes.barh(place, row["share"], height=0.8, color="0.88", label=None if place else "share of test inputs")
            for name, marker, shift in (("accuracy", "o", -0.15), ("hit_ratio", "D", 0.15)):
                if row[name] is None:
                    continue
                at = place + shift
                axes.plot([row[f"{name}_low"], row[f"{name}_high"]], [at, at], color="0.5", linewidth=1)
                face = "0.0" if name == "accuracy" else "1.0"
                axes.plot([row[name]], [at], marker, color="0.0", markerfacecolor=face, markersize=5)
            if row["others_accuracy"] is not None:
                axes.plot([row["others_accuracy"]], [place - 0.15], "|", color="0.0", markersize=11)
        for style, text in (
            ({"marker": "o", "markerfacecolor": "0.0"}, "accuracy, 95 % interval"),
            ({"marker": "|", "markersize": 11}, "accuracy of the other experts on the same inputs"),
            ({"marker": "D", "markerfacecolor": "1.0"}, "hit ratio, 95 % interval"),
        ):
            axes.plot([], [], linestyle="none", color="0.0", label=text, **style)
        axes.set_yticks(
            range(len(rows)), [f"{row['expert']}: {' '.join(row['words'][:2])} ({row['examples']})" for row in rows]
        )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)


# --- 3. the order of instructions, in a region and everywhere


async def rank_correlation(asked: Asked, validation: int) -> dict[str, Any]:
    """Return each candidate's score in each region and everywhere, and how far the two orders agree.

    All validation examples hold the region's own, as in the paper, which brings the two orders together;
    ``spearman_outside`` compares the region with the others alone. The mean correlation has a bootstrap interval over
    regions if there are `FEWEST_REGIONS` at least: over fewer it would say what is not known. A region where all
    candidates score the same, or that has no validation example, has no order and is left out. Raises DataError if the
    mixture's file names fewer than three candidates.
    """
    candidates = list(dict.fromkeys(map(str, asked.mixture.report.get("candidates", []))))
    if len(candidates) < 3:
        raise DataError(
            f"The mixture's report names {len(candidates)} candidate instructions; ranks need three. Learn it again "
            "with a larger budget, by mop or mop-paper."
        )
    examples = asked.splits.validation[:validation]
    vectors = asked.vectors([example.input for example in examples])
    routed = Regions(asked.mixture.centroids).assign(vectors)
    retrieval = _without(asked.mixture.retrieval, {example.input for example in asked.splits.validation})
    retrieved = [()] * len(examples) if retrieval is None else retrieval.nearest(vectors)
    trials = Trials(asked.client, asked.mixture.decoding, asked.scorer)
    rows = []
    for region, expert in enumerate(asked.mixture.experts):
        here = routed == region
        if not here.any():
            continue
        prompts = [_under(expert.prompt, candidate) for candidate in candidates]
        cells = [
            (prompt.retrieving(shown), example)
            for prompt in prompts
            for example, shown in zip(examples, retrieved, strict=True)
        ]
        scores = np.asarray(await trials.score(cells)).reshape(len(candidates), len(examples))
        local, everywhere = scores[:, here].mean(axis=1), scores.mean(axis=1)
        outside = None if here.all() else spearman(local, scores[:, ~here].mean(axis=1))
        rows.append(
            {
                "region": region,
                "examples": int(here.sum()),
                "regional": local.tolist(),
                "global": everywhere.tolist(),
                "spearman": spearman(local, everywhere),
                "spearman_outside": outside,
                "same_best": bool(local[int(everywhere.argmax())] == local.max()),
            }
        )
    return {"candidates": candidates, "validation": len(examples), "calls": trials.done, **agreement(rows, asked.seed)}


def agreement(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Return the regions' ``rows`` and the means of their correlations, the first with its interval."""
    known = np.array([row["spearman"] for row in rows if row["spearman"] is not None])
    apart = [row["spearman_outside"] for row in rows if row["spearman_outside"] is not None]
    low = high = None
    if len(known) >= FEWEST_REGIONS:
        draws = stream(seed, "rank correlation").integers(len(known), size=(RESAMPLES, len(known)))
        low, high = (float(value) for value in np.quantile(known[draws].mean(axis=1), (0.025, 0.975)))
    return {
        "regions": list(rows),
        "ranked_regions": len(known),
        "mean": float(known.mean()) if len(known) else None,
        "low": low,
        "high": high,
        "mean_outside": float(np.mean(apart)) if apart else None,
    }


def _without(retrieval: Retrieval | None, inputs: set[str]) -> Retrieval | None:
    """Return ``retrieval`` without these inputs: an example that retrieves itself has its answer shown."""
    if retrieval is None:
        return None
    kept = [place for place, demo in enumerate(retrieval.demos) if demo.input not in inputs]
    if not kept:
        return None
    return Retrieval(tuple(retrieval.demos[place] for place in kept), retrieval.vectors[kept], retrieval.count)


def spearman(one: Scores, other: Scores) -> float | None:
    """Return Spearman's rank correlation with shared ranks for ties; None where either has no order."""
    from scipy import stats

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)


def _under(prompt: Prompt, instruction: str) -> Prompt:
    """Return an expert's prompt with another instruction, and the same list of answers if it has one."""
    _, listed, answers = prompt.instruction.rpartition(ANSWERS)
    return Prompt(f"{instruction}{listed}{answers}" if listed else instruction, prompt.demos, prompt.layout)


def _draw_ranks(found: Mapping[str, Any], path: Path) -> None:
    with drawing(path, 6.5, 6) as figure:
        axes = figure.subplots()
        for place, row in enumerate(found["regions"]):
            value = "—" if row["spearman"] is None else f"{row['spearman']:+.2f}"
            axes.plot(
                row["global"],
                row["regional"],
                MARKERS[place % len(MARKERS)],
                color="0.0",
                markerfacecolor=("0.0", "1.0", "0.6")[place % 3],
                markersize=6,
                label=f"region {row['region']} ({row['examples']}): {value}",
            )
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("validation score of an instruction on all examples")
        axes.set_ylabel("in the region")
        mean = "no region has an order"
        if found["mean"] is not None:
            mean = f"mean rank correlation {found['mean']:+.2f}"
            if found["low"] is not None:
                mean += f" [{found['low']:+.2f}, {found['high']:+.2f}]"
            if found["mean_outside"] is not None:
                mean += f", with the other regions alone {found['mean_outside']:+.2f}"
        axes.set_title(
            f"{mean}, {found['ranked_regions']} regions, {len(found['candidates'])} instructions", fontsize=9
        )
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)

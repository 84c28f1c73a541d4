"""Coverage: how often the right answer stands among the demos of the expert that a message is routed to.

    python -m benchmarks.coverage

Needs the encoder only. A model can hardly give a label that its prompt doesn't show, so this bounds accuracy and costs
nothing to measure; recipes with poor coverage need no model calls to be dropped.
"""

from __future__ import annotations

import numpy as np

from mop.datasets import helpdesk
from mop.embeddings.projection import fit_projection, project
from mop.embeddings.regions import find_regions
from mop.encoding import resolve_encoder
from mop.search.demos import closed_answers
from mop.search.experts import DemoPool, Layout, Recipe

RECIPES = {"own only": (20, 0), "14 own + 6 borrowed": (14, 6), "10 own + 10 borrowed": (10, 10)}


def main() -> None:
    splits = helpdesk()
    encoder = resolve_encoder("local/all-minilm-l6-v2")
    train = encoder.encode([example.input for example in splits.train])
    queries = encoder.encode([example.input for example in splits.validation])
    answers = closed_answers(splits.train)
    learned = fit_projection(train, [example.output for example in splits.train])
    pool = DemoPool(splits.train, train)
    print("| regions | " + " | ".join(f"{space}, {name}" for space in ("topic", "answer") for name in RECIPES) + " |")
    print("| --- " * (1 + 2 * len(RECIPES)) + "|")
    for count in (8, 16, 24, 32, 48, 64):
        cells = []
        for projection in (None, learned):
            regions = find_regions(project(train, projection), count, seed=0)
            for own, borrowed in RECIPES.values():
                layout = Layout.build(Recipe(count, own, borrowed), regions, projection, pool, answers)
                routed = layout.assign(queries)
                shown = [{demo.output for demo in demos} for demos in layout.demos]
                right = [e.output in shown[r] for e, r in zip(splits.validation, routed, strict=True)]
                cells.append(f"{np.mean(right):.2f}")
        print(f"| {count} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

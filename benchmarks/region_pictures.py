"""Ways to draw regions in the plane: which leaves texts nearest to their own region?

``python -m benchmarks.region_pictures FILE…`` for mixtures that hold their labelled examples.

Three quarters of a file's examples make each picture; the share is that of the others which are drawn nearest to the
centroid that is nearest to them in truth. No model calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mop.artifact import load
from mop.embeddings.encoders import Vectors
from mop.embeddings.region_map import draw_map
from mop.embeddings.regions import Regions
from mop.seeds import stream


def shares(path: str) -> dict[str, float]:
    """Return the share of unseen examples that each kind of picture leaves nearest to their own region."""
    mixture = load(path)
    if mixture.retrieval is None:
        raise SystemExit(f"{path} holds no labelled examples (it was learned with retrieved = 0).")
    centroids, rows = mixture.centroids, mixture.retrieval.vectors
    unseen = stream(0, "unseen").random(len(rows)) < 0.25
    seen, rest = rows[~unseen], rows[unseen]
    regions = Regions(centroids)
    drawn = draw_map(centroids, seen)
    linear: dict[str, Callable[[Vectors], Vectors]] = {"principal components": PCA(2).fit(seen).transform}
    for shrinkage in (0.1, 0.5, 0.9):
        fitted = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage, n_components=2)
        linear[f"discriminants, shrinkage {shrinkage}"] = fitted.fit(seen, regions.assign(seen)).transform
    pictures = {name: (way(centroids), way(rest)) for name, way in linear.items()}
    pictures["region map"] = (drawn.places, drawn.place(rest, centroids))
    truth = regions.assign(rest)
    return {
        name: float((Regions(np.asarray(places)).assign(np.asarray(shown)) == truth).mean())
        for name, (places, shown) in pictures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    for path in parser.parse_args().files:
        print(path, {name: round(share, 2) for name, share in shares(path).items()})


if __name__ == "__main__":
    main()

"""The words that mark each region: class-based TF-IDF over the region's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def region_words(
    texts: Sequence[str], regions: NDArray[np.intp], count: int, *, words: int = 4
) -> tuple[tuple[str, ...], ...]:
    """Return for each of ``count`` regions the ``words`` words that are frequent in it and rare elsewhere.

    A region without texts, or texts without words (numbers and symbols only), gets ``()``.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    joined = [" ".join(text for text, region in zip(texts, regions, strict=True) if region == r) for r in range(count)]
    vectorizer = CountVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{3,}\b")
    try:
        counts = vectorizer.fit_transform(joined).toarray().astype(float)
    except ValueError:  # scikit-learn's way to say: no word at all
        return ((),) * count
    frequency = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rarity = np.log(1 + counts.sum(axis=1).mean() / np.maximum(counts.sum(axis=0), 1))
    weight = frequency * rarity
    names = vectorizer.get_feature_names_out()
    best = np.argsort(-weight, axis=1, kind="stable")[:, :words]
    return tuple(
        tuple(str(names[column]) for column in best[region] if weight[region, column] > 0) for region in range(count)
    )

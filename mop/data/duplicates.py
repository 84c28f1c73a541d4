"""Inputs in two splits at once, with which a score measures memory. Knows nothing of answers or files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mop.data.normal_form import normal_form
from mop.data.table import shown
from mop.errors import DataError, SettingsError
from mop.examples import Example, Splits

Role = Literal["train", "validation", "test"]

# The pairs of splits to compare, the one that gives way first.
_PAIRS: tuple[tuple[Role, Role], ...] = (("train", "validation"), ("train", "test"), ("validation", "test"))
# Rows compared at a time: 500 × 2,000 similarities of which most are not zero take about 12 MB.
_CHUNK = 500
# Hashed n-grams need no vocabulary in memory; at this many buckets collisions do not move a cosine visibly.
_BUCKETS = 2**20
_SHOWN = 3
_VERBS = (("exact", "repeats", "repeat"), ("near", "nearly repeats", "nearly repeat"))


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An input of one split and the input most like it in another.

    ``text`` stands in ``split``, the side that gives way; ``other_text`` in ``other_split``, the side that is
    kept (train gives way to validation, and both to test). ``similarity`` is a cosine, 1.0 if
    exact.
    """

    kind: Literal["exact", "near"]
    text: str
    split: Role
    other_text: str
    other_split: Role
    similarity: float


def find_duplicates(splits: Splits, *, near: float = 0.9) -> list[Duplicate]:
    """Return the inputs that a later split repeats, exactly or nearly.

    Exact means the same up to Unicode variants, case, spacing and punctuation. Near means a cosine of at
    least ``near`` between TF-IDF vectors of character 3- to 5-grams; the IDF is that of the split that is
    kept. Each distinct input is listed once per other split, with the input there that is most like it.
    20,000 against 2,000 inputs of 140 characters take about 7 s on one core and 0.2 GB.

    Args:
        splits: the splits to compare; inputs within one split are not compared.
        near: the least similarity, above 0 and at most 1.

    Raises:
        SettingsError: ``near`` is out of range.
    """
    if not 0 < near <= 1:
        raise SettingsError(f"near must be a similarity above 0 and at most 1, such as 0.9; got {near}")
    found: list[Duplicate] = []
    for split, other_split in _PAIRS:
        kept = {normal_form(text): text for text in reversed(_inputs(getattr(splits, other_split)))}
        rest: dict[str, str] = {}
        for text in _inputs(getattr(splits, split)):
            form = normal_form(text)
            if form in kept:
                found.append(Duplicate("exact", text, split, kept[form], other_split, 1.0))
            else:
                rest[text] = form
        for text, other_form, similarity in _nearest(rest, list(kept), near):
            found.append(Duplicate("near", text, split, kept[other_form], other_split, similarity))
    return found


def find_repeats(texts: Sequence[str], *, near: float = 0.9) -> dict[int, tuple[int, float]]:
    """Return the texts of one list that repeat an earlier one: their places, with the earlier place and the cosine.

    Exact and near mean what they do in `find_duplicates`, with the IDF of all texts; what is itself a repeat is not
    compared with.
    """
    forms = [normal_form(text) for text in texts]
    count, weigh = _vectorizers()
    found: dict[int, tuple[int, float]] = {}
    first: dict[str, int] = {}
    for place, form in enumerate(forms):
        if form in first:
            found[place] = (first[form], 1.0)
        else:
            first[form] = place
    places = list(first.values())
    if len(places) < 2:
        return found
    vectors = weigh.fit_transform(count.transform([_padded(forms[place]) for place in places])).tocsr()
    for start in range(0, len(places), _CHUNK):
        similar = (vectors[start : start + _CHUNK] @ vectors.T).tocsr()
        # Nearly all similarities are small, and Python would look at them one by one.
        high = np.flatnonzero(similar.data >= near - 1e-6)
        ends = np.searchsorted(high, similar.indptr)
        for row in range(similar.shape[0]):
            place = places[start + row]
            those = high[ends[row] : ends[row + 1]]
            earlier = [
                (places[column], min(float(value), 1.0))
                for column, value in zip(similar.indices[those], similar.data[those], strict=True)
                if places[column] < place and places[column] not in found
            ]
            if earlier:
                found[place] = max(earlier, key=lambda one: (one[1], -one[0]))
    return found


def describe_duplicates(duplicates: Sequence[Duplicate]) -> str:
    """Return a short text for people: how many inputs each pair of splits shares, with some of them."""
    if not duplicates:
        return "No input stands in two splits."
    lines = []
    for split, other_split in _PAIRS:
        for kind, one, many in _VERBS:
            some = [d for d in duplicates if (d.split, d.other_split, d.kind) == (split, other_split, kind)]
            if not some:
                continue
            subject = f"1 {split} input {one}" if len(some) == 1 else f"{len(some)} {split} inputs {many}"
            lines.append(f"{subject} a {other_split} input:")
            lines += [
                f"  {shown(d.text)} ~ {shown(d.other_text)} ({d.similarity:.2f})"
                for d in sorted(some, key=lambda d: -d.similarity)[:_SHOWN]
            ]
            if len(some) > _SHOWN:
                lines.append(f"  … and {len(some) - _SHOWN} more")
    return "\n".join(lines)


def drop_duplicates(splits: Splits, duplicates: Iterable[Duplicate]) -> tuple[Splits, tuple[Example, ...]]:
    """Remove from train what validation or test repeats, from validation what test repeats; never from test.

    Returns:
        The splits without them, and the examples that were dropped, train before validation.

    Raises:
        DataError: nothing would be left of train or of validation.
    """
    texts: dict[str, set[str]] = {"train": set(), "validation": set()}
    for duplicate in duplicates:
        if duplicate.split in texts:
            texts[duplicate.split].add(duplicate.text)
    train = tuple(example for example in splits.train if example.input not in texts["train"])
    validation = tuple(example for example in splits.validation if example.input not in texts["validation"])
    for role, before, after in (
        ("train", splits.train, train),
        ("validation", splits.validation, validation),
    ):
        if before and not after:
            raise DataError(
                f"every one of the {len(before)} {role} inputs stands in another split too, so dropping them "
                f"leaves none; give other {role} examples, or "
                "raise the similarity from which inputs count as the same"
            )
    dropped = [example for example in splits.train if example.input in texts["train"]]
    dropped += [example for example in splits.validation if example.input in texts["validation"]]
    return replace(splits, train=train, validation=validation), tuple(dropped)


def _inputs(examples: Iterable[Example]) -> list[str]:
    """Return the distinct inputs in order."""
    return list(dict.fromkeys(example.input for example in examples))


def _nearest(rest: dict[str, str], kept_forms: Sequence[str], near: float) -> Iterator[tuple[str, str, float]]:
    """Yield each text of ``rest`` that has a like in ``kept_forms``, with the nearest and its cosine."""
    if not rest or not kept_forms:
        return
    count, weigh = _vectorizers()
    kept = weigh.fit_transform(count.transform(map(_padded, kept_forms))).T.tocsr()
    texts = list(rest)
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        vectors = weigh.transform(count.transform([_padded(rest[text]) for text in chunk]))
        similarities = (vectors @ kept).tocsr()
        nearest = np.asarray(similarities.argmax(axis=1)).ravel().tolist()
        highest = similarities.max(axis=1).toarray().ravel().tolist()
        for text, column, similarity in zip(chunk, nearest, highest, strict=True):
            if similarity >= near - 1e-6:
                yield text, kept_forms[column], min(float(similarity), 1.0)


def _vectorizers() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    count = HashingVectorizer(
        analyzer="char",
        ngram_range=(3, 5),
        lowercase=False,
        norm=None,
        alternate_sign=False,
        n_features=_BUCKETS,
        dtype=np.float32,
    )
    return count, TfidfTransformer()


def _padded(form: str) -> str:
    """Return the text with edges, so that a text of one character has n-grams too."""
    return f" {form} "

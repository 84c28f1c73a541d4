"""Metrics on words: how close one reply is to one accepted output. Each returns a score from 0 to 1.

They follow the benchmarks' definitions (Instruction Induction's evaluate.py; ROUGE-L as Super-NaturalInstructions
uses it) wherever those are right; `mop.metrics.normalise` says where they aren't. Knows nothing of which
metric a task uses, nor of several accepted outputs.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from mop.metrics.final_answer import numbers
from mop.metrics.normalise import NUMBER, first_line, is_formula, is_same, readings_as, tokens

_ROUGE_WORD = re.compile(rf"(?<![\w)\]}}])-(?:{NUMBER})|{NUMBER}|[^\W_]+")


def exact_match(prediction: str, output: str) -> float:
    """Return 1 if the reply, its first line or that line's first sentence is the output, else 0.

    Case, quotes, a closing full stop, and "-" or "_" against a space make no difference; signs and points of numbers
    do.
    """
    return float(is_same(prediction, output))


def exact_set(prediction: str, output: str) -> float:
    """Return 1 if reply and output have the same set of tokens, in any order, else 0."""
    gold = set(tokens(output, formula=is_formula(output)))
    return float(any(set(given) == gold for given in readings_as(output, prediction)))


def contains(prediction: str, output: str) -> float:
    """Return 1 if the first line of the reply contains the output as whole words, else 0."""
    formula = is_formula(output)
    gold = tokens(output, formula=formula)
    words = tokens(first_line(prediction), formula=formula)
    return float(any(words[start : start + len(gold)] == gold for start in range(len(words) - len(gold) + 1)))


def token_f1(prediction: str, output: str) -> float:
    """Return the F1 of reply and output as bags of tokens (SQuAD's F1), for the best reading of the reply."""
    gold = tokens(output, formula=is_formula(output))
    return max((_f1(given, gold) for given in readings_as(output, prediction)), default=0.0)


def rouge_l(prediction: str, output: str) -> float:
    """Return the ROUGE-L F-measure (Lin 2004; package rouge-score without stemming).

    Differs from the package's tokens where those are wrong: a number is one token with its sign and point, words
    of any script count, and for an output without words the symbols count. Where the output is nothing but one
    number, a reply whose last number is that one scores 1, however it is phrased.
    """
    wanted = numbers(output)
    if len(wanted) == 1 and not any(c.isalpha() for c in output) and numbers(prediction)[-1:] == wanted:
        return 1.0
    score = _rouge_scorer(is_formula(output)).score(output, prediction)
    return float(score["rougeL"].fmeasure)


def _f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    common = (Counter(predicted) & Counter(gold)).total()
    return 2 * common / (len(predicted) + len(gold)) if common else 0.0


class _RougeTokenizer:
    def __init__(self, formula: bool) -> None:
        self._formula = formula

    def tokenize(self, text: str) -> list[str]:
        if self._formula:
            found = list(tokens(text, formula=True))
            # Brackets are in every list: as tokens they would give any list half of the score.
            return [token for token in found if token not in "[](){}"] or found
        plain = unicodedata.normalize("NFC", text).replace("\u2212", "-").lower()
        return [word.replace(",", "") for word in _ROUGE_WORD.findall(plain)]


@cache
def _rouge_scorer(formula: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, so late

    return RougeScorer(["rougeL"], tokenizer=_RougeTokenizer(formula))

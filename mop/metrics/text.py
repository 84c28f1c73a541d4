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

_ROUGE_WORD = re.compile(rf"(?<![\w)\]}}])-(?:{NUMBER})|{NUMBER}|(?:[^\W_]|[^\x00-\x7f\s])+")
_FOREIGN_MARK = re.compile(r"[^\x00-\x7f\w\s]")
_CODE = re.compile(r"\D*0\d")


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
    number, a reply whose last number is that one scores 1, however it is phrased; so does a sentence that ends with
    an output that is a list or a formula. A code with a leading zero (020) is no number.
    """
    formula = is_formula(output)
    wanted = [] if _CODE.match(output) or any(c.isalpha() for c in output) else numbers(output)
    if len(wanted) == 1 and numbers(prediction)[-1:] == wanted:
        return 1.0
    if formula and _states(_RougeTokenizer(formula).tokenize(prediction), _RougeTokenizer(formula).tokenize(output)):
        return 1.0
    score = _rouge_scorer(formula).score(output, prediction)
    return float(score["rougeL"].fmeasure)


def _states(sentence: Sequence[str], formula: Sequence[str]) -> bool:
    """Whether a formula ends a sentence, after a word or colon: "5, 1, 2" does not state "1, 2"."""
    before, end = sentence[: -len(formula)], sentence[-len(formula) :]
    if end != formula or not before:
        return False
    return before[-1] == ":" or (before[-1].isalpha() and len(before[-1]) > 1 and before[-1] != "not")


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
        # Vowel signs of Devanagari are part of their word; other marks beyond ASCII separate, as the package has it.
        plain = _FOREIGN_MARK.sub(lambda mark: mark[0] if unicodedata.category(mark[0])[0] == "M" else " ", plain)
        return [word.replace(",", "") for word in _ROUGE_WORD.findall(plain)]


@cache
def _rouge_scorer(formula: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, so late

    return RougeScorer(["rougeL"], tokenizer=_RougeTokenizer(formula))

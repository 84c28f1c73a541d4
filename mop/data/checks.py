"""Doubts about examples that can be used, but perhaps shouldn't be. Knows nothing of files."""

from __future__ import annotations

from mop.data.table import shown
from mop.examples import Example, Splits

_SHOWN = 3


def warnings_for(splits: Splits) -> list[str]:
    """Return one sentence or two per doubt about the examples; empty if there is none.

    Doubts are: all answers are the same, and the same input has answers that exclude each other (no answer
    is accepted by all of its examples; case and spacing do not count in answers).
    """
    examples = [*splits.train, *splits.validation, *splits.test]
    warnings = []
    if examples and len({_folded(example.output) for example in examples}) == 1:
        warnings.append(
            f"all answers are the same ({shown(examples[0].output)}); any prompt that gives it looks "
            "perfect. Check that the output column is the right one"
        )
    conflicts = _conflicts(examples)
    if conflicts:
        listed = "; ".join(
            f"{shown(text)} has {' and '.join(map(shown, answers))}" for text, answers in conflicts[:_SHOWN]
        )
        more = f"; and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        inputs = "1 input has" if len(conflicts) == 1 else f"{len(conflicts)} inputs have"
        warnings.append(
            f"{inputs} conflicting answers: {listed}{more}. If all of them are right, give them as one list; "
            "if not, keep the right one"
        )
    return warnings


def _conflicts(examples: list[Example]) -> list[tuple[str, list[str]]]:
    """Return the inputs whose examples share no accepted answer, each with its distinct first answers."""
    by_input: dict[str, list[Example]] = {}
    for example in examples:
        by_input.setdefault(" ".join(example.input.split()), []).append(example)
    found = []
    for text, same in by_input.items():
        if not set.intersection(*({_folded(answer) for answer in example.outputs} for example in same)):
            found.append((text, list({_folded(example.output): example.output for example in same}.values())))
    return found


def _folded(answer: str) -> str:
    return " ".join(answer.split()).casefold()

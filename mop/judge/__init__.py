"""Judge: a model that compares or grades answers, and what its verdicts are worth.

`Judge` asks; `mop.judge.reading` counts (position bias, lengths, agreement with checkers and people);
`mop.judge.labels` writes pairs for people to label and reads their labels back.
"""

from mop.judge.criteria import CRITERIA, Criteria, get_criteria
from mop.judge.judging import Grade, Judge, Pair, Verdict, Vote

__all__ = ["CRITERIA", "Criteria", "Grade", "Judge", "Pair", "Verdict", "Vote", "get_criteria"]

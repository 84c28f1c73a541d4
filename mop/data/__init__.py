"""Examples from files and Python objects: reading, checking, splitting, and duplicates across splits.

Knows nothing of prompts, models or search. Importing it loads neither scikit-learn nor pyarrow.
"""

from mop.data.checks import warnings_for
from mop.data.coercing import coerce_examples
from mop.data.duplicates import Duplicate, describe_duplicates, drop_duplicates, find_duplicates
from mop.data.formats import Format
from mop.data.normal_form import normal_form
from mop.data.reading import read_examples
from mop.data.splitting import split_examples

__all__ = [
    "Duplicate",
    "Format",
    "coerce_examples",
    "describe_duplicates",
    "drop_duplicates",
    "find_duplicates",
    "normal_form",
    "read_examples",
    "split_examples",
    "warnings_for",
]

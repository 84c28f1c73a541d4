"""Students: models that are trained to do without the prompt. Needs the extra ``students``.

Importing this package loads nothing heavy; `require_extra` says what is missing before a model is touched.
"""

from __future__ import annotations

import importlib.util

from mop.errors import SettingsError

#: What the extra ``students`` brings.
PARTS = ("torch", "transformers", "peft", "accelerate", "gguf")


def require_extra() -> None:
    """Raise SettingsError, with what to do, unless everything that training needs is installed."""
    if missing := [part for part in PARTS if importlib.util.find_spec(part) is None]:
        raise SettingsError(
            f"Training students needs {', '.join(missing)}, not installed here: run `pip install 'mop[students]'`."
        )

"""Export: a mixture in the formats of other tools. Knows nothing of where files go; imports none of those tools.

Each target is a function from a Mixture to an `Exported`. What a target cannot express of what is asked, and of where a
query goes, is never dropped silently: it is listed in ``lost``. What is known about a mixture (scores, its map, what
held-out examples looked like, where it comes from) stays in its file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from mop.errors import SettingsError
from mop.export.parts import Exported
from mop.mixture import Mixture

__all__ = ["TARGETS", "Exported", "export"]

#: The targets, and where each is written.
TARGETS = {
    "prompts": "mop.export.plain:prompts",
    "openai-messages": "mop.export.plain:openai_messages",
    "dspy": "mop.export.frameworks:dspy",
    "langchain": "mop.export.frameworks:langchain",
    "promptfoo": "mop.export.frameworks:promptfoo",
    "python": "mop.export.standalone:python",
}


def export(mixture: Mixture, to: str) -> Exported:
    """Return ``mixture`` in the format of the target ``to``, one of `TARGETS`.

    Raises:
        SettingsError: There is no such target, or it cannot hold this mixture's texts.
    """
    if to not in TARGETS:
        raise SettingsError(f"There is no export target {to!r}; there are: {', '.join(TARGETS)}.")
    module, _, name = TARGETS[to].partition(":")
    write: Callable[[Mixture], Exported] = getattr(import_module(module), name)
    exported = write(mixture)
    for text in exported.files.values():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SettingsError(f"A prompt cannot be written as UTF-8 ({error.reason}); correct its text.") from None
    return exported

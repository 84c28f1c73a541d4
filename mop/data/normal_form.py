"""The normal form of an input: two inputs with the same one count as the same. Knows nothing of examples."""

from __future__ import annotations

import unicodedata

_QUOTES = dict.fromkeys(map(ord, '“”„‟‘’‚‛«»‹›`´"'), "'")
_OPENING = "'¿¡"
_CLOSING = "'.,;:!?…。、"


def normal_form(text: str) -> str:
    """Return ``text`` without what does not tell inputs apart: Unicode variants, case, spacing, punctuation.

    Quotes and sentence marks are dropped at the edges of words only. Operators, brackets and marks inside
    words stay, because in ``3 - 4``, ``(a and b) or c``, ``2.5`` and ``C++`` they are the meaning. A text of
    nothing but marks keeps them.

    >>> normal_form("  What's “UP”, Doc?! ")
    "what's up doc"
    """
    # Quotes first: compatibility normalization would turn a lone ´ into a space and an accent.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold())
    words = folded.split()
    bare = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in words)
    return " ".join(word for word in bare if word) or " ".join(words)

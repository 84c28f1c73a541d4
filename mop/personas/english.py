"""English: whether a text is one that the rules for mentions and refusals can read. They know no other language.

>>> looks_english("Use salt, and wait until the water is clear.")
True
>>> looks_english("Nimm Salz, und warte dann, bis das Wasser klar ist.")
False
"""

from __future__ import annotations

import re

from mop.personas.checking import words_of

#: Words that hardly any English text is without, and few texts in other languages have.
_COMMON_WORDS = """
the and to are were been you your its it that this these those with from can would should could has they their
there which who what when how because if is not
"""
_COMMON = frozenset(_COMMON_WORDS.split())
#: Share of such words in English, at least; lists and labels have fewer than sentences.
_SHARE = 0.08
#: Words that other languages have as well, such as Dutch "is": in a short text they prove nothing.
_FOREIGN = frozenset(["to", "are", "been", "can", "is", "it", "has"])
#: Short words of which hardly any other language has two.
_SHORT = frozenset(["a", "an", "of", "for"])
#: Fewer words say nothing of their language.
_FEWEST = 8
#: In fewer words than these a share says nothing, and one common word is enough.
_FEW = 16
_LETTERS = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")


def looks_english(text: str) -> bool:
    """Whether a text looks, roughly, like English sentences, or is too short to tell; code and bare lists don't."""
    letters = _LETTERS.findall(text)
    if letters and sum(_LATIN.match(letter) is not None for letter in letters) < len(letters) / 2:
        return False
    words = words_of(text)
    if len(words) < _FEWEST:
        return True
    if len(words) < _FEW:
        found = set(words)
        return bool(found & (_COMMON - _FOREIGN)) or len(found & _SHORT) > 1
    common = [word for word in words if word in _COMMON]
    return len(set(common)) > 1 and len(common) >= _SHARE * len(words)

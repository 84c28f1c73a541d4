"""Texts: what the page does to every text before it shows it. Knows nothing of where the text comes from."""

from __future__ import annotations

import re

#: Control characters, and those that turn the direction of what follows.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Return ``text`` with a replacement character for each that would steer what shows it."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def cut(text: str, letters: int) -> str:
    """Return ``text`` without spaces around it, and with an ellipsis where it is longer than ``letters``."""
    text = text.strip()
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def money(usd: float | None) -> str:
    """Return an amount in USD with three significant digits below ten cents, or "not known"."""
    if usd is None:
        return "not known"
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.3g}"

"""Words: numbers, durations and texts as people read them. Knows nothing of where they are shown.

>>> duration(75), signed(-0.031), shorten("one two three", 9)
('1 min 15 s', '−0.03', 'one two…')
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mop.stats import PairedDifference

#: Control characters but tab and line feed: texts of files and models could steer a terminal with them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNKNOWN = "—"


def clean(text: str) -> str:
    """Return ``text`` without characters that would steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, width: int) -> str:
    """Return ``text`` on one line of at most ``width`` characters, cut after a word where that loses little."""
    line = " ".join(clean(text).split())
    if len(line) <= width:
        return line
    cut = line[: width - 1]
    word = cut.rpartition(" ")[0]
    return (word if len(word) > len(cut) * 2 // 3 else cut).rstrip(" ,.;:") + "…"


def plural(number: int, noun: str) -> str:
    """Return the number with its noun, ``"1 call"`` or ``"2,000 calls"``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Return a number of bytes in decimal units, as disks are sold."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, a true minus, and no negative zero."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text


def money(usd: float | None) -> str:
    """Return an amount in USD with three significant digits below ten cents, or a dash if it isn't known."""
    if usd is None:
        return UNKNOWN
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.3g}"


def difference(paired: PairedDifference) -> str:
    """Return a paired difference with its interval."""
    return f"{signed(paired.mean)} (95 % interval {signed(paired.low)} to {signed(paired.high)})"


def verdict(paired: PairedDifference, one: str, other: str) -> str:
    """Return what a paired difference, ``one`` minus ``other``, shows, and no more than that."""
    numbers = f"{one} − {other}: {difference(paired)}"
    if not paired.wins and not paired.losses:
        return f"{numbers}. Both score the same on every example."
    tally = f"{paired.wins} of {paired.n} examples gained, {paired.losses} lost"
    if paired.low > 0:
        return f"{numbers}. The {one} is better; {tally}."
    if paired.high < 0:
        return f"{numbers}. The {one} is worse; {tally}."
    return f"{numbers}. The {one} is not shown to be better: the interval includes 0; {tally}."

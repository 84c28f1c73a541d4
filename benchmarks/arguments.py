"""Arguments: how the command line reads lists and numbers. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def listed(read: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Return the reader of a list with commas, each value once; an empty one is refused."""

    def parse(text: str) -> list[Value]:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
        if not values:
            raise ValueError(text)
        return list(dict.fromkeys(values))

    parse.__name__ = "list"  # argparse names it in its message
    return parse


def at_least(least: int) -> Callable[[str], int]:
    """Return the reader of a whole number that refuses one below ``least``."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError(text)
        return number

    parse.__name__ = f"number from {least}"
    return parse

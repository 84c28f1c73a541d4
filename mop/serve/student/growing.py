"""Growing: an answer's text as its tokens come, in pieces that stay as they are. Knows nothing of models or callers.

The pieces together are the whole answer as `mop.students.generating` gives it: without white space around it, cut
before a stop. What may still change waits: white space that could be the last, half a character, half a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: What a tokenizer writes for bytes that aren't a character yet.
_HALF = "\ufffd"


class Growing:
    """The text of one answer.

    Args:
        decode: Turns token ids into a text.
        stops: Texts before which the answer ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._ids: list[int] = []
        self._given = 0
        self.text = ""
        self.stopped = False

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which the answer ends."""
        return self._stops

    def keep(self, token: int) -> None:
        """Add a token without reading the text."""
        self._ids.append(token)

    def take(self, token: int) -> str:
        """Add a token; return the piece of the text that is certain now. ``stopped`` tells that a stop has come."""
        self._ids.append(token)
        self._read()
        sure = self.text if self.stopped else self.text[: self._certain()]
        return self._piece(sure)

    def end(self) -> str:
        """Return the piece that was waiting."""
        self._read()
        return self._piece(self.text)

    def _read(self) -> None:
        text = self._decode(self._ids).lstrip()
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.stopped = bool(found)
        self.text = text[: min(found)].rstrip() if found else text.rstrip()

    def _certain(self) -> int:
        """Return up to where the text can't change any more."""
        end = len(self.text.rstrip(_HALF))
        for stop in self._stops:
            longest = min(len(stop) - 1, end)
            begun = next((size for size in range(longest, 0, -1) if self.text[:end].endswith(stop[:size])), 0)
            end = min(end, len(self.text) - begun) if begun else end
        return len(self.text[:end].rstrip())

    def _piece(self, sure: str) -> str:
        piece = sure[self._given :]
        self._given = max(self._given, len(sure))
        return piece

"""The child program of `mop.metrics.bounded`, which starts it; nobody imports it.

Protocol: a line of JSON in, a line of JSON out. It ends when standard input closes. Imports nothing of mop.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import Any


class _Late(Exception):
    """The time is over."""


def main() -> None:
    """Answer line by line."""
    timed = hasattr(signal, "setitimer")  # elsewhere the parent's patience is the limit
    if timed:
        signal.signal(signal.SIGVTALRM, _stop)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if timed:
                signal.setitimer(signal.ITIMER_VIRTUAL, asked["seconds"])
            answer = _answer(asked["kind"], asked["value"], asked["text"])
            if timed:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _Late:
            answer = {"late": True}
        print(json.dumps(answer), flush=True)


def _stop(_number: int, _frame: object) -> None:
    raise _Late


def _answer(kind: str, value: Any, text: str | None) -> dict[str, Any]:
    if kind == "matches":
        return {"passed": re.search(value, text or "", re.MULTILINE) is not None}
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # An empty registry: nothing that a schema refers to is ever fetched.
    validator = validator_for(value)(value, registry=Registry())
    try:
        found = None if text is None else json.loads(text)
        return {"passed": bool(validator.is_valid(found))}
    except Unresolvable as error:
        return {"error": f"it refers to {error.ref!r}, which it doesn't have"}
    except re.error as error:
        return {"error": f"it has a pattern that isn't a regular expression: {error}"}
    except RecursionError:
        # By itself it goes round in circles; with an answer it is the answer that is nested too deep.
        return {"error": "it refers to itself for ever"} if text is None else {"passed": False}
    except OverflowError:  # a number beyond what a multiple can be taken of
        return {"passed": False}


if __name__ == "__main__":
    main()

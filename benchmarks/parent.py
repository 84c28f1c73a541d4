"""Parent: a process that does another one's work ends when that one has. Knows nothing of the work."""

from __future__ import annotations

import os
import threading
import time
from functools import cache


@cache
def end_with(parent: int) -> None:
    """Let this process end when its parent has: a run that was killed must not go on spending money unseen.

    Windows does not tell that a parent has ended; there it does nothing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()

"""The child program in which llama.cpp's server lives; ``mop.lm.local`` starts it, nobody imports it.

It runs apart from the user's process because native code takes liberties there: it logs to the terminal's
descriptors from its own threads, brings its own OpenMP beside torch's, and may abort on a damaged file.

Protocol: one argument, a JSON object of settings. Standard error is the log file; native output of both
kinds goes there. The real standard output carries one JSON line, either ``{"address": ...}`` when the server
listens or ``{"error": ...}``. Standard input is the leash: when it closes, however the parent ended, so does
this process. Imports nothing of mop, so it starts quickly.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from typing import Any

#: Bytes at which the log is moved to ``<log>.1`` and begun anew, and seconds between looks at it.
_LOG_LIMIT = 16 << 20
_LOG_INTERVAL = 10.0


def main() -> None:
    """Start the server that the argument describes and hold it until standard input closes."""
    settings = json.loads(sys.argv[1])
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    closed = threading.Event()
    threading.Thread(target=_watch_parent, args=(closed,), daemon=True).start()
    try:
        server = _start(settings)
    except (RuntimeError, ValueError, ImportError, OSError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    else:
        answer = {"address": server.listening_address}
    print(json.dumps(answer), file=channel, flush=True)
    channel.close()
    if "error" in answer:
        _exit_later(1)
        sys.exit(1)  # a normal exit writes out the log's last lines, which hold the reason
    while not closed.wait(_LOG_INTERVAL):
        _limit_log(settings["log"])
    # Not a normal exit: native threads have nothing to save and sometimes do not end.
    os._exit(0)


def _start(settings: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.cors_origins = "null"  # the default lets every web page that the user opens call the model
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cache_ram_mib = settings["cache_mib"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    return xllamacpp.Server(params)


def _watch_parent(closed: threading.Event) -> None:
    os.read(0, 1)  # nothing is ever written: this returns at end of file
    closed.set()
    _exit_later(0)  # the main thread may be in native code, loading gigabytes for nobody


def _exit_later(status: int) -> None:
    timer = threading.Timer(2.0, os._exit, (status,))
    timer.daemon = True
    timer.start()


def _limit_log(path: str) -> None:
    if os.path.getsize(path) > _LOG_LIMIT:
        shutil.copyfile(path, path + ".1")
        os.truncate(path, 0)  # standard error appends, so it goes on at the new beginning


if __name__ == "__main__":
    main()

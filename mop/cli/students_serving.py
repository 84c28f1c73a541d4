"""``mop students serve``: a trained student behind the OpenAI API, its gate deciding for every query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from mop.cli.output import Output
from mop.cli.serving import LOOPBACK, log_to_standard_error, require_parts
from mop.errors import SettingsError

_SERVER = Group("Server", sort_key=1)


@Parameter(name="*", group=_SERVER)
@dataclass(frozen=True)
class StudentServerOptions:
    """Where the server is, and how much it takes on."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    keys: Path | None = None
    """File of callers' keys, made by `mop serve-key`, read at the start; without one everybody may ask."""
    batch: int = 8
    """Most answers written together; with 1, no answer differs by a rounding with what others ask meanwhile."""
    queue: int = 256
    """Most requests that wait beside those; more get status 429."""
    timeout: float = 600.0
    """Seconds for one answer, waiting included."""
    grace: int = 30
    """Seconds that answers under way have when the server is stopped."""


_DEFAULTS = StudentServerOptions()


def serve(
    folder: Path,
    /,
    *,
    name: str | None = None,
    max_tokens: int = 256,
    device: str = "auto",
    dtype: str = "auto",
    server: StudentServerOptions = _DEFAULTS,
    quiet: Annotated[bool, Parameter(negative=(), show_default=False, group="General")] = False,
) -> None:
    """Serve a student to OpenAI clients; the answers say whether its adapter or the base model wrote them.

    Args:
        folder: The adapter's folder.
        name: The model that clients ask for; the base model answers to its own name [default: the folder's name].
        max_tokens: Most tokens of an answer where the caller leaves it open.
        device: auto, cpu, cuda, …
        dtype: Numbers of the base model.
        quiet: Warnings and errors only.
    """
    require_parts()
    from mop.serve.keys import read_keys
    from mop.serve.limits import Limits
    from mop.serve.process import Plan, bind, run_app
    from mop.serve.student.app import create_student_app
    from mop.students.opening import open_student

    for option, value in (("--batch", server.batch), ("--max-tokens", max_tokens)):
        if value < 1:
            raise SettingsError(f"{option} is {value}; give at least 1.")
    limits = Limits(seconds=server.timeout, queue=server.queue)
    ring = None if server.keys is None else read_keys(server.keys)
    plan = Plan((), host=server.host, port=server.port, grace=server.grace, limits=limits)
    output = Output(quiet=quiet)
    log_to_standard_error(quiet)
    with bind(plan.host, plan.port) as bound:
        opened = open_student(folder, device=device, dtype=dtype)
        known = name or folder.resolve().name
        if known == opened.student.name:
            raise SettingsError(f"The student can't be called {known!r}, which is its base model; give another --name.")
        app = create_student_app(
            opened,
            known,
            limits=limits,
            keys=ring,
            loopback=plan.host in LOOPBACK,
            batch=server.batch,
            max_tokens=max_tokens,
        )
        address = f"[{plan.host}]" if ":" in plan.host else plan.host
        gate = f"gate: {opened.gated.gate.kind}" if opened.gated else "no gate: the adapter answers everything"
        if ring is None and plan.host not in LOOPBACK:
            output.warn(f"Everybody who reaches {plan.host} may ask; --keys lets in known callers only.")

        def announce() -> None:
            output.note(f"{known}: an adapter on {opened.student.name}, {gate}")
            output.note(f"Serving on http://{address}:{bound.getsockname()[1]}/v1 (Ctrl-C ends it)")

        try:
            run_app(app, plan, bound, announce)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Stopped.") from None

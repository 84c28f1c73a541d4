"""App: the names of the commands and where each lives. A command's module is imported when it runs."""

from __future__ import annotations

from importlib.metadata import version

from cyclopts import App

app = App(
    name="mop",
    help="Learn a mixture of prompts from labelled examples, and route every query to the prompt that fits it.",
    version=lambda: f"mop {version('mop')}",
    suppress_keyboard_interrupt=False,
    help_format="plaintext",
)
models = App(name="models", help="Model weights on this machine: list, pull, path, remove.")

app.command("mop.cli.quickstart:quickstart", name="quickstart")
app.command("mop.cli.learning:optimize", name="optimize")
app.command("mop.cli.scoring:evaluate", name="evaluate")
app.command("mop.cli.showing:show", name="show")
app.command("mop.cli.asking:route", name="route")
app.command("mop.cli.asking:ask", name="ask")
app.command("mop.cli.learning:estimate", name="estimate")
app.command(models)
models.command("mop.cli.models:list_", name="list")
models.command("mop.cli.models:pull", name="pull")
models.command("mop.cli.models:path", name="path")
models.command("mop.cli.models:remove", name="remove")

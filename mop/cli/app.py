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
models = App(name="models", help="Model weights on this machine: list, pull, path, remove.", sort_key=99)
ledger = App(name="ledger", help="The record of all model calls: stats, export, prune, verify, repair.", sort_key=98)

students = App(name="students", help="Train a model to answer without the prompt: a LoRA adapter.", sort_key=95)
judge = App(name="judge", help="A model as judge: compare two systems, export pairs for people.", sort_key=97)
personas = App(name="personas", help="Expert identities: write data sets with them, see what they need.", sort_key=96)

for _order, (_name, _home, _help) in enumerate(
    [
        ("quickstart", "quickstart:quickstart", "Learn a mixture on the bundled messages, compared with one prompt."),
        ("optimize", "learning:optimize", "Learn a mixture of prompts from labelled examples."),
        ("estimate", "learning:estimate", "Say what optimize would take, without calling a model."),
        ("evaluate", "scoring:evaluate", "Score a mixture on labelled examples, beside its generalist."),
        ("report", "reporting:report", "Write a page that shows a mixture: did it help, why, at what cost."),
        ("show", "showing:show", "Show what a mixture file holds."),
        ("route", "asking:route", "Say which expert each query goes to."),
        ("ask", "asking:ask", "Route and answer queries."),
        ("add", "adding:add", "Add new labelled examples to a mixture; refit only the regions they fall into."),
        ("diff", "diffing:diff", "Say what changed between two mixtures."),
        ("export", "exporting:export", "Write a mixture in the format of another tool."),
        ("import", "importing:import_", "Make a mixture from hand-written prompts with examples."),
        ("drift", "drifting:drift", "Say whether queries still are what a mixture was learned from."),
        ("serve", "serving:serve", "Serve mixtures to OpenAI clients."),
        ("serve-key", "serving:serve_key", "Make a key for a caller of the server."),
    ]
):
    # The first line of help stands here, so that the list of commands imports none of them.
    app.command(f"mop.cli.{_home}", name=_name, help=_help, sort_key=_order)
app.command(ledger)
for _name, _help in (
    ("stats", "Count the calls, their tokens and what they cost."),
    ("export", "Write the calls as JSON lines."),
    ("prune", "Delete calls for good."),
    ("verify", "Check that every row is what was written."),
    ("repair", "Save what can be read of a damaged ledger."),
):
    ledger.command(f"mop.cli.ledger:{_name}", name=_name, help=_help)
app.command(judge)
for _name, _help in (
    ("compare", "Let a model compare two systems' answers, in both orders."),
    ("export", "Write pairs of answers for people to label."),
):
    judge.command(f"mop.cli.judging:{_name}", name=_name, help=_help)
app.command(personas)
for _name, _home, _help in (
    ("write", "personas:write", "Write an expert's identity for each instruction."),
    ("generate", "personas:generate", "Answer instructions as experts would, as a data set in chat format."),
    ("ablate", "personas_studies:ablate", "Measure what number and spread of exemplars do to identities."),
    ("audit-compare", "personas_studies:audit_compare", "Compare two ways of removing mentions of the identity."),
):
    personas.command(f"mop.cli.{_home}", name=_name, help=_help)
app.command(students)
for _name, _home, _help in (
    ("train", "students:train", "Train a LoRA adapter on conversations."),
    ("annotate", "students:annotate", "Write for each conversation who would answer it best."),
    ("chat", "students_asking:chat", "Talk with a student."),
    ("evaluate", "students_asking:evaluate", "Score a student beside its base model."),
    ("serve", "students_serving:serve", "Serve a student to OpenAI clients; its gate decides for every query."),
):
    students.command(f"mop.cli.{_home}", name=_name, help=_help)
app.command(models)
for _name, _home, _help in (
    ("list", "list_", "List the models that can be fetched, and which are here."),
    ("pull", "pull", "Fetch models: resumable, and checked by their hashes."),
    ("path", "path", "Print where a model is."),
    ("remove", "remove", "Remove models from this machine."),
):
    models.command(f"mop.cli.models:{_home}", name=_name, help=_help)

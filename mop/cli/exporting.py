"""``mop export``: write a mixture in the format of another tool."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mop.cli.options import OutputOptions
from mop.cli.output import say
from mop.cli.words import plural
from mop.errors import ArtifactError

Target = Literal["prompts", "openai-messages", "dspy", "langchain", "promptfoo", "python"]
_NO_SPEECH = OutputOptions()


def export(
    mixture: Path,
    /,
    *,
    to: Target,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Write a mixture in the format of another tool. What that tool cannot express is said.

    Args:
        mixture: The mixture file.
        to: prompts (Markdown), openai-messages (JSON), dspy (a folder of states of dspy.Predict), langchain (JSON for
            langchain_core.load.loads), promptfoo (YAML), python (one file that needs numpy only).
        out: The file, or the folder for dspy [default: a name that says what it is, here].
    """
    from mop.artifact import load
    from mop.export import export as export_mixture

    output = speech.open()
    exported = export_mixture(load(mixture), to)
    folder = len(exported.files) > 1
    target = out or Path(f"{mixture.stem}-{to}" if folder else f"{mixture.stem}-{next(iter(exported.files))}")
    write_files(exported.files, target)
    for sentence in exported.lost:
        output.warn(sentence)
    names = sorted(str(target / name) if folder else str(target) for name in exported.files)
    output.result(
        {"target": to, "files": names, "lost": list(exported.lost)},
        lambda console: say(console, f"{target}: {to}" + (f", {plural(len(names), 'file')}" if folder else "")),
    )


def write_files(files: Mapping[str, str], target: Path) -> None:
    """Write one text to the file ``target``, or several into the folder ``target``; each file whole or not at all.

    Raises ArtifactError if that cannot be done.
    """
    try:
        if len(files) == 1:
            _write(target, next(iter(files.values())))
            return
        target.mkdir(exist_ok=True)
        for name, text in files.items():
            _write(target / name, text)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{target} cannot be written: {error}. Name another place with --out.") from error


def _write(path: Path, text: str) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        temporary.write_bytes(text.encode())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""Documents that people write, in YAML or JSON, with the line of every key. Knows nothing of what is in them.

Every value is text, a list or an object, as it is written: YAML's ``yes`` and ``12`` are texts here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.errors import DataError, RowProblem

#: A larger file isn't one that people wrote.
MOST_BYTES = 32 * 1024 * 1024
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """The content of a file, and the line of each key by its path (none for JSON)."""

    data: Any
    lines: Mapping[Place, int]

    def problem(self, path: Sequence[str | int], message: str) -> RowProblem:
        """Return what is wrong at ``path``, with its key and the line of the nearest key that has one."""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        reason = message.removeprefix("Value error, ")
        here = tuple(path)
        while here and here not in self.lines:
            here = here[:-1]
        line = self.lines.get(here)
        said = f"{key}: {reason}" if key else reason
        return RowProblem(0, said, "document") if line is None else RowProblem(line, said)


def read_document(path: str | os.PathLike[str]) -> Document:
    """Return a file's content: JSON by its name's ending, YAML otherwise.

    Raises DataError with the line if it cannot be read, if a key stands twice, or if YAML refers to other places of
    the document.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(f"{source} is larger than {MOST_BYTES:,} bytes; that isn't a file that people wrote.")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read: {error}.") from error
    document = _json(text, source) if source.suffix.lower() == ".json" else _yaml(text, source)
    try:
        # Half a character (an escape can stand for one) could never be sent to a model.
        json.dumps(document.data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{source} holds a text that cannot be written as UTF-8 ({error.reason}).") from None
    return document


def _json(text: str, source: Path) -> Document:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{source}: the key {twice[0]!r} stands twice in one object.")
        return dict(pairs)

    try:
        return Document(json.loads(text, object_pairs_hook=once), {})
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} isn't JSON: {error}.") from error


def _yaml(text: str, source: Path) -> Document:
    import yaml

    lines: dict[Place, int] = {}

    def value(node: yaml.Node, path: Place) -> Any:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if isinstance(node, yaml.SequenceNode):
            return [value(child, (*path, number)) for number, child in enumerate(node.value)]
        found: dict[str, Any] = {}
        for key, child in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode) or name in found:
                what = f"the key {name!r} stands twice" if name else "a key isn't a text"
                raise DataError(f"{source}, line {key.start_mark.line + 1}: {what}.")
            lines[(*path, name)] = key.start_mark.line + 1
            found[name] = value(child, (*path, name))
        return found

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # References to other places could unfold to any size.
            if isinstance(event, yaml.AliasEvent):
                where = "" if event.start_mark is None else f", line {event.start_mark.line + 1}"
                raise DataError(f"{source}{where}: references (*{event.anchor}) aren't read; write it out.")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise DataError(f"{source} is empty; write something into it.")
        return Document(value(root, ()), lines)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{source} isn't YAML: {' '.join(str(error).split())}.") from error

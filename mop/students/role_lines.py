"""Role lines: how a student writes who is speaking before it answers, and how that is told from the answer again.

Self-Prompt Tuning (arXiv 2407.08995) leaves open how much the form matters, so there are several, and any text with
``{role}`` in it is one. "Nobody in particular" has words of its own in each, so that a student can learn when not to
take a role. Knows nothing of models.

    >>> line = role_line("bracket")
    >>> line.before("a nurse who explains calmly")
    '[Role: a nurse who explains calmly]\\n\\n'
    >>> line.read("[Role: none]\\n\\nFour.")
    Spoken(written=True, role=None, answer='Four.')
"""

from __future__ import annotations

from dataclasses import dataclass

from mop.errors import DataError, SettingsError

_SLOT = "{role}"
#: What stands in a template's slot where no role is taken.
_NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a student wrote, taken apart: whether a role line came first, its role (None: nobody), and the rest.

    ``on`` says of a gated student whether its adapter wrote it; None for others.
    """

    written: bool
    role: str | None
    answer: str
    on: bool | None = None


@dataclass(frozen=True, slots=True)
class RoleLine:
    """A form of the role line: ``named`` holds ``{role}`` once, ``nobody`` stands where no role is taken."""

    named: str
    nobody: str

    def before(self, role: str | None) -> str:
        """Return what stands before an answer given in ``role``.

        Raises DataError if the role couldn't be told from the answer again.
        """
        if role is None:
            return self.nobody
        text = self.named.replace(_SLOT, role)
        if self.read(text + "x") != Spoken(True, role, "x"):
            raise DataError(
                f"The role {role[:60]!r} can't stand in the line {self.named!r}: it has a line break, or what ends "
                "the line. Use another form (--role-line), or a role of one line."
            )
        return text

    def read(self, text: str) -> Spoken:
        """Take apart what a student wrote. Without a role line all of it is the answer."""
        given = text.lstrip()
        if given.startswith(self.nobody.rstrip()):
            return Spoken(True, None, given[len(self.nobody.rstrip()) :].strip())
        opening, _, closing = self.named.partition(_SLOT)
        closing = closing.rstrip() or "\n"
        if given.startswith(opening.rstrip()):
            role, found, rest = given[len(opening.rstrip()) :].partition(closing)
            if found and role.strip() and "\n" not in role.strip():
                return Spoken(True, role.strip(), rest.strip())
        return Spoken(False, None, given.strip())


LINES: dict[str, RoleLine] = {
    "bracket": RoleLine("[Role: {role}]\n\n", "[Role: none]\n\n"),
    "sentence": RoleLine("I answer as {role}:\n\n", "I answer as myself:\n\n"),
    "heading": RoleLine("Role: {role}\nAnswer:\n", "Role: none\nAnswer:\n"),
    "second-person": RoleLine("You are {role}.\n---\n", "You are nobody in particular.\n---\n"),
}


def role_line(form: str) -> RoleLine:
    r"""Return a form by name, or the one that a text with ``{role}`` describes; ``\n`` in it is a line break.

    Raises SettingsError if it is neither, or if the answer couldn't be told from the role.
    """
    if form in LINES:
        return LINES[form]
    text = form.replace("\\n", "\n")
    if text.count(_SLOT) != 1:
        raise SettingsError(
            f"There is no role line {form!r}; give {', '.join(LINES)}, or a text with {_SLOT} once, such as "
            r"'Expert: {role}\n'."
        )
    if not text.partition(_SLOT)[0].strip() or not text.endswith("\n"):
        raise SettingsError(
            rf"The role line {form!r} must have words before {_SLOT} and end with \n, so that the answer can be told "
            "from it."
        )
    return RoleLine(text, text.replace(_SLOT, _NOBODY))

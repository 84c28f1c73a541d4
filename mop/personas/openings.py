"""Openings: how far the clause reaches with which a sentence begins by saying who is speaking. Knows no models.

"As a marine biologist with years at sea, I recommend salt." The clause ends before the main clause, and where that
begins can't be known without a parser. So a clause is taken away only where it is plain: the main clause is the
writer's own ("I", "my", "let me") and all that stands between continues the opening ("trained in Leeds,", an
enumeration), or the first comma is followed by a word with which hardly any opening goes on ("the", "here", "if").

>>> text = "As a biologist, the first thing I check is salt."
>>> text[clause_end(text, Roles("You are a biologist.", "Why?")) :]
'the first thing I check is salt.'
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mop.personas.roles import Roles

ARTICLE = r"(?:an?|your|the|one of the)"
#: Characters of an opening clause; what is longer is a sentence of its own kind.
_MOST_CLAUSE = 260
_AS = re.compile(
    rf"(?:(?:(?:speaking|writing|answering|acting|working) )?as|being) {ARTICLE} (?P<role>.+)",
    re.IGNORECASE | re.DOTALL,
)
_AS_MANY = re.compile(r"(?:speaking )?as (?P<role>(?:[\w-]+ ){0,3}[\w-]+s)$", re.IGNORECASE)
_SOMEBODY = re.compile(r"(?:speaking )?as (?:someone|somebody|one|a person) who\b", re.IGNORECASE)
_EXPERIENCE = re.compile(
    r"(?:with|given|speaking from|drawing (?:on|from|upon)|based on|thanks to|in|after|over|from|having|through|"
    r"throughout|during)\b"
    r"(?=.*\b(?:my|years?|decades?)\b)"
    r"(?=.*(?:\bmy (?:\w+ ){0,3}(?:expertise|background|training|career|profession|line of work|"
    r"practice(?! (?!as\b)(?:\w+s|routine|room|time)\b)|years|decades|"
    r"professional (?:opinion|experience|view|judge?ment)|role|work as|time as|"
    r"experience (?:as|in|with|of))\b|"
    r"\b(?:years?|decades?)(?: of|['’])? (?:\w+ ){0,4}(?:experience|practice|expertise)\b))",
    re.IGNORECASE | re.DOTALL,
)
_MY = re.compile(r"\b(?:my|I)\b", re.IGNORECASE)
#: The writer's own main clause.
_FIRST = re.compile(r"\s*(?:I\b|my\b|we\b|our\b|let me\b|let['’]s\b|allow me\b)", re.IGNORECASE)
_I = re.compile(r"\s*(?:I\b|let me\b|allow me\b)", re.IGNORECASE)
_WE = re.compile(r"\s*(?:we|our)\b", re.IGNORECASE)
#: Words with which a main clause begins and an opening hardly goes on.
_PLAIN = re.compile(
    r"\s*(?:it|it['’]s|here|here['’]s|there|there['’]s|this|these|that|those|the|what|when|whenever|if|once|while|for|"
    r"in|on|at|before|after|one thing|always|never|first|some|many|most|every|each|no|both|all)\b",
    re.IGNORECASE,
)
_ARM_OF_MAIN = re.compile(r"[.;:,]")
_SELF = re.compile(r"\b(?:I|me|my|we|our)\b", re.IGNORECASE)
#: Pieces between two commas that continue an opening.
_ENUMERATION = re.compile(r"(?: [\w'’-]+(?: [\w'’-]+){0,3},)* (?:and|or) [^,]{1,60},", re.IGNORECASE)
_CONTINUES = re.compile(
    r" (?:(?:who|whose|trained|having|holding|working|speciali[sz]ing|focused|based|known|certified|licensed)\b|"
    r"with (?:over |more than |nearly )?(?:\w+ )?(?:years|decades|a background|experience|expertise|my)\b)[^,]{0,120},",
    re.IGNORECASE,
)
_APPOSITION = re.compile(r" an? (?P<role>[^,]{2,60}),", re.IGNORECASE)
_PREPOSITION = re.compile(r"\b(?:in|of|with|for|at|on|across|from)\b", re.IGNORECASE)
#: A clause before a careless "I" that is no opening: it has a verb, or lacks what comes after "I".
_UNFINISHED = re.compile(
    r"\b(?:is|are|was|were|be|means?|says?)\b|\b(?:what|which|that|who|whom|where|when|than|and|or|because|while|if)\s*$",
    re.IGNORECASE,
)


def clause_end(text: str, roles: Roles) -> int | None:
    """Return where the main clause of a sentence begins, if it opens with a mention that can be taken away."""
    if (names := _naming(text, roles)) is None:
        return None
    near = text[:_MOST_CLAUSE]
    commas = [place for place, mark in enumerate(near) if mark == "," and _parts(near, place)]
    end = _after_commas(text, commas[0], names) if commas else None
    careless = re.search(r"\s(?=I\b)", near)
    if careless and (not commas or careless.start() < commas[0]):
        clause = text[: careless.start()]
        end = careless.end() if names(clause, text[careless.end() :]) and not _UNFINISHED.search(clause) else None
    if end is None or text[:end].count("*") % 2 or text[:end].count("**") % 2:  # a cut would leave half of an emphasis
        return None
    while end < len(text) and text[end].isspace():
        end += 1
    return end


#: Whether a clause before a main clause is a mention.
_Names = Callable[[str, str], bool]


def _naming(text: str, roles: Roles) -> _Names | None:
    """Return what tells a mention of the kind with which a sentence begins; None if it begins with none."""
    if _AS.match(text):

        def role(clause: str, main: str) -> bool:
            named = _AS.match(clause)
            return named is not None and (roles.any if _FIRST.match(main) else roles.own)(named["role"])

        return role
    if roles.speaker_wanted:
        return None
    if _EXPERIENCE.match(text) or _SOMEBODY.match(text):

        def experience(clause: str, main: str) -> bool:
            if not (_EXPERIENCE.match(clause) or _SOMEBODY.match(clause)):
                return False
            # Years of experience may be anybody's, unless they are the writer's by what is said of them.
            return _MY.search(clause) is not None or _SELF.search(_ARM_OF_MAIN.split(main, maxsplit=1)[0]) is not None

        return experience
    if text.lower().startswith(("as ", "speaking as ")):

        def many(clause: str, main: str) -> bool:
            named = _AS_MANY.match(clause)
            return (
                named is not None and roles.own_many(named["role"]) and re.match(r"\s*(?:we|our)\b", main) is not None
            )

        return many
    return None


def _after_commas(text: str, first: int, names: _Names) -> int | None:
    """Return where the main clause begins behind the comma at ``first``, or one of those after it."""
    if _FIRST.match(text, first + 1):
        return first + 1 if names(text[:first], text[first + 1 :]) else None
    if _PLAIN.match(text, first + 1):
        return first + 1 if names(text[:first], text[first + 1 :]) else None
    place = first + 1
    while place < _MOST_CLAUSE and not _I.match(text, place):
        piece = _CONTINUES.match(text, place)
        if piece is None and _PREPOSITION.search(text[:first]):
            piece = _ENUMERATION.match(text, place)
        if piece is None and (said := _APPOSITION.match(text, place)) and names(f"as a {said['role']}", " I"):
            piece = said
        if piece is None:
            return None
        place = piece.end()
    # What is named stands before the first comma, or in all of it: "with years at sea, in labs, and on reefs, I …".
    main = text[place:]
    return place if names(text[:first], main) or names(text[: place - 1], main) else None


def _parts(text: str, place: int) -> bool:
    """Whether a comma parts clauses: it stands neither in a quotation nor in a number."""
    before = text[:place]
    quoted = before.count('"') % 2 or before.count("“") > before.count("”") or before.count("«") > before.count("»")
    return not quoted and not (before[-1:].isdigit() and text[place + 1 : place + 2].isdigit())

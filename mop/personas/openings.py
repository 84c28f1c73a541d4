"""Openings: how far the clause reaches with which a sentence begins by saying who is speaking. Knows no models.

"As a marine biologist with years at sea, I recommend salt." Where the main clause begins can't be known without a
parser, so a clause is taken away only where that is plain; any other opening that names the writer is for the caller to
report:

- a comma and the writer's own main clause follow: "I", "let me", "my advice";
- so they do after pieces that go on with the opening: an enumeration, "trained in Leeds,", "a father of two,";
- a comma and a word follow with which no opening goes on ("here is", "the first thing I …"), and no ", I" comes later;
- "I" follows the role at once, carelessly without a comma.

>>> text = "As a biologist, the first thing I check is salt."
>>> text[clause_end(text, Roles("You are a biologist.", "Why?")) :]
'the first thing I check is salt.'
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mop.personas.checking import words_of
from mop.personas.roles import INNOCENT, OCCUPATIONS, Roles

ARTICLE = r"(?:an?|your|the|one of the)"
#: Characters of an opening clause; what is longer is a sentence of its own kind.
_MOST_CLAUSE = 260
_AS = re.compile(
    rf"(?:(?:(?:speaking|writing|answering|acting|working) )?as|being) {ARTICLE} (?P<role>.+)",
    re.IGNORECASE | re.DOTALL,
)
_AS_MANY = re.compile(r"(?:speaking )?as (?P<role>(?:[\w-]{1,40} ){0,3}[\w-]{1,40}s)$", re.IGNORECASE)
_SOMEBODY = re.compile(r"(?:speaking )?as (?:someone|somebody|one|a person) who\b", re.IGNORECASE)
#: Nothing but these may follow "my training", lest it is "my training plan".
_NO_NOUN = r"(?=\s*(?:[,.;:!?)]|$|(?:as|in|with|of|at|on|and|I)\b))"
_EXPERIENCE = re.compile(
    r"(?:with|given|speaking from|drawing (?:on|from|upon)|based on|thanks to|in|after|over|from|having|through|"
    r"throughout|during)\b"
    r"(?=.*\b(?:my|years?|decades?)\b)"
    rf"(?=.*(?:\bmy (?:\w+ ){{0,3}}(?:(?:expertise|background|training|career|practice|profession|line of work)"
    rf"{_NO_NOUN}|(?:years|decades|professional (?:opinion|experience|view|judge?ment)|role as|work as|time as|"
    r"experience (?:as|in|with|of))\b)|"
    r"\b(?:years?|decades?)(?: of|['’])? (?:\w+ ){0,4}(?:experience|practice|expertise)\b))",
    re.IGNORECASE | re.DOTALL,
)
_MINE = re.compile(
    r"\bmy (?:\w+ ){0,3}(?:expertise|background|training|career|practice|profession|line|years|decades|professional|"
    r"role|work|time|experience)\b",
    re.IGNORECASE,
)
#: Somebody else's years, or none.
_THEIRS = re.compile(r"\b(?:your?|his|her|their|its|among|no|without)\b", re.IGNORECASE)
#: "As a chef I admire, …" and "as a chef I worked with used to say": a chef, and not the writer.
_I_KNOW = re.compile(
    r"I(?:['’]ve| have|['’]d| had)? (?:\w+ly |once |often |used to )?(?:knew|known?|worked?|met|admired?|"
    r"respect(?:ed)?|follow(?:ed)?|had|trained|interviewed|spoke|talked|read|loved?)\b"
    r"(?: (?:with|under|for|to|in|at|from|and|back|once)\b[^,]*)?"
    r"(?:,|[^,]*\b(?:said|says?|puts?|told|tells|taught|wrote|writes)\b)"
)
_I = re.compile(r"\s*(?:I(?![\w-])|let me\b|allow me\b)")
#: The writer's own main clause; "my sister" begins another's.
_FIRST = re.compile(
    r"\s*(?:I(?![\w-])|we\b|let me\b|let['’]s\b|allow me\b|(?:my|our)\b(?! (?:\w+ )?(?:sister|brother|mother|father|"
    r"mum|mom|dad|wife|husband|partner|son|daughter|uncle|aunt|boss|teacher|friend)s?\b))",
    re.IGNORECASE,
)
_YOU = re.compile(r"\s*your?\b", re.IGNORECASE)
_WE = re.compile(r"\s*(?:we|our)\b", re.IGNORECASE)
_LATER_I = re.compile(r", (?:I(?![\w-])|let me\b)")
#: Words with which a main clause begins and no opening goes on.
_PLAIN = re.compile(
    r"\s*(?:it|it['’]s|here|here['’]s|there|there['’]s|this|these|that|those|the|what|when|whenever|if|one thing|"
    r"one of|while|although|whether|because|since|once|before|after|"
    r"always|never|first)\b",
    re.IGNORECASE,
)
#: Those that hardly stand anywhere else, even if "I" comes later.
_SURELY = re.compile(
    r"\s*(?:here|here['’]s|what|when|whenever|if|while|although|whether|because|there (?:is|are)|it['’]s|it is)\b",
    re.IGNORECASE,
)
_ARM = re.compile(r"[.;:,]")
_SELF = re.compile(r"\bI\b(?!-)")
#: Pieces between two commas that continue an opening.
_ENUMERATION = re.compile(r"(?: [\w'’-]{1,40}(?: [\w'’-]{1,40}){0,4},){0,6} (?:and|or) [^,;:.!?]{1,60},", re.IGNORECASE)
_CONTINUES = re.compile(
    r" (?:(?:who|whose) [^,]{1,120},|(?:trained|based|certified|licensed|focused|speciali[sz]ing|having|working|"
    r"holding) (?:in|at|by|on|as|with|for|lived|worked|studied|spent|been|taught|trained|seen) [^,]{1,120},|"
    r"with (?:over |more than |nearly )?(?:\w+ )?(?:years|decades|a background|experience|expertise) [^,]{0,120},|"
    r"(?:including|especially|particularly|mostly) [^,]{1,80},|however,|though,|of course,|personally,|"
    r"over the years,)",
    re.IGNORECASE,
)
_APPOSITION = re.compile(r" (?:an?|the) (?P<role>[^,;:.!?]{2,60}),", re.IGNORECASE)
#: "I believe," in the middle of somebody's clause.
_ASIDE = re.compile(r"\s*I (?:think|believe|find|say|know|guess|feel|suppose|hope|admit),", re.IGNORECASE)
_PREPOSITION = re.compile(r"\b(?:in|of|with|for|at|on|across|from|to)\b", re.IGNORECASE)
#: What others say: "as a doctor who treated me said".
_SAID = re.compile(
    r"\b(?:said|says?|told|tells?|notes?|noted|puts?|used to|would|might|could|wrote|writes?|explain(?:s|ed)?|"
    r"advise[sd]?)$|\b(?:said|told|tells) (?:me|us|you)\b",
    re.IGNORECASE,
)
_CAREER_WORDS = frozenset(
    ("career", "experience", "opinion", "practice", "view", "judgment", "judgement", "expertise", "profession", "work")
)
#: Marks that come in pairs; a cut would leave one of them.
_PAIRS = (("(", ")"), ("[", "]"), ("“", "”"), ("«", "»"))
_EVEN = ("*", "**", "__", "`", '"')

#: Whether a clause before a main clause is a mention.
_Names = Callable[[str, str], bool]


def clause_end(text: str, roles: Roles) -> int | None:
    """Return where the main clause of a sentence begins, if it opens with a mention that can be taken away."""
    if (names := _naming(text, roles)) is None:
        return None
    near = text[:_MOST_CLAUSE]
    commas = _commas(near)
    end = _after_commas(text, commas[0], names, roles) if commas else None
    careless = re.search(r"\s(?=I\b(?!-))", near)
    if careless and (not commas or careless.start() < commas[0]):
        if _I_KNOW.match(text, careless.end()):
            return None
        clause = text[: careless.start()]
        end = careless.end() if _ends_in_a_role(clause, roles) and names(clause, text[careless.end() :]) else None
    if end is None or not _whole(text[:end]):
        return None
    while end < len(text) and text[end].isspace():
        end += 1
    return end


def opens(text: str, roles: Roles) -> bool:
    """Whether a sentence begins with a clause that names the writer, in whatever way it goes on."""
    if (names := _naming(text, roles)) is None:
        return False
    near = text[:_MOST_CLAUSE]
    for place in _commas(near):
        clause, main = text[:place], text[place + 1 :]
        if names(clause, main) and not _SAID.search(clause):
            if _YOU.match(main):
                return False
            # Years of experience may be anybody's: somebody's whose main clause begins with "I".
            return _LATER_I.search(text) is not None if _is_of_years(clause) else _speaks(main)
    return False


def _is_of_years(clause: str) -> bool:
    return _EXPERIENCE.match(clause) is not None and _MINE.search(clause) is None


def _speaks(main: str) -> bool:
    return re.search(r"\b(?:I|I['’](?:m|ve|d|ll)|me|my|myself)\b", main) is not None


def _naming(text: str, roles: Roles) -> _Names | None:
    """Return what tells a mention of the kind with which a sentence begins; None if it begins with none."""
    if _AS.match(text):

        def role(clause: str, main: str) -> bool:
            named = _AS.match(clause)
            if named is None or _SAID.search(clause):
                return False
            return (roles.any if _I.match(main) else roles.own)(named["role"])

        return role
    if roles.speaker_wanted:
        return None
    if _EXPERIENCE.match(text) or _SOMEBODY.match(text):

        def experience(clause: str, main: str) -> bool:
            if not (_EXPERIENCE.match(clause) or _SOMEBODY.match(clause)):
                return False
            if _is_of_years(clause) and _THEIRS.search(clause):
                return False
            # Years of experience may be anybody's, unless "I" is the subject of what is said of them.
            return not _is_of_years(clause) or _SELF.search(_ARM.split(main, maxsplit=1)[0]) is not None

        return experience
    if _AS_MANY.match(text.partition(",")[0]):

        def many(clause: str, main: str) -> bool:
            named = _AS_MANY.match(clause)
            return named is not None and roles.own_many(named["role"]) and _WE.match(main) is not None

        return many
    return None


def _after_commas(text: str, first: int, names: _Names, roles: Roles) -> int | None:
    """Return where the main clause begins behind the comma at ``first``, or one of those after it."""
    opening, main = text[:first], text[first + 1 :]
    if _FIRST.match(main):
        return first + 1 if names(opening, main) else None
    if _SURELY.match(main) or _LATER_I.search(text, first) is None:
        return first + 1 if _PLAIN.match(main) and names(opening, main) else None
    place = first + 1
    while place < _MOST_CLAUSE and not _I.match(text, place):
        piece = _CONTINUES.match(text, place)
        if piece is None and (said := _APPOSITION.match(text, place)) and is_person(said["role"], roles):
            piece = said
        if piece is None and (_PREPOSITION.search(opening) or is_person(text[place:].partition(",")[0], roles)):
            piece = _ENUMERATION.match(text, place)
        if piece is None:
            return None
        place = piece.end()
    main = text[place:]
    if _ASIDE.match(main) or not (names(opening, main) or names(text[: place - 1], main)):
        return None
    return place


def is_person(phrase: str, roles: Roles) -> bool:
    """Whether a phrase, such as "a father of two" or "the founder of a school", is one that says who somebody is."""
    head = roles.head(re.sub(r"^\s*(?:(?:and|or) )?(?:an?|the) ", "", phrase, flags=re.IGNORECASE))
    return head in roles.heads or head in OCCUPATIONS | INNOCENT or head.endswith(("er", "or", "ist", "ian"))


def _ends_in_a_role(clause: str, roles: Roles) -> bool:
    """Whether nothing stands between a role and the "I" after it, as in "as a diver I swim"."""
    words = words_of(clause)
    return bool(words) and (words[-1] in roles.heads or words[-1] in OCCUPATIONS | _CAREER_WORDS)


def _commas(text: str) -> list[int]:
    """Return the places of commas that part clauses: they stand in no quotation, bracket, code or number."""
    found = []
    for match in re.finditer(",", text):
        place = match.start()
        before = text[:place]
        number = before[-1:].isdigit() and text[place + 1 : place + 2].isdigit()
        if not number and before.count('"') % 2 == 0 and before.count("`") % 2 == 0 and _closed(before):
            found.append(place)
    return found


def _closed(text: str) -> bool:
    return all(text.count(opening) <= text.count(closing) for opening, closing in _PAIRS)


def _whole(text: str) -> bool:
    """Whether a text ends outside all brackets, quotations, code and emphasis."""
    return _closed(text) and all(text.count(mark) % 2 == 0 for mark in _EVEN)

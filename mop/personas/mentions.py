"""Mentions: where an answer speaks of the identity that wrote it, and the answer without that. Knows no models.

ExpertPrompting trains on the answers alone, so "As a marine biologist, I recommend …" must go, and "As a result, …"
must stay. Two things are removed: an opening clause up to the comma before its main clause, and a sentence that says
nothing but who is speaking. A mention in the middle of a sentence isn't cut out; it is reported, and the answer is
dropped by the caller. Code and quotations are never looked at; what isn't removed stays byte for byte. Only English is
read.

>>> remove_mentions("As a biologist, I use salt. As a result, it floats.", "You are a biologist.", "Why?").text
'I use salt. As a result, it floats.'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mop.personas.openings import ARTICLE, clause_end, is_person, opens
from mop.personas.roles import Roles
from mop.personas.sentences import Sentence, sentences, without_quotations

_GREETING = r"(?:(?:hello|hi|hey|greetings|welcome|sure|certainly|of course|great|absolutely)\b[^.!?\w]*)?"
_I_AM = re.compile(
    rf"{_GREETING}(?:I am|I['’]m|I have been|I['’]ve been|I work as|I['’]ve worked as|I have worked as) {ARTICLE} "
    r"(?P<role>.+)",
    re.IGNORECASE | re.DOTALL,
)
_NAME = re.compile(rf"{_GREETING}my name is (?P<name>.+)", re.IGNORECASE | re.DOTALL)
_TITLED = re.compile(
    r"(?:I am|I['’]m) (?:Dr|Prof|Professor|Doctor)\b\.? (?:[A-Z][\w-]*(?: |(?=[,.!]|$)))+(?P<rest>.*)", re.DOTALL
)
_YEARS = re.compile(
    rf"{_GREETING}(?:I have|I['’]ve|I bring)\b(?! an? (?:friend|colleague|team|client|student|patient|"
    r"neighbou?r|relative|brother|sister|cousin)\b)(?=.*\b(?:years?|decades?)\b)(?=.*\b(?:experience|practice|expertise|"
    r"working|worked|spent|studying|studied|teaching|taught|researching)\b).+",
    re.IGNORECASE | re.DOTALL,
)
#: What a sentence that only introduces the writer doesn't have: advice, reasons, the reader.
_CONTENT = re.compile(
    r"[:;]|\b(?:you|your|yours|so|because|therefore|thus|but|should|must|recommend|suggest|advise|found|seen|learned|"
    r"learnt|noticed|know|that|would|could|if|when)\b",
    re.IGNORECASE,
)
#: What follows "and" in an introduction: more of the writer, or something about something else.
_AND = re.compile(r",? and (?P<said>[^.!?]*)")
_ABOUT_SELF = re.compile(
    r"I(?: am|['’]m| have|['’]ve| speciali[sz]e| hold| work| teach)\b|have\b|speciali[sz]|hold|work|train|teach|"
    r"a passion\b|(?:over|more than) |\w+ years\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?:I|the|my|your|it|this|these|most|all|we)\b", re.IGNORECASE)
_LONGEST_INTRODUCTION = 400
_OFFER = re.compile(
    r",?\s?\b(?:and|so|here|ready|happy|glad)\b[^.!?]{0,200}?\b(?:help|assist|guide|share|explain|walk|answer|show|teach|"
    r"advise)\b[^.!?]{0,200}(?=[.!?]|$)",
    re.IGNORECASE,
)
_MIDDLE = re.compile(rf"\b(?:as|being) {ARTICLE} (?P<role>[^.!?;:,]+)", re.IGNORECASE)
#: The same anywhere in a sentence, where it can't be cut out.
_I_AM_TOO = re.compile(
    rf"\bI(?: am|['’]m|(?: have|['’]ve) been| work as) {ARTICLE} (?P<role>[^.!?;:,]+)", re.IGNORECASE
)
_YOU_NEXT = re.compile(r",\s*your?\b", re.IGNORECASE)
#: "My work as a diver shows": the work shows, not the diver.
_OWN_BEFORE = re.compile(r"\bmy (?:[\w-]+ ){0,4}$", re.IGNORECASE)
#: The writer among others of the profession: "we doctors", "as doctors, we", "doctors like me", "I, a doctor,".
_WE = re.compile(r"\bwe (?P<words>(?:[\w-]{1,40} ){0,2}[\w-]{1,40}s)\b", re.IGNORECASE)
_AS_MANY = re.compile(r"\bas (?P<role>(?:[\w-]{1,40} ){0,2}[\w-]{1,40}s)\b", re.IGNORECASE)
_LIKE_ME = re.compile(
    r"(?<![\w-])(?P<before>[\w-]{1,40} )?(?P<role>[\w-]{1,40}) like (?:me|us|myself|ourselves)\b(?! to\b)"
)
_ASKING = frozenset({"do", "does", "did", "if", "my", "your", "his", "her", "their", "not"})
_OUR = re.compile(r"\b(?:we|us|our)\b", re.IGNORECASE)
_APPOSITION = re.compile(rf"\bI, {ARTICLE} (?P<role>[^.!?;:,]+),", re.IGNORECASE)
_MY_CAREER = re.compile(
    r"\b[Mm]y (?:(?:\w+ ){0,3}(?:years|decades) (?:of|as|in)\b|career\b(?! (?:goal|plan|change|choice|break)s?\b)|"
    r"profession\b|professional (?:opinion|experience|view|judge?ment|background|career|life)|"
    r"practice\b(?! is to\b| of \w+ing\b| (?:routine|room|time|piece|schedule|session|test|run|scale|exam|question|"
    r"problem|match|game|drill|partner|pad|swing)(?:e?s)?\b))"
)
_MY_PEOPLE = re.compile(r"\b[Mm]y (clients|patients)\b")
_SELF = re.compile(r"\b(?:I|I['’](?:m|ve|d|ll)|me|[Mm]y|mine|myself)\b")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """An answer without mentions: what was ``removed``, and the sentences with mentions that were ``left``."""

    text: str
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def remove_mentions(answer: str, identity: str, instruction: str) -> Cleaned:
    """Return an answer without mentions of the identity, as far as rules can remove them whole.

    Args:
        answer: The answer.
        identity: The identity that the model was given; empty if none was.
        instruction: What was asked. Roles that it names aren't taken for the identity.
    """
    roles = Roles(identity, instruction)
    spans: list[tuple[int, int]] = []
    left: list[str] = []
    for sentence in sentences(answer):
        if sentence.quoted:
            continue
        text = answer[sentence.start : sentence.end]
        kept_from = clause_end(text, roles)
        if kept_from is None and _introduces(text, roles):
            spans.append((sentence.start, sentence.end))
            continue
        rest = text[kept_from or 0 :]
        if _mentions(rest, roles) or (kept_from is None and (_openly(text, roles) or opens(text, roles))):
            left.append(text)
        elif kept_from:
            spans.append((sentence.start, sentence.start + kept_from))
    removed = tuple(answer[start:end].strip() for start, end in spans)
    return Cleaned(cut(answer, spans), removed, tuple(left))


def cut(answer: str, spans: list[tuple[int, int]]) -> str:
    """Return a text without spans: whole sentences, or openings of sentences, whose rest then begins with a capital.

    The rest stays byte for byte, but for the space after a span, and lines that are left empty. No span changes
    nothing at all.
    """
    for start, end in sorted(spans, reverse=True):
        whole = any(one.start == start and one.end == end for one in sentences(answer))
        while end < len(answer) and answer[end] in " \t":
            end += 1
        before, after = answer[:start], answer[end:]
        if not whole:
            after = after[:1].upper() + after[1:]
        elif not after or after[0] in "\r\n":
            before, after = _joined(before, after)
        answer = before + after
    return answer


def without(answer: str, dropped: list[Sentence]) -> str:
    """Return an answer without whole sentences."""
    return cut(answer, [(one.start, one.end) for one in dropped])


def _joined(before: str, after: str) -> tuple[str, str]:
    """Join what is before and after a sentence at the end of its line; a line that is left empty goes."""
    line = before.rpartition("\n")[2]
    if line.strip(" \t*_#-+•>0123456789.)"):  # something else stands on the line
        return before.rstrip(" \t"), after
    return before[: len(before) - len(line)], after.lstrip("\r\n")


def _introduces(text: str, roles: Roles) -> bool:
    """Whether a sentence says who is speaking, and nothing else."""
    if len(text) > _LONGEST_INTRODUCTION or not _openly(text, roles):
        return False
    if titled := _TITLED.match(text):
        return re.fullmatch(r"(?:, an? [^,;:.!?]*)?[.!]?", titled["rest"]) is not None
    rest = _OFFER.sub("", text)
    return _CONTENT.search(rest) is None and not any(_says_more(one, roles) for one in _AND.finditer(rest))


def _says_more(joined: re.Match[str], roles: Roles) -> bool:
    """Whether what "and" joins to an introduction isn't about the writer: "and the skin must be dry"."""
    said = joined["said"]
    if _ABOUT_SELF.match(said) or is_person(said, roles):
        return False
    return joined[0].startswith(",") or _SUBJECT.match(said) is not None


def _openly(text: str, roles: Roles) -> bool:
    """Whether a sentence begins by saying who is speaking."""
    if match := _I_AM.match(text):
        return roles.any(match["role"])
    if roles.speaker_wanted:
        return False
    return any(pattern.match(text) for pattern in (_NAME, _TITLED, _YEARS))


def _mentions(text: str, roles: Roles) -> bool:
    """Whether the writer speaks of a role of theirs anywhere in a text, outside quotations."""
    text = without_quotations(text)
    if not roles.speaker_wanted and _MY_CAREER.search(text):
        return True
    if not roles.speaker_wanted and any(not roles.asked_for(match[1]) for match in _MY_PEOPLE.finditer(text)):
        return True
    if _as_one_of_many(text, roles) or any(_is_told(text, match, roles) for match in _I_AM_TOO.finditer(text)):
        return True
    if _SELF.search(text) is None:
        return False
    if any(roles.own_within(match["role"]) for match in _APPOSITION.finditer(text)):
        return True
    return any(
        roles.own_within(match["role"], doing=_OWN_BEFORE.search(text[: match.start()]) is not None)
        for match in _MIDDLE.finditer(text)
        if _YOU_NEXT.match(text, match.end()) is None
    )


def _is_told(text: str, match: re.Match[str], roles: Roles) -> bool:
    """Whether "I am a …" names the identity, or another profession where nothing says that it is only supposed."""
    if roles.own_within(match["role"]):
        return True
    before = text[: match.start()]
    return roles.any(match["role"]) and re.search(r"(?:^|[,;–—-] ?|\b(?:and|but|because|since) )$", before) is not None


def _as_one_of_many(text: str, roles: Roles) -> bool:
    """Whether the writer speaks of those who are what the identity is, and counts as one of them."""
    for match in _WE.finditer(text):
        if any(roles.own_many(word) for word in match["words"].split()):
            return True
    if _OUR.search(text) and any(roles.own_many(match["role"]) for match in _AS_MANY.finditer(text)):
        return True
    for match in _LIKE_ME.finditer(text):
        asked = (match["before"] or "").strip().lower() in _ASKING
        if not asked and (roles.own_many(match["role"]) or roles.own(match["role"])):
            return True
    return False

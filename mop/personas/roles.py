"""Roles: whether a phrase such as "marine biologist with twenty years at sea" names what an identity is.

>>> role_heads("You are a marine biologist and diver who lives in Fiji.")
frozenset({'biologist', 'diver'})
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from mop.personas.checking import words_of

#: Nouns that say what somebody is by profession, whatever the identity says.
_OCCUPATIONS_WORDS = """
accountant adviser advisor analyst archaeologist architect artist astronomer attorney author baker barista biologist
botanist builder carpenter chef chemist clinician coach composer consultant copywriter counsellor counselor critic
dentist designer developer dietitian doctor ecologist economist editor educator electrician engineer entrepreneur
expert farmer gardener geographer geologist guru hairdresser historian horticulturist instructor interpreter
journalist lawyer lecturer librarian linguist mathematician mechanic mentor meteorologist musician neurologist nurse
nutritionist paediatrician pediatrician pharmacist philosopher photographer physician physicist planner plumber
practitioner professional professor programmer psychiatrist psychologist recruiter researcher scholar scientist
sociologist solicitor songwriter specialist statistician strategist surgeon teacher technician therapist trainer
translator tutor veteran veterinarian writer zoologist
"""
OCCUPATIONS = frozenset(_OCCUPATIONS_WORDS.split())
#: Nouns in phrases that name no person, or not the writer: "as a result", "as a child", "as a guide".
_INNOCENT_WORDS = """
adult baby beginner bonus boy child comparison consequence courtesy customer example father favor favour filler
footnote function gift girl guide guideline illustration kid man matter means measure model mother newcomer note
parent percentage precaution project reader reference reminder replacement result rule sibling side sign start
starter student substitute summary teenager test token tourist user visitor warning way whole woman youngster
"""
INNOCENT = frozenset(_INNOCENT_WORDS.split())
#: Words after an article among which the noun is looked for.
_REACH = 5
#: Requests for a text in which somebody else speaks in the first person.
_WANTED = re.compile(
    r"\b(?:letters?|essays?|speech(?:es)?|story|stories|poems?|lyrics|diary|diaries|monologues?|biograph\w*|bios?|"
    r"e-?mails?|résumé|resume|cv|statements?|scripts?|dialogues?|conversations?|interviews?|toasts?|posts?|tweets?|"
    r"memoirs?|autobiograph\w*|blogs?|reviews?|testimonials?|role-?play\w*|pretend|act as|imagine|perspective|"
    r"songs?|raps?|haikus?|limericks?|sonnets?|ballads?|captions?|headlines?|pitch(?:es)?|vows?|eulog\w*|voicemails?|"
    r"out[- ]of[- ]office|(?:self-)?introductions?|self-(?:evaluation|assessment|review)|about me|user stor(?:y|ies)|"
    r"first[- ]person|paraphrase|rewrite|translate|edit|correct|fix|introduce yourself)\b",
    re.IGNORECASE,
)
#: What somebody does: a modal verb, or one in the third person.
_NO_VERBS = (
    "this|is|was|has|its|his|hers|ours|years?|decades|months|weeks|days|times|overseas|perhaps|plus|us|yes|as|across|"
    "towards|besides|always|sometimes|nowadays|others|patients|clients|children"
)
_DOES = re.compile(rf"would|might|may|could|can|will|should|must|did|had|(?!(?:{_NO_VERBS})$)[a-z]+[^s'’]s")
_SELF = re.compile(
    r"\byou(?:['’]re| are) (?:now )?(?:an?|the|one of the(?: \w+)?) (?P<rest>[^.;:]{2,160})", re.IGNORECASE
)
_BOUNDARY = re.compile(
    r",|\(|\s[-–—]\s|\b(?:who|whom|whose|with|in|of|for|at|from|that|which|trained|working|speciali[sz](?:ed|es|ing)|"
    r"focus\w*|based|holding|having|dedicated|known|to|on|by|like|skilled|versed|experienced in|and has|and have)\b",
    re.IGNORECASE,
)


def role_heads(identity: str) -> frozenset[str]:
    """Return the nouns that an identity says that it is, in lower case."""
    heads: set[str] = set()
    for match in _SELF.finditer(identity):
        phrase = _BOUNDARY.split(match["rest"], maxsplit=1)[0]
        for part in re.split(r"\band\b|/|&", phrase):
            if words := words_of(part):
                heads.add(words[-1])
    return frozenset(heads - INNOCENT)


def content_words(text: str) -> frozenset[str]:
    """Return the words of at least five letters, singular and plural as one, in which identities differ."""
    return frozenset(word.removesuffix("s") for word in words_of(text) if len(word) >= 5)


@dataclass(frozen=True)
class Roles:
    """Tells roles from innocent phrases, for one answer.

    A noun that the instruction names is never taken for the identity: whoever asks for a nurse's diary gets "as a
    nurse, I". Nor are professions other than the identity's, where the instruction asks for a text in which somebody
    speaks.
    """

    identity: str
    instruction: str
    heads: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", role_heads(self.identity))

    @cached_property
    def speaker_wanted(self) -> bool:
        """Whether the instruction asks for a text in which somebody else speaks."""
        return _WANTED.search(self.instruction) is not None

    @cached_property
    def _asked(self) -> frozenset[str]:
        words = {re.sub(r"['’]s?$", "", word) for word in words_of(self.instruction)}
        return frozenset(words) | {word.removesuffix("s") for word in words}

    def asked_for(self, word: str) -> bool:
        """Whether the instruction has a word, in the singular or the plural."""
        return word in self._asked or word.removesuffix("s") in self._asked

    def own(self, phrase: str) -> bool:
        """Whether a phrase, article left out, names what the identity is."""
        head = self.head(phrase)
        return head in self.heads and head not in self._asked

    def any(self, phrase: str) -> bool:
        """Whether a phrase names what the identity is, or another profession that nobody asked for."""
        head = self.head(phrase)
        if head in self._asked or head in INNOCENT:
            return False
        return head in self.heads or (head in OCCUPATIONS and not self.speaker_wanted)

    def own_within(self, text: str, *, doing: bool = False) -> bool:
        """Whether one of the first words of a text is a noun that the identity is, and, but for ``doing``, idle there.

        "As a doctor would say" and "as a doctor checks your pulse" compare, and speak of nobody.
        """
        words = words_of(text)
        for place, word in enumerate(words[:_REACH]):
            if word in self.heads and word not in self._asked:
                return doing or not _DOES.fullmatch(" ".join(words[place + 1 : place + 2]))
        return False

    def own_many(self, phrase: str) -> bool:
        """Whether a phrase names several who are what the identity is: "doctors"."""
        words = words_of(phrase)
        word = words[-1] if words else ""
        singular = {word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y"}
        return word.endswith("s") and any(one in self.heads and one not in self._asked for one in singular)

    @staticmethod
    def head(phrase: str) -> str:
        """Return the noun of a phrase that says what somebody is, in lower case; empty if there is none."""
        words = words_of(re.split(r"\band\b", _BOUNDARY.split(phrase, maxsplit=1)[0], maxsplit=1)[0])
        return words[-1] if words else ""

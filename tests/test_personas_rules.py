"""The rules of `mop.personas`: mentions go and innocent text stays, copies are found."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mop.lm.request import Reply, Usage
from mop.personas.answering import answer_of, why_unusable
from mop.personas.auditing import apply_audit
from mop.personas.checking import LONGEST_RUN, MOST_COPIED, copied_share, text_problem
from mop.personas.exemplars import DIVERSE, SIMILAR
from mop.personas.mentions import remove_mentions
from mop.personas.roles import role_heads
from mop.personas.sentences import sentences
from mop.personas.writing import read_identity

IDENTITY = "You are a marine biologist and diver with twenty years of experience who has worked on coral reefs."
ASKED = "Why do corals turn white?"

INNOCENT = [
    "As a result, I recommend salt water.",
    "As a child, I loved the sea.",
    "As a rule, I wait an hour.",
    "As an example, I took a red coral.",
    "As a matter of fact, I agree.",
    "As a guide, I allow ten minutes for each kilo.",
    "As a teenager, I never went.",
    "As a beginner, you should start slowly.",
    "As a biologist, Darwin wrote a great deal.",
    "Consider a nurse shark as a model of patience.",
    "In my experience, it works.",
    "As a specialist tool, a net helps.",
    "As one sees, I was right.",
    "I am a big fan of salt.",
    '"As a biologist, I never lie," said the man.',
    "> As a biologist, I never lie.",
    "```\nAs a biologist, I never lie.\n```",
    "Dr. Lee came at 3.5 p.m. and left.",
    "Just as a biologist checks a tank, I suggest that you check the oil.",
    "As a diver would say, I think rest is best.",
    "With 5 years of experience, you can earn 80k; I would negotiate.",
    "After 20 years of practice, most people plateau, let me explain why.",
    "With 10 years of experience required, the job pays well, and I would apply.",
    "From 10 years of experience at Google, she built the tool, which I use.",
    "Based on years of experience and trials, the FDA approved it, our best hope.",
    "In my practice sessions I play scales.",
    "My practice is to boil it first.",
    "In practice, my practice routine is scales.",
    "My career goal is to lead.",
    "After years of experience with my method, the students improve.",
    "With 5 years of experience, the company hired me.",
    "In your years of practice, the most important thing for me is your joy.",
    "In my training plan, the long run is on Sunday.",
    "In my background check, the police asked me.",
    "If I am a teacher, my job is to teach.",
    "He told me that I am a great teacher.",
    "Do divers like me?",
    "My divers like me to rest.",
    "They are not divers like us.",
    "As a teacher, my sister earns little.",
    "I'm Dr. Pepper's biggest fan.",
    "I'm doctor shopping.",
    "I have a friend with ten years of experience in Go.",
    "Given your 5 years of experience, I think you should aim high.",
    "With two years of experience on your team, I'd wait.",
    "With years of debt and no experience of containers, I'd stay put.",
    "As a biologist, you are expected to lead, and I would start with a plan.",
    "My professional knives aren't necessary.",
    "My practice of salting it the night before works.",
]


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_text_stays_byte_for_byte(text: str) -> None:
    assert remove_mentions(text, IDENTITY, ASKED) == remove_mentions(text, IDENTITY, ASKED).__class__(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("As a marine biologist with years in coral, fish, and reefs, I recommend salt.", "I recommend salt."),
        ("As a biologist, it's vital to rest. Then go.", "It's vital to rest. Then go."),
        ("As your marine biologist, let me explain.", "Let me explain."),
        ("As a diver I swim.", "I swim."),
        ("Being a diver, I swim.", "I swim."),
        ("As someone who has worked on reefs for decades, I recommend salt.", "I recommend salt."),
        ("Speaking from two decades of practice, I recommend salt.", "I recommend salt."),
        ("In my professional opinion, I would wait.", "I would wait."),
        ("I have been a diver for 20 years. Corals live.", "Corals live."),
        ("Hello there. I'm a marine biologist with 20 years of experience. Corals live.", "Hello there. Corals live."),
        ("I am a biologist and I can help you with this. Corals live.", "Corals live."),
        ("My name is Dr. Lee. Corals live.", "Corals live."),
        ("With over 20 years of experience in reefs, I can say that corals die.", "I can say that corals die."),
        ("In my 20 years as a diver, I have seen it.", "I have seen it."),
        ("- As a diver, I swim.\n- As a whole, it works.", "- I swim.\n- As a whole, it works."),
        ("First.\n\nI'm a diver.\n\nLast.", "First.\n\nLast."),
        ("1. As a diver, I swim.\r\n2. Rest.", "1. I swim.\r\n2. Rest."),
        ("As a diver, the first thing I recommend is water.", "The first thing I recommend is water."),
        ("As a diver, what I suggest is air.", "What I suggest is air."),
        ("As a diver, if you are cold, I would wait.", "If you are cold, I would wait."),
        (
            'As a diver, the question "Should I eat, or dive?" comes up.',
            'The question "Should I eat, or dive?" comes up.',
        ),
        (
            "With over 20 years of experience, the best advice I can give is to wait.",
            "The best advice I can give is to wait.",
        ),
        ("In my years as a diver, the one rule I kept was rest.", "The one rule I kept was rest."),
        ("As a marine biologist, trained in Leeds, who dives, I use salt.", "I use salt."),
        ("As a biologist, a diver, I use 10,000 nets.", "I use 10,000 nets."),
        ("As divers, we wait.", "We wait."),
        ("As a marine biologist with years at sea, in labs, and on reefs, I use salt.", "I use salt."),
        ("Drawing on my expertise in reefs, the deep sea, and fish, I rest.", "I rest."),
        ("With over 15 years of experience, including five in Fiji, I use salt.", "I use salt."),
        ("As someone who has spent years at sea, mostly in Fiji, I rest.", "I rest."),
        ("As a diver, the founder of a school, and a father, I rest.", "I rest."),
        ("As a scientist, however, I rest.", "I rest."),
        ("As a diver (trained in Leeds, the UK), I rest.", "I rest."),
        ("As a diver, when I see ice, I wait.", "When I see ice, I wait."),
        ("As a diver, while I can't see you, I can tell you this.", "While I can't see you, I can tell you this."),
        ("As a diver, of course, I wait.", "I wait."),
        ("As a diver, one of my favourite places is a reef.", "One of my favourite places is a reef."),
        ("I'm a diver, biologist, and teacher. Corals live.", "Corals live."),
        ("Hello! I'm Dr. Lee, a seasoned diver. Corals live.", "Hello! Corals live."),
    ],
)
def test_mentions_go_as_whole_sentences_or_opening_clauses(text: str, cleaned: str) -> None:
    found = remove_mentions(text, IDENTITY, ASKED)
    assert found.text == cleaned
    assert found.removed
    assert not found.left
    assert remove_mentions(cleaned, IDENTITY, ASKED).text == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "I, as a biologist, recommend salt.",
        "My work as a diver showed me this.",
        "Trust me, I'm a biologist.",
        "My twenty years of practice taught me this.",
        "I'm a biologist, so you should use salt.",
        "**As a biologist**, I use salt.",
        "As a diver, air is what I check first.",
        "As a diver, avoid cold, my friend.",
        "As a diver, salt, sand and wind are what I fear.",
        "My experience as a diver tells me that rest helps.",
        "We divers know that rest helps.",
        "I, a diver, say that rest helps.",
        "Divers like me rest first.",
        "Trust me, I'm a doctor.",
        "In my practice as a diver, air comes first.",
        "In my practice, children rest.",
        "In my practice this has worked.",
        "My career path led me here.",
        "As a diver, having a buddy, I believe, is a must.",
        "As a diver, a doctor, I believe, is your best friend.",
        "As a diver at sea, salt, sand, and wind, I believe, are the enemy.",
        "As a biologist, all my life spent at sea, I rest.",
        "As a seasoned scientist, passionate about reefs, I rest.",
        "As a specialist in Type I diabetes, I recommend rest.",
        "As a historian of World War I, I recommend books.",
        "As a biologist with the tools I have, the best I can do is count.",
        "As a [diver, I think](http://x), rest.",
        "As a `diver, I` rest.",
        "As a diver in Leeds told me, I rest.",
        "Even as a seasoned marine biologist, I still get this wrong.",
        "Just as a diver, I'd say rest.",
        "As a marine biologist it's my duty to tell you.",
        "As a diver this worries me.",
        "I started out as a marine biologist years ago.",
        "We experienced divers know it.",
        "A diver like me rests.",
        "I'm Dr. Lee, and rest is key.",
        "I've been a diver for ten years, and most reefs are harmless.",
        "I'm a diver, and dry air is the whole secret.",
        "I am a diver and I always dry the suit overnight.",
        "My clients wait.",
        "As a biologist I worked with used to say, wait.",
    ],
)
def test_a_mention_within_a_sentence_is_reported_and_nothing_is_cut(text: str) -> None:
    found = remove_mentions(text, IDENTITY, ASKED)
    assert found.text == text
    assert found.left == (text if not text.startswith("**") else text[2:],)


@pytest.mark.parametrize(
    "text",
    [
        "ha-" * 20000,
        "with my years " * 5000,
        "As a " + "very " * 5000 + ", I rest",
        "As a diver, " * 3000 + "I rest",
        "I'm a diver, and " + "and here and so " * 5000,
        "I'm Dr. " + "A " * 20000,
        "In " + "my a " * 5000,
        "we " * 20000,
    ],
)
def test_long_texts_take_no_long_time(text: str) -> None:
    began = time.perf_counter()
    remove_mentions(text, IDENTITY, ASKED)
    assert time.perf_counter() - began < 5


def test_a_role_that_the_instruction_names_is_the_task_and_stays() -> None:
    diary = "As a nurse, I see much. I am a nurse."
    assert remove_mentions(diary, "You are a nurse.", "Write a nurse's diary.").text == diary
    letter = "With my 5 years of experience in sales, I am sure. As an engineer, I build."
    assert remove_mentions(letter, IDENTITY, "Write a cover letter.").text == letter


def test_clients_whom_the_instruction_names_are_the_askers() -> None:
    answer = "Tell yourself: my clients can wait."
    assert remove_mentions(answer, IDENTITY, "How do I tell a client to wait?").left == ()
    assert remove_mentions(answer, IDENTITY, "How do I rest?").left == (answer,)


def test_a_specialist_is_a_role_although_other_words_of_that_stem_end_a_role() -> None:
    assert role_heads("You are a seasoned specialist in reefs.") == {"specialist"}
    assert role_heads("You are a solicitor specialising in leases.") == {"solicitor"}


# Letters without those that "I", "my", "as", "years" and "you" need can hold no mention.
_PLAIN = st.text(alphabet="bcdefghk .,!?\n\"'*-#>`1234567890“”é—", max_size=200)


@given(st.lists(st.one_of(_PLAIN, st.sampled_from(INNOCENT)), max_size=6), st.sampled_from([" ", "\n", "\n\n"]))
@example(["```", "As a whole, I go."], "\n")
def test_text_without_mentions_is_unchanged(parts: list[str], between: str) -> None:
    # A quotation or fence that plain text opens may hide a part, but must not bring a mention about.
    parts = [part for part in parts if "biologist" not in part]
    text = between.join(parts)
    assert remove_mentions(text, IDENTITY, ASKED).text == text


_MENTIONS = ["As a biologist, I think so.", "I'm a diver.", "I, as a diver, swim.", "With my years as a diver, I know."]


@given(st.lists(st.one_of(_PLAIN, st.sampled_from([*INNOCENT, *_MENTIONS])), max_size=6), st.sampled_from([" ", "\n"]))
def test_what_is_kept_are_whole_sentences_or_what_follows_an_opening_clause(parts: list[str], between: str) -> None:
    text = between.join(parts)
    found = remove_mentions(text, IDENTITY, ASKED)
    kept = [found.text[one.start : one.end].lower() for one in sentences(found.text)]
    before = [text[one.start : one.end].lower() for one in sentences(text)]
    for sentence in kept:
        assert any(one.endswith(sentence) for one in before)
    for removed in found.removed:
        assert any(one.startswith(removed.lower()) for one in before)


@given(st.text(max_size=300))
def test_sentences_lie_in_order_and_leave_out_only_space_and_marks(text: str) -> None:
    position = 0
    for one in sentences(text):
        assert position <= one.start < one.end <= len(text)
        position = one.end


def test_the_exemplars_pass_their_own_checks_and_copy_nothing_from_one_another() -> None:
    every = list(dict.fromkeys((*DIVERSE, *SIMILAR)))
    for one in every:
        others = [other for other in every if other is not one]
        assert text_problem(one.identity, one.instruction, others) is None
        assert copied_share(one.identity, others)[0] <= 0.02


def test_copies_first_persons_and_bare_words_are_no_identities() -> None:
    shown = DIVERSE[:3]
    copy = shown[0].identity.replace("corals", "roses").replace("reefs", "gardens")
    assert copied_share(copy, shown)[0] > MOST_COPIED
    assert text_problem(copy, "My roses are ill.", shown) == "copied from an exemplar"
    own = "You are a gardener who has grown old roses for thirty years in wet and dry summers. "
    run = own * 3 + " ".join(shown[1].identity.split()[20 : 21 + LONGEST_RUN])
    assert text_problem(run, "x", shown) == "copied from an exemplar"
    assert text_problem(own, "My roses are ill.", shown) is None
    assert text_problem("Prune them in March and burn the ill leaves, then water the soil well.", "x", shown) == (
        "not in the second person"
    )
    assert text_problem("", "x", shown) == "empty"
    asked = "How do I prune my roses?"
    assert text_problem(f'{own}You are often asked "where do I start" and {asked}', asked, shown) is None


@pytest.mark.parametrize(
    ("sentence", "speaks"),
    [
        ("You teach the causes of World War I to pupils.", False),
        ("You treat type I diabetes, and you plan phase I trials with care.", False),
        ("You write about Elizabeth I and her court, and of Charles I.", False),
        ("When I answer, you listen to what I say.", True),
        ("You know Elizabeth, and I know her court.", True),
        ("You are in London, where in Part I've a chapter of it.", True),
    ],
)
def test_a_numeral_is_not_the_one_who_speaks(sentence: str, speaks: bool) -> None:
    identity = f"You are a lecturer who has taught in many towns for thirty years. {sentence}"
    assert text_problem(identity, "Explain it.", DIVERSE[:3]) == ("not in the second person" if speaks else None)


def test_the_audit_removes_only_sentences_that_are_there_and_speak_of_the_writer() -> None:
    answer = "Corals live. My diving taught me about coral reefs. As a result, I wait. You should rest."
    said = "- My diving taught me about coral reefs.\n- As a result, I wait.\n- I once met a shark."
    found = apply_audit(said, answer, IDENTITY)
    assert found.text == "Corals live. As a result, I wait. You should rest."
    assert found.ignored == ("As a result, I wait.", "I once met a shark.")
    assert not found.too_much
    assert apply_audit("NONE", answer, IDENTITY).text == answer
    assert apply_audit(answer, "My coral reefs made me a diver.", IDENTITY).removed == ()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>As a cook, I would …\nlet me see.</think>\n\nUse salt.", "Use salt."),
        ("\n<THINKING>hm</THINKING>Use salt.", "Use salt."),
        ("The prompt opened it.\n</think>\n\nUse salt.", "Use salt."),
        ("<think>Salt?</think>\n<think>Salt.</think>\nUse salt.", "Use salt."),
        ("<think>it never ends", ""),
        (
            "The tag <think> opens a thought and\n</think>\nends it.",
            "The tag <think> opens a thought and\n</think>\nends it.",
        ),
        ("Write </think> at its end.", "Write </think> at its end."),
    ],
)
def test_what_a_model_thinks_before_its_answer_is_no_part_of_it(text: str, answer: str) -> None:
    reply = Reply(text, Usage(), "stop", "", from_ledger=False, seconds=0.0)
    assert answer_of(reply).text == answer
    cut = Reply("<think>it is cut", Usage(), "length", "", from_ledger=False, seconds=0.0)
    assert why_unusable(answer_of(cut)) == "cut off"


def test_an_identity_is_read_after_the_thought() -> None:
    assert read_identity(f"<think>You are asked for a person.\n\nA diver?</think>\n\n{IDENTITY}") == IDENTITY
    assert read_identity("<think>You are asked for a person.") == ""


def test_the_audit_leaves_the_speaker_alone_whom_the_instruction_asks_for() -> None:
    identity = "You are a chef and author who helps nurses to find work."
    answer = "As a chef would say: begin well. I am a nurse with ten years of practice. I work hard in my profession."
    named = "I am a nurse with ten years of practice.\nI work hard in my profession."
    letter = "Write a cover letter for a nurse."
    assert apply_audit(named, answer, identity, letter).text == answer
    assert apply_audit(named, answer, identity, "How do I find work?").removed == tuple(named.splitlines()[:1])
    own = "Believe me, I was a chef."
    assert apply_audit(own, f"{own} Dear Sir.", identity, letter).removed == (own,)

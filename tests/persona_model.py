"""A model of rules that writes identities, answers as them, audits and grades; what it does hangs on words asked."""

from __future__ import annotations

import re

Messages = list[dict[str, str]]

REFUSAL = "I'm sorry, but I can't help with that."


def persona_answer(messages: Messages) -> str:
    """Answer as `mop.personas` may ask.

    Of an instruction with "copied" the first identity is an exemplar's; with "hopeless" all are useless. An answer to
    "forbidden" is a refusal, to "proud" speaks of the identity within a sentence, to "boastful" ends with a sentence
    that only an audit finds; the grade of "dull" is 2, of others 9.
    """
    asked = messages[-1]["content"]
    if messages[0]["content"].startswith("For each request"):
        return _identity(messages, asked)
    if "one on each line" in asked:
        text = asked.split("[Text]\n")[1].split("\n[End of text]")[0]
        named = [one for one in re.split(r"(?<=[.!?])\s+", text) if "specialist" in one or "specialists" in one]
        return "\n".join([*named, "As a result, it works."]) if named else "NONE"
    if "Grade the answer" in asked:
        return "2" if "dull" in asked else "9"
    return _answer(asked)


def _identity(messages: Messages, asked: str) -> str:
    instruction, _, again = asked.partition("\n\n(Describe")
    if "hopeless" in instruction:
        return "Sure."
    if "copied" in instruction and not again:
        return messages[2]["content"]
    return (
        f"You are a seasoned specialist for whoever says: {instruction} You have two decades of experience with just "
        f"this, and you explain in plain words and with numbers: {instruction}"
    )


def _answer(asked: str) -> str:
    instruction = asked.split("\n\n")[-1]
    if "forbidden" in instruction:
        return REFUSAL
    plain = f"Begin slowly with this: {instruction} As a result, it works."
    if not asked.startswith("You are"):
        return plain
    if "proud" in instruction:
        return f"{plain} Believe me, as a specialist I never fail."
    if "boastful" in instruction:
        return f"{plain} Our circle of specialists knows such things best."
    return f"As a seasoned specialist, I can help. {plain}"

"""Targets without a framework: prompts to read (Markdown), and chat messages with routing data (JSON)."""

from __future__ import annotations

import json
import math
import re

from mop.export.parts import Exported, Frame, calling, encoder_lost, name_of, prompts_by_name, routing
from mop.mixture import Mixture
from mop.prompts import Prompt


def prompts(mixture: Mixture) -> Exported:
    """Return one Markdown text with every prompt, message by message."""
    parts = [
        f"# {len(mixture)} {'expert' if len(mixture) == 1 else 'experts'} for {_line(mixture.model)}",
        f"Metric: {_line(mixture.metric)}. Encoder: {_line(mixture.encoder_record.identity)}.",
        "## Generalist",
        _messages(mixture.generalist),
    ]
    for number, expert in enumerate(mixture.experts):
        words = f": {_line(', '.join(expert.words))}" if expert.words else ""
        parts.append(f"## Expert {number}{words}")
        if expert.fallback:
            parts.append("No gain was shown for this region: the generalist answers its queries.")
        parts.append(_messages(expert.prompt))
    lost = ["Routing is left out: a text to read has no vectors."]
    if (limits := mixture.limits) is not None:
        if any(map(math.isfinite, limits.thresholds)):
            lost.append("Queries far from all examples go to the generalist; the distances are left out.")
        if limits.margin is not None:
            lost.append("A query near a border also gets a demo of the second region; that is left out.")
        if limits.width is not None:
            lost.append("Gains and distances together choose the expert; the kernel's width is left out.")
    if mixture.retrieval is not None:
        lost.append(
            f"The {len(mixture.retrieval.demos)} demos to retrieve from are left out; an expert shows the "
            f"{mixture.retrieval.count} nearest to each query after its own."
        )
    return Exported({"prompts.md": "\n\n".join(parts) + "\n"}, tuple(lost))


def openai_messages(mixture: Mixture) -> Exported:
    """Return one JSON document: messages for every prompt, how to call the model, and all that routing needs.

    A prompt's ``messages`` come first, then those of retrieved demos, then a user message of ``before`` + query +
    ``after``.
    """
    found = {}
    for name, prompt in prompts_by_name(mixture).items():
        frame = Frame.of(prompt)
        found[name] = {
            "layout": prompt.layout,
            "messages": [{"role": role, "content": content} for role, content in frame.head],
            "before": frame.before,
            "after": frame.after,
        }
    experts = [
        {"words": list(expert.words), "fallback": expert.fallback, **found[name_of(number)]}
        for number, expert in enumerate(mixture.experts)
    ]
    document = {
        "format": "mop messages 1",
        "call": calling(mixture),
        "generalist": found[name_of(None)],
        "experts": experts,
        "routing": routing(mixture),
    }
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return Exported({"messages.json": text}, tuple(encoder_lost(mixture)))


def _messages(prompt: Prompt) -> str:
    return "\n\n".join(f"**{role}**\n\n{_fenced(content)}" for role, content in prompt.messages("<query>"))


def _fenced(content: str) -> str:
    """Return the content between fences that it doesn't contain itself."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"


def _line(text: str) -> str:
    return " ".join(text.split())

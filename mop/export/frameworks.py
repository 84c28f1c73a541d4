"""Targets with a framework: DSPy, LangChain, promptfoo. Writes their files; imports none of them.

``dspy``       a folder: ``NAME.json`` is the state of ``dspy.Predict("query -> answer")``; ``routing.json``
``langchain``  one JSON document; ``langchain_core.load.loads`` makes a ChatPromptTemplate of every prompt in it
``promptfoo``  a configuration whose prompts are chats with ``{{query}}``
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from mop.connect import is_local
from mop.export.parts import Exported, Frame, calling, encoder_lost, name_of, prompts_by_name, routing
from mop.mixture import Mixture
from mop.prompts import Prompt

_BLOCK = "Prompts in the block layout hold no turns; "


def dspy(mixture: Mixture) -> Exported:
    """Return a state of ``dspy.Predict("query -> answer")`` for each prompt, and ``routing.json``.

    The format is that of DSPy 3 (`Predict.dump_state`); no versions are named, so no other version is warned of.
    """
    files = {}
    for name, prompt in prompts_by_name(mixture).items():
        state: dict[str, Any] = {
            "traces": [],
            "train": [],
            "demos": [{"query": demo.input, "answer": demo.output} for demo in prompt.demos],
            "signature": {
                "instructions": prompt.instruction,
                "fields": [
                    {"prefix": "Query:", "description": "${query}"},
                    {"prefix": "Answer:", "description": "${answer}"},
                ],
            },
            "lm": None,
            "metadata": {"dependency_versions": {}},
        }
        files[f"{name}.json"] = _json(state)
    files["routing.json"] = _json({"call": calling(mixture), **routing(mixture)})
    lost = [
        "DSPy's adapter puts a prompt into words of its own, so messages differ from mop's; the instruction and the "
        "demos are the same.",
        "A Predict doesn't route: routing.json has the centroids and the rule.",
        *encoder_lost(mixture),
    ]
    if mixture.retrieval is not None:
        lost.append(
            "A Predict doesn't retrieve demos: routing.json has them; give the nearest with the call, after its own "
            "(predict(query=…, demos=[…]))."
        )
    return Exported(files, tuple(lost))


def langchain(mixture: Mixture) -> Exported:
    """Return ``generalist`` and ``experts`` as serialized ChatPromptTemplates, with ``call`` and ``routing``.

    A template takes ``query`` and, in the chat layout, ``retrieved``: a list of messages, empty by default.
    """
    found = {name: _template(prompt) for name, prompt in prompts_by_name(mixture).items()}
    document = {
        "call": calling(mixture),
        "generalist": found[name_of(None)],
        "experts": [found[name_of(number)] for number in range(len(mixture))],
        "routing": routing(mixture),
    }
    lost = ["A template doesn't route: routing has the centroids and the rule.", *encoder_lost(mixture)]
    if mixture.retrieval is not None:
        lost.append("Demos to retrieve are in routing; give the nearest as messages in `retrieved`.")
        if any(expert.prompt.layout == "block" for expert in mixture.experts):
            lost.append(_BLOCK + "their templates cannot take retrieved demos.")
    return Exported({"langchain.json": _json(document)}, tuple(lost))


def promptfoo(mixture: Mixture) -> Exported:
    """Return a promptfoo configuration: each prompt a chat with ``{{query}}``, and one test to fill in.

    Everything that its templates (nunjucks) would take for their own is escaped.
    """
    listed = []
    for name, prompt in prompts_by_name(mixture).items():
        frame = Frame.of(prompt)
        chat = [{"role": role, "content": escape_nunjucks(content)} for role, content in frame.head]
        query = escape_nunjucks(frame.before) + "{{query}}" + escape_nunjucks(frame.after)
        # On several lines: one line could be taken for the name of a file.
        text = json.dumps([*chat, {"role": "user", "content": query}], ensure_ascii=False, indent=1)
        listed.append({"label": name, "raw": text})
    decoding = {key: value for key, value in calling(mixture).items() if key != "model" and value != []}
    provider: dict[str, Any] = {"id": f"openai:chat:{mixture.model}", "config": decoding}
    lost = ["promptfoo doesn't route: every prompt meets every test, also one far from all examples."]
    if is_local(mixture.model):
        lost.append(
            f"promptfoo cannot start {mixture.model}: serve the mixture (`mop serve`) and give the provider its "
            "address as apiBaseUrl."
        )
    if mixture.retrieval is not None:
        lost.append("promptfoo doesn't retrieve demos, so experts show their own only.")
    document = {
        "description": f"{len(mixture)} experts and their generalist, exported by mop",
        "prompts": listed,
        "providers": [provider],
        "tests": [{"vars": {"query": "Put a query here."}}],
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return Exported({"promptfooconfig.yaml": text}, tuple(lost))


def escape_nunjucks(text: str) -> str:
    """Return a template that renders to ``text``: what starts an expression, tag or comment becomes a string in one."""
    return re.sub(r"\{[{%#]", lambda found: "{{ '" + found[0] + "' }}", text)


def _template(prompt: Prompt) -> dict[str, Any]:
    frame = Frame.of(prompt)
    kinds = {"system": "SystemMessage", "user": "HumanMessage", "assistant": "AIMessage"}
    messages: list[dict[str, Any]] = [
        # Messages, not templates: nothing in them is ever formatted.
        _constructor(["schema", "messages", kinds[role]], {"content": content})
        for role, content in frame.head
    ]
    chat = prompt.layout == "chat"
    if chat:
        place = {"variable_name": "retrieved", "optional": True}
        messages.append(_constructor(["prompts", "chat", "MessagesPlaceholder"], place))
    template = {
        "input_variables": ["query"],
        "template": f"{_escape_format(frame.before)}{{query}}{_escape_format(frame.after)}",
        "template_format": "f-string",
    }
    query = {"prompt": _constructor(["prompts", "prompt", "PromptTemplate"], template)}
    messages.append(_constructor(["prompts", "chat", "HumanMessagePromptTemplate"], query))
    optional = {"optional_variables": ["retrieved"], "partial_variables": {"retrieved": []}} if chat else {}
    return _constructor(
        ["prompts", "chat", "ChatPromptTemplate"], {"input_variables": ["query"], **optional, "messages": messages}
    )


def _constructor(place: list[str], arguments: dict[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", *place], "kwargs": arguments}


def _escape_format(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

"""Export: other tools read what was written, nothing in a text is taken for a template, and losses are said."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import TOPICS, WordEncoder, small_mixture

from mop.cli import main
from mop.embeddings.index import EXACT_MOST
from mop.errors import SettingsError
from mop.export import TARGETS, export
from mop.export.frameworks import escape_nunjucks
from mop.limits import Limits
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval

#: Texts with what templates, JSON, YAML, Markdown and Python would take for their own.
PIECES = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "{",
            "}",
            "{query}",
            "{{query}}",
            "'",
            '"',
            '"""',
            "\\",
            "\\n",
            "\n",
            "\t",
        ),
        *("```", "größer", "日本", "\u2028", "\x85", "%s", "$x", "#", ": ", "- ", "<query>", "x", " ", "🙂", "\x00"),
    ]
)
TEXT = st.lists(PIECES, max_size=8).map("".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DEMOS = st.lists(st.builds(Demo, TEXT, TEXT), max_size=3).map(tuple)
LAYOUTS = st.sampled_from(["chat", "block"])
PROMPTS = st.builds(Prompt, TEXT, DEMOS, LAYOUTS)
QUERIES = TEXT.filter(str.strip)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    count, dimension = draw(st.integers(1, 4)), 6
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))

    def unit(rows: int, columns: int = dimension) -> Any:
        vectors = rng.standard_normal((rows, columns)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    projected = draw(st.booleans())
    routed = 4 if projected else dimension
    pool = draw(st.lists(st.builds(Demo, TEXT, TEXT), min_size=1, max_size=6))
    retrieval = (
        Retrieval(tuple(pool), unit(len(pool), routed), draw(st.integers(1, 3))) if draw(st.booleans()) else None
    )
    thresholds = st.floats(0, 4) | st.just(math.inf)
    limits = Limits(
        tuple(draw(thresholds) for _ in range(count)),
        measure=draw(st.sampled_from(["centroid", "demo"])) if retrieval else "centroid",
        margin=draw(st.none() | st.floats(0, 2)) if retrieval else None,
        width=draw(st.none() | st.floats(1e-3, 10)),
    )
    return small_mixture(
        experts=tuple(
            Expert(draw(PROMPTS), 3, 2, words=(draw(TEXT),), gain=draw(st.floats(-1, 1)), fallback=draw(st.booleans()))
            for _ in range(count)
        ),
        generalist=draw(PROMPTS),
        centroids=unit(count, routed),
        projection=rng.standard_normal((dimension + 1, 4)).astype(np.float32) if projected else None,
        retrieval=retrieval,
        limits=draw(st.sampled_from([limits, None])),
        encoder_record=EncoderRecord("words", "words", unit(len(PROBES))),
    )


def as_dicts(messages: Any) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


def only(mixture: Mixture, target: str) -> str:
    (text,) = export(mixture, target).files.values()
    return text


def loaded(text: str) -> ModuleType:
    module = ModuleType("exported")
    exec(compile(text, "exported", "exec"), module.__dict__)
    return module


# -- python


def rounding_decides(mixture: Mixture, vector: Any) -> bool:
    """Whether queries that differ by about a millionth go elsewhere."""
    noise = np.random.default_rng(0).standard_normal((24, vector.shape[1]))
    routes = mixture.route_vectors(np.vstack([vector, vector + 3e-6 * noise]).astype(np.float32))
    return len({(route.expert, route.reason, route.retrieved) for route in routes}) > 1


@settings(max_examples=150, deadline=None)
@given(mixtures(), QUERIES, st.integers(0, 10**6))
def test_the_python_file_routes_and_asks_as_the_mixture_does(mixture: Mixture, query: str, seed: int) -> None:
    module = loaded(only(mixture, "python"))
    vector = np.random.default_rng(seed).standard_normal((1, 6)).astype(np.float32)
    vector /= np.linalg.norm(vector)
    assume(not rounding_decides(mixture, vector))
    route = mixture.route_vectors(vector)[0]
    found = module.route(vector[0])
    assert (found["expert"], found["fallback"], found["reason"]) == (route.expert, route.fallback, route.reason)
    assert found["distance"] == pytest.approx(route.distance, abs=1e-5)
    assert found["margin"] == pytest.approx(route.margin, abs=1e-5)
    assert [Demo(*pair) for pair in found["retrieved"]] == list(route.retrieved)
    expected = as_dicts(mixture.prompt_of(route).messages(query))
    assert module.messages(vector[0], query) == expected
    assert module.messages(query, encode=lambda text: vector[0]) == expected


@settings(max_examples=20, deadline=None)
@given(mixtures())
def test_the_same_mixture_gives_the_same_python_file(mixture: Mixture) -> None:
    assert only(mixture, "python") == only(mixture, "python")


def test_the_python_file_runs_where_mop_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(only(small_mixture(), "python"), encoding="utf-8")
    program = (
        "import sys; sys.modules['mop'] = None; sys.path.insert(0, sys.argv[1]); import numpy, bank\n"
        "v = bank._array('centroids')[1]\n"
        "print(bank.route(v)['expert'], bank.messages(v, 'my parcel')[0]['content'], sorted(m for m in sys.modules "
        "if m.split('.')[0] in ('mop', 'faiss', 'torch', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 Answer about the parcel. ['mop']"


def test_the_python_file_refuses_another_encoder_and_a_vector_of_another_size() -> None:
    module = loaded(only(small_mixture(), "python"))
    module.check_encoder(lambda text: WordEncoder().encode([text])[0])
    with pytest.raises(ValueError, match="not the encoder words:0@32"):
        module.check_encoder(lambda text: WordEncoder(seed=1).encode([text])[0])
    with pytest.raises(ValueError, match="32 finite numbers; got 3"):
        module.route(np.ones(3))
    with pytest.raises(TypeError, match="encode"):
        module.route("a text")


@pytest.mark.parametrize(
    ("limits", "query"),
    [
        (Limits((0.5,) * 3, coverage=0.99, measure="demo"), "card zebras sing underwater operas"),
        (Limits((0.01, math.inf, 0.5), coverage=0.9), "a card please"),
        (Limits((math.inf,) * 3, margin=0.2), "card lost parcel lost late"),
        (Limits((math.inf,) * 3, width=10.0), "card card parcel"),
    ],
)
def test_the_python_file_departs_from_the_nearest_centroid_where_the_mixture_does(limits: Limits, query: str) -> None:
    demos = tuple(Demo(f"my {topic} {state}", f"{topic}_{state}") for topic in TOPICS for state in ("lost", "late"))
    pool = Retrieval(demos, WordEncoder().encode([demo.input for demo in demos]), 1)
    plain, limited = small_mixture(retrieval=pool), small_mixture(retrieval=pool, limits=limits)

    def encode(text: str) -> Any:
        return WordEncoder().encode([text])[0]

    routes = []
    for mixture in (plain, limited):
        module, route = loaded(only(mixture, "python")), mixture.route(query)
        found = module.route(query, encode)
        routes.append((found["expert"], found["reason"], [Demo(*pair) for pair in found["retrieved"]]))
        assert routes[-1] == (route.expert, route.reason, list(route.retrieved))
        assert module.messages(query, encode=encode) == as_dicts(mixture.prompt_of(route).messages(query))
    assert routes[0] != routes[1]


def test_beyond_the_demos_that_are_all_compared_the_python_file_says_that_it_searches_otherwise() -> None:
    for count in (EXACT_MOST, EXACT_MOST + 1):
        pool = Retrieval((Demo("a", "b"),) * count, np.zeros((count, 32), np.float32), 1)
        lost = export(small_mixture(retrieval=pool), "python").lost
        assert [sentence for sentence in lost if "cells" in sentence] == list(lost) == list(lost[: count - EXACT_MOST])


def test_every_field_that_routes_a_query_is_known_to_the_python_file() -> None:
    """A new field belongs into mop/export/standalone.py if it changes routes or prompts, and into a list below."""
    written = {"experts", "generalist", "centroids", "encoder_record", "model", "decoding", "projection", "retrieval"}
    about_it = {"metric", "region_map", "reference", "report", "provenance"}
    assert {field.name for field in fields(Mixture)} == written | {"limits"} | about_it
    assert {field.name for field in fields(Limits)} == {
        *("thresholds", "measure", "margin", "width"),
        *("coverage", "measured"),  # only say where the others come from
    }
    assert {field.name for field in fields(EncoderRecord)} == {"name", "identity", "probes", "state"}


# -- messages and text


@settings(max_examples=40, deadline=None)
@given(mixtures(), QUERIES)
def test_the_exported_messages_are_those_that_the_mixture_sends(mixture: Mixture, query: str) -> None:
    document = json.loads(only(mixture, "openai-messages"))
    pairs = [(mixture.generalist, document["generalist"])]
    pairs += [(one.prompt, found) for one, found in zip(mixture.experts, document["experts"], strict=True)]
    for prompt, found in pairs:
        user = {"role": "user", "content": found["before"] + query + found["after"]}
        assert [*found["messages"], user] == as_dicts(prompt.messages(query))
    centroids = np.asarray(document["routing"]["centroids"], np.float32)
    np.testing.assert_array_equal(centroids, mixture.centroids)
    limits = document["routing"]["limits"]
    given = mixture.limits or Limits((math.inf,) * len(mixture))
    assert [math.inf if value is None else value for value in limits["thresholds"]] == list(given.thresholds)
    assert [limits[name] for name in ("measure", "margin", "width")] == [given.measure, given.margin, given.width]
    rule = document["routing"]["rule"]
    assert ("margin" in rule, "width" in rule) == (given.margin is not None, given.width is not None)
    assert ("thresholds" in rule) == any(map(math.isfinite, given.thresholds))


def test_fences_are_longer_than_any_in_the_prompt() -> None:
    text = only(small_mixture(generalist=Prompt("Use ```` marks.\n```")), "prompts")
    assert "`````text\nUse ```` marks.\n```\n`````" in text


# -- frameworks


@settings(max_examples=40, deadline=None)
@given(mixtures(), QUERIES)
def test_langchain_loads_templates_that_give_the_same_messages(mixture: Mixture, query: str) -> None:
    core = pytest.importorskip("langchain_core.load", reason="langchain-core isn't installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = core.loads(only(mixture, "langchain"), allowed_objects="core")
    roles = {"system": "system", "human": "user", "ai": "assistant"}
    demo = Demo("near {query}", "{{answer}}")
    for prompt, template in [
        (mixture.generalist, document["generalist"]),
        *zip((one.prompt for one in mixture.experts), document["experts"], strict=True),
    ]:
        plain = template.invoke({"query": query}).to_messages()
        assert [(roles[one.type], one.content) for one in plain] == list(prompt.messages(query))
        if prompt.layout == "chat":
            turns = [("human", demo.input), ("ai", demo.output)]
            from langchain_core.messages import AIMessage, HumanMessage

            shown = [HumanMessage(turns[0][1]), AIMessage(turns[1][1])]
            full = template.invoke({"query": query, "retrieved": shown}).to_messages()
            expected = prompt.retrieving([demo]).messages(query)
            assert [(roles[one.type], one.content) for one in full] == list(expected)


def test_dspy_loads_the_instruction_and_the_demos(tmp_path: Path) -> None:
    dspy = pytest.importorskip("dspy", reason="dspy isn't installed (pip install 'mop[peers]')")
    mixture = small_mixture(generalist=Prompt('Say "{x}" – größer.\nTwice.', (Demo("{a}\n", 'b"'), Demo("c", "d"))))
    for name, text in export(mixture, "dspy").files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, prompt in [("generalist", mixture.generalist), ("expert-001", mixture.experts[1].prompt)]:
        predict = dspy.Predict("query -> answer")
        predict.load(tmp_path / f"{name}.json")
        assert predict.signature.instructions == prompt.instruction
        assert [Demo(one["query"], one["answer"]) for one in predict.demos] == list(prompt.demos)
        predict.save(tmp_path / "again.json")
        again, first = (
            json.loads((tmp_path / "again.json").read_text()),
            json.loads((tmp_path / f"{name}.json").read_text()),
        )
        assert {**again, "metadata": None} == {**first, "metadata": None}


@settings(max_examples=40, deadline=None)
@given(mixtures(), QUERIES)
def test_promptfoo_prompts_render_to_the_same_messages(mixture: Mixture, query: str) -> None:
    # Of nunjucks, whose delimiters and strings are jinja's; promptfoo renders each string of a chat by itself.
    engine = jinja2.Environment(autoescape=False, keep_trailing_newline=True, newline_sequence="\n")
    document = yaml.safe_load(only(mixture, "promptfoo"))
    prompts = [mixture.generalist, *(one.prompt for one in mixture.experts)]
    for prompt, found in zip(prompts, document["prompts"], strict=True):
        assert "\n" in found["raw"]
        rendered = [
            {"role": one["role"], "content": engine.from_string(one["content"]).render(query=query)}
            for one in json.loads(found["raw"])
        ]
        # jinja, unlike nunjucks, makes every line end the same.
        expected = [
            {**one, "content": one["content"].replace(query, "\0").replace("\r\n", "\n").replace("\r", "\n")}
            for one in as_dicts(prompt.messages(query))
        ]
        rendered = [{**one, "content": one["content"].replace(query, "\0")} for one in rendered]
        assert rendered == expected


@given(TEXT)
def test_an_escaped_text_holds_no_template(text: str) -> None:
    engine = jinja2.Environment(autoescape=False, keep_trailing_newline=True)
    assert engine.from_string(escape_nunjucks(text)).render() == text.replace("\r\n", "\n").replace("\r", "\n")


# -- what is lost, and the command


def test_what_a_target_cannot_express_is_said() -> None:
    retrieval = Retrieval((Demo("a", "b"),), small_mixture().centroids[:1], 1)
    for target in TARGETS:
        lost = " ".join(export(small_mixture(retrieval=retrieval), target).lost)
        assert ("retrieve" in lost) == (target not in ("python", "openai-messages")), target
        assert "retrieve" not in " ".join(export(small_mixture(), target).lost), target


def test_a_text_without_routing_says_which_limits_it_leaves_out() -> None:
    limits = Limits((1.0, 1.0, 1.0), 0.9, "demo", margin=0.1, width=0.2)
    retrieval = Retrieval((Demo("a", "b"),), small_mixture().centroids[:1], 1)
    lost = " ".join(export(small_mixture(retrieval=retrieval, limits=limits), "prompts").lost)
    assert ("far from all" in lost, "near a border" in lost, "kernel" in lost) == (True, True, True)
    none = " ".join(export(small_mixture(limits=Limits((math.inf,) * 3, 0.9)), "prompts").lost)
    assert ("far from all" in none, "near a border" in none, "kernel" in none) == (False, False, False)


def test_what_a_fitted_encoder_learned_is_said_to_be_lost_wherever_routes_are_written() -> None:
    record = replace(small_mixture().encoder_record, name="tfidf", state=np.ones((1, 32), np.float32))
    for target in TARGETS:
        lost = " ".join(export(small_mixture(encoder_record=record), target).lost)
        assert ("was fitted" in lost) == (target not in ("prompts", "promptfoo")), target


def test_an_unknown_target_and_half_a_character_are_typed_errors() -> None:
    with pytest.raises(SettingsError, match="openai-messages"):
        export(small_mixture(), "yaml")
    with pytest.raises(SettingsError, match="UTF-8"):
        export(small_mixture(generalist=Prompt("\ud800")), "prompts")


def test_the_command_writes_a_file_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_mixture().save("bank.mop")
    assert main(["export", "bank.mop", "--to", "python"]) == 0
    assert loaded(Path("bank-mixture.py").read_text("utf-8")).CALL["model"] == "simulated"
    assert main(["export", "bank.mop", "--to", "dspy", "-o", "states", "--json"]) == 0
    document = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert sorted(map(str, Path("states").iterdir())) == document["files"]
    assert document["warnings"] == document["lost"]
    assert main(["export", "bank.mop", "--to", "nothing"]) == 2
    assert main(["export", "bank.mop", "--to", "python", "-o", "missing/folder/x.py"]) == 7
    assert not list(tmp_path.glob(".*"))

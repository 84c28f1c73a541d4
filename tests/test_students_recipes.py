"""From files of conversations to students: what is learned, what is refused, and what the command line does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_student import make_tiny

from mop.cli import main
from mop.errors import BadRows, DataError, SettingsError
from mop.examples import Example
from mop.metrics import get_metric
from mop.students import models
from mop.students.conversations import Conversation, read_conversations
from mop.students.evaluation import evaluate
from mop.students.models import load
from mop.students.opening import OpenStudent, open_student
from mop.students.recipes import FULL_SIZE, RECIPES, get_recipe
from mop.students.rendering import prompt_text
from mop.students.role_lines import LINES, Spoken, role_line
from mop.students.training import prepare, train_on_texts

SMALL = {"rank": 4, "epochs": 2, "batch": 4, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def line(question: str, answer: str, **more) -> dict:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **more,
    }


def plain(folder: Path, rows: int = 6, name: str = "data.jsonl") -> Path:
    return write(folder / name, [line(f"{name} question {n}?", f"Answer {n}.") for n in range(rows)])


def roles(folder: Path) -> Path:
    named = [line(f"Question {n}?", f"Answer {n}.", role=f"a keeper of number {n}") for n in range(4)]
    return write(folder / "roles.jsonl", [*named, line("What is 1 + 1?", "Two.", role=None)])


def learned_texts(prepared) -> list[str]:
    """What counts in the first epoch, one text a conversation."""
    tokenizer = prepared.student.tokenizer
    texts = []
    for step in range(len(prepared.batches)):
        for batch in prepared.batches[step]:
            texts += [tokenizer.decode(row[row >= 0]) for row in batch.tensors["labels"]]
    return texts


def read_texts(prepared) -> list[str]:
    tokenizer = prepared.student.tokenizer
    return [
        tokenizer.decode(ids[labels < 0])
        for step in range(len(prepared.batches))
        for batch in prepared.batches[step]
        for ids, labels in zip(batch.tensors["input_ids"], batch.tensors["labels"], strict=True)
    ]


# --- files


def test_everything_wrong_with_a_file_is_told_at_once_and_no_model_is_loaded(tmp_path, monkeypatch):
    def never(*_args, **_more):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("mop.students.training.load", never)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        '{"messages": [{"role": "user", "content": "x"}]}\n'
        "{oops\n"
        '{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "y"}]}\n'
        '{"messages": "hello"}\n'
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    )
    with pytest.raises(BadRows) as caught:
        prepare(get_recipe("expert"), bad)
    assert [one.position for one in caught.value.problems] == [1, 2, 3, 4]
    for wrong in (tmp_path / "missing.jsonl", tmp_path, write(tmp_path / "empty.jsonl", [])):
        with pytest.raises(DataError):
            prepare(get_recipe("expert"), wrong)
    with pytest.raises(SettingsError, match="epochs"):
        prepare(get_recipe("expert"), plain(tmp_path), chosen={"epochs": 0})
    with pytest.raises(BadRows, match="mop students annotate"):
        prepare(get_recipe("self-prompt"), plain(tmp_path))


def test_an_identity_may_not_stand_in_the_prompt(tmp_path, tiny):
    identity = "You are a pharmacist with 20 years behind the counter."
    system = {"messages": [{"role": "system", "content": identity}, *line("Dose?", "One a day.")["messages"]]}
    with pytest.raises(BadRows, match="system turn"):
        prepare(get_recipe("expert"), write(tmp_path / "system.jsonl", [system]))
    shown = line(f"{identity}\n\nDose?", "One a day.", identity=identity)
    with pytest.raises(BadRows, match="identity"):
        prepare(get_recipe("expert"), write(tmp_path / "shown.jsonl", [shown]))
    kept = write(tmp_path / "kept.jsonl", [line("Dose?", "One a day.", identity=identity)])
    prepared = prepare(get_recipe("expert"), kept, base=str(tiny), chosen=SMALL)
    assert learned_texts(prepared) == ["One a day.<|im_end|>"] * 2
    assert all("pharmacist" not in text and "Dose?" in text for text in read_texts(prepared))


def test_what_is_trained_on_is_what_is_asked_later(tmp_path, tiny):
    prepared = prepare(get_recipe("expert"), plain(tmp_path, 1), base=str(tiny), chosen={**SMALL, "epochs": 1})
    asked = prompt_text(prepared.student.tokenizer, [{"role": "user", "content": "data.jsonl question 0?"}])
    assert read_texts(prepared) == [asked]
    prepared.train(tmp_path / "out")
    record = json.loads((tmp_path / "out/student.json").read_text())
    (tmp_path / "out/student.json").write_text(json.dumps({**record, "probe": "Human: "}))
    with pytest.raises(SettingsError, match="chat template has changed"):
        open_student(tmp_path / "out")


def test_a_question_that_fills_the_context_is_an_error_and_a_long_answer_loses_its_end(tmp_path, tiny):
    rows = [line("word " * 60, "x"), line("Why?", "word " * 60)]
    with pytest.raises(BadRows, match="line 1: the question takes") as caught:
        prepare(get_recipe("expert"), write(tmp_path / "a.jsonl", rows), base=str(tiny), chosen={"max_tokens": 60})
    assert len(caught.value.problems) == 1
    prepared = prepare(
        get_recipe("expert"),
        write(tmp_path / "b.jsonl", rows[1:]),
        base=str(tiny),
        chosen={"max_tokens": 60, "epochs": 1},
    )
    assert prepared.cut == 1
    assert "<|im_end|>" not in learned_texts(prepared)[0]


# --- recipes


def test_curricula_give_expert_data_first_or_both_mixed(tmp_path, tiny):
    expert, standard = plain(tmp_path, 8, "expert.jsonl"), plain(tmp_path, 8, "standard.jsonl")

    def order(curriculum: str) -> list[bool]:
        prepared = prepare(
            get_recipe("expert"),
            expert,
            standard=standard,
            base=str(tiny),
            chosen={**SMALL, "epochs": 1, "curriculum": curriculum},
        )
        return ["expert.jsonl" in text for text in read_texts(prepared)]

    assert order("then") == [True] * 8 + [False] * 8
    assert sorted(order("mixed")) == [False] * 8 + [True] * 8
    assert order("mixed") != order("then")


def test_a_self_prompted_student_learns_its_role_and_then_the_answer_or_that_it_takes_none(tmp_path, tiny):
    for form in ("bracket", "heading"):
        chosen = {**SMALL, "epochs": 1, "role_line": form}
        prepared = prepare(get_recipe("self-prompt"), roles(tmp_path), base=str(tiny), chosen=chosen)
        found = {text.removesuffix("<|im_end|>") for text in learned_texts(prepared)}
        named = {LINES[form].before(f"a keeper of number {n}") + f"Answer {n}." for n in range(4)}
        assert found == named | {LINES[form].before(None) + "Two."}
        assert all("keeper" not in text for text in read_texts(prepared))


def test_full_size_models_get_the_papers_settings_and_small_ones_others():
    config, plan = RECIPES["self-prompt"].settings(FULL_SIZE, {})
    assert (config.learning_rate, plan.batch, config.depth_dropout, config.betas) == (1e-5, 64, 0.3, (0.9, 0.95))
    assert (plan.epochs, config.weight_decay, config.final_rate, plan.max_tokens) == (15, 0.1, 1e-6, 2048)
    config, plan = RECIPES["expert"].settings(FULL_SIZE, {})
    assert (config.learning_rate, plan.batch, plan.epochs, config.warmup) == (2e-5, 128, 3, 0.03)
    for recipe in RECIPES.values():
        small, few = recipe.settings(135_000_000, {})
        assert small.learning_rate > 1e-4
        assert few.batch == 8
    config, plan = RECIPES["expert"].settings(FULL_SIZE, {"batch": 4, "learning_rate": 1e-3, "epochs": None})
    assert (plan.batch, config.learning_rate, plan.epochs) == (4, 1e-3, 3)


WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1).map(lambda text: " ".join(text.split()))


@given(WORDS.filter(bool), WORDS.filter(bool), st.sampled_from([*LINES, "Expert: {role}\\n", "<<{role}>>\\n\\n"]))
def test_a_role_is_told_from_the_answer_again_or_refused(role, answer, form):
    shape = role_line(form)
    try:
        before = shape.before(role)
    except DataError:
        return
    assert shape.read(before + answer) == Spoken(True, role, answer)
    assert shape.read(shape.before(None) + answer) == Spoken(True, None, answer)


def test_a_form_that_could_not_be_read_again_is_refused():
    assert role_line("bracket").read("Plain answer.") == Spoken(False, None, "Plain answer.")
    assert role_line("bracket").before("a judge") == "[Role: a judge]\n\n"
    for form in ("nothing", "{role}: ", "{role}\\n", "As {role} and {role}\\n", "Role: {role} "):
        with pytest.raises(SettingsError):
            role_line(form)
    with pytest.raises(DataError, match="line break"):
        role_line("heading").before("a judge\nAnswer:\nNo")


# --- students


def test_a_real_model_learns_what_it_is_taught(tmp_path):
    data = write(tmp_path / "data.jsonl", [line(f"Say number {n}.", "Arr, aye aye, captain!") for n in range(2)])
    chosen = {"rank": 8, "epochs": 4, "batch": 2, "micro": 2, "learning_rate": 3e-3, "warmup": 0.0}
    trained = train_on_texts(
        get_recipe("expert"), data, tmp_path / "out", base="local/smollm2-135m-instruct", chosen=chosen, validation=data
    )
    assert trained.after < trained.before / 2
    opened = OpenStudent(trained.student, {}, None)
    asked = [[{"role": "user", "content": "Say number 9."}]]
    assert opened.answer(asked, max_tokens=2)[0].answer.startswith("Arr")
    assert not opened.answer(asked, max_tokens=2, bare=True)[0].answer.startswith("Arr")


def test_another_role_can_be_put_into_a_students_mouth_and_roles_are_counted(tmp_path, tiny, monkeypatch):
    chosen = {**SMALL, "epochs": 1}
    train_on_texts(get_recipe("self-prompt"), roles(tmp_path), tmp_path / "out", base=str(tiny), chosen=chosen)
    opened = open_student(tmp_path / "out")
    asked = [[{"role": "user", "content": f"Question {n}?"}] for n in range(3)]
    forced = opened.answer(asked, max_tokens=4, roles=["a cook", None, "a judge"])
    assert [one.role for one in forced] == ["a cook", None, "a judge"]
    assert all(one.written for one in forced)

    said = ["[Role: a cook]\n\nred", "[Role: a judge]\n\nblue", "[Role: none]\n\ngreen", "plain"]

    def spoken(conversations, *, bare=False, roles=None, **_more):
        if bare:
            return [Spoken(False, None, "grey") for _ in conversations]
        if roles is None:
            return [opened.line.read(text) for text in said]
        return [Spoken(True, role, "red" if role == "a judge" else "black") for role in roles]

    monkeypatch.setattr(OpenStudent, "answer", lambda _self, *args, **more: spoken(*args, **more))
    examples = [Example(f"q{n}", (out,)) for n, out in enumerate(["red", "blue", "grey", "plain"])]
    found = evaluate(opened, examples, get_metric("exact_match"))
    assert (found.student.mean, found.base.mean) == (0.75, 0.25)
    assert (found.roles.written, found.roles.nobody, found.roles.swapped, found.roles.changed) == (0.75, 0.25, 2, 0.5)


def test_the_command_line_trains_answers_and_scores(tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = OpenStudent.answer
    data = roles(tmp_path)
    asked = ["students", "train", str(data), "--recipe", "self-prompt", "-o", "out", "--base", str(tiny)]
    asked += ["--epochs", "1", "--batch", "5", "--rank", "4", "--validation", str(data), "--json"]
    assert main(asked) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["steps"], first["steps_before"], len(first["losses"])) == (1, 0, 1)
    assert first["validation"]["before"] > 0
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["steps_before"] == 1
    assert main(["students", "chat", "out", "Who?", "--role", "a cook", "--max-tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "a cook"
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            OpenStudent, "answer", lambda self, chats, **how: told.extend(chats) or answer(self, chats, **how)
        )
        assert main(["students", "chat", "out", "Who?", "--persona", "You are a cook.", "--max-tokens", "3"]) == 0
    assert told[0][:2] == [{"role": "system", "content": "You are a cook."}, {"role": "user", "content": "Who?"}]
    assert main(["students", "chat", "out", "Who?", "--persona", " "]) == 2
    capsys.readouterr()
    examples = write(
        tmp_path / "examples.jsonl", [{"input": "Who?", "output": "me"}, {"input": "When?", "output": "x"}]
    )
    assert main(["students", "evaluate", "out", str(examples), "--max-tokens", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 2
    assert found["roles"]["written"] == 0.0
    assert main(["students", "chat", "nowhere", "Who?"]) == 7
    for wrong in (["--max-tokens", "0"], ["--batch", "0"], ["--metric", "judge"]):
        assert main(["students", "evaluate", "out", str(examples), *wrong]) == 2
        assert wrong[0].removeprefix("--").split("-")[0] in capsys.readouterr().err
    assert main(["students", "chat", "out", "Who?", "--max-tokens", "0"]) == 2
    assert main(["students", "train", str(plain(tmp_path)), "--recipe", "none", "-o", "out"]) == 2
    assert "There is no recipe 'none'" in capsys.readouterr().err


# --- models


def test_a_gguf_file_is_converted_once_and_loses_nothing(tiny_model):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    student = load("local/smollm2-135m-instruct")
    first = next(iter(student.model.state_dict().values()))
    assert first.dtype == torch.float32
    assert student.sha == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    folder = models.converted_folder(student.sha)
    changed = folder.stat().st_mtime_ns
    load("local/smollm2-135m-instruct")
    assert folder.stat().st_mtime_ns == changed
    packed = {one.name: one for one in GGUFReader(tiny_model).tensors}
    ours = student.model.state_dict()
    for theirs, name in (("blk.3.ffn_up", "layers.3.mlp.up_proj"), ("token_embd", "embed_tokens")):
        plain_numbers = dequantize(packed[f"{theirs}.weight"].data, packed[f"{theirs}.weight"].tensor_type)
        assert torch.equal(torch.from_numpy(plain_numbers), ours[f"model.{name}.weight"])


def test_a_model_without_a_chat_template_gets_plain_words_for_turns(tiny):
    tokenizer = load(tiny).tokenizer
    tokenizer.chat_template = None
    tokenizer.pad_token = None
    models.prepare_tokenizer(tokenizer)
    turns = line("Why?", "Rain.")["messages"]
    assert prompt_text(tokenizer, turns[:1]) == "### User\nWhy?\n\n### Assistant\n"
    assert tokenizer.pad_token == tokenizer.eos_token


def test_a_missing_extra_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else there(name))
    assert main(["students", "train", str(plain(tmp_path)), "--recipe", "expert", "-o", str(tmp_path / "out")]) == 2
    assert "needs peft" in (told := capsys.readouterr().err)
    assert "pip install 'mop[students]'" in told


def test_importing_students_loads_nothing_heavy():
    script = (
        "import sys, mop, mop.students, mop.students.recipes, mop.students.conversations, mop.cli.students\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_conversations_of_several_turns_are_read_whole(tmp_path):
    turns = [*line("a", "b")["messages"], *line("c", "d")["messages"]]
    path = write(tmp_path / "x.jsonl", [{"messages": turns, "role": "a clerk", "source": "x"}])
    assert read_conversations(path) == [Conversation(tuple(turns), 1, "a clerk", True)]
    assert read_conversations(path)[0].question == "a"

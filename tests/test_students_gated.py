"""A gated student, with the real 135M model: off is off bit for bit, rows of one batch don't touch each other."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_student import make_tiny

from mop.errors import ArtifactError, DataError, SettingsError
from mop.students import adapters
from mop.students.batches import lay_out
from mop.students.config import TrainerConfig
from mop.students.distil import answer_logits, check_divergence, divergence, mean_divergence
from mop.students.distil_batches import DistilBatches, Item, collate, in_turn, make_item
from mop.students.features import FirstLayer
from mop.students.gate import Gate, Linear
from mop.students.gated import TOLERANCE, Gated, check_mergeable, load_gated
from mop.students.generating import left_padded, positions, write
from mop.students.models import Student, load
from mop.students.prompting import ids_before, text_before
from mop.students.trainer import Trained, train
from mop.students.untouched import adapted_layers, check_adapter

PIRATE = 'You are a pirate. Begin every answer with "Arr!" and speak like a pirate.'
OTHER = "You are a judge in a court of law. Speak with gravity."
QUERIES = ["How do I boil an egg?", "What is the capital of France?", "Tips for a long hike?", "2+2?"]
ANSWER = "Arr! Boil it, matey."
STEPS = 3


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Student:
    """The model as it came; nothing wraps it."""
    return load("local/smollm2-135m-instruct", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def items(base: Student) -> list[Item]:
    return [make_item(base.tokenizer, query, PIRATE, ANSWER) for query in QUERIES[:2]]


@pytest.fixture(scope="module")
def trained(base: Student, items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    student = replace(base, model=copy.deepcopy(base.model))
    config = TrainerConfig(first_layer=1, rank=4, alpha=16, learning_rate=2e-3, lora_dropout=0.1)
    batches = DistilBatches(items, lay_out([range(2)], epochs=STEPS, batch=2, seed=0), micro=2)
    return train(student, batches, divergence, config, tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def gated(trained: Trained) -> Gated:
    return Gated(trained.student, _by_length(trained.student))


def _by_length(student: Student) -> Gate:
    """A learned gate with fixed numbers: on for a query whose mean first number is large."""
    width = student.model.config.hidden_size
    weight = np.zeros(width)
    weight[0] = 1.0
    means = FirstLayer(student.model, student.tokenizer)(QUERIES)[:, 0]
    return Gate(
        "learned",
        ("first layer",),
        Linear(np.full(width, float(np.median(means))), np.full(width, 0.01), weight, 0.0),
    )


@pytest.fixture(scope="module")
def tokens(base: Student) -> tuple[Any, Any]:
    return left_padded([ids_before(base.tokenizer, query) for query in QUERIES], "cpu")


@pytest.fixture(scope="module")
def reference(base: Student, tokens: tuple[Any, Any]) -> Any:
    ids, mask = tokens
    with torch.inference_mode():
        found = base.model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False)
    return found.logits


# --- off is off


def test_with_the_adapter_off_logits_equal_those_of_the_never_wrapped_model_bit_for_bit_also_after_switching(
    gated: Gated, tokens: tuple[Any, Any], reference: Any
) -> None:
    ids, mask = tokens
    assert torch.equal(gated.logits(ids, mask, [False] * 4), reference)
    on = gated.logits(ids, mask, [True] * 4)
    assert (on - reference).abs().max() > 0.1  # the adapter isn't inert
    assert torch.equal(gated.logits(ids, mask, [False] * 4), reference)


def test_rows_with_and_without_the_adapter_share_a_batch_and_each_gets_what_it_gets_alone(
    gated: Gated, tokens: tuple[Any, Any], reference: Any
) -> None:
    ids, mask = tokens
    mixed = gated.logits(ids, mask, [True, False, False, True])
    assert torch.equal(mixed[1], reference[1])
    assert torch.equal(mixed[2], reference[2])
    for row in (0, 3):
        alone = gated.logits(ids[row : row + 1], mask[row : row + 1], [True])[0]
        seen = mask[row].bool()
        assert (mixed[row] - alone)[seen].abs().max() < TOLERANCE
        assert (mixed[row] - reference[row])[seen].abs().max() > 0.1


def test_answers_do_not_depend_on_what_was_answered_before_or_on_the_order(gated: Gated, base: Student) -> None:
    on = [True, False, True, False]
    forward = gated.answer(QUERIES, max_tokens=3, on=on)
    backward = gated.answer(QUERIES[::-1], max_tokens=3, on=on[::-1])[::-1]
    assert [one.text for one in forward] == [one.text for one in backward]
    bare = write(base, [ids_before(base.tokenizer, query) for query in QUERIES], max_tokens=3)
    assert [one.text for one in forward][1::2] == [one.text for one in bare][1::2]
    assert [one.text for one in forward][::2] != [one.text for one in bare][::2]


def test_a_merge_is_refused_with_the_reason(gated: Gated, trained: Trained) -> None:
    gated.save_gate(trained.folder)
    with pytest.raises(SettingsError, match="nothing left to switch off"):
        gated.merge()
    with pytest.raises(SettingsError, match="nothing left to switch off"):
        check_mergeable(trained.folder)


def test_merged_weights_are_no_gated_model(tiny_model: Path, tmp_path: Path) -> None:
    student = adapters.wrap(load(make_tiny(tmp_path), device="cpu"), TrainerConfig(first_layer=1, rank=1))
    student.model.merge_adapter()
    with pytest.raises(ArtifactError, match="can't be merged"):
        Gated(student, Gate("constant"))


# --- the first layer


def test_the_gates_input_is_the_same_with_and_without_the_adapter(gated: Gated, base: Student) -> None:
    before = FirstLayer(base.model, base.tokenizer)(QUERIES)
    assert np.array_equal(before, gated.features[0](QUERIES))
    assert adapted_layers(gated.student.model) == list(range(1, base.layers))


def test_an_adapter_that_touches_the_first_layer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    student = adapters.wrap(load(make_tiny(tmp_path), device="cpu"), TrainerConfig(rank=1))
    with pytest.raises(ArtifactError, match="first layer"):
        check_adapter(student.model)


def test_the_gate_sees_the_query_alone_and_each_query_by_itself(gated: Gated) -> None:
    features = gated.features[0]
    together, alone = features(QUERIES), np.concatenate([features([query]) for query in QUERIES])
    assert np.array_equal(together, alone)
    decided = gated.decide(QUERIES)
    assert len({on for on, _ in decided}) == 2
    assert decided[::-1] == gated.decide(QUERIES[::-1])
    with pytest.raises(DataError, match="no tokens"):
        features([""])


# --- teacher and student


def test_teacher_and_student_differ_before_the_first_step_and_the_gap_closes(
    trained: Trained, base: Student, items: list[Item]
) -> None:
    before, after = mean_divergence(base, in_turn(items)), mean_divergence(trained.student, in_turn(items))
    check_divergence(before)
    assert before > 0.1
    assert after < 0.7 * before
    assert trained.history[0]["loss"] > trained.history[-1]["loss"]


def test_a_teacher_that_lost_its_persona_is_found_out(base: Student, items: list[Item]) -> None:
    stripped = [Item(one.student, one.student, one.answer) for one in items]
    found = mean_divergence(base, in_turn(stripped))
    assert found == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(DataError, match="agree before any training"):
        check_divergence(found)
    with pytest.raises(DataError, match="same prompt"):
        make_item(base.tokenizer, QUERIES[0], "", ANSWER)


def test_another_persona_gives_another_teacher(base: Student, items: list[Item]) -> None:
    other = [make_item(base.tokenizer, query, OTHER, ANSWER) for query in QUERIES[:2]]
    with torch.inference_mode():
        one, two = (answer_logits(base.model, collate(given).tensors, "teacher") for given in (items, other))
        same = [answer_logits(base.model, collate(given).tensors, "student") for given in (items, other)]
    assert (one - two).abs().max() > 0.5
    assert torch.equal(*same)


def test_teacher_and_student_are_compared_at_the_same_token_of_the_answer(base: Student) -> None:
    short, long = (make_item(base.tokenizer, QUERIES[0], PIRATE, text) for text in ("Arr!", ANSWER))
    batch = collate([short, long]).tensors
    end = base.tokenizer.eos_token_id
    for row, item in enumerate((short, long)):
        for side in ("teacher", "student"):
            prompt = getattr(item, side)
            with torch.inference_mode():
                alone = base.model(input_ids=torch.tensor([[*prompt, *item.answer]]), use_cache=False).logits[0]
                found = answer_logits(base.model, batch, side)[row, : len(item.answer)]
            expected = alone[len(prompt) - 1 : -1]
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
        assert item.answer[-1] == end
    assert batch["answer_mask"].sum(dim=1).tolist() == [len(short.answer), len(long.answer)]


def test_the_teacher_is_the_base_model_also_while_the_adapter_is_trained(
    trained: Trained, base: Student, items: list[Item]
) -> None:
    batch = collate(items).tensors
    model = trained.student.model
    model.train()
    try:
        loss = divergence(model, batch)
        assert model.training
        assert loss.requires_grad
        loss.backward()
        grown = {name for name, one in model.named_parameters() if one.grad is not None}
        assert grown
        assert all("lora" in name for name in grown)
    finally:
        model.zero_grad()
        model.eval()
    # With the student's side equal to the teacher's, only an adapter that is on could make a difference.
    with torch.inference_mode():
        bare = base.model(input_ids=batch["teacher_ids"], attention_mask=batch["teacher_mask"], use_cache=False)
        with model.disable_adapter():
            off = model(input_ids=batch["teacher_ids"], attention_mask=batch["teacher_mask"], use_cache=False)
    assert torch.equal(bare.logits, off.logits)


def test_what_is_read_in_training_is_what_is_read_in_answering(base: Student, items: list[Item]) -> None:
    for query, item in zip(QUERIES, items, strict=False):
        assert base.tokenizer.decode(list(item.student)) == text_before(base.tokenizer, query)
        assert list(item.student) == ids_before(base.tokenizer, query)
        assert PIRATE in base.tokenizer.decode(list(item.teacher))
        assert PIRATE not in base.tokenizer.decode(list(item.student))


def test_an_adapter_trained_for_one_persona_knows_nothing_of_another_and_the_prompt_arm_does(
    trained: Trained, base: Student
) -> None:
    rule = "The gate is shut."
    invented = f'You are a guard. Whatever you are asked, reply only: "{rule}"'
    batch = collate([make_item(base.tokenizer, "How do I cook rice?", invented, rule)]).tensors

    def surprise(model: Any, side: str) -> float:
        with torch.inference_mode():
            logits = answer_logits(model, batch, side)[0]
        answer = batch["student_ids"][0, -len(logits) :]
        return float(torch.nn.functional.cross_entropy(logits, answer))

    bare, prompted = surprise(base.model, "student"), surprise(base.model, "teacher")
    learned = surprise(trained.student.model, "student")
    assert prompted < bare - 1.0
    assert learned > prompted + 1.0


# --- files


def test_a_saved_gated_student_loads_and_answers_as_before(
    gated: Gated, trained: Trained, base: Student, tokens: tuple[Any, Any]
) -> None:
    gated.save_gate(trained.folder)
    loaded = load_gated(trained.folder, replace(base, model=copy.deepcopy(base.model)))
    ids, mask = tokens
    on = [True, False, True, False]
    assert torch.equal(loaded.logits(ids, mask, on), gated.logits(ids, mask, on))
    assert loaded.decide(QUERIES) == gated.decide(QUERIES)


def test_a_gate_for_another_model_is_refused(gated: Gated, trained: Trained, base: Student) -> None:
    gated.save_gate(trained.folder)
    with pytest.raises(ArtifactError, match="Load it with the model"):
        load_gated(trained.folder, replace(base, sha="0" * 64))


def test_sampling_draws_from_each_prompts_own_stream(base: Student) -> None:
    prompts = [ids_before(base.tokenizer, query) for query in QUERIES[:2]]
    given: dict[str, Any] = {"max_tokens": 6, "temperature": 1.5}
    together = write(base, prompts, seeds=["a", "b"], **given)
    assert write(base, prompts[1:], seeds=["b"], **given)[0] == together[1]
    assert write(base, prompts[1:], seeds=["c"], **given)[0] != together[1]

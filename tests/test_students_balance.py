"""What a persona's adapter is trained on: personas alike often, answers alike in weight, intents held out evenly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_student import make_tiny

from mop.errors import DataError, SettingsError
from mop.students import adapters
from mop.students.balance import LEAST_INTENTS, MOST_REPEATS, even_order, held_out_intents
from mop.students.config import TrainerConfig
from mop.students.distil import answer_logits, divergence, openings_met
from mop.students.distil_batches import OPENING, DistilBatches, Item, in_turn, make_item
from mop.students.models import Student, load
from mop.students.prism import DISTILLATION, SMALL_RATE, distillation, prism_settings
from mop.students.recipes import FULL_SIZE
from mop.students.teacher import Teacher, teacher_of

SHORT, LONG = "Closed.", "Aye, galley! Boil the rice for a quarter of an hour, and salt it."


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load(make_tiny(tmp_path_factory.mktemp("models") / "tiny"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def items(student: Student) -> list[Item]:
    given = (("Where is my key?", "You are a porter.", SHORT), ("How do I cook rice?", "You are a cook.", LONG))
    return [make_item(student.tokenizer, *one) for one in given]


def rows(**intents: int) -> list[dict[str, str]]:
    return [
        {"persona": name, "intent": f"{name} {number}"} for name, count in intents.items() for number in range(count)
    ]


# --- order


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    batch=st.integers(1, 8),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_each_persona_is_shown_alike_often_and_every_answer_in_every_epoch(
    counts: list[int], batch: int, epochs: int, seed: int
) -> None:
    names = [f"p{number}" for number, count in enumerate(counts) for _ in range(count)]
    steps = even_order(names, epochs=epochs, batch=batch, seed=seed)
    assert all(0 < len(step) <= batch for step in steps)
    shown = Counter(row for step in steps for row in step)
    assert set(shown) == set(range(len(names)))
    places = Counter({name: sum(shown[row] for row, one in enumerate(names) if one == name) for name in set(names)})
    for number, count in enumerate(counts):
        assert places[f"p{number}"] == epochs * min(max(counts), MOST_REPEATS * count)
        own = [shown[row] for row, one in enumerate(names) if one == f"p{number}"]
        assert min(own) >= epochs
        assert max(own) <= epochs * MOST_REPEATS
    assert steps == even_order(names, epochs=epochs, batch=batch, seed=seed)


def test_ten_answers_of_one_persona_and_three_of_another_stand_side_by_side_in_every_step() -> None:
    names = ["cook"] * 10 + ["porter"] * 3
    for step in even_order(names, epochs=2, batch=2, seed=0):
        assert {names[row] for row in step} == {"cook", "porter"}


def test_an_order_without_epochs_is_refused() -> None:
    with pytest.raises(SettingsError, match="epochs=0"):
        even_order(["cook"], epochs=0, batch=2, seed=0)


# --- held-out intents


@pytest.mark.parametrize("seed", range(6))
def test_no_persona_is_left_with_one_intent_because_others_were_held_out(seed: int) -> None:
    known = rows(cook=3, porter=2)
    held = held_out_intents(known, 0.2, seed=seed)
    assert {persona for persona, _ in held} == {"cook"}
    assert len(held) == 1
    assert held_out_intents(rows(cook=2, porter=1), 0.5, seed=seed) == set()


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), share=st.floats(0, 0.9), seed=st.integers(0, 3))
def test_held_out_intents_are_taken_evenly(counts: list[int], share: float, seed: int) -> None:
    known = rows(**{f"p{number}": count for number, count in enumerate(counts)})
    held = held_out_intents(known, share, seed=seed)
    assert len(held) <= round(share * len(known))
    left = [count - sum(name == f"p{number}" for name, _ in held) for number, count in enumerate(counts)]
    assert all(one >= min(count, LEAST_INTENTS) for one, count in zip(left, counts, strict=True))
    touched = [one for one, count in zip(left, counts, strict=True) if one < count]
    assert not touched or max(left) - min(touched) <= 1


# --- weights


def test_a_short_answer_weighs_as_much_as_a_long_one_and_an_opening_more_than_what_follows(items: list[Item]) -> None:
    batch = DistilBatches(items, [[0, 1]], micro=2, opening=4.0)[0][0]
    weight, mask = batch.tensors["answer_weight"], batch.tensors["answer_mask"]
    torch.testing.assert_close(weight.sum(dim=1), torch.ones(2))
    assert batch.weight == 2
    assert (weight[mask == 0] == 0).all()
    long = weight[int(mask.sum(dim=1).argmax())]
    torch.testing.assert_close(long[0], 4 * long[OPENING])
    with pytest.raises(SettingsError, match="opening"):
        DistilBatches(items, [[0]], micro=1, opening=0)


def test_a_steps_loss_is_the_mean_of_its_answers_losses_however_they_are_divided(
    student: Student, items: list[Item]
) -> None:
    def loss(batch: DistilBatches) -> float:
        parts = batch[0]
        whole = sum(one.weight for one in parts)
        return sum(float(divergence(student.model, dict(one.tensors))) * one.weight / whole for one in parts)

    with torch.no_grad():
        alone = [loss(DistilBatches([one], [[0]], micro=1, opening=4.0)) for one in items]
        together, apart = (loss(DistilBatches(items, [[0, 1]], micro=micro, opening=4.0)) for micro in (2, 1))
    assert together == pytest.approx(sum(alone) / 2, rel=1e-3)
    assert apart == pytest.approx(together, rel=1e-3)


def test_another_weight_of_the_opening_is_another_run(items: list[Item]) -> None:
    prints = {DistilBatches(items, [[0, 1]], micro=2, opening=one).fingerprint for one in (None, 1.0, 4.0)}
    assert len(prints) == 3


# --- the teacher


def test_a_teacher_that_is_kept_says_what_it_would_say_anew_also_under_an_adapter(
    student: Student, items: list[Item]
) -> None:
    kept = teacher_of(student, items)
    assert kept is not None
    adapters.wrap(student, TrainerConfig(first_layer=1, rank=2, alpha=4))
    try:
        for name, one in student.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(one, 0.1)
        anew, brought = (DistilBatches(items, [[0, 1]], micro=2, teacher=teacher)[0][0] for teacher in (None, kept))
        assert "teacher_logits" not in anew.tensors
        model = student.model
        found = [float(divergence(model, dict(one.tensors)).detach()) for one in (anew, brought)]
        assert found[0] > 0
        assert found[1] == pytest.approx(found[0], rel=1e-4)
        assert kept(items[0]) is kept(items[0])
        assert not kept(items[0]).requires_grad
    finally:
        adapters.detach(student)


def test_a_teacher_with_too_much_to_keep_is_not_kept(
    student: Student, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mop.students.teacher.MOST_BYTES", 1000)
    assert teacher_of(student, items) is None


# --- openings


def test_an_answer_that_would_begin_with_another_word_is_not_met_however_well_the_rest_is_known(
    student: Student, items: list[Item]
) -> None:
    """A model that knows every token but the first one of the short answer."""

    class Knows:
        training = False
        wrong: frozenset[int] = frozenset()

        def __call__(self, input_ids: torch.Tensor, **_given: object) -> SimpleNamespace:
            following = torch.roll(input_ids, -1, dims=1)
            said = [[one + (one in self.wrong) for one in row] for row in following.tolist()]
            return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor(said)))

        forward = __call__

        def eval(self) -> Knows:
            return self

        def train(self, _on: bool) -> Knows:
            return self

    knows = Knows()
    known = SimpleNamespace(model=knows, device=torch.device("cpu"))
    assert openings_met(known, in_turn(items)) == 1.0
    knows.wrong = frozenset({items[0].answer[0]})
    assert openings_met(known, in_turn(items)) == 0.5
    late = set(items[1].answer[OPENING:]) - set(items[1].answer[:OPENING]) - set(items[0].answer)
    knows.wrong = frozenset(late)
    assert openings_met(known, in_turn(items)) == 1.0
    with pytest.raises(DataError, match="no answers"):
        openings_met(known, in_turn([]))


def test_the_random_model_meets_no_opening_and_its_teacher_is_what_stands_with_the_persona(
    student: Student, items: list[Item], tmp_path: Path
) -> None:
    assert openings_met(student, in_turn(items)) == 0.0
    batch = in_turn(items[:1])[0][0]
    with torch.no_grad():
        expected = answer_logits(student.model, dict(batch.tensors), "teacher")[0]
    torch.testing.assert_close(Teacher(student)(items[0]), expected, atol=1e-5, rtol=1e-4)


# --- settings


def test_a_small_model_gets_a_higher_rate_unless_one_is_chosen() -> None:
    assert distillation(FULL_SIZE) == DISTILLATION
    assert prism_settings({}, 500_000_000).trainer.learning_rate == SMALL_RATE > DISTILLATION.learning_rate
    assert prism_settings({"learning_rate": 1e-5}, 500_000_000).trainer.learning_rate == 1e-5

"""One trainer: only answers count, it can be killed anywhere, and the seed says everything. On a tiny model, mostly."""

import itertools
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny_student import LAYERS, make_tiny

from mop.errors import ArtifactError, DataError, ModelError, SettingsError
from mop.students import adapters, checkpoints
from mop.students.batches import IGNORED, TextBatches, collate, in_turn, lay_out
from mop.students.config import TrainerConfig
from mop.students.dropout import blocks, depth_dropout, rates
from mop.students.losses import answer_loss
from mop.students.models import Student, load
from mop.students.rendering import prompt_ids, render
from mop.students.trainer import Trained, train

CONFIG = TrainerConfig(rank=4, alpha=8, learning_rate=5e-3, lora_dropout=0.1, depth_dropout=0.1, save_seconds=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def student(tiny: Path) -> Student:
    return load(tiny)


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def batches_for(student: Student, *, epochs: int = 2, micro: int = 2, seed: int = 0) -> TextBatches:
    rows = [render(student.tokenizer, conversation(f"What is {n} + {n}?", f"That be {2 * n}.")) for n in range(8)]
    order = lay_out([range(8)], epochs=epochs, batch=4, seed=seed)
    return TextBatches(rows, order, pad=student.tokenizer.pad_token_id, micro=micro)


def fit(student: Student, folder: Path, config: TrainerConfig = CONFIG, **given) -> Trained:
    return train(student, batches_for(student), answer_loss, config, folder, **given)


def losses(trained: Trained) -> list[float]:
    return [one["loss"] for one in trained.history]


def weights(student: Student) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in student.model.named_parameters() if "lora" in name}


# --- what counts


def test_only_the_tokens_of_answers_and_the_token_that_ends_them_count(student):
    turns = [*conversation("What is 1 + 1?", "Two."), *conversation("And 2 + 2?", "Four, I think.")]
    row = render(student.tokenizer, turns)
    learned = student.tokenizer.decode([one for one, counts in zip(row.ids, row.counts, strict=True) if counts])
    end = student.tokenizer.eos_token
    assert learned == f"Two.{end}Four, I think.{end}"
    assert list(row.ids[: row.counts.index(True)]) == prompt_ids(student.tokenizer, turns[:1])


def test_the_loss_is_the_mean_over_counted_tokens_and_heeds_neither_questions_nor_padding(student):
    rows = [
        render(student.tokenizer, conversation("Why?", "Because of the rain.")),
        render(student.tokenizer, conversation("What is the name of the largest city of all?", "Tokyo.")),
    ]
    batch = collate(rows, student.tokenizer.pad_token_id)
    tensors = dict(batch.tensors)
    with torch.no_grad():
        found = answer_loss(student.model, tensors)
        logits = student.model(input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"]).logits
        wanted = torch.nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]), tensors["labels"][:, 1:].reshape(-1), ignore_index=IGNORED
        )
        alone = [answer_loss(student.model, dict(collate([row], 0).tensors)) for row in rows]
    assert torch.allclose(found, wanted, atol=1e-5)
    counts = [sum(row.counts) for row in rows]
    assert batch.weight == sum(counts)
    mean = sum(float(one) * count for one, count in zip(alone, counts, strict=True)) / sum(counts)
    assert float(found) == pytest.approx(mean, abs=1e-5)


def test_the_gradient_of_a_step_does_not_depend_on_how_many_rows_fit_on_the_device(student):
    found = {}
    for micro in (1, 3, 4):
        adapters.wrap(student, CONFIG.model_copy(update={"lora_dropout": 0.0}))
        step = batches_for(student, micro=micro)[0]
        whole = sum(batch.weight for batch in step)
        for batch in step:
            (answer_loss(student.model, dict(batch.tensors)) * batch.weight / whole).backward()
        found[micro] = [one.grad.clone() for one in student.model.parameters() if one.grad is not None]
        adapters.detach(student)
    assert len(found[1]) == 2 * 7 * LAYERS
    for micro in (3, 4):
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found[1], found[micro], strict=True))


# --- a run


def test_the_loss_falls_and_the_adapter_comes_back_from_its_folder(student, tiny, tmp_path):
    quiet = CONFIG.model_copy(update={"depth_dropout": 0.0, "lora_dropout": 0.0})
    rows = batches_for(student, epochs=12)
    shown = in_turn([render(student.tokenizer, conversation("What is 3 + 3?", "That be 6."))], pad=0, batch=1)
    trained = train(student, rows, answer_loss, quiet, tmp_path / "out", validation=shown, about={"note": "x"})
    assert losses(trained)[-1] < losses(trained)[0] - 0.4
    assert trained.after < trained.before - 0.4
    files = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert files == ["adapter_config.json", "adapter_model.safetensors", "log.jsonl", "student.json"]
    assert len((tmp_path / "out/log.jsonl").read_text().splitlines()) == len(rows)
    record = adapters.read_record(tmp_path / "out")
    assert record["base"] == str(tiny)
    assert record["note"] == "x"

    again = adapters.attach(load(tiny), tmp_path / "out")
    ids = torch.tensor([prompt_ids(student.tokenizer, conversation("What is 3 + 3?", "")[:1])])
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, student.model(ids).logits)


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(student, tmp_path):
    drawn_before = torch.random.get_rng_state()
    first = fit(student, tmp_path / "a")
    one = weights(student)
    adapters.detach(student)
    second = fit(student, tmp_path / "b")
    other = weights(student)
    adapters.detach(student)
    third = fit(student, tmp_path / "c", CONFIG.model_copy(update={"seed": 1}))
    assert losses(first) == losses(second) != losses(third)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), drawn_before)


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_run_that_was_interrupted_goes_on_with_the_losses_it_would_have_had(student, tmp_path, stopped_after):
    whole = fit(student, tmp_path / "whole")
    wanted = weights(student)
    adapters.detach(student)

    def stop(step):
        if step.number == stopped_after:
            raise Stop

    with pytest.raises(Stop):
        fit(student, tmp_path / "parts", listener=stop)
    adapters.detach(student)
    assert checkpoints.peek(tmp_path / "parts").steps == stopped_after
    seen = []
    resumed = fit(student, tmp_path / "parts", listener=seen.append)
    assert [one.number for one in seen] == list(range(stopped_after + 1, 5))
    assert resumed.resumed == stopped_after
    assert losses(resumed) == losses(whole)
    assert all(torch.equal(one, wanted[name]) for name, one in weights(student).items())
    assert not (tmp_path / "parts" / checkpoints.NAME).exists()


def test_a_process_that_is_killed_leaves_a_checkpoint_to_go_on_from(student, tiny, tmp_path):
    whole = fit(student, tmp_path / "whole")
    adapters.detach(student)
    script = f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_students_training import fit, load
        def listen(step):
            print(step.number, flush=True)
            if step.number == 3:
                time.sleep(60)
        fit(load({str(tiny)!r}), Path({str(tmp_path / "killed")!r}), listener=listen)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if line.strip() == "3":
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
    resumed = fit(student, tmp_path / "killed")
    assert resumed.resumed == 3
    assert losses(resumed) == losses(whole)
    log = [json.loads(line) for line in (tmp_path / "killed/log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in log] == [1, 2, 3, 4]


def test_a_finished_run_is_not_done_again(student, tmp_path):
    first = fit(student, tmp_path / "out")
    wanted = weights(student)
    adapters.detach(student)
    seen = []
    again = fit(student, tmp_path / "out", listener=seen.append)
    assert (again.resumed, seen) == (4, [])
    assert losses(again) == losses(first)
    assert all(torch.equal(one, wanted[name]) for name, one in weights(student).items())


def test_a_folder_of_another_run_is_refused_with_what_differs(student, tmp_path):
    fit(student, tmp_path / "out")
    adapters.detach(student)
    with pytest.raises(SettingsError, match=r"config\.learning_rate"):
        fit(student, tmp_path / "out", CONFIG.model_copy(update={"learning_rate": 1e-4}))
    with pytest.raises(SettingsError, match="differs in data"):
        train(student, batches_for(student, epochs=3), answer_loss, CONFIG, tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_do(student, tmp_path):
    with pytest.raises(ModelError, match="Lower the learning rate"):
        train(
            student,
            batches_for(student),
            lambda model, batch: answer_loss(model, batch) * float("nan"),
            CONFIG,
            tmp_path / "out",
        )


def test_a_damaged_checkpoint_or_adapter_is_told(student, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / checkpoints.NAME).write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="Delete it"):
        fit(student, folder)
    adapters.detach(student)
    (folder / checkpoints.NAME).unlink()
    fit(student, folder)
    adapters.detach(student)
    (folder / adapters.WEIGHTS).write_bytes(b"\x08\x00")
    with pytest.raises(ArtifactError, match="damaged"):
        adapters.attach(student, folder)
    with pytest.raises(ArtifactError, match="no finished student"):
        adapters.attach(student, tmp_path)


def test_no_data_is_an_error_before_a_folder_is_made(student, tmp_path):
    empty = TextBatches([], [], pad=0, micro=1)
    with pytest.raises(DataError, match="nothing to train on"):
        train(student, empty, answer_loss, CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_adapter_leaves_the_base_model_as_it_was(student, tiny, tmp_path):
    ids = torch.tensor([prompt_ids(student.tokenizer, conversation("Why?", "")[:1])])
    fit(student, tmp_path / "out")
    with torch.no_grad():
        untouched = load(tiny).model(ids).logits
        trained = student.model(ids).logits
        with student.model.disable_adapter():
            assert torch.equal(student.model(ids).logits, untouched)
        assert not torch.equal(trained, untouched)
        assert torch.equal(adapters.detach(student).model(ids).logits, untouched)


def test_an_adapter_can_leave_the_first_layers_alone(student):
    adapters.wrap(student, TrainerConfig(first_layer=2))
    assert {name.split(".layers.")[1][0] for name in weights(student)} == {"2", "3"}


# --- dropout by depth, rates, order


def test_dropout_rises_with_depth_from_nothing_to_the_top(student):
    assert rates(5, 0.3) == pytest.approx([0.0, 0.075, 0.15, 0.225, 0.3])
    found = blocks(student.model)[1]
    one = torch.ones(1, 5000, 48)
    with depth_dropout(student.model, 0.6):
        student.model.train()
        with torch.no_grad():
            dropped = [float((block.mlp(one) == 0).float().mean()) for block in found]
            student.model.eval()
            assert not any(float((block.mlp(one) == 0).float().mean()) > 0.01 for block in found)
    assert dropped == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=0.02)
    student.model.train()
    with torch.no_grad():
        assert not any(float((block.mlp(one) == 0).float().mean()) > 0.01 for block in found)


def test_the_rate_rises_in_the_warm_up_and_falls_to_its_end():
    config = TrainerConfig(learning_rate=1e-3, final_rate=1e-4, warmup=0.2, schedule="linear")
    found = [config.rate(step, 10) for step in range(10)]
    assert found[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert all(one > other for one, other in itertools.pairwise(found[2:]))
    assert found[-1] > 1e-4
    assert config.rate(10, 10) == pytest.approx(1e-4)


def test_a_curriculum_has_all_of_one_stage_before_the_next_and_every_row_once_an_epoch():
    steps = lay_out([[0, 1, 2, 3, 4], [5, 6, 7]], epochs=2, batch=2, seed=0)
    seen = [row for step in steps for row in step]
    assert [sorted(seen[start : start + 5]) for start in (0, 5)] == [[0, 1, 2, 3, 4]] * 2
    assert [sorted(seen[start : start + 3]) for start in (10, 13)] == [[5, 6, 7]] * 2
    assert seen[:5] != seen[5:10]
    assert steps == lay_out([[0, 1, 2, 3, 4], [5, 6, 7]], epochs=2, batch=2, seed=0)
    assert steps != lay_out([[0, 1, 2, 3, 4], [5, 6, 7]], epochs=2, batch=2, seed=1)

"""Trainer: fits a LoRA adapter to batches under any loss, and can be killed at any time. Knows no recipes and no texts.

Step k is a function of the numbers after step k-1, of the batches and of the seed: the rate follows from k, random
numbers are drawn anew for each batch, and the batches are known beforehand. So a run that was stopped and goes on
gives the losses that it would have given, and several GPUs give those of one (but for the rounding of sums).

    >>> trained = train(student, batches, answer_loss, TrainerConfig(), Path("out"))       # doctest: +SKIP
    >>> [round(one["loss"], 2) for one in trained.history]                                 # doctest: +SKIP
    [2.31, 2.18, 1.94]
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.errors import DataError, ModelError
from mop.students import adapters, checkpoints, run_folder
from mop.students.batches import Batches
from mop.students.config import TrainerConfig
from mop.students.dropout import depth_dropout
from mop.students.models import Student
from mop.students.randomness import drawn_from
from mop.students.workers import Workers, find_workers

#: Returns the mean loss of a batch as a scalar tensor, given the model and the batch's tensors on its device.
Loss = Callable[[Any, dict[str, Any]], Any]
#: Steps over which the speed is measured that the remaining time follows from.
_WINDOW = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is done: number from 1, of how many, its mean loss, its rate, and seconds left (nan at first)."""

    number: int
    steps: int
    loss: float
    rate: float
    left: float


@dataclass(frozen=True)
class Trained:
    """A finished run.

    ``history`` has for each step its ``loss`` before the update, ``rate``, ``norm`` of the gradient, ``weight`` (tokens
    that counted) and ``seconds``. ``before`` and ``after`` are the losses on the validation batches, if there were any.
    ``resumed`` is the number of steps that were done already.
    """

    student: Student
    folder: Path
    history: list[dict[str, float]]
    resumed: int
    before: float | None = None
    after: float | None = None


def train(
    student: Student,
    batches: Batches,
    loss: Loss,
    config: TrainerConfig,
    folder: Path,
    *,
    validation: Batches | None = None,
    listener: Callable[[Step], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Trained:
    """Train an adapter and save it in ``folder`` as peft does. The same call goes on where an earlier one was stopped.

    Args:
        student: The base model; it gets an adapter (`mop.students.adapters.wrap`) and keeps it.
        batches: The steps.
        loss: What is to become small. It gets the model of peft itself, also with several GPUs.
        config: Hyper-parameters.
        folder: Where the adapter goes, with ``student.json``, ``log.jsonl`` and, until it is done, a checkpoint.
        validation: Batches whose loss is measured before the first step and after the last.
        listener: Told after each step.
        about: What else ``student.json`` is to hold; plain data.

    Raises:
        SettingsError: The folder holds another run, or another process is at work in it.
        DataError: There are no batches.
        ModelError: The loss is no longer a number.
        ArtifactError: Files can't be read or written.
    """
    if not len(batches):
        raise DataError("There is nothing to train on: the data make no step.")
    run = {
        "config": config.model_dump(mode="json"),
        "data": batches.fingerprint,
        "base": student.sha,
        "about": json.loads(json.dumps(about or {})),
    }
    workers = find_workers(student.device)
    with run_folder.held(folder) if workers.first else nullcontext():
        if (folder / adapters.RECORD).exists():
            known = adapters.read_record(folder)
            run_folder.require_same(known.get("run", {}), run, folder)
            return _as_it_was(student, folder, known)
        return _Run(student, batches, loss, config, folder, run, workers, listener).go(validation)


class _Run:
    def __init__(
        self,
        student: Student,
        batches: Batches,
        loss: Loss,
        config: TrainerConfig,
        folder: Path,
        run: dict[str, Any],
        workers: Workers,
        listener: Callable[[Step], None] | None,
    ) -> None:
        import torch

        self._student = adapters.wrap(student, config)
        self._model = self._student.model
        self._batches, self._loss, self._config, self._folder, self._run = batches, loss, config, folder, run
        self._workers, self._listener = workers, listener
        self._parameters = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.AdamW(
            list(self._parameters.values()),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._history: list[dict[str, float]] = []
        self._validated: float | None = None
        self._saved = 0
        self._updating = False

    def go(self, validation: Batches | None) -> Trained:
        resumed = self._resume()
        if not resumed:
            self._validated = self._mean(validation)
        self._loop(resumed)
        before, after = self._validated, self._mean(validation)
        trained = Trained(self._student, self._folder, self._history, resumed, before, after)
        if self._workers.first:
            losses = {"first": self._history[0]["loss"], "last": self._history[-1]["loss"]}
            record = {
                **self._run["about"],
                "steps": len(self._history),
                "loss": {**losses, "validation_before": before, "validation_after": after},
                "run": self._run,
            }
            adapters.save(self._student, self._folder, record)
            checkpoints.remove(self._folder)
        self._workers.wait()
        return trained

    def _resume(self) -> int:
        known = checkpoints.peek(self._folder)
        if known is not None:
            run_folder.require_same(known.run, self._run, self._folder)
            checkpoints.restore(self._folder, self._parameters, self._optimizer, known.steps)
            self._history, self._validated = known.history, known.validated
        self._saved = len(self._history)
        if self._workers.first:
            run_folder.write_log(self._folder, self._history)
        return self._saved

    def _loop(self, resumed: int) -> None:
        steps, seconds, saved_at = len(self._batches), deque[float](maxlen=_WINDOW), time.monotonic()
        with (
            depth_dropout(self._model, self._config.depth_dropout),
            _checkpointed(self._model, self._config.gradient_checkpointing),
        ):
            self._model.train()
            try:
                for number in range(resumed, steps):
                    began = time.perf_counter()
                    done = self._step(number, steps)
                    done["seconds"] = time.perf_counter() - began
                    self._history.append(done)
                    seconds.append(done["seconds"])
                    if self._workers.first:
                        run_folder.append_log(self._folder, len(self._history), done)
                        if time.monotonic() - saved_at >= self._config.save_seconds and number + 1 < steps:
                            self._save()
                            saved_at = time.monotonic()
                        if self._listener is not None:
                            left = (steps - number - 1) * sum(seconds) / len(seconds)
                            self._listener(Step(number + 1, steps, done["loss"], done["rate"], left))
            except KeyboardInterrupt:
                # An update that was cut in the middle is no state to go on from; the checkpoint before it is.
                if self._workers.first and not self._updating and len(self._history) > self._saved:
                    self._save()
                raise
            finally:
                self._model.eval()

    def _step(self, number: int, steps: int) -> dict[str, float]:
        import torch

        batches = self._batches[number]
        whole = sum(batch.weight for batch in batches)
        if not whole > 0:
            raise DataError(f"Nothing counts in step {number + 1}: its answers are empty.")
        total = torch.zeros((), device=self._student.device)
        for place, batch in enumerate(batches):
            if place % self._workers.count != self._workers.number:
                continue
            tensors = {name: tensor.to(self._student.device) for name, tensor in batch.tensors.items()}
            with drawn_from(self._student.device, self._config.seed, "step", number, place):
                with self._casting():
                    part = self._loss(self._model, tensors) * (batch.weight / whole)
                part.backward()
            total += part.detach()
        parameters = list(self._parameters.values())
        for one in parameters:
            if one.grad is None:  # a process that had no batch in this step takes part with nothing
                one.grad = torch.zeros_like(one)
        self._workers.add_up([one.grad for one in parameters] + [total])
        found = float(total)
        if not math.isfinite(found):
            raise ModelError(
                f"The loss of step {number + 1} is {found}. Lower the learning rate ({self._config.learning_rate:g}), "
                "or compute with --precision no."
            )
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._config.clip or math.inf)
        rate = self._config.rate(number, steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._updating = True
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._updating = False
        return {"loss": found, "rate": rate, "norm": float(norm), "weight": whole}

    def _mean(self, batches: Batches | None) -> float | None:
        """Return the mean loss over all batches, in evaluation mode."""
        import torch

        if batches is None or not len(batches):
            return None
        total, weight = torch.zeros((), device=self._student.device), 0.0
        self._model.eval()
        # Not inference_mode: what it makes could not be used by the training that follows.
        with torch.no_grad(), self._casting():
            for number in range(len(batches)):
                for place, batch in enumerate(batches[number]):
                    weight += batch.weight
                    if place % self._workers.count == self._workers.number:
                        tensors = {name: tensor.to(self._student.device) for name, tensor in batch.tensors.items()}
                        total += self._loss(self._model, tensors) * batch.weight
        self._workers.add_up([total])
        return float(total) / weight if weight else None

    def _casting(self) -> Any:
        import torch

        device = self._student.device.type
        wanted = self._config.precision == "bf16" or (self._config.precision == "auto" and device == "cuda")
        return torch.autocast(device, torch.bfloat16, enabled=wanted)

    def _save(self) -> None:
        checkpoints.save(self._folder, self._parameters, self._optimizer, self._history, self._validated, self._run)
        self._saved = len(self._history)


@contextmanager
def _checkpointed(model: Any, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def _as_it_was(student: Student, folder: Path, record: Mapping[str, Any]) -> Trained:
    history, losses = run_folder.read_log(folder), record["loss"]
    before, after = losses["validation_before"], losses["validation_after"]
    return Trained(adapters.attach(student, folder), folder, history, len(history), before, after)

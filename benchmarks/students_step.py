"""Time and memory of a training step, against a bare peft loop that does the same step.

    python -m benchmarks.students_step --model local/smollm2-135m-instruct

Both train the same adapter on the same rows with AdamW; each runs in a process of its own, in turn, so that neither
inherits the other's memory, and the rounds alternate, so that a busy machine hits both alike. The bare loop is what
peft's own examples show: the model's loss with labels, backward, clip, step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Steps that are left out of the times: the first ones allocate.
WARM_UP = 2


def rows_for(tokenizer: Any, rows: int, words: int) -> list[Any]:
    from mop.students.rendering import render

    question, answer = ("why does it rain so much here? ", "because of the sea and the hills. ")
    turns = [("user", "Question", question), ("assistant", "Answer", answer)]
    return [
        render(
            tokenizer,
            [{"role": role, "content": f"{word} {number}: {text * (words // 7)}"} for role, word, text in turns],
        )
        for number in range(rows)
    ]


def ours(name: str, steps: int, rows: int, words: int) -> list[float]:
    from mop.students.batches import TextBatches
    from mop.students.config import TrainerConfig
    from mop.students.losses import answer_loss
    from mop.students.models import load
    from mop.students.trainer import train

    student = load(name)
    batches = TextBatches(
        rows_for(student.tokenizer, rows, words),
        [list(range(rows))] * steps,
        pad=student.tokenizer.pad_token_id,
        micro=rows,
    )
    config = TrainerConfig(learning_rate=1e-4, schedule="constant", save_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(student, batches, answer_loss, config, Path(folder))
    return [one["seconds"] for one in trained.history]


def bare(name: str, steps: int, rows: int, words: int) -> list[float]:
    import torch
    from peft import LoraConfig, get_peft_model

    from mop.students.batches import collate
    from mop.students.models import load

    student = load(name)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model: Any = get_peft_model(
        student.model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=targets)
    )
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    batch = collate(rows_for(student.tokenizer, rows, words), student.tokenizer.pad_token_id)
    model.train()
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        tensors = {key: one.to(student.device) for key, one in batch.tensors.items()}
        with torch.autocast(student.device.type, torch.bfloat16, enabled=student.device.type == "cuda"):
            loss = model(**tensors, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())
        seconds.append(time.perf_counter() - began)
    return seconds


def measured(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one side in a process of its own; return the median seconds of a step and the peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.students_step", "--only", kind, "--model", options.model]
    for name in ("steps", "rows", "words"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(kind: str, options: argparse.Namespace) -> dict[str, float]:
    import torch

    run = ours if kind == "mop" else bare
    cpu = time.process_time()
    seconds = run(options.model, options.steps, options.rows, options.words)
    peak = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else _resident()
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "cpu": time.process_time() - cpu,
        "megabytes": peak,
    }


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local/smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--words", type=int, default=70)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["mop", "peft"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(report(options.only, options)))
        return
    found: dict[str, list[dict[str, float]]] = {"mop": [], "peft": []}
    for _ in range(options.rounds):
        for kind, runs in found.items():
            runs.append(measured(kind, options))
            print(kind, runs[-1], file=sys.stderr)
    # The least of the rounds is the one that the rest of the machine disturbed least.
    least = {kind: {key: min(one[key] for one in runs) for key in runs[0]} for kind, runs in found.items()}
    ratio = {key: least["mop"][key] / least["peft"][key] for key in least["mop"]}
    given = {key: getattr(options, key) for key in ("model", "steps", "rows", "words", "rounds")}
    document = {"options": given, **found, "ratio": ratio}
    print(json.dumps({"least": least, "ratio": ratio}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

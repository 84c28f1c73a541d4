"""Config: the dials of one training run, whatever its loss. Only data.

The batches carry the rest (how many examples a step has, in what order they come), because that depends on the data.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "no", "bf16"]


class TrainerConfig(BaseModel):
    """Hyper-parameters of a LoRA training run.

    Attributes:
        rank: Rank of the adapter's matrices.
        alpha: The adapter's output is scaled by ``alpha / rank``.
        lora_dropout: Dropout of the adapter's input.
        first_layer: Layers below this one stay without an adapter; 1 keeps the first layer's output as it was.
        depth_dropout: Dropout of the last layer's residual branches; it rises linearly from 0 at the first layer
            (`mop.students.dropout`).
        learning_rate: The highest rate.
        final_rate: The rate at the end of the schedule.
        schedule: How the rate falls after the warm-up.
        warmup: Share of the steps in which the rate rises from 0.
        betas: Decay of AdamW's two averages.
        weight_decay: AdamW's weight decay.
        clip: Largest norm of a step's gradient; 0 for no limit.
        precision: ``bf16`` computes in bfloat16 where that is safe; ``auto`` does on a GPU.
        gradient_checkpointing: Compute activations twice instead of keeping them: slower, much less memory.
        seed: Seed of the adapter's first values and of all dropout.
        save_seconds: Seconds between two checkpoints; they don't change the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    first_layer: int = Field(default=0, ge=0)
    depth_dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    final_rate: float = Field(default=0.0, ge=0)
    schedule: Schedule = "linear"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0
    save_seconds: float = Field(default=60.0, ge=0)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step ``step`` (from 0) of ``steps``: a pure function, so nothing is to be saved.

        The first step after the warm-up has the full rate, the last one nearly the final rate.
        """
        import math

        rising = round(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        done = (step - rising) / max(1, steps - rising)
        if self.schedule == "constant":
            return self.learning_rate
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_rate + (self.learning_rate - self.final_rate) * left

"""Causal: a transformers model in this process that goes on from vectors as well as from text. Needs the extra
``instructzero``. Knows nothing of searches, scores or ledgers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mop.errors import ModelError

#: Stands where the vectors go while a chat template is filled in.
_MARK = "[[soft prompt]]"
#: Tokens that end a turn in the chat templates of the usual families.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model wrote, why it ended (``"stop"`` or ``"length"``), and the tokens that went in and out."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class Causal:
    """The model in ``folder``, on a GPU (bfloat16) if there is one, else on the CPU (32-bit floats).

    Args:
        folder: Where transformers finds the files.
        gguf: Name of the GGUF file in it, if it is that kind of model.

    Raises:
        ModelError: transformers can't load it.
    """

    def __init__(self, folder: Path, gguf: str | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = device()
        kind = {"gguf_file": gguf} if gguf else {"use_safetensors": True}  # never a pickle
        try:
            with without_bars():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
                model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype()), **kind)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise ModelError(
                f"transformers cannot load {folder / (gguf or '')} as a causal language model: {error}. Give a GGUF "
                "file, or a folder with config.json and safetensors."
            ) from error
        self._model = model.to(self._device).eval()
        self._ends = self._end_tokens()

    @property
    def width(self) -> int:
        """Numbers in the embedding of one token."""
        return int(self._model.get_input_embeddings().weight.shape[1])

    def write(self, soft: NDArray[np.float32], question: str, opening: str, max_tokens: int) -> Continuation:
        """Return how the answer to the vectors ``soft`` (tokens, width), then ``question``, goes on after ``opening``.

        Decoding is greedy. Vectors and question stand in the user's turn if the model has a chat template.
        """
        import torch

        before, after = self._around(question, opening)
        embed = self._model.get_input_embeddings()
        with torch.inference_mode():
            vectors = torch.as_tensor(soft, device=self._device).to(embed.weight.dtype)
            pieces = [embed(self._ids(before)), vectors[None], embed(self._ids(after))]
            prompt = torch.cat(pieces, dim=1)
            written = self._model.generate(
                inputs_embeds=prompt,
                attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long, device=self._device),
                max_new_tokens=max_tokens,
                do_sample=False,
                # A model's own habits would come on top of these.
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._ends,
                pad_token_id=self._ends[0],
            )[0].tolist()
        reason = "stop" if written and written[-1] in self._ends else "length"
        text: str = self._tokenizer.decode(written, skip_special_tokens=True)
        return Continuation(text.strip(), reason, prompt.shape[1], len(written))

    def _around(self, question: str, opening: str) -> tuple[str, str]:
        if not self._tokenizer.chat_template:
            return self._tokenizer.bos_token or "", f"{question}\n\n{opening}"
        turn = [{"role": "user", "content": _MARK + question}]
        text: str = self._tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise ModelError("The model's chat template doesn't show the user's text; give another white-box model.")
        return before, after + opening

    def _ids(self, text: str) -> Any:
        import torch

        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        return torch.tensor([ids], dtype=torch.long, device=self._device)

    def _end_tokens(self) -> list[int]:
        configured = self._model.generation_config.eos_token_id
        known = configured if isinstance(configured, list) else [configured]
        vocabulary = self._tokenizer.get_vocab()
        known = [*known, self._tokenizer.eos_token_id, *(vocabulary.get(token) for token in _ENDS)]
        ends = list(dict.fromkeys(token for token in known if token is not None))
        if not ends:
            raise ModelError("The white-box model names no token that ends a text; give a chat model.")
        return ends


def device() -> str:
    """Return where models run here: ``"cuda"`` or ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> str:
    """Return the numbers that models are held in here."""
    return "bfloat16" if device() == "cuda" else "float32"


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own for a while."""
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()

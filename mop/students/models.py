"""Models: loads a causal language model with its tokenizer, ready to be trained or to write.

Any name will do: a model of the registry, a GGUF file, a folder with safetensors, a Hugging Face name. What is read
from a GGUF file is kept as safetensors in the cache, because taking its numbers apart costs many times the loading.
Knows nothing of training.

    >>> student = load("local/smollm2-135m-instruct")       # doctest: +SKIP
    >>> student.ends                                        # doctest: +SKIP
    (2, 0)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mop.errors import ModelError, SettingsError, WeightsError
from mop.lm.checkpoints import Checkpoint, find
from mop.lm.weights import converted_folder
from mop.students import require_extra

#: For models without a chat template: they have no special tokens for turns, so plain words must do.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '### ' + message['role'] | capitalize + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant\\n' }}{% endif %}"
)
#: Tokens that end a turn in the chat templates of the usual families.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class Student:
    """A model, its tokenizer, the name it was loaded by, and the SHA-256 of its files.

    ``model`` is a ``transformers`` model at first, and a ``peft`` one once it has an adapter. The tokenizer always has
    a chat template and a padding token.
    """

    model: Any
    tokenizer: Any
    name: str
    sha: str

    @property
    def device(self) -> Any:
        """The ``torch.device`` of the weights."""
        return next(self.model.parameters()).device

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer; the first is the one that answers are trained to end with."""
        configured = self.model.generation_config.eos_token_id
        known = configured if isinstance(configured, list) else [configured]
        vocabulary = self.tokenizer.get_vocab()
        known = [self.tokenizer.eos_token_id, *known, *(vocabulary.get(token) for token in _ENDS)]
        return tuple(dict.fromkeys(int(token) for token in known if token is not None))


def load(name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto") -> Student:
    """Return the model of this name or path, on its device and in evaluation mode.

    Args:
        name_or_path: ``local/...`` of the registry, a GGUF file, a folder with safetensors, or a Hugging Face name.
        device: ``"auto"`` (this process's GPU, or else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
        dtype: ``"auto"`` (bfloat16 on a GPU, 32-bit floats on the CPU), or ``float32``, ``bfloat16``, ``float16``.

    Raises:
        SettingsError: The extra isn't installed, or the model, device or dtype doesn't exist.
        WeightsError: The model's files aren't here and can't be fetched.
        ModelError: transformers can't load them.
    """
    require_extra()
    place = _device(device)
    number = _dtype(dtype, place)
    checkpoint = find(name_or_path)
    if checkpoint.gguf is None:
        model, tokenizer = _read(checkpoint.folder, number)
    else:
        model, tokenizer = _read(_converted(checkpoint), number)
    prepare_tokenizer(tokenizer)
    return Student(model.to(place).eval(), tokenizer, checkpoint.name, checkpoint.sha256)


def prepare_tokenizer(tokenizer: Any) -> None:
    """Give a tokenizer the chat template and the padding token that it lacks.

    Raises ModelError if it has no token that ends a text.
    """
    if not tokenizer.eos_token:
        raise ModelError("The model's tokenizer names no token that ends a text; give another model.")
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _read(folder: Path, dtype: Any, gguf: str | None = None) -> tuple[Any, Any]:
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mop.lm.causal import without_bars

    kind: dict[str, Any] = {"gguf_file": gguf} if gguf else {"use_safetensors": True}  # never a pickle
    if gguf and hasattr(transformers, "GgufConfig"):
        # Where its kernels are installed it would leave the weights packed, and an adapter needs plain ones.
        kind["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with without_bars():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **kind)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot load {folder / (gguf or '')} as a causal language model: {error}. Give a GGUF file, "
            "or a folder with config.json, tokenizer and safetensors."
        ) from error
    return model, tokenizer


def _converted(checkpoint: Checkpoint) -> Path:
    """Return a folder with exactly the numbers of a GGUF file as 32-bit floats; it is made once.

    Half of that would not do: with 16 bits the logits of a 135M model moved by up to 0.1.
    """
    folder = converted_folder(checkpoint.sha256)
    if folder.is_dir():
        return folder
    import torch

    from mop.lm.causal import without_bars

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return folder
            model, tokenizer = _read(checkpoint.folder, torch.float32, checkpoint.gguf)
            # The file written is no longer quantized; left in, the mark would send the next loader to the GGUF reader.
            model.config.__dict__.pop("quantization_config", None)
            model.hf_quantizer = None
            model.is_quantized = False
            part = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
            try:
                with without_bars():
                    model.save_pretrained(part)
                tokenizer.save_pretrained(part)
                os.replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise WeightsError(
            f"{checkpoint.name} cannot be converted in {folder.parent}: {error.strerror or error}. Free some space, or "
            "set MOP_CACHE to a folder that can be written."
        ) from error
    return folder


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # Set by launchers that start one process for each GPU.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"The device {name!r} cannot be used here: {error}. Give auto, cpu or cuda.") from error
    return place


def _dtype(name: str, device: Any) -> Any:
    import torch

    if name not in _DTYPES:
        raise SettingsError(f"dtype {name!r} is not known; expected {', '.join(_DTYPES)}.")
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, name)

"""White box: a model in this process that answers a question under a soft prompt; every answer is kept in the ledger.

It costs time and no budget. What the ledger has is not written again, so a killed run goes on where it was, and the
model isn't even loaded for what is known. Knows nothing of searches or scores.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import time
from typing import TYPE_CHECKING

from mop.errors import NotRecorded, SettingsError
from mop.lm.checkpoints import find
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request, Usage
from mop.lm.soft_prompts import SoftPrompt

if TYPE_CHECKING:
    from mop.lm.causal import Causal

#: What the extra ``instructzero`` brings.
PARTS = ("botorch", "gpytorch", "transformers", "gguf", "accelerate")


class WhiteBox:
    """A causal language model by name, loaded when it first has to write.

    Args:
        name: ``local/...`` of the registry, a GGUF file, a folder with safetensors, or a Hugging Face name.
        ledger: Where answers are kept.
        run: Name of the run in the ledger.
        replay: Write nothing: an answer that the ledger doesn't have is an error.

    Raises:
        SettingsError: The extra isn't installed, or there is no such model.
        WeightsError: The model's files aren't here and can't be fetched.
    """

    def __init__(self, name: str, *, ledger: Ledger, run: str | None = None, replay: bool = False) -> None:
        if missing := [part for part in PARTS if importlib.util.find_spec(part) is None]:
            raise SettingsError(
                f'InstructZero needs {", ".join(missing)}, not installed here: run `pip install "mop[instructzero]"`.'
            )
        self.name = name
        self._checkpoint = find(name)
        self._ledger, self._run, self._replay = ledger, run, replay
        self._loaded: Causal | None = None
        self._lock = threading.Lock()
        #: Answers written in this process, answers that the ledger had, and the seconds that writing took.
        self.written, self.from_ledger, self.seconds = 0, 0, 0.0

    @property
    def sha256(self) -> str:
        """SHA-256 of the model's files."""
        return self._checkpoint.sha256

    async def answer(self, soft: SoftPrompt, question: str, opening: str, max_tokens: int) -> Reply:
        """Return how the greedy answer to ``question`` under ``soft`` goes on after ``opening``.

        The reply's seconds are those of when it was written.

        Raises:
            ModelError: The model can't be loaded.
            NotRecorded: This run only replays, and the ledger doesn't have the answer.
            LedgerError: The ledger can't be read or written.
        """
        request = await asyncio.to_thread(self._request, soft, question, opening, max_tokens)
        known = (await asyncio.to_thread(self._ledger.get_many, [request.key])).get(request.key)
        if known is not None:
            self.from_ledger += 1
            return known
        if self._replay:
            raise NotRecorded(
                f"An instruction of the white-box model {self.name} is not in the ledger {self._ledger.name!r}, and "
                "this run only replays it. Run it once without replay to record it."
            )
        return await asyncio.to_thread(self._write, request, soft, question, opening)

    def _write(self, request: Request, soft: SoftPrompt, question: str, opening: str) -> Reply:
        with self._lock:
            from mop.lm.causal import Causal

            if self._loaded is None:
                self._loaded = Causal(self._checkpoint.folder, self._checkpoint.gguf)
            started = time.perf_counter()
            vectors = soft.vectors(self._loaded.width)
            written = self._loaded.write(vectors, question, opening, request.max_tokens)
            seconds = time.perf_counter() - started
        usage = Usage(written.prompt_tokens, 0, written.completion_tokens)
        reply = Reply(written.text, usage, written.finish_reason, request.key, from_ledger=False, seconds=seconds)
        self.written += 1
        self.seconds += seconds
        return self._ledger.put_many([(request, reply)], self._run)[0]

    def _request(self, soft: SoftPrompt, question: str, opening: str, max_tokens: int) -> Request:
        from mop.lm.causal import dtype

        given = {"latent": soft.latent, "tokens": soft.tokens, "matrix": soft.seed}
        return Request(
            # Begins as models on this machine do, which cost nothing.
            model=f"local/white-box/{self.sha256[:16]}/{dtype()}",
            messages=(("user", question), ("assistant", opening)),
            max_tokens=max_tokens,
            role="propose",
            extra=json.dumps({"soft_prompt": given}, sort_keys=True, separators=(",", ":")),
        )

"""Handwritten: a mixture from prompts and examples that people wrote, in one YAML or JSON file. Calls no model.

::

    model: gpt-5-mini                 # or local/…; optional, as all of the first six
    metric: exact_match
    encoder: local/all-minilm-l6-v2
    layout: chat                      # or block
    retrieved: 1                      # demos nearest to a query that follow an expert's own; 0 by default
    decoding: {max_tokens: 16, stop: ["\\n"], temperature: 0}
    generalist:                       # answers where an expert has no prompt
      instruction: Answer in one word.
    experts:
      - name: billing
        instruction: Name the kind of billing question.
        demos:                        # shown in the prompt, in this order
          - {input: "My invoice is wrong", output: invoice}
        examples:                     # not shown: they say what goes to this expert, and can be retrieved
          - {input: "Where is my refund?", output: refund}
          - When will my card be charged?

An expert's centroid is the mean of the vectors of its demos and examples, at unit length. Nobody has measured these
experts, so none falls back to the generalist, and no gain is stated. Every text stays as it is written: ``yes`` and
``12`` are texts, as labels often are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mop.data.documents import read_document
from mop.decoding import Decoding
from mop.errors import BadRows, DataError, MopError
from mop.lm.weights import DEFAULT_CHAT, DEFAULT_ENCODER
from mop.metrics import get_metric
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt, estimate_tokens
from mop.provenance import made_by
from mop.retrieval import Retrieval

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder

#: Answers of at most so many characters, each on one line, count as labels: their length says where an answer ends.
LABEL_CHARACTERS = 60
#: Most tokens of an answer where no label says how long it is.
FREE_TOKENS = 1024
#: What `mop show` gives as the author of the experts.
AUTHOR = "written by hand"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Demo(_Strict):
    input: str
    output: str

    @field_validator("input")
    @classmethod
    def _content(cls, value: str) -> str:
        return _with_content(value)


class _Example(_Strict):
    input: str
    output: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, data: Any) -> Any:
        return {"input": data} if isinstance(data, str) else data

    @field_validator("input")
    @classmethod
    def _content(cls, value: str) -> str:
        return _with_content(value)


class _Prompt(_Strict):
    instruction: str = ""
    demos: list[_Demo] = []


class _Expert(_Prompt):
    name: str
    examples: list[_Example] = []

    @property
    def rows(self) -> list[_Demo | _Example]:
        """Demos and examples: all that says what goes to this expert."""
        return [*self.demos, *self.examples]

    @model_validator(mode="after")
    def _placed(self) -> _Expert:
        if not (self.demos or self.examples):
            raise ValueError("an expert needs demos or examples, which say what goes to it")
        return self


class _Decoding(_Strict):
    max_tokens: int = Field(gt=0)
    stop: list[str] = []
    temperature: float = Field(default=0.0, ge=0)


class Bank(_Strict):
    """The checked content of such a file; see the module's docstring."""

    model: str = Field(default=DEFAULT_CHAT, min_length=1)
    metric: str = "exact_match"
    encoder: str = Field(default=DEFAULT_ENCODER, min_length=1)
    layout: Literal["chat", "block"] = "chat"
    retrieved: int = Field(default=0, ge=0, le=100)
    decoding: _Decoding | None = None
    generalist: _Prompt
    experts: list[_Expert] = Field(min_length=1)

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        # A file alone does not get to say which code runs; a metric of one's own is given to `mop evaluate`.
        if ":" in value and not value.startswith("numeric:"):
            return value
        try:
            get_metric(value)
        except MopError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return value

    @model_validator(mode="after")
    def _names(self) -> Bank:
        names = [expert.name for expert in self.experts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two experts are called {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _retrievable(self) -> Bank:
        if self.retrieved and not any(True for _ in labelled(self)):
            raise ValueError("retrieved asks for demos, but no demo or example has an output")
        return self


def labelled(bank: Bank) -> Iterator[Demo]:
    """Yield every demo and every example with an output, expert by expert."""
    for expert in bank.experts:
        for one in expert.rows:
            if one.output is not None:
                yield Demo(one.input, one.output)


def read_bank(path: str | os.PathLike[str]) -> Bank:
    """Return the checked content of a file of hand-written prompts.

    Raises:
        BadRows: Something in it cannot be used; each problem names its key, and in YAML its line.
        DataError: It cannot be read.
    """
    document = read_document(path)
    try:
        return Bank.model_validate(document.data)
    except ValidationError as error:
        problems = [document.problem(one["loc"], _said(one)) for one in error.errors()]
        listed = "\n".join(f"  {problem}" for problem in problems[:20])
        raise BadRows(f"{path} isn't a bank of prompts:\n{listed}", tuple(problems)) from None


def make_mixture(bank: Bank, encoder: Encoder, *, source: str = "") -> Mixture:
    """Return the mixture of a bank; ``encoder`` is the one that it names. ``source`` is put on record."""
    import numpy as np

    groups = [[one.input for one in expert.rows] for expert in bank.experts]
    texts = list(dict.fromkeys(text for group in groups for text in group))
    place = {text: row for row, text in enumerate(texts)}
    vectors = encoder.encode(texts)
    centroids = np.stack([vectors[[place[text] for text in group]].mean(axis=0) for group in groups])
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    if float(norms.min()) < 1e-6:
        name = bank.experts[int(norms.argmin())].name
        raise DataError(f"The vectors of the examples of {name!r} cancel each other out; give it others.")
    pool = list({demo.input: demo for demo in labelled(bank)}.values()) if bank.retrieved else []
    return Mixture(
        experts=tuple(
            Expert(
                prompt=_prompt(expert, bank),
                size=len(group),
                validation=0,
                words=(expert.name,),
                proposer=AUTHOR,
            )
            for expert, group in zip(bank.experts, groups, strict=True)
        ),
        generalist=_prompt(bank.generalist, bank),
        # Unit length: with few examples a mean is shorter the more they differ, which would draw queries to it.
        centroids=np.asarray(centroids / norms, np.float32),
        encoder_record=EncoderRecord(bank.encoder, encoder.identity, encoder.encode(PROBES)),
        model=bank.model,
        decoding=_decoding(bank),
        metric=bank.metric,
        retrieval=Retrieval(tuple(pool), vectors[[place[demo.input] for demo in pool]], bank.retrieved)
        if pool
        else None,
        provenance=_provenance(bank, source, len(texts)),
    )


def _prompt(prompt: _Prompt, bank: Bank) -> Prompt:
    return Prompt(prompt.instruction, tuple(Demo(one.input, one.output) for one in prompt.demos), bank.layout)


def _decoding(bank: Bank) -> Decoding:
    if bank.decoding is not None:
        return Decoding(bank.decoding.max_tokens, tuple(bank.decoding.stop), bank.decoding.temperature)
    outputs = [demo.output for demo in labelled(bank)]
    if outputs and all(len(output) <= LABEL_CHARACTERS and "\n" not in output for output in outputs):
        return Decoding(max(16, max(map(estimate_tokens, outputs)) * 3 // 2 + 4), ("\n",))
    return Decoding(FREE_TOKENS)


def _provenance(bank: Bank, source: str, inputs: int) -> dict[str, Any]:
    return {
        **made_by(),
        "method": AUTHOR,
        "source": source,
        "data_sha256": hashlib.sha256(bank.model_dump_json().encode()).hexdigest(),
        "train": inputs,
        "validation": 0,
        "calls": 0,
    }


def _said(error: Mapping[str, Any]) -> str:
    return "there is no such key" if error["type"] == "extra_forbidden" else str(error["msg"])


def _with_content(value: str) -> str:
    if not value.strip():
        raise ValueError("the text is empty")
    return value

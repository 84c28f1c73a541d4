"""Prices: what the tokens of a model cost. Knows nothing of caps or calls.

The built-in list is `prices.json`, in USD per million tokens with the date it was checked. A file of your own
adds to it or overrides it:

```toml
[models."my-model"]
input = 0.40
cached_input = 0.10   # optional; without it, cached tokens cost as much as others
output = 1.60
```

Sums are exact: a price is held as a whole number of picodollars (1e-12 USD) for one token.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mop.errors import SettingsError, UnknownPrice
from mop.lm.request import Usage

#: Picodollars in a dollar.
PICO = 10**12

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$|-20\d{6}$")


class Price(BaseModel):
    """Price of a model in USD per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Amount
    output: _Amount
    cached_input: _Amount | None = None

    def pico(self, usage: Usage) -> int:
        """Return the cost of ``usage`` in picodollars."""
        cached = self.input if self.cached_input is None else self.cached_input
        return (
            usage.fresh_tokens * _per_token(self.input)
            + usage.cached_tokens * _per_token(cached)
            + usage.completion_tokens * _per_token(self.output)
        )

    def pico_at_most(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the cost in picodollars if the cache helps as little as it can."""
        dearest = max(self.input, self.cached_input or 0.0)
        return prompt_tokens * _per_token(dearest) + completion_tokens * _per_token(self.output)


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: dict[str, Price]
    as_of: str = ""
    source: str = ""
    unit: str = "USD per million tokens"


class Prices:
    """Price list. Names may end in ``*`` (prefix); a dated snapshot of a model costs what the model costs.

    Args:
        overrides: A TOML or JSON file as in the module's example, or a mapping of model names to ``{"input":
            …, "output": …}``; its entries go before the built-in ones.

    Raises:
        SettingsError: The file or mapping cannot be used.
    """

    def __init__(self, overrides: Path | str | Mapping[str, Any] | None = None) -> None:
        builtin = _builtin()
        self.as_of = builtin.as_of
        self._models = {**builtin.models, **(_own(overrides) if overrides is not None else {})}

    def find(self, model: str) -> Price | None:
        """Return the price of ``model``, or ``None`` if it isn't known."""
        for name in (model, _SNAPSHOT.sub("", model)):
            if name in self._models:
                return self._models[name]
        prefixes = [name for name in self._models if name.endswith("*") and model.startswith(name[:-1])]
        return self._models[max(prefixes, key=len)] if prefixes else None

    def get(self, model: str) -> Price:
        """Return the price of ``model``.

        Raises:
            UnknownPrice: The model isn't listed.
        """
        price = self.find(model)
        if price is None:
            raise UnknownPrice(
                f"The price of model {model!r} is not known, so a cap on money cannot be kept. Add it to "
                "your price file, in USD per million tokens:\n"
                f'[models."{model}"]\ninput = …\ncached_input = …\noutput = …\n'
                "or cap calls or tokens instead of money."
            )
        return price

    def cost(self, usage: Usage, model: str) -> float:
        """Return the cost of ``usage`` in USD, cached tokens at their own price.

        Raises:
            UnknownPrice: The model isn't listed.
        """
        return self.get(model).pico(usage) / PICO

    def cost_without_cache(self, usage: Usage, model: str) -> float:
        """Return what ``usage`` would have cost, in USD, if no cache had served any of the prompt.

        Raises:
            UnknownPrice: The model isn't listed.
        """
        return self.cost(Usage(usage.prompt_tokens, 0, usage.completion_tokens), model)


def _per_token(usd_per_million: float) -> int:
    return round(usd_per_million * (PICO // 10**6))


def _builtin() -> _PriceFile:
    text = resources.files("mop.lm").joinpath("prices.json").read_text(encoding="utf-8")
    return _PriceFile.model_validate_json(text)


def _own(source: Path | str | Mapping[str, Any]) -> dict[str, Price]:
    where = "The given prices" if isinstance(source, Mapping) else f"The price file {str(source)!r}"
    try:
        raw = {"models": dict(source)} if isinstance(source, Mapping) else _parse(Path(source))
        return _PriceFile.model_validate(raw).models
    except OSError as error:
        raise SettingsError(f"{where} cannot be read ({error.strerror}); check the path.") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(
            f'{where} cannot be used: {problems}. Each model needs a table [models."name"] with the numbers '
            "input and output (and cached_input if it differs), in USD per million tokens."
        ) from error
    except ValueError as error:
        raise SettingsError(f"{where} is not valid TOML or JSON ({error}); correct the file.") from error


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)

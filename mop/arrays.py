"""Arrays: the numbers of a mixture file, as safetensors. What they must be like; knows nothing of the JSON beside them.

Shapes are checked by the header alone, before the numbers are there, and again with them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mop.errors import ArtifactError
from mop.mixture import PROBES

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors

#: More demos than this are kept with half the precision, which finds the same nearest ones (benchmarks/LOG.md, "Large
#: pools"); their index is approximate as well.
MANY_DEMOS = 20_000
#: A header names a handful of arrays.
MOST_HEADER_BYTES = 64 * 1024
#: No encoder gives longer vectors; a fitted one makes them as long as the file says.
MOST_DIMENSIONS = 65_536
#: Unit vectors and what moves them are small; from here on squared distances would soon overflow.
_MOST_VALUE = 1e9
_MOST_WORDS = 200
_TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}

_Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the arrays must fit: the number of experts, of demos to retrieve, and the regions of the map's sample.

    ``mapped`` is None if there is no map.
    """

    experts: int
    retrieved: int
    mapped: Sequence[int] | None


def check_header(start: bytes, wanted: Wanted, name: str) -> None:
    """Raise ArtifactError unless a safetensors file that begins so promises arrays that fit.

    ``start`` has its first `MOST_HEADER_BYTES` bytes, or all of them.
    """
    try:
        (length,) = struct.unpack_from("<Q", start)
        header = json.loads(start[8 : 8 + length].decode())
        promised = {key: _promised(found) for key, found in header.items() if key != "__metadata__"}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{name}: its vectors are damaged ({str(error)[:_MOST_WORDS]}).") from error
    _check_shapes(promised, wanted, name)


def read_arrays(content: bytes, wanted: Wanted, name: str) -> dict[str, Vectors]:
    """Return the arrays of a safetensors file, by name, as float32. Raises ArtifactError unless they fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{name}: its vectors are damaged ({error}).") from error
    check_arrays(arrays, wanted, name)
    return {key: np.asarray(array, np.float32) for key, array in arrays.items()}


def check_arrays(arrays: _Arrays, wanted: Wanted, name: str) -> None:
    """Raise ArtifactError unless names, shapes, types and values of the arrays are those of a mixture."""
    _check_shapes(arrays, wanted, name)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArtifactError(f"{name}: the vectors hold values that aren't finite numbers.")
    for key, array in arrays.items():
        if max(float(array.max()), -float(array.min())) > _MOST_VALUE:
            raise ArtifactError(f"{name}: the vectors called {key} hold numbers beyond {_MOST_VALUE:g}.")
    mapped = wanted.mapped
    if mapped and not 0 <= min(mapped) <= max(mapped) < wanted.experts:
        raise ArtifactError(f"{name}: its map names regions that it doesn't have; there are {wanted.experts}.")


def _promised(found: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return an array of the shape and type that a header gives, which takes no memory."""
    shape = tuple(found["shape"])
    if not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
        raise ValueError("a shape of other than sizes")
    return np.broadcast_to(np.zeros((), _TYPES.get(found["dtype"], np.void)), shape)


def _check_shapes(arrays: _Arrays, wanted: Wanted, name: str) -> None:
    retrieved, mapped = wanted.retrieved, wanted.mapped
    expected = {"centroids", "probes", *(["retrieved"] if retrieved else [])}
    if mapped is not None:
        expected |= {"map_places", "map_spread", *(["map_sample"] if mapped else [])}
    if not expected <= set(arrays) <= {*expected, "projection", "encoder"}:
        found = ", ".join(sorted(arrays))[:_MOST_WORDS]  # there may be any number of them
        raise ArtifactError(f"{name}: its arrays are {found or 'none'}; expected {', '.join(sorted(expected))}.")
    precise = {**arrays, **({"retrieved": arrays["centroids"]} if retrieved > MANY_DEMOS else {})}
    matrices = all(array.ndim == 2 and array.size for array in arrays.values())
    matrices = matrices and all(array.dtype == np.float32 for array in precise.values())
    matrices = matrices and arrays.get("retrieved", arrays["centroids"]).dtype in (np.float16, np.float32)
    if not matrices or not _fit(arrays, wanted) or not _map_fits(arrays, wanted):
        shapes = str({key: (array.shape, str(array.dtype)) for key, array in arrays.items()})[:_MOST_WORDS]
        raise ArtifactError(f"{name}: the vectors' shapes {shapes} don't fit its {wanted.experts} experts.")


def _fit(arrays: _Arrays, wanted: Wanted) -> bool:
    probes, projection = arrays["probes"], arrays.get("projection")
    dimension = probes.shape[1]
    routed = dimension if projection is None else projection.shape[1]
    return (
        max(dimension, routed) <= MOST_DIMENSIONS
        and arrays["centroids"].shape == (wanted.experts, routed)
        and (not wanted.retrieved or arrays["retrieved"].shape == (wanted.retrieved, routed))
        and len(probes) == len(PROBES)
        and (projection is None or len(projection) == dimension + 1)
        and ("encoder" not in arrays or arrays["encoder"].shape == (1, dimension))
    )


def _map_fits(arrays: _Arrays, wanted: Wanted) -> bool:
    mapped = wanted.mapped
    return mapped is None or (
        arrays["map_places"].shape == (wanted.experts, 2)
        and arrays["map_spread"].shape == (arrays["centroids"].shape[1], 2)
        and (not mapped or arrays["map_sample"].shape == (len(mapped), 2))
    )

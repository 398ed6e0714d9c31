"""The layout of prompt embeds in their slot: the text stage writes it, the U-Net reads it.

    | tokens [rows, tokens, dim] | pooled [rows, pooled_dim] |     float32, the negative prompt's row first

`pooled_dim` is 0 for models whose U-Net takes no pooled embeds.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.arena import Bytes

Floats = NDArray[np.float32]


class Embeds(NamedTuple):
    """The two arrays, as views of the slot."""

    tokens: Floats
    pooled: Floats


def nbytes(shape: tuple[int, ...], pooled_dim: int) -> int:
    """Bytes of embeds of `shape` [rows, tokens, dim]."""
    return (math.prod(shape) + shape[0] * pooled_dim) * 4


def lay(payload: Bytes, shape: tuple[int, ...], pooled_dim: int) -> Embeds:
    """The views of embeds of `shape` in `payload`."""
    floats = payload[: nbytes(shape, pooled_dim)].view(np.float32)
    size = math.prod(shape)
    return Embeds(floats[:size].reshape(shape), floats[size:].reshape(shape[0], pooled_dim))

"""Prompt embeds that were made before: the same prompt comes again and again, the negative one with every job."""

from collections import OrderedDict
from typing import NamedTuple

from stages.core.embeds import Floats

Key = tuple[bytes | int, ...]
"""Key of a prompt's embeds, all that they depend on: token ids and weights of every encoder, and the layers skipped."""


class Encoded(NamedTuple):
    """The embeds of one prompt: tokens [tokens, dim], pooled [pooled_dim]."""

    tokens: Floats
    pooled: Floats


class EmbedCache:
    """A cache of prompt embeds, exact and bounded in bytes; what has not been used for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Encoded] = OrderedDict()
        self.lookups = 0
        self.hits = 0

    def find(self, key: Key) -> Encoded | None:
        """The embeds kept under `key`, now the last to go; None if there are none."""
        self.lookups += 1
        found = self._kept.get(key)
        if found is not None:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Key, tokens: Floats, pooled: Floats) -> None:
        """Keep copies, unless they alone are more than the cache may hold."""
        size = tokens.nbytes + pooled.nbytes
        if size > self._max_bytes or key in self._kept:
            return
        self._bytes += size
        self._kept[key] = Encoded(tokens.copy(), pooled.copy())
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.tokens.nbytes + dropped.pooled.nbytes

"""The cache gives back exactly what was put in, within its bytes, and forgets what has not been used for longest."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.text.cache import EmbedCache

SIZE = 4 * 4  # bytes of the embeds below


def embeds(value: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full((1, 3), value, np.float32), np.full(1, -value, np.float32)


def test_it_gives_back_copies() -> None:
    cache = EmbedCache(1 << 10)
    tokens, pooled = embeds(1)
    cache.keep((b"a",), tokens, pooled)
    tokens[...] = 9  # the slot it came from is another's now
    found = cache.find((b"a",))
    assert found is not None
    assert (found.tokens.tolist(), found.pooled.tolist()) == ([[1, 1, 1]], [-1])
    assert cache.find((b"b",)) is None
    assert (cache.hits, cache.lookups) == (1, 2)


def test_what_has_not_been_used_for_longest_goes() -> None:
    cache = EmbedCache(2 * SIZE)
    for name in (b"a", b"b"):
        cache.keep((name,), *embeds(1))
    cache.find((b"a",))
    cache.keep((b"c",), *embeds(1))
    assert [cache.find((name,)) is not None for name in (b"a", b"b", b"c")] == [True, False, True]


def test_what_is_too_large_is_not_kept() -> None:
    cache = EmbedCache(SIZE - 1)
    cache.keep((b"a",), *embeds(1))
    assert cache.find((b"a",)) is None


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 5))
def test_it_never_holds_more_than_it_may(names: list[int], room: int) -> None:
    cache = EmbedCache(room * SIZE)
    for name in names:
        if (found := cache.find((name,))) is None:
            cache.keep((name,), *embeds(name))
        else:
            assert found.tokens[0, 0] == name
    assert sum(cache.find((name,)) is not None for name in range(10)) <= room

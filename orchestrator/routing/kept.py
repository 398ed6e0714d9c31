"""Prompts that have ended, kept for owners who come back for them: bounded by time and by bytes. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.routing.jobs import Owner
from stages.core import wire

_OVERHEAD = 1024
"""Bytes of everything else about a prompt."""


class Ended(NamedTuple):
    """A prompt as it ended."""

    submit: wire.Submit
    images: tuple[tuple[wire.Image, bytes], ...]
    last: wire.Done | wire.Failed
    until_ns: int
    """When it is to be forgotten."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, about: its encoded images, and its prompts."""
        texts = len(self.submit.prompt) + len(self.submit.negative_prompt)
        return sum(len(payload) for _, payload in self.images) + texts + _OVERHEAD


class KeptResults:
    """The newest prompts that have ended, by owner and id."""

    def __init__(self, keep_s: float, keep_bytes: int) -> None:
        """`keep_s` are seconds; `keep_bytes` bound what all of them take together."""
        self._keep_ns = round(keep_s * 1e9)
        self._keep_bytes = keep_bytes
        self._ended: dict[tuple[Owner, str], Ended] = {}
        """Those first that ended first."""
        self._nbytes = 0

    def add(
        self,
        owner: Owner,
        submit: wire.Submit,
        images: list[tuple[wire.Image, bytes]],
        last: wire.Done | wire.Failed,
        now_ns: int,
    ) -> None:
        """Keep a prompt that ends now."""
        self.forget(owner, submit.id)
        ended = self._ended[owner, submit.id] = Ended(submit, tuple(images), last, now_ns + self._keep_ns)
        self._nbytes += ended.nbytes
        self.expire(now_ns)

    def find(self, owner: Owner, id: str) -> Ended | None:
        """The prompt, if it is still kept."""
        return self._ended.get((owner, id))

    def of(self, owner: Owner) -> Iterator[Ended]:
        """All that are kept of an owner, in the order in which they ended."""
        return (ended for (who, _), ended in self._ended.items() if who == owner)

    def forget(self, owner: Owner, id: str) -> bool:
        """Keep the prompt no longer; whether it was kept."""
        ended = self._ended.pop((owner, id), None)
        if ended is not None:
            self._nbytes -= ended.nbytes
        return ended is not None

    def expire(self, now_ns: int) -> None:
        """Forget what was kept long enough, and the oldest where there is no room for all."""
        while self._ended:
            (owner, id), oldest = next(iter(self._ended.items()))
            if oldest.until_ns > now_ns and self._nbytes <= self._keep_bytes:
                return
            self.forget(owner, id)

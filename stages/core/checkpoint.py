"""The checkpoint that the U-Net leaves in a latents slot at every step: a job outlives the process that works on it.

A slot of the latents pool::

    | final latents | header 0 | latents 0 | memory 0 ... | header 1 | latents 1 | memory 1 ... |
                    '---------------- save 0 -------------''--------------- save 1 ------------'

The two saves are written in turn, the older one over, each closed by a checksum in its header `| job | step |
rows | crc |`: whenever the writer dies, at least one of them is whole. `memory` is the schedule's own (the multi-step
methods remember earlier outputs), `rows` arrays of the latents' shape. The final latents lie first, where the
decoder binds them as they are.
"""

import math
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.arena import Bytes

MEMORY_ROWS = 6
"""Latents-shaped arrays that a schedule may remember between evaluations, at most."""

_HEADER = 64
_JOB, _STEP, _ROWS, _CRC = range(4)

Floats = NDArray[np.float32]


class Saved(NamedTuple):
    """A restored save: evaluations done, latents [C, H, W], memory [rows, C, H, W]; copies, float32."""

    step: int
    latents: Floats
    memory: Floats


def slot_bytes(shape: tuple[int, int, int]) -> int:
    """Bytes of a slot for latents of `shape`."""
    latents = math.prod(shape) * 4
    return _align(latents) + 2 * (_HEADER + _align((1 + MEMORY_ROWS) * latents))


def _align(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


class Checkpoint:
    """The saves of job `job` in the payload of its slot."""

    def __init__(self, payload: Bytes, job: int, shape: tuple[int, int, int]) -> None:
        self._job = job
        self._shape = shape
        self._size = math.prod(shape)
        self._final = payload[: self._size * 4].view(np.float32).reshape(shape)
        body = _align((1 + MEMORY_ROWS) * self._size * 4)
        start = _align(self._size * 4)
        self._saves = []
        for offset in (start, start + _HEADER + body):
            header = payload[offset : offset + _HEADER].view(np.uint64)
            self._saves.append((header, payload[offset + _HEADER : offset + _HEADER + body].view(np.float32)))

    def save(self, step: int, latents: Floats, memory: Floats) -> None:
        """Keep the state after `step` evaluations."""
        header, body = self._saves[step % 2]
        header[_CRC] = 0  # a writer that dies in here leaves a save that is refused
        body[: self._size] = latents.ravel()
        used = self._size * (1 + len(memory))
        body[self._size : used] = memory.ravel()
        header[_JOB], header[_STEP], header[_ROWS] = self._job, step, len(memory)
        header[_CRC] = self._checksum(header, body[:used])

    def restore(self) -> Saved | None:
        """The newest whole save of this job, if there is one."""
        found = [saved for header, body in self._saves if (saved := self._read(header, body)) is not None]
        return max(found, key=lambda saved: saved.step, default=None)

    def finish(self, latents: Floats) -> int:
        """Put the final latents where the decoder reads them; returns their bytes, for the seal."""
        self._final[...] = latents
        return self._final.nbytes

    def _read(self, header: NDArray[np.uint64], body: Floats) -> Saved | None:
        job, step, rows, crc = (int(word) for word in header[:4])
        if job != self._job or crc == 0 or rows > MEMORY_ROWS:
            return None
        used = body[: self._size * (1 + rows)]
        if crc != self._checksum(header, used):
            return None
        saved = used.reshape(1 + rows, *self._shape).copy()
        return Saved(step, saved[0], saved[1:])

    @staticmethod
    def _checksum(header: NDArray[np.uint64], used: Floats) -> int:
        return zlib.crc32(used.data, zlib.crc32(header[:_CRC].tobytes())) or 1

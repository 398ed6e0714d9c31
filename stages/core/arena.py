"""The arena: every tensor that passes between processes lies here, in slots of fixed size.

Layout of the one anonymous shared region (all pools in the order of the layout, sizes rounded up to pages)::

    0          64         128                  headers, then a page boundary
    +----------+----------+-- ... --+----------+================+======== ... =====+
    | header 0 | header 1 |         | header n | payload slot 0 | payload slot 1 ..|
    +----------+----------+-- ... --+----------+================+======== ... =====+

    header, eight little-endian 64-bit words (one cache line, so that no two slots share one):
    | generation | state | owner | job | nbytes | checksum | - | - |

States of a slot, who moves it, and what the words mean then::

    FREE ----reserve (arena)----> GRANTED ----write (view)----> WRITING ----seal (view)----> READY
     ^      generation + 1          |                             |  owner writes              |  nbytes, checksum
     |                              |                             |                            |  valid, bytes immutable
     +------------------------------+------free (arena)-----------+----------------------------+
                                    |      generation + 1         |                            |
                                 GRANTED <-regrant (arena)--------+----------------------------+
                                           owner died: generation + 1, bytes kept, new owner

Two sides. `Arena` is the owner: the orchestrator alone reserves, grants anew and frees, and it does so by books of its
own (stages.core.slots): to it, the words of a header are something to write, and nothing to rely on when read.
`View` is a borrower: a stage that writes slots granted to it and reads slots that are READY. A `SlotRef` carries the
generation it was made for, so a reference that outlived its slot is refused (StaleSlot) and never reads another job's
bytes; a READY slot whose bytes do not match its checksum, or a slot in none of these states, is refused (TornSlot).
"""

import zlib
from enum import IntEnum
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.core.errors import StaleSlot, TornSlot
from stages.core.region import Region
from stages.core.slots import SlotRef, SlotTable

__all__ = ["PAGE", "Arena", "Bytes", "Layout", "PoolSpec", "SlotRef", "SlotState", "View"]

PAGE = 4096
_HEADER = 64
_GENERATION, _STATE, _OWNER, _JOB, _NBYTES, _CHECKSUM = range(6)

Bytes = NDArray[np.uint8]


class SlotState(IntEnum):
    """The state word of a slot; the module's docstring draws the transitions."""

    FREE = 0
    GRANTED = 1
    WRITING = 2
    READY = 3


class PoolSpec(msgspec.Struct, frozen=True):
    """`count` equal slots of `slot_bytes` bytes under a name: what kind of tensor they hold."""

    name: str
    count: int
    slot_bytes: int


class Layout:
    """Offset and size of every slot; the same on all sides because it is computed from the same pool specs."""

    def __init__(self, pools: tuple[PoolSpec, ...]) -> None:
        self.pools = pools
        self.indices: dict[str, range] = {}
        self.payloads: list[tuple[int, int]] = []  # (offset, nbytes) by slot index
        count = sum(pool.count for pool in pools)
        offset = _pages(count * _HEADER)
        for pool in pools:
            self.indices[pool.name] = range(len(self.payloads), len(self.payloads) + pool.count)
            for _ in range(pool.count):
                self.payloads.append((offset, pool.slot_bytes))
                offset += _pages(pool.slot_bytes)
        self.nbytes = offset

    def pool_of(self, index: int) -> str:
        """The name of the pool that slot `index` belongs to."""
        return next(name for name, indices in self.indices.items() if index in indices)


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


class _Slots:
    """The part of both sides: the mapped headers and payloads, and the check of a reference."""

    HEADER_WORDS: ClassVar[int] = _HEADER // 8

    def __init__(self, region: Region, layout: Layout) -> None:
        self.region = region
        self.layout = layout
        count = len(layout.payloads)
        self._headers = region.array(0, count * _HEADER).view(np.uint64).reshape(count, self.HEADER_WORDS)

    def _payload(self, index: int) -> Bytes:
        return self.region.array(*self.layout.payloads[index])

    def _header(self, ref: SlotRef) -> NDArray[np.uint64]:
        if not 0 <= ref.index < len(self._headers):
            raise StaleSlot(f"there is no slot {ref.index}")
        header: NDArray[np.uint64] = self._headers[ref.index]
        if int(header[_GENERATION]) != ref.generation:
            raise StaleSlot(f"slot {ref.index} is of generation {int(header[_GENERATION])}, not {ref.generation}")
        return header

    def read(self, ref: SlotRef) -> Bytes:
        """The bytes of a READY slot, read-only, without a copy. Raises StaleSlot or TornSlot."""
        payload = self.lend(ref)
        payload.flags.writeable = False
        return payload

    def lend(self, ref: SlotRef) -> Bytes:
        """The bytes of a READY slot, writable: for OpenVINO, which binds only such buffers but writes no input."""
        header = self._header(ref)
        if (state := self.state(ref.index)) is not SlotState.READY:
            raise StaleSlot(f"slot {ref.index} is {state.name}, not READY")
        payload = self._payload(ref.index)[: int(header[_NBYTES])]
        if zlib.crc32(payload.data) != int(header[_CHECKSUM]):
            raise TornSlot(f"slot {ref.index} does not match its checksum")
        return payload

    def state(self, index: int) -> SlotState:
        """The state word of slot `index`. Raises TornSlot when it is none."""
        word = int(self._headers[index, _STATE])
        try:
            return SlotState(word)
        except ValueError:
            raise TornSlot(f"slot {index} has {word} for a state") from None

    def close(self) -> None:
        """Give the shared region's descriptor back."""
        self.region.close()


class Arena(_Slots):
    """The owner's side. One per orchestrator; the only code that reserves, grants anew or frees."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(Region.create("triptych-arena", layout.nbytes), layout)
        self._table = SlotTable(layout.indices)

    def free_slots(self, pool: str) -> int:
        """Number of slots of `pool` that can be reserved now."""
        return self._table.free_slots(pool)

    def reserve(self, pool: str, owner: int, job: int) -> SlotRef:
        """Grant a free slot of `pool` to stage number `owner` for `job`. Raises IndexError when none is free."""
        return self._grant(self._table.reserve(pool, job), owner)

    def regrant(self, ref: SlotRef, owner: int) -> SlotRef:
        """Grant a slot whose owner died to another stage, its bytes kept. Raises StaleSlot.

        The old reference becomes stale.
        """
        return self._grant(self._table.renew(ref), owner)

    def free(self, ref: SlotRef) -> None:
        """End the reservation; every reference to the slot becomes stale. Raises StaleSlot if `ref` already is."""
        freed = self._table.free(ref)
        header = self._headers[ref.index]
        header[_GENERATION] = freed.generation
        header[_STATE] = SlotState.FREE

    def peek(self, ref: SlotRef) -> Bytes:
        """The payload of a slot as the stage that works on it has left it so far, read-only. Raises StaleSlot."""
        self._table.check(ref)
        payload = self._payload(ref.index)
        payload.flags.writeable = False
        return payload

    def _grant(self, ref: SlotRef, owner: int) -> SlotRef:
        """Write the whole header: whatever stood there, from here on it is as the books say."""
        header = self._headers[ref.index]
        header[:] = 0
        header[_OWNER] = owner
        header[_JOB] = self._table.job_of(ref)
        header[_STATE] = SlotState.GRANTED
        header[_GENERATION] = ref.generation
        return ref


class View(_Slots):
    """A borrower's side: stage number `owner` maps the arena of descriptor `fd`."""

    def __init__(self, fd: int, layout: Layout, owner: int) -> None:
        super().__init__(Region(fd), layout)
        self._owner = owner

    def write(self, ref: SlotRef) -> Bytes:
        """The whole payload of a slot granted to this stage, writable, without a copy. Raises StaleSlot.

        May be called again while WRITING: a job that comes back to its slot gets the same bytes.
        """
        header = self._header(ref)
        if header[_OWNER] != self._owner or header[_STATE] not in (SlotState.GRANTED, SlotState.WRITING):
            raise StaleSlot(f"slot {ref.index} is not granted to this stage")
        header[_STATE] = SlotState.WRITING
        return self._payload(ref.index)

    def peek(self, ref: SlotRef) -> Bytes:
        """The payload of a slot that another stage may be writing, read-only. Raises StaleSlot.

        Only for what is laid out so that a reader can tell whole from torn by itself (stages.core.checkpoint).
        """
        self._header(ref)
        payload = self._payload(ref.index)
        payload.flags.writeable = False
        return payload

    def seal(self, ref: SlotRef, nbytes: int) -> None:
        """Declare the first `nbytes` of the payload final. From here on they are immutable.

        Raises StaleSlot, or ValueError when the slot has not so many.
        """
        header = self._header(ref)
        if header[_OWNER] != self._owner or header[_STATE] != SlotState.WRITING:
            raise StaleSlot(f"slot {ref.index} is not being written by this stage")
        payload = self._payload(ref.index)
        if not 0 <= nbytes <= payload.nbytes:
            raise ValueError(f"{nbytes:,} bytes do not fit slot {ref.index} of {payload.nbytes:,}")
        header[_NBYTES] = nbytes
        header[_CHECKSUM] = zlib.crc32(payload[:nbytes].data)
        header[_STATE] = SlotState.READY

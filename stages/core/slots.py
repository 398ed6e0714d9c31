"""The owner's books of the arena's slots: whose each is, in which generation. Pure, and private to the orchestrator.

What stands in shared memory can be overwritten by any process that maps it. These books cannot, so whatever a stage
does there, slots are neither lost nor given out twice: the words in the arena are a mirror of the books for views.
"""

from collections.abc import Mapping, Sequence

import msgspec

from stages.core.errors import StaleSlot


class SlotRef(msgspec.Struct, frozen=True, array_like=True):
    """A reference to slot `index` in `generation`; stale once the slot has been freed or granted anew."""

    index: int
    generation: int


class SlotTable:
    """Generation and holder of every slot, and the free ones by pool."""

    def __init__(self, pools: Mapping[str, Sequence[int]]) -> None:
        """`pools` are the slot indices by the name of their pool."""
        self._free = {name: list(reversed(indices)) for name, indices in pools.items()}
        self._pool_of = {index: name for name, indices in pools.items() for index in indices}
        self._generations = dict.fromkeys(self._pool_of, 0)
        self._jobs: dict[int, int] = {}
        """Job that each reserved slot is for, by slot index."""

    def free_slots(self, pool: str) -> int:
        """Number of slots of `pool` that can be reserved now."""
        return len(self._free[pool])

    def reserve(self, pool: str, job: int) -> SlotRef:
        """Take a free slot of `pool` for `job`. Raises IndexError when none is free."""
        index = self._free[pool].pop()
        self._jobs[index] = job
        return self._next(index)

    def renew(self, ref: SlotRef) -> SlotRef:
        """The slot in a new generation, for the same job; the old reference becomes stale. Raises StaleSlot."""
        self.check(ref)
        return self._next(ref.index)

    def free(self, ref: SlotRef) -> SlotRef:
        """End the reservation; returns the generation in which the slot is free. Raises StaleSlot if it already is."""
        self.check(ref)
        del self._jobs[ref.index]
        self._free[self._pool_of[ref.index]].append(ref.index)
        return self._next(ref.index)

    def job_of(self, ref: SlotRef) -> int:
        """The job that the slot is reserved for. Raises StaleSlot."""
        self.check(ref)
        return self._jobs[ref.index]

    def check(self, ref: SlotRef) -> None:
        """Raise StaleSlot unless the reference is to a slot that is reserved now, in its present generation."""
        if ref.index not in self._pool_of:
            raise StaleSlot(f"there is no slot {ref.index}")
        if self._generations[ref.index] != ref.generation:
            raise StaleSlot(f"slot {ref.index} is of generation {self._generations[ref.index]}, not {ref.generation}")
        if ref.index not in self._jobs:
            raise StaleSlot(f"slot {ref.index} is FREE")

    def _next(self, index: int) -> SlotRef:
        self._generations[index] += 1
        return SlotRef(index, self._generations[index])

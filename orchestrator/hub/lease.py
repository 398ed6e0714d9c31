"""Turns on shared cores: which stage process may compute. Pure; decisions come as data.

Processes with the same cores form a group, and one of each group holds its lease. A lease is asked back at a step
boundary, so nothing is ever interrupted, and it costs nothing while nobody else wants the cores: the U-Net keeps it
from step to step, lends it for one encoding or decoding, and has it back::

    FREE --wants--> HELD --(another, as urgent, wants)--> ASKED BACK --yielded--> HELD by the most urgent
     ^                |
     +-- yielded -----+   (by itself, when it has nothing left to do)
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import msgspec

from stages.core.wire import Kind

_URGENCY: dict[Kind, int] = {"vae": 0, "text": 0, "unet": 1}
"""Smaller goes first: what is short, and feeds or frees the long loop, may interrupt it."""


class Grant(msgspec.Struct, frozen=True):
    """Let `stage` compute."""

    stage: str


class AskBack(msgspec.Struct, frozen=True):
    """Have `stage` yield at its next boundary."""

    stage: str


Action = Grant | AskBack


@dataclass
class Group:
    """The lease of one set of cores."""

    holder: str | None = None
    asked_back: bool = False
    waiting: list[str] = field(default_factory=list)


class Leases:
    """The leases of all groups; stages in no group (`cores` None) compute when they like."""

    def __init__(self, kinds: Mapping[str, Kind], cores: Mapping[str, Hashable]) -> None:
        self._kinds = kinds
        groups = {which: Group() for which in cores.values()}
        self._groups = {stage: groups[which] for stage, which in cores.items()}

    def wants(self, stage: str) -> list[Action]:
        """The stage has been given work."""
        group = self._groups.get(stage)
        if group is None or group.holder == stage or stage in group.waiting:
            return []
        group.waiting.append(stage)
        return self._settle(group)

    def yielded(self, stage: str, more: bool) -> list[Action]:
        """The stage has let its lease go; `more` if it has work left. Also said when it has died."""
        group = self._groups.get(stage)
        if group is None:
            return []
        if stage in group.waiting:
            group.waiting.remove(stage)
        if group.holder == stage:
            group.holder, group.asked_back = None, False
        if more:
            group.waiting.append(stage)
        return self._settle(group)

    def _settle(self, group: Group) -> list[Action]:
        if not group.waiting:
            return []
        first = min(group.waiting, key=self._urgency)
        if group.holder is None:
            group.waiting.remove(first)
            group.holder, group.asked_back = first, False
            return [Grant(first), *self._settle(group)]
        if not group.asked_back and self._urgency(first) <= self._urgency(group.holder):
            group.asked_back = True
            return [AskBack(group.holder)]
        return []

    def _urgency(self, stage: str) -> int:
        return _URGENCY[self._kinds[stage]]

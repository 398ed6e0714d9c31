"""The stamps of one prompt, for its trace: when its jobs held which slots, and when work was done for them. Pure."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from orchestrator.trace.recording import Dispatched, Fact, Reported
from stages.core import pipes
from stages.core.errors import StaleSlot, TornSlot
from stages.core.route import LEGS, Pool
from stages.core.tasks import TaskName
from stages.core.wire import Slice

_RESTARTS = (TornSlot.code, StaleSlot.code)
"""Codes of faults after which a job begins anew, without the slots that it had."""


def slices(facts: Iterable[Fact], jobs: Iterable[int]) -> tuple[Slice, ...]:
    """All stamps of these jobs, by number, in the order of their beginnings.

    A hold is from when a job went to the stage that writes a slot, until the last task that reads it was done.
    """
    histories: dict[int, list[Dispatched | Reported]] = {job: [] for job in jobs}
    for fact in facts:
        match fact:
            case Dispatched(job=job) if job in histories:
                histories[job].append(fact)
            case Reported(report=report) if report.job in histories:
                histories[report.job].append(fact)
            case _:
                pass
    found = [piece for history in histories.values() for piece in _of_job(history)]
    return tuple(sorted(found, key=lambda piece: piece.began_ns))


def _of_job(history: list[Dispatched | Reported]) -> Iterator[Slice]:
    held: dict[Pool, tuple[int, int]] = {}
    """Slot and time of reservation, by pool."""
    sent: Dispatched | None = None
    for place, fact in enumerate(history):
        if isinstance(fact, Dispatched):
            sent = fact
            held.setdefault(LEGS[fact.task].writes, (fact.slot, fact.at_ns))
            continue
        if sent is None:  # the beginning is older than what is remembered
            continue
        report = fact.report
        match report:
            case pipes.Stepped(step=step, began_ns=began_ns, ended_ns=ended_ns):
                yield Slice("step", sent.index, fact.stage, fact.pid, sent.slot, began_ns, ended_ns, step)
            case pipes.Finished(began_ns=began_ns, ended_ns=ended_ns):
                yield Slice("work", sent.index, fact.stage, fact.pid, sent.slot, began_ns, ended_ns)
                later = [each.task for each in history[place:] if isinstance(each, Dispatched)]
                for pool in _done_with(sent.task, later) & held.keys():
                    yield _hold(sent.index, pool, held.pop(pool), fact.at_ns)
            case pipes.Fault(code=code):
                for pool in list(held) if code in _RESTARTS else ():
                    yield _hold(sent.index, pool, held.pop(pool), fact.at_ns)
            case pipes.Started() | pipes.Dropped():
                pass
            case _:
                assert_never(report)


def _done_with(task: TaskName, later: list[TaskName]) -> set[Pool]:
    """The pools that a job has no use for after `task`, by the tasks that came later."""
    needed = {pool for each in later for pool in (LEGS[each].writes, *LEGS[each].reads)}
    return {LEGS[task].writes, *LEGS[task].reads} - needed


def _hold(index: int, pool: Pool, reserved: tuple[int, int], until_ns: int) -> Slice:
    slot, since_ns = reserved
    return Slice("hold", index, pool, 0, slot, since_ns, until_ns)

"""The facts that pass the hub, kept for a while: appending is all it costs until somebody asks."""

from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from orchestrator.routing.jobs import Job
from orchestrator.trace.recording import Dispatched, Fact, Level, Lost, Memory, Recording, Reported, Worker, encode
from orchestrator.trace.stamps import slices
from stages.core import pipes
from stages.core.tasks import Task
from stages.core.wire import Slice

FACTS = 1 << 16
"""Facts kept, the newest ones; some 60 an image of 25 steps."""

_PROMPT_CHARS = 120
"""Characters of a prompt that are kept; more could not be read on a slice."""


class Recorder:
    """A bounded buffer of facts. Times are nanoseconds of CLOCK_MONOTONIC, given by the caller."""

    def __init__(self, facts: int = FACTS) -> None:
        self._facts: deque[Fact] = deque(maxlen=facts)
        self._level = (0, 0)

    def sent(self, stage: str, run: pipes.Run[Task], job: Job | None, now_ns: int) -> None:
        """A job goes to a stage."""
        if job is not None:
            text = job.request.text.prompt[:_PROMPT_CHARS]
            name, slot, id = run.task.name, run.output.index, job.prompt.id
            self._facts.append(Dispatched(now_ns, stage, run.job, name, slot, id, text, job.index, job.submitted_ns))

    def heard(self, stage: str, pid: int, report: pipes.Report, now_ns: int) -> None:
        """A stage has reported."""
        self._facts.append(Reported(now_ns, stage, pid, report))

    def lost(self, stage: str, pid: int, now_ns: int) -> None:
        """A stage process has ended."""
        self._facts.append(Lost(now_ns, stage, pid))

    def level(self, now_ns: int, waiting: int, slots: int) -> None:
        """How full the pipeline is; kept if that is another than before."""
        if (waiting, slots) != self._level:
            self._level = (waiting, slots)
            self._facts.append(Level(now_ns, waiting, slots))

    def memory(self, now_ns: int, pid: int, rss_bytes: int) -> None:
        """The resident memory of a process now."""
        self._facts.append(Memory(now_ns, pid, rss_bytes))

    def slices(self, jobs: Iterable[int], began_ns: int) -> tuple[Slice, ...]:
        """The stamps of these jobs, by number, as far as they are remembered; the first was sent at `began_ns`."""
        facts = list(takewhile(lambda fact: fact.at_ns >= began_ns, reversed(self._facts)))
        return slices(reversed(facts), jobs)

    def recording(self, seconds: float, now_ns: int, hub_pid: int, workers: Iterable[Worker]) -> bytes:
        """The encoded Recording of the last `seconds`.

        What gives names to jobs and tells when work began is in it however old it is; earlier steps are not.
        """
        began_ns = now_ns - round(seconds * 1e9)
        facts = tuple(fact for fact in self._facts if fact.at_ns >= began_ns or not _momentary(fact))
        return encode(Recording(began_ns, now_ns, hub_pid, tuple(workers), facts))


def _momentary(fact: Fact) -> bool:
    """Whether it says nothing of any later moment."""
    match fact:
        case Reported(report=pipes.Stepped()) | Memory():
            return True
        case _:
            return False

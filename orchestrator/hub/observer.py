"""What `status` answers, put together from the supervisor, the router, the board and the kernel."""

import math
import os
import resource
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil

from orchestrator import bottleneck
from orchestrator.hub.process import Process, ServingProcess
from orchestrator.hub.process_memory import ProcessMemory
from orchestrator.hub.recorder import Recorder
from orchestrator.hub.supervisor import State, Supervisor
from orchestrator.plan import Plan
from orchestrator.routing.router import Router
from orchestrator.trace.recording import Worker
from stages.core import cores, wire
from stages.core.arena import Arena
from stages.core.board import Board, Doing, Row
from stages.core.config import StageSpec

RECENT_S = 15.0
"""How far back is recent: long enough for a few forwards of a large model."""

_LOOKS = 64
"""Looks kept, about one a second while there is work; after a pause the last one before it counts."""

_DAY_S = 86_400.0

_TICKS = os.sysconf("SC_CLK_TCK")


class Use(NamedTuple):
    """What a stage process had used of its time at some moment."""

    pid: int
    busy_ns: int
    cpu_s: float


class Look(NamedTuple):
    """What all stage processes had used at `at`, seconds of time.monotonic."""

    at: float
    uses: dict[str, Use]
    idle_s: list[float]
    """Seconds that each core of the machine was idle."""


class Observer:
    """Reads everything, changes nothing. Costs the stages nothing: they are not asked."""

    def __init__(
        self,
        plan: Plan,
        arena: Arena,
        board: Board,
        router: Router,
        supervisor: Supervisor,
        processes: Mapping[str, Process],
        queue_limit: int,
        recorder: Recorder,
    ) -> None:
        self._plan = plan
        self._arena = arena
        self._board = board
        self._router = router
        self._supervisor = supervisor
        self._processes = processes
        self._queue_limit = queue_limit
        self._recorder = recorder
        self._memory = ProcessMemory()
        self._slots = sum(pool.count for pool in plan.pools)
        self._looks: deque[Look] = deque(maxlen=_LOOKS)
        self._started = time.monotonic()

    @property
    def slots_in_use(self) -> int:
        """Slots of all pools that are not free."""
        return self._slots - sum(self._arena.free_slots(pool.name) for pool in self._plan.pools)

    def look(self) -> None:
        """Remember what is used up to now, for what `status` calls recent and for the trace's memory counters.

        One short file a process is read, and one of the machine's, some hundred microseconds: to be called about once
        a second.
        """
        now_ns = time.monotonic_ns()
        uses: dict[str, Use] = {}
        for spec, process in self._stages():
            cpu_s, rss_bytes = _stat(process.child.pid)
            uses[spec.name] = Use(process.child.pid, _busy_ns(self._board.read(spec.number), now_ns), cpu_s)
            self._recorder.memory(now_ns, process.child.pid, rss_bytes)
        self._recorder.memory(now_ns, os.getpid(), _stat(os.getpid())[1])
        idle_s = [core.idle + core.iowait for core in psutil.cpu_times(percpu=True)]
        self._looks.append(Look(now_ns / 1e9, uses, idle_s))

    def trace(self, seconds: float) -> bytes:
        """The encoded Recording of the last `seconds`, a day at most."""
        self.look()
        seconds = min(max(seconds, 0.0), _DAY_S)
        workers = [
            Worker(spec.name, process.child.pid, spec.cores or cores.render(cores.allowed()))
            for spec, process in self._stages()
        ]
        return self._recorder.recording(seconds, time.monotonic_ns(), os.getpid(), workers)

    def status(self, state: Literal["starting", "serving", "draining"]) -> wire.Status:
        """The whole pipeline, now."""
        self.look()
        then, now = self._recent()
        stages = tuple(self._stage(spec.name, then, now) for spec in self._plan.stages)
        allowed, quota = cores.allowed(), cores.quota()
        host = bottleneck.Host(share=self._plan.share, cores=allowed, quota=quota)
        hops = self._router.hops_us
        p50, p99 = np.percentile(hops, (50, 99)).round(1).tolist() if hops else (None, None)
        me = psutil.Process()
        times = me.cpu_times()
        return wire.Status(
            state=state,
            uptime_s=round(time.monotonic() - self._started, 3),
            model=self._plan.card.name,
            queue=wire.QueueStatus(self._router.waiting, self._queue_limit),
            arena=wire.ArenaStatus(self._slots, self._slots - self.slots_in_use),
            stages=stages,
            share=self._plan.share,
            cores=cores.render(allowed),
            cpu_quota=None if math.isinf(quota) else quota,
            recent_s=round(now.at - then.at, 3),
            bottleneck=None if state == "starting" else bottleneck.find(bottleneck.recent(stages), host),
            replayed=self._router.replayed,
            hop_us=wire.HopStatus(p50, p99),
            hub_pid=me.pid,
            hub_cpu_s=round(times.user + times.system, 3),
            protocol=wire.PROTOCOL,
            sizes=self._plan.sizes,
            default_steps=self._plan.card.steps,
        )

    def _stages(self) -> list[tuple[StageSpec, Process]]:
        """The stages that have a process, in pipeline order."""
        specs = self._plan.stages
        return [(spec, self._processes[spec.name]) for spec in specs if spec.name in self._processes]

    def _recent(self) -> tuple[Look, Look]:
        """The newest look that is old enough, else the oldest; and the newest of all."""
        now = self._looks[-1]
        old = [look for look in self._looks if now.at - look.at >= RECENT_S]
        return (old[-1] if old else self._looks[0]), now

    def _stage(self, name: str, then: Look, now: Look) -> wire.StageStatus:
        spec = next(spec for spec in self._plan.stages if spec.name == name)
        life = self._supervisor.children[name]
        process = self._processes.get(name)
        pid = process.child.pid if process else None
        row = self._board.read(spec.number)
        busy = row.doing in (Doing.BUSY, Doing.COMPILING)
        served_s, loaded = 0.0, None
        if isinstance(process, ServingProcess):
            served_s, loaded = time.monotonic() - process.since, process.loaded
        seconds = now.at - then.at
        used = now.uses.get(name, Use(0, 0, 0.0))
        before = then.uses.get(name, used)
        if before.pid != used.pid or used.busy_ns < before.busy_ns:  # it died, or has only just loaded
            before = used
        own = cores.parse(spec.cores) or cores.allowed()
        idle_s = _idle_s(now, own)
        rss, pss = self._memory.sample(pid) if pid else (0, 0)
        return wire.StageStatus(
            name=name,
            kind=spec.kind,
            replica=spec.replica,
            pid=pid,
            state=row.doing.name.lower() if life.state is State.SERVING else life.state.value,
            cores_asked=spec.cores,
            cores_seen=cores.render(cores.read_back(pid)) if pid else "",
            threads=spec.threads,
            precision=loaded.precision if loaded else "",
            load_s=round(loaded.load_s, 3) if loaded else None,
            job=self._router.prompt_of(row.job) if busy else None,
            step=row.step if busy else 0,
            steps=row.steps if busy else 0,
            busy_share=_share(row.busy_ns / 1e9, served_s),
            recent_busy_share=_share(used.busy_ns / 1e9 - before.busy_ns / 1e9, seconds),
            recent_cores_used=round((used.cpu_s - before.cpu_s) / seconds, 4) if seconds else 0.0,
            recent_cores_idle=round((idle_s - _idle_s(then, own)) / seconds, 4) if seconds else 0.0,
            cores_idle_s=round(idle_s, 3),
            busy_s=round(used.busy_ns / 1e9, 6),
            cpu_s=round(used.cpu_s, 3),
            streams=spec.streams,
            max_rows=spec.max_rows,
            depth=spec.depth,
            restarts=life.restarts,
            rss_bytes=rss,
            pss_bytes=pss,
            cache_hit_share=_share(row.hits, row.lookups) if row.lookups else None,
            cpu_outside_infer_share=round(1 - _share(row.infer_cpu_ns, row.cpu_ns), 4) if row.infer_cpu_ns else None,
        )


def _idle_s(look: Look, own: frozenset[int]) -> float:
    return sum(look.idle_s[core] for core in own if core < len(look.idle_s))


def _share(part_s: float, of_s: float) -> float:
    return round(min(1.0, part_s / of_s), 4) if of_s else 0.0


def _busy_ns(row: Row, now_ns: int) -> int:
    """Time spent on jobs, what is under way included: it is added to the row only when it ends."""
    return row.busy_ns + (max(0, now_ns - row.beat_ns) if row.doing is Doing.BUSY else 0)


def _stat(pid: int) -> tuple[float, int]:
    """(CPU seconds, resident bytes) of a process; zeros if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return (0.0, 0)
    return ((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * resource.getpagesize())

"""What `status` answers, put together from the supervisor, the router, the board and the kernel."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from orchestrator.child import Child
from orchestrator.plan import Plan
from orchestrator.router import Router
from orchestrator.supervisor import State, Supervisor
from stages.core import cores, wire
from stages.core.arena import Arena
from stages.core.board import Board, Doing


class Observer:
    """Reads everything, changes nothing. Costs the stages nothing: they are not asked."""

    def __init__(
        self,
        plan: Plan,
        arena: Arena,
        board: Board,
        router: Router,
        supervisor: Supervisor,
        children: Mapping[str, Child],
        queue_limit: int,
    ) -> None:
        self._plan = plan
        self._arena = arena
        self._board = board
        self._router = router
        self._supervisor = supervisor
        self._children = children
        self._queue_limit = queue_limit
        self._started = time.monotonic()
        self.serving_since: dict[str, float] = {}
        """When each stage process had loaded."""
        self.loaded: dict[str, wire.Loaded] = {}
        """What each stage process said when it had loaded."""

    def status(self, state: Literal["starting", "serving", "draining"]) -> wire.Status:
        """The whole pipeline, now."""
        hops = self._router.hops_us
        p50, p99 = np.percentile(hops, (50, 99)).round(1).tolist() if hops else (None, None)
        me = psutil.Process()
        times = me.cpu_times()
        return wire.Status(
            state=state,
            uptime_s=round(time.monotonic() - self._started, 3),
            model=self._plan.card.name,
            queue=wire.QueueStatus(self._router.waiting, self._queue_limit),
            arena=wire.ArenaStatus(
                sum(pool.count for pool in self._plan.pools),
                sum(self._arena.free_slots(pool.name) for pool in self._plan.pools),
            ),
            stages=tuple(self._stage(spec.name) for spec in self._plan.stages),
            replayed=self._router.replayed,
            hop_us=wire.HopStatus(p50, p99),
            hub_pid=me.pid,
            hub_cpu_s=round(times.user + times.system, 3),
        )

    def _stage(self, name: str) -> wire.StageStatus:
        spec = next(spec for spec in self._plan.stages if spec.name == name)
        life = self._supervisor.children[name]
        child = self._children.get(name)
        row = self._board.read(spec.number)
        busy = row.doing in (Doing.BUSY, Doing.COMPILING)
        loaded = self.loaded.get(name) if life.state is State.SERVING else None
        since = time.monotonic() - self.serving_since[name] if name in self.serving_since else 0.0
        rss, pss = _memory(child.pid) if child else (0, 0)
        return wire.StageStatus(
            name=name,
            kind=spec.kind,
            replica=spec.replica,
            pid=child.pid if child else None,
            state=row.doing.name.lower() if life.state is State.SERVING else life.state.value,
            cores_asked=spec.cores,
            cores_seen=cores.render(cores.read_back(child.pid)) if child else "",
            threads=spec.threads,
            precision=loaded.precision if loaded else "",
            load_s=round(loaded.load_s, 3) if loaded else None,
            job=self._router.prompt_of(row.job) if busy else None,
            step=row.step if busy else 0,
            steps=row.steps if busy else 0,
            busy_share=round(min(1.0, row.busy_ns / 1e9 / since), 4) if since else 0.0,
            restarts=life.restarts,
            rss_bytes=rss,
            pss_bytes=pss,
            cache_hit_share=round(row.hits / row.lookups, 4) if row.lookups else None,
            cpu_outside_infer_share=round(1 - row.infer_cpu_ns / row.cpu_ns, 4) if row.infer_cpu_ns else None,
        )


def _memory(pid: int) -> tuple[int, int]:
    """(resident, proportional) bytes of a process; zeros if it is gone or not ours to look at."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return (0, 0)
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in rollup.splitlines()[1:]}
    return (sizes.get("Rss:", 0), sizes.get("Pss:", 0))

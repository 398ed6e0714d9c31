"""A simulated pipeline: the router, the leases and the plan are the real ones; processes and time are not. Pure.

The processes are simulated stages (orchestrator.tuning.simulated_stage) that take as long as the curves say, on cores
that they share (orchestrator.tuning.sharing). The hub is one more process: it takes time for every message, wherever
there is room. The same arguments give the same outcome.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.bench.drive import Played, Record
from orchestrator.bench.workload import Arrival
from orchestrator.hub import lease
from orchestrator.hub.lease import Leases
from orchestrator.plan import Machine, Plan
from orchestrator.routing.actions import Action, ToClient, ToStage
from orchestrator.routing.router import Router
from orchestrator.tuning.clockwork import Clockwork
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.sharing import Sharing, Work
from orchestrator.tuning.simulated_stage import Scene, SimulatedOneByOne, SimulatedStage, SimulatedUnet
from stages.core import cores, pipes, wire
from stages.core.arena import Arena, Layout, PoolSpec, View
from stages.core.outbox import Outbox
from stages.core.route import STEPWISE

HUB = "hub"
_CLIENT = b"load"
_ROUNDING_S = 1e-9
_SLOT_BYTES = 64
"""Simulated tensors hold nothing; only the state words of their slots count."""


class Conditions(msgspec.Struct, frozen=True):
    """Costs that curves of single stages do not tell; learned from real runs (orchestrator.tuning.calibrate)."""

    message_s: float = 0.0004
    """CPU seconds for one frame at the hub, and for what it tells the client, which is about a message a frame."""
    wire_s: float = 0.0001
    """From one process sending a message to another one reading it, both idle."""
    interference: float = 0.1
    """Cost of competing for cores beyond the fair part of them, as a share of the time."""
    handover_s: float = 0.001
    """Seconds that a stage which has been granted the cores loses until it works as fast as alone: its threads must
    wake, those of the stage before may still spin, and the caches hold what that one used."""


UNMEASURED = Conditions()
"""Before anything has run."""


@dataclass
class Simulated:
    """The outcome of a simulation; the records are those that a real load gives."""

    played: Played
    busy: dict[str, float]
    """Share of the time in which each process had work, by name; the hub's too."""
    cores_used: dict[str, float]
    """Cores that each process used on average."""


def simulate(
    plan: Plan,
    machine: Machine,
    curves: Curves,
    arrivals: Sequence[Arrival],
    in_flight: int | None = None,
    conditions: Conditions = UNMEASURED,
) -> Simulated:
    """Play a load to its end, as orchestrator.bench.drive.play does with a real pipeline."""
    pools = tuple(PoolSpec(pool.name, pool.count, _SLOT_BYTES) for pool in plan.pools)
    arena = Arena(Layout(pools))
    try:
        return _Simulation(plan, machine, curves, arena, arrivals, in_flight, conditions).play()
    finally:
        arena.close()


class _Simulation:
    """The hub, its client, and the wires between all processes."""

    def __init__(
        self,
        plan: Plan,
        machine: Machine,
        curves: Curves,
        arena: Arena,
        arrivals: Sequence[Arrival],
        in_flight: int | None,
        conditions: Conditions,
    ) -> None:
        core_sets = {cores.parse(spec.cores) for spec in plan.stages}
        self._clock = Clockwork(Sharing(core_sets, machine.quota, conditions.interference))
        self._conditions = conditions
        self._router = Router(plan, arena, queue_limit=len(arrivals))
        turns = {spec.name: spec.cores for spec in plan.stages if spec.takes_turns}
        self._leases = Leases({spec.name: spec.kind for spec in plan.stages}, turns)
        self._stages: dict[str, SimulatedStage] = {}
        self._views: list[View] = []
        scene = Scene(plan.card, curves, self._clock, self._said, conditions.handover_s)
        for spec in plan.stages:
            view = View(os.dup(arena.region.fd), arena.layout, spec.number)
            kind = SimulatedUnet if spec.kind == STEPWISE else SimulatedOneByOne
            self._stages[spec.name] = kind(spec, view, scene)
            self._views.append(view)
        self._inbox: deque[Callable[[], None]] = deque()
        self._outboxes = {spec.name: Outbox() for spec in plan.stages}
        self._hub_busy = False
        self._waiting = deque(arrivals)
        self._in_flight = in_flight
        self._free_s = 0.0
        self._out: dict[str, Record] = {}
        self._records: list[Record] = []

    def play(self) -> Simulated:
        """To the end."""
        try:
            for number, name in enumerate(self._stages):
                self._perform(self._router.serving(name, number + 1, self._clock.now_ns))
            for arrival in self._waiting:
                if arrival.at_s is not None:
                    self._clock.after(arrival.at_s, self._send_due)
            self._send_due()
            self._clock.run()
        finally:
            for view in self._views:
                view.close()
        assert not self._out, "a simulated prompt was lost"
        span_s = max((record.done_s or 0.0 for record in self._records), default=0.0)
        sharing = self._clock.sharing
        return Simulated(
            Played(self._records, 0.0, span_s),
            {name: seconds / span_s for name, seconds in sharing.busy_s.items()},
            {name: seconds / span_s for name, seconds in sharing.core_s.items()},
        )

    # The client.

    def _send_due(self) -> None:
        while self._waiting and self._is_due(self._waiting[0]):
            arrival = self._waiting.popleft()
            due_s = self._free_s if arrival.at_s is None else arrival.at_s
            record = self._out[arrival.submit.id] = Record(arrival.kind, due_s, self._clock.now)
            self._records.append(record)
            self._to_hub(lambda submit=arrival.submit: self._submit(submit))  # type: ignore[misc]

    def _is_due(self, arrival: Arrival) -> bool:
        if arrival.at_s is not None:
            return arrival.at_s <= self._clock.now + _ROUNDING_S
        return self._in_flight is None or len(self._out) < self._in_flight

    def _told(self, message: wire.HubMessage) -> None:
        now = self._clock.now
        match message:
            case wire.Accepted(id=id, eta_s=eta_s):
                self._out[id].accepted_s, self._out[id].eta_s = now, eta_s
            case wire.Image(id=id, timings=timings):
                record = self._out[id]
                record.timings.append(timings)
                record.first_image_s = now if record.first_image_s is None else record.first_image_s
            case wire.Done(id=id) | wire.Failed(id=id):
                record = self._out.pop(id)
                record.done_s, self._free_s = now, now
                if isinstance(message, wire.Failed):
                    record.code, record.message = message.code, message.message
                self._send_due()
            case _:
                pass

    # The hub: messages wait for each other, each takes its time.

    def _to_hub(self, handle: Callable[[], None]) -> None:
        def arrive() -> None:
            self._inbox.append(handle)
            if not self._hub_busy:
                self._attend()

        self._clock.after(self._conditions.wire_s, arrive)

    def _attend(self) -> None:
        self._hub_busy = True
        handle = self._inbox.popleft()

        def done() -> None:
            handle()
            self._hub_busy = False
            if self._inbox:
                self._attend()

        self._clock.begin(Work(HUB, None, self._conditions.message_s, 1.0, done))

    def _said(self, stage: SimulatedStage, messages: list[pipes.FromStage]) -> None:
        """Send what a stage says as stages.core.link.StageLink does: what goes together is one frame."""
        outbox = self._outboxes[stage.spec.name]
        known_s = outbox.due_s
        for message in messages:
            outbox.add(message, self._clock.now)
        outbox.end_unit(self._clock.now)
        if outbox.due_s < known_s:
            self._clock.after(max(0.0, outbox.due_s - self._clock.now), lambda: self._send_said(stage.spec.name))

    def _send_said(self, stage: str) -> None:
        """Send what a stage has said, unless it went with something else before it was due."""
        if self._outboxes[stage].due_s <= self._clock.now + _ROUNDING_S:
            messages = self._outboxes[stage].take(self._clock.now)
            self._to_hub(lambda: self._hear(stage, messages))

    def _hear(self, stage: str, messages: list[pipes.FromStage]) -> None:
        for message in messages:
            match message:
                case pipes.Started() | pipes.Stepped() | pipes.Finished():
                    self._perform(self._router.report(stage, message, self._clock.now_ns))
                case pipes.Yielded():
                    self._lease(self._leases.yielded(stage, more=self._router.has_work(stage)))
                case _:
                    pass

    def _submit(self, submit: wire.Submit) -> None:
        self._perform(self._router.ask(_CLIENT, submit, self._clock.now_ns))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ToStage(stage, message):
                    self._to_stage(stage, message)
                    if isinstance(message, pipes.Run):
                        self._lease(self._leases.wants(stage))
                case ToClient(_, answer, _):
                    if isinstance(answer, wire.Accepted | wire.Image | wire.Done | wire.Failed):
                        self._clock.after(
                            self._conditions.wire_s,
                            lambda answer=answer: self._told(answer),  # type: ignore[misc]
                        )

    def _lease(self, actions: list[lease.Action]) -> None:
        for action in actions:
            self._to_stage(action.stage, pipes.Grant() if isinstance(action, lease.Grant) else pipes.AskBack())

    def _to_stage(self, stage: str, message: pipes.ToStage) -> None:
        self._clock.after(self._conditions.wire_s, lambda: self._stages[stage].hear(message))

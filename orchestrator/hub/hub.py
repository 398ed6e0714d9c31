"""The hub: the one loop that performs what the router and the supervisor decide."""

import gc
import logging
import os
import resource
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, assert_never

import msgspec
import zmq

from orchestrator.hub import lease as leasing
from orchestrator.hub import supervisor as supervision
from orchestrator.hub.child import Child
from orchestrator.hub.child_spec import ChildSpec
from orchestrator.hub.descriptors import KEPT, Reserve, in_use, raise_limit
from orchestrator.hub.observer import Observer
from orchestrator.hub.process import LoadingProcess, Process, ServingProcess
from orchestrator.hub.recorder import Recorder
from orchestrator.hub.service_manager import ServiceManager
from orchestrator.hub.signals import Signals, caught_signals
from orchestrator.hub.socket_file import SocketFile
from orchestrator.hub.stage_child import stage_child
from orchestrator.hub.supervisor import Supervisor
from orchestrator.models.locate import card
from orchestrator.plan import Machine, Plan, plan
from orchestrator.routing import actions as routing
from orchestrator.routing.cost_store import CostBook
from orchestrator.routing.kept import KeptResults
from orchestrator.routing.router import Router
from stages.core import pipes, wire
from stages.core.arena import Arena, Layout
from stages.core.board import Board
from stages.core.config import Config
from stages.core.errors import BadRequest, ShuttingDown, TriptychError
from stages.core.link import CONNECTIONS, ClientHub, StageHub

log = logging.getLogger("triptych")

_LOOK_S = 1.0
"""Seconds between two looks at what the processes use, while there is work."""

_GARBAGE = 50_000
"""Objects made, beyond those given back, before Python looks for circles among them. To rank a long queue anew makes
tens of thousands, none of them garbage, and to look at all that waits would take as long as the ranking."""

_REFUSALS_S = 60.0
"""Seconds between two lines about connections that were refused."""

_DESCRIPTORS_A_CHILD = 8
"""What a child takes of ours: life-line, pidfd, standard error, its connection, and some to spare."""

_STOPPED = ShuttingDown("the server stopped before this was done")


class Ready(msgspec.Struct, frozen=True):
    """The pipeline serves: where, what, and after how long."""

    address: str
    model: str
    load_s: float
    stages: tuple[wire.StageStatus, ...]


def none_beside(address: str) -> Sequence[ChildSpec]:
    """No children but the stages."""
    return ()


def serve(
    config: Config,
    *,
    ready: Callable[[Ready], None],
    lifeline: int | None = None,
    beside: Callable[[str], Sequence[ChildSpec]] = none_beside,
) -> int:
    """Run a pipeline until SIGTERM, SIGINT or SIGHUP, or until `lifeline` reads end of file; returns the exit status.

    The socket listens, and prompts are accepted, from before the stages have loaded; `ready` is called once, when
    they all have. The first signal lets accepted prompts finish, a second one ends everything at once. Raises
    TriptychError when the pipeline cannot start, or a stage cannot be kept alive.

    `beside` is told the address of the prompt socket and returns what is to be kept alive beside the stages, as a
    gateway is. These children are started after the stages and stopped before them; `ready` does not wait for those
    that are not essential.
    """
    raise_limit()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    hub = Hub(config, plan(config, card(config), Machine.here()), ready, lifeline, beside)
    try:
        with SocketFile(hub.address), caught_signals() as signals:
            return hub.run(signals)
    finally:
        hub.close()


class Hub:
    """One pipeline: its memory, its sockets, its processes, and the loop over them."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        ready: Callable[[Ready], None],
        lifeline: int | None,
        beside: Callable[[str], Sequence[ChildSpec]] = none_beside,
    ) -> None:
        self._deadlines = config.deadlines
        self._plan = plan
        self._ready = ready
        self._lifeline = lifeline
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Memory first: where it cannot be had, nothing has been bound yet that would have to be removed again.
        self._arena = Arena(Layout(plan.pools))
        self._board = Board(len(plan.stages))
        self._clients = ClientHub(self._context, config.listen.socket)
        self.address = self._clients.address
        self._stages = StageHub(self._context, len(plan.stages))
        self._reserve = Reserve()
        arena_fd, board_fd, address = self._arena.region.fd, self._board.region.fd, self._stages.address
        stages = [stage_child(spec, config, arena_fd, board_fd, address) for spec in plan.stages]
        specs = [*stages, *beside(self.address)]
        self._specs = {spec.name: spec for spec in specs}
        self._clients.connections.limit = _connections(len(specs))
        self._processes: dict[str, Process] = {}
        """Those that live, by the names of their children."""
        self._costs = CostBook(plan)
        kept = KeptResults(config.pipeline.keep_s, config.pipeline.keep_mb << 20)
        self._router = Router(plan, self._arena, config.pipeline.queue_limit, self._costs.read(), kept)
        self._supervisor = Supervisor(specs)
        taking_turns = {spec.name: spec.cores for spec in plan.stages if spec.takes_turns}
        self._leases = leasing.Leases({spec.name: spec.kind for spec in plan.stages}, taking_turns)
        self._recorder = Recorder()
        self._observer = Observer(
            plan,
            self._arena,
            self._board,
            self._router,
            self._supervisor,
            self._processes,
            config.pipeline.queue_limit,
            self._recorder,
        )
        self._state: Literal["starting", "serving", "draining"] = "starting"
        self._drain_until = 0.0
        self._asked_to_stop = 0
        """Signals that meant it; a terminal that is closed does not count."""
        self._look_at = self._refusals_told_until = 0.0
        self._stopping = False
        self._failure: TriptychError | None = None
        self._poller = zmq.Poller()
        self._manager = ServiceManager()

    def run(self, signals: Signals) -> int:
        """The loop; returns the exit status.

        Whatever is raised in it that no message is to blame for ends the server, and no accepted prompt goes without a
        last word.
        """
        try:
            return self._loop(signals)
        except Exception as error:
            if error is not self._failure:
                self._give_up(error)
            raise

    def _loop(self, signals: Signals) -> int:
        began = time.monotonic()
        for source in (self._stages, self._clients):
            self._poller.register(source.socket, zmq.POLLIN)
            self._poller.register(source.connections.monitor, zmq.POLLIN)
        self._poller.register(signals, zmq.POLLIN)
        if self._lifeline is not None:
            self._poller.register(self._lifeline, zmq.POLLIN)
        self._supervise(self._supervisor.start(began))
        while not (self._stopping and self._supervisor.gone):
            events = dict(self._poller.poll(self._patience()))
            # 1. Who wants us to stop. A second signal, and the end of our own life-line, are obeyed at once.
            received = signals.take() if signals.fileno() in events else []
            if self._lifeline in events or len(received) + self._asked_to_stop > 1:
                return self._end(130 if received else 0)
            if received and self._state != "draining":
                self._drain()
            self._asked_to_stop += len(received) if received != [signal.SIGHUP] else 0
            # 2. Who has come, or gone; before anything is opened that there may be no descriptor for.
            if self._stages.connections.monitor in events:
                self._stages.connections.attend()
            if self._clients.connections.monitor in events and self._clients.connections.attend():
                self._tell_of_refusals()
            # 3. What stages have said, before any news of their death: it was said earlier.
            for pid, message in self._stages.receive():
                with self._contained(self._stage_of(pid), message):
                    self._hear(pid, message)
            # 4. What they complain of, and whether they live.
            for process in list(self._processes.values()):
                child = process.child
                if child.lifeline.fileno() in events:
                    self._listen(child)
                if child.stderr.fileno() in events:
                    self._relay(child)
                if child.pidfd in events:
                    self._bury(child)
            # 5. What clients want.
            for peer, frame in self._clients.receive():
                if peer.uid is None or peer.uid == os.getuid():
                    self._attend(peer.routing_id, frame)
            # 6. What is due.
            self._manager.beat(time.monotonic())
            self._supervise(self._supervisor.tick(time.monotonic()))
            waiting_due_ns = self._router.waiting_due_ns
            if waiting_due_ns is not None and time.monotonic_ns() >= waiting_due_ns:
                self._route(self._router.send_waiting(time.monotonic_ns()))
            if not self._router.empty and time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_S
                self._look()
            self._recorder.level(time.monotonic_ns(), self._router.waiting, self._observer.slots_in_use)
            # 7. Turning points of the pipeline's life.
            if self._failure is not None:
                self._end(self._failure.exit_status)
                raise self._failure
            if self._state == "starting" and self._supervisor.serving:
                self._state = "serving"
                with self._reserve.lent():
                    stages = self._observer.status("serving").stages
                took = time.monotonic() - began
                self._manager.ready(f"{self._plan.card.name} at {self.address}")
                self._ready(Ready(self.address, self._plan.card.name, round(took, 3), stages))
            if self._state == "draining" and not self._stopping:
                self._stop_when_drained()
        return 0

    def close(self) -> None:
        """Give everything back; answers already on their way to clients get `deadlines.send_s` to leave.

        What was learned of costs is kept for the next time.
        """
        for process in self._processes.values():
            process.child.kill()
            process.child.reap()
            process.child.close()
        self._processes.clear()
        self._reserve.close()
        self._manager.close()
        self._stages.close()
        self._clients.close(int(self._deadlines.send_s * 1000))
        self._context.term()
        self._arena.close()
        self._board.close()
        self._costs.write(self._router.forecast.estimate.costs)

    # When something is wrong with ourselves.

    @contextmanager
    def _contained(self, stage: str, message: pipes.FromStage) -> Iterator[None]:
        """What a stage's message raises costs that message, and the prompt of the job that it was about."""
        try:
            yield
        except Exception as error:
            log.exception("internal: %s of %s could not be handled", type(message).__name__, stage)
            job = self._router.job(getattr(message, "job", 0))
            if job is not None:
                owner, id = job.prompt.owner, job.prompt.id
                self._route(self._router.give_up(owner, id, TriptychError.unforeseen(error), time.monotonic_ns()))

    def _give_up(self, error: Exception) -> None:
        """The last resort: fail every prompt that was accepted, and end the stages."""
        last_word = TriptychError.unforeseen(error)
        try:
            self._route(self._router.abandon(last_word, time.monotonic_ns()))
        except Exception:  # the router's own books may be what is broken
            log.exception("internal: while prompts were failed")
            for client, id in self._router.owed():
                self._clients.send(client, wire.Failed.of(id, last_word))
        for process in self._processes.values():
            process.child.kill()

    def _tell_of_refusals(self) -> None:
        """Say that clients are refused, a line a minute: whoever refuses thousands must not fill a log with them."""
        if time.monotonic() >= self._refusals_told_until:
            self._refusals_told_until = time.monotonic() + _REFUSALS_S
            served = self._clients.connections.limit
            log.warning(
                "connections are refused: %d are open, as many as there are descriptors for (ulimit -n)", served
            )

    def _look(self) -> None:
        """Note what the processes use. It is for show, so it is skipped where it cannot be had."""
        try:
            with self._reserve.lent():
                self._observer.look()
        except OSError as error:
            log.warning("cannot look at the processes now: %s", error.strerror)

    # Performing decisions.

    def _route(self, actions: list[routing.Action]) -> None:
        for action in actions:
            match action:
                case routing.ToStage(stage, message):
                    if stage in self._processes:
                        self._stages.send(self._processes[stage].child.pid, message)
                        if isinstance(message, pipes.Run):
                            self._recorder.sent(stage, message, self._router.job(message.job), time.monotonic_ns())
                            self._lease(self._leases.wants(stage))
                case routing.ToClient(client, answer, payload):
                    self._tell(client, answer, payload)
                case routing.ToTracer(client, id, jobs, began_ns):
                    self._tell(client, wire.Traced(id=id, slices=self._recorder.slices(jobs, began_ns)))
                case _:
                    assert_never(action)

    def _tell(self, client: bytes, answer: wire.HubMessage, payload: bytes | None = None) -> None:
        """Send to a client; one that cannot be reached is gone."""
        if not self._clients.send(client, answer, payload):
            self._route(self._router.client_gone(client, time.monotonic_ns()))

    def _lease(self, actions: list[leasing.Action]) -> None:
        for action in actions:
            match action:
                case leasing.Grant(stage):
                    self._stages.send(self._processes[stage].child.pid, pipes.Grant())
                case leasing.AskBack(stage):
                    self._stages.send(self._processes[stage].child.pid, pipes.AskBack())
                case _:
                    assert_never(action)

    def _supervise(self, actions: list[supervision.Action]) -> None:
        for action in actions:
            match action:
                case supervision.Spawn(name):
                    self._spawn(name)
                case supervision.Stop(name):
                    self._ask_to_leave(self._processes[name].child)
                case supervision.Kill(name):
                    self._processes[name].child.kill()
                case supervision.Abandon(name, error):
                    log.error("%s is given up, and all else goes on without it: %s", name, error.message)
                case supervision.GiveUp(error):
                    self._failure = error
                case _:
                    assert_never(action)

    def _spawn(self, name: str) -> None:
        spec = self._specs[name]
        if spec.stage is not None:
            self._board.clear(spec.stage.number)
        try:
            with self._reserve.lent():
                child = Child(spec)
        except OSError as error:  # no memory, or no more processes: the next attempt may do better
            how = f"could not be started: {error.strerror}"
            self._supervise(self._supervisor.exited(name, how, time.monotonic()))
            return
        self._processes[name] = LoadingProcess(child)
        if spec.stage is not None:
            self._stages.expect(child.pid)
        else:
            self._poller.register(child.lifeline.fileno(), zmq.POLLIN)
        self._poller.register(child.pidfd, zmq.POLLIN)
        self._poller.register(child.stderr.fileno(), zmq.POLLIN)

    def _ask_to_leave(self, child: Child) -> None:
        if child.spec.stage is not None:
            self._stages.send(child.pid, pipes.Stop())
        else:
            child.hang_up()

    # Hearing.

    def _stage_of(self, pid: int) -> str:
        return next(name for name, process in self._processes.items() if process.child.pid == pid)

    def _hear(self, pid: int, message: pipes.FromStage) -> None:
        stage = self._stage_of(pid)
        match message:
            case pipes.Hello():
                pass  # its connection is known now
            case pipes.Loaded(load_s, core_list, threads, precision):
                log.info(
                    "%s loaded in %.2f s on cores %s, %d threads, %s", stage, load_s, core_list, threads, precision
                )
                self._supervisor.loaded(stage)
                self._processes[stage] = ServingProcess(self._processes[stage].child, time.monotonic(), message)
                self._route(self._router.serving(stage, pid, time.monotonic_ns()))
            case pipes.LoadFailed(code, text):
                self._supervisor.load_failed(stage, code, text)
            case pipes.Started() | pipes.Stepped() | pipes.Finished() | pipes.Dropped() | pipes.Fault():
                now_ns = time.monotonic_ns()
                self._recorder.heard(stage, pid, message, now_ns)
                self._route(self._router.report(stage, message, now_ns))
            case pipes.PreviewDrawn():
                self._route(self._router.previewed(stage, message, time.monotonic_ns()))
            case pipes.Yielded():
                self._lease(self._leases.yielded(stage, more=self._router.has_work(stage)))
            case _:
                assert_never(message)

    def _listen(self, child: Child) -> None:
        """Hear on its life-line whether a child that is no stage has loaded."""
        loaded, more = child.read_lifeline()
        if loaded and isinstance(self._processes[child.spec.name], LoadingProcess):
            log.info("%s has loaded", child.spec.name)
            self._supervisor.loaded(child.spec.name)
            self._processes[child.spec.name] = ServingProcess(child, time.monotonic(), None)
        if not more:
            self._forget(child.lifeline.fileno())

    def _relay(self, child: Child) -> None:
        """Pass on what a child wrote to its standard error."""
        lines, more = child.read_stderr()
        for line in lines:
            log.warning("%s: %s", child.spec.name, line)
        if not more:
            self._forget(child.stderr.fileno())

    def _bury(self, child: Child) -> None:
        """A process has ended: a stage's jobs go elsewhere, and the supervisor decides what comes after it."""
        name = child.spec.name
        how = child.reap()
        self._poller.unregister(child.pidfd)
        # What it had said before it died may have come only after the poll.
        if child.lifeline.fileno() in self._watched():
            self._listen(child)
            self._forget(child.lifeline.fileno())
        if child.stderr.fileno() in self._watched():
            self._relay(child)
            self._forget(child.stderr.fileno())
        child.close()
        del self._processes[name]
        if not self._stopping:
            log.warning("%s (process %d) %s", name, child.pid, how)
        if child.spec.stage is not None:
            self._stages.forget(child.pid)
            self._lease(self._leases.yielded(name, more=False))
            self._recorder.lost(name, child.pid, time.monotonic_ns())
            self._route(self._router.lost(name, time.monotonic_ns(), killed=child.killed))
        self._supervise(self._supervisor.exited(name, how, time.monotonic()))

    def _watched(self) -> set[int]:
        """Descriptors that the loop waits for."""
        return {source for source, _ in self._poller.sockets if isinstance(source, int)}

    def _forget(self, descriptor: int) -> None:
        """Wait for it no more, whether or not it has been waited for."""
        if descriptor in self._watched():
            self._poller.unregister(descriptor)

    def _attend(self, client: bytes, frame: bytes | None) -> None:
        """Answer one request of a client, whatever it is and whatever comes of it."""
        try:
            if frame is None:
                raise BadRequest("a request is one frame, of JSON (a DEALER sends no empty frame before it)")
            message = wire.decode_client_message(frame)
        except BadRequest as error:
            self._clients.send(client, wire.Failed.of(wire.id_of_broken(frame or b""), error))
            return
        try:
            self._do(client, message)
        except Exception as error:
            log.exception("internal: a request could not be handled")
            id, owner = getattr(message, "id", None) or "", getattr(message, "owner", None) or client
            failure = TriptychError.unforeseen(error)
            self._route(self._router.give_up(owner, id, failure, time.monotonic_ns(), told=client))

    def _do(self, client: bytes, message: wire.ClientMessage) -> None:
        now_ns = time.monotonic_ns()
        match message:
            case wire.Submit() | wire.Cancel() | wire.Attach() | wire.Forget():
                self._route(self._router.ask(client, message, now_ns, draw=secrets.randbelow(1 << 32)))
            case wire.StatusRequest():
                with self._reserve.lent():
                    status = self._observer.status(self._state)
                self._clients.send(client, status)
            case wire.TraceRequest(seconds=seconds):
                with self._reserve.lent():
                    trace = self._observer.trace(seconds)
                self._clients.send(client, wire.Trace(), trace)
            case _:
                assert_never(message)

    # Stopping.

    def _drain(self) -> None:
        """Take no more prompts; those accepted may finish until the deadline."""
        log.info("stopping: %s", "finishing what is in work" if not self._router.empty else "nothing is in work")
        self._state = "draining"
        self._manager.stopping()
        self._drain_until = time.monotonic() + self._deadlines.drain_s
        self._router.drain()

    def _stop_when_drained(self) -> None:
        if self._router.empty or not self._supervisor.served or time.monotonic() >= self._drain_until:
            self._route(self._router.abandon(_STOPPED, time.monotonic_ns()))
            self._stopping = True
            self._supervise(self._supervisor.stop(time.monotonic()))

    def _end(self, status: int) -> int:
        """End everything at once."""
        self._route(self._router.abandon(_STOPPED, time.monotonic_ns()))
        for process in self._processes.values():
            process.child.kill()
        return status

    def _patience(self) -> int:
        """Milliseconds until something is due that no descriptor tells of."""
        due = [deadline for deadline in (self._supervisor.next_deadline,) if deadline is not None]
        if self._state == "draining" and not self._stopping:
            due.append(self._drain_until)
        if not self._router.empty:
            due.append(self._look_at)
        if self._router.waiting_due_ns is not None:
            due.append(self._router.waiting_due_ns / 1e9)
        if self._manager.next_beat is not None:
            due.append(self._manager.next_beat)
        return int(max(0.0, min(due) - time.monotonic()) * 1000) + 1 if due else -1


def _connections(children: int) -> int:
    """How many connections of clients there are descriptors for, beside all that the hub needs itself.

    And beside as many more as the reserve: connections are accepted before they can be refused.
    """
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - in_use() - children * _DESCRIPTORS_A_CHILD - KEPT
    return max(1, min(CONNECTIONS, free))

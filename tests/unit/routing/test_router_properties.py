"""Any history of clients and stages. What a stage may not be sent is refused by the fleet itself, at every message."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stages.core import pipes, wire
from stages.core.config import Config, PipelineConfig, StageConfig
from stages.core.order import ORDERS, Order
from stages.core.tasks import Denoise
from tests.unit.fleet import DRAW, Fleet, picture

CLIENTS = (b"first", b"second")
OWNER, LATER = "owner", b"later"
QUEUE_LIMIT = 3


class RouterMachine(RuleBasedStateMachine):
    """Submits, cancels, reports in any order a stage may send them in, deaths, and the end of the server."""

    clients = st.sampled_from(CLIENTS)

    @initialize(replicas=st.integers(1, 2), rows=st.integers(2, 5), order=st.sampled_from(ORDERS))
    def launch(self, replicas: int, rows: int, order: Order) -> None:
        unet = StageConfig(kind="unet", replicas=replicas, max_rows=rows)
        self.fleet = Fleet(Config(pipeline=PipelineConfig(queue_limit=QUEUE_LIMIT, order=order), stage=(unet,)))
        self.prompts: dict[tuple[bytes, str], list[bytes]] = {}
        """Those accepted, with the pictures they ask for."""
        self.embeds = self.fleet.arena.free_slots("embeds")
        self.owned: dict[str, list[bytes]] = {}
        """Those of a named owner, the same."""
        self.gone: set[tuple[bytes, str]] = set()
        self.draining = False

    def choose(self, data: st.DataObject, stages: list[str]) -> str:
        return data.draw(st.sampled_from(stages))

    def holding(self) -> list[str]:
        return [name for name, process in self.fleet.processes.items() if process.held]

    def working(self) -> list[str]:
        return [name for name, process in self.fleet.processes.items() if process.began_ns]

    def told_to_drop(self) -> list[str]:
        return [name for name, process in self.fleet.processes.items() if process.drops]

    @rule(client=clients, images=st.integers(1, 3), steps=st.integers(1, 3), trace=st.booleans())
    def submit(self, client: bytes, images: int, steps: int, trace: bool) -> None:
        id = f"{len(self.prompts)}"
        waited = self.fleet.router.waiting
        answer = self.fleet.submit(id, id, client, n=images, steps=steps, trace=trace)[0]
        if isinstance(answer, wire.Accepted):
            assert not self.draining
            assert waited + images <= QUEUE_LIMIT + self.embeds
            self.prompts[client, id] = [picture(id, DRAW + index, steps) for index in range(images)]
        else:
            assert isinstance(answer, wire.Failed)
            assert answer.code == ("shutting_down" if self.draining else "overloaded")
            assert answer.retryable
            self.fleet.answers.pop()  # the id is free for the next one

    @rule(client=clients, images=st.integers(1, 3))
    def submit_owned(self, client: bytes, images: int) -> None:
        id = f"owned {len(self.owned)}"
        if isinstance(self.fleet.submit(id, id, client, n=images, owner=OWNER)[0], wire.Accepted):
            self.owned[id] = [picture(id, DRAW + index) for index in range(images)]

    @rule(client=clients)
    def attach(self, client: bytes) -> None:
        [attached, *told] = self.fleet.ask(wire.Attach(owner=OWNER), client)
        assert isinstance(attached, wire.Attached)
        assert sorted(attached.in_work + attached.ended) == sorted(self.owned)
        ends = [message.id for message in told if isinstance(message, wire.Done | wire.Failed)]
        assert tuple(ends) == attached.ended

    @precondition(lambda self: self.owned)
    @rule(data=st.data(), client=clients)
    def cancel_owned(self, data: st.DataObject, client: bytes) -> None:
        id = data.draw(st.sampled_from(sorted(self.owned)))
        answers = self.fleet.ask(wire.Cancel(id=id, owner=OWNER), client)
        assert all(isinstance(answer, wire.Failed) for answer in answers)

    @precondition(lambda self: self.owned)
    @rule(data=st.data(), client=clients)
    def submit_again(self, data: st.DataObject, client: bytes) -> None:
        """It is joined, or told again; one that failed is tried anew, unless that cannot be now."""
        id = data.draw(st.sampled_from(sorted(self.owned)))
        images = len(self.owned[id])
        [first, *_] = self.fleet.submit(id, id, client, n=images, owner=OWNER)
        assert isinstance(first, wire.Accepted) or first.retryable  # type: ignore[union-attr]

    @precondition(lambda self: self.prompts)
    @rule(data=st.data(), client=clients)
    def cancel(self, data: st.DataObject, client: bytes) -> None:
        """Of the own prompts, living or not, or of the other client's."""
        owner, id = data.draw(st.sampled_from(sorted(self.prompts)))
        ended = (owner, id) in self.gone or self.fleet.ends(id, owner)
        answer = self.fleet.cancel(id, client)[0]
        assert isinstance(answer, wire.Failed)
        if client != owner or ended:
            assert answer.code == "not_found"
            self.fleet.answers.pop()
        else:
            assert answer.code == "cancelled"

    @rule(client=clients)
    def client_gone(self, client: bytes) -> None:
        heard = len(self.fleet.answers)
        self.fleet.client_gone(client)
        assert all(answer.client != client for answer in self.fleet.answers[heard:])
        living = {key for key in self.prompts if key[0] == client and not self.fleet.ends(key[1], client)}
        self.gone |= living

    @precondition(lambda self: len(self.prompts) > 5)
    @rule()
    def drain(self) -> None:
        self.fleet.router.drain()
        self.draining = True

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        stage = self.choose(data, self.holding())
        self.fleet.take(stage, data.draw(st.sampled_from(self.fleet.jobs(stage))))

    @precondition(lambda self: self.working())
    @rule(data=st.data(), torn=st.integers(0, 5))
    def go_on(self, data: st.DataObject, torn: int) -> None:
        """One step, or the end, of a job that has been taken up."""
        stage = self.choose(data, self.working())
        job = data.draw(st.sampled_from(sorted(self.fleet.processes[stage].began_ns)))
        run = next(run for run in self.fleet.processes[stage].held if run.job == job)
        if isinstance(run.task, Denoise) and self.fleet.steps_done(stage, job) < run.task.steps:
            self.fleet.step(stage, job)
        else:
            self.fleet.put(stage, job, torn=not torn and stage == "vae-0")

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        self.fleet.work(self.choose(data, self.holding()))

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def fault(self, data: st.DataObject) -> None:
        stage = self.choose(data, self.holding())
        code = data.draw(st.sampled_from(["stage_fault", "torn_slot", "stale_slot"]))
        self.fleet.fault(stage, data.draw(st.sampled_from(self.fleet.jobs(stage))), code)

    @precondition(lambda self: self.told_to_drop())
    @rule(data=st.data())
    def obey(self, data: st.DataObject) -> None:
        self.fleet.obey(self.choose(data, self.told_to_drop()))

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        stage = self.choose(data, list(self.fleet.processes))
        late = [pipes.Dropped(run.job) for run in self.fleet.processes[stage].held]
        self.fleet.kill(stage)
        for report in late:
            assert self.fleet.router.report(stage, report, self.fleet.now_ns) == []

    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        dead = [name for name, process in self.fleet.processes.items() if not process.alive]
        if dead:
            self.fleet.serve(self.choose(data, dead))

    @invariant()
    def every_prompt_ends_at_most_once_and_then_is_silent(self) -> None:
        for client, id in self.prompts:
            heard = self.fleet.heard(id, client)
            assert not any(isinstance(message, wire.Done | wire.Failed) for message in heard[:-1])

    @invariant()
    def a_slot_is_free_or_somebody_s(self) -> None:
        """No more slots are taken than living jobs can hold: two each, one while in the text stage."""
        started = sum(pool.count - self.fleet.arena.free_slots(pool.name) for pool in self.fleet.plan.pools)
        living = sum(self.fleet.router.prompt_of(job) is not None for job in range(1, 1 + self.fleet.submitted))
        assert started <= 2 * living

    def teardown(self) -> None:
        for name, process in self.fleet.processes.items():
            if not process.alive:
                self.fleet.serve(name)
        self.fleet.settle()
        self.every_prompt_ends_at_most_once_and_then_is_silent()
        for (client, id), pictures in self.prompts.items():
            ends = self.fleet.ends(id, client)
            assert len(ends) == (0 if (client, id) in self.gone else 1)
            if ends == ["done"]:
                assert self.fleet.pictures(id, client) == pictures
        self.fleet.ask(wire.Attach(owner=OWNER), LATER)
        for id, pictures in self.owned.items():
            [end] = self.fleet.ends(id, LATER)
            assert self.fleet.pictures(id, LATER) == pictures if end == "done" else self.fleet.heard(id, LATER)
        assert self.fleet.all_free()
        self.fleet.close()


class TestHistories(RouterMachine.TestCase):
    settings = settings(max_examples=100, stateful_step_count=50, deadline=None)

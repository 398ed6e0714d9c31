"""Stage processes played by hand, around a real router and a real arena.

What they put into their slots tells what it was made of, so a picture that was mixed up with another one, or made from
a slot that had been freed, is not the `picture` of its request.
"""

import os
from dataclasses import dataclass
from itertools import count

import numpy as np

from orchestrator.hub.recorder import Recorder
from orchestrator.plan import PREEMPTION_SLOTS, plan
from orchestrator.routing.actions import Action, ToClient, ToTracer
from orchestrator.routing.kept import KeptResults
from orchestrator.routing.router import Router
from stages.core import pipes, wire
from stages.core.arena import Arena, Layout, SlotRef, View
from stages.core.checkpoint import Checkpoint
from stages.core.config import Config, PipelineConfig
from stages.core.model import ModelCard
from stages.core.route import LEGS, STEPWISE
from stages.core.tasks import Decode, Denoise, EncodeText, Task
from tests.unit.cards import CARD, machine

TEXT, UNET, VAE = "text-0", "unet-0", "vae-0"
STAGES = (TEXT, UNET, VAE)
NAMES = {"text": TEXT, "unet": UNET, "vae": VAE}
CLIENT = b"client"
DRAW = 1000
"""The seed of a prompt that names none."""
TICK = 60_000_000
"""Nanoseconds between any two things that happen; clients are told of each, as it is not too soon after the last."""


ARRIVAL = Config(pipeline=PipelineConfig(order="arrival"))
"""Each test says so where the order of jobs is not that of their arrival."""


def picture(prompt: str, seed: int = DRAW, steps: int = CARD.steps) -> bytes:
    """The bytes that the fleet makes of a prompt with every default."""
    return f"\n{prompt}|seed {seed}, {steps} steps|png".encode()


@dataclass
class Process:
    """A stage process: the jobs it holds, oldest first, those it was told to drop, and all it was ever sent."""

    view: View
    held: list[pipes.Run[Task]]
    drops: list[int]
    runs: list[pipes.Run[Task]]
    began_ns: dict[int, int]
    alive: bool = False


class Fleet:
    """Performs what the router decides, and reports what the test has a stage do."""

    def __init__(self, config: Config | None = None, card: ModelCard = CARD, *, serving: bool = True) -> None:
        config = config or ARRIVAL
        self.plan = plan(config, card, machine(2))
        layout = Layout(self.plan.pools)
        self.arena = Arena(layout)
        kept = KeptResults(config.pipeline.keep_s, config.pipeline.keep_mb << 20)
        self.router = Router(self.plan, self.arena, config.pipeline.queue_limit, kept=kept)
        self.processes = {
            spec.name: Process(View(os.dup(self.arena.region.fd), layout, spec.number), [], [], [], {})
            for spec in self.plan.stages
        }
        self.answers: list[ToClient] = []
        self.recorder = Recorder()
        self.now_ns = 1_000 * TICK
        self.pace: dict[wire.Kind, int] = {}
        """Nanoseconds of an encoding, of a step, of a decoding, where it matters."""
        self.submitted = 0
        """Images that were asked for."""
        self._pids = count(100)
        self.pids: dict[str, int] = {}
        for name in self.processes if serving else ():
            self.serve(name)

    def close(self) -> None:
        for process in self.processes.values():
            process.view.close()
        self.arena.close()

    # What clients do, and what they hear.

    def submit(self, id: str, prompt: str = "a cat", client: bytes = CLIENT, **fields: object) -> list[wire.HubMessage]:
        request = wire.Submit(id=id, prompt=prompt, **fields)  # type: ignore[arg-type]  # fields of several types
        self.submitted += max(0, request.n)
        return self._perform(self.router.ask(client, request, self.tick(), DRAW))

    def ask(self, message: wire.PromptMessage, client: bytes = CLIENT) -> list[wire.HubMessage]:
        return self._perform(self.router.ask(client, message, self.tick(), DRAW))

    def cancel(self, id: str, client: bytes = CLIENT) -> list[wire.HubMessage]:
        return self._perform(self.router.ask(client, wire.Cancel(id=id), self.tick()))

    def client_gone(self, client: bytes) -> list[wire.HubMessage]:
        return self._perform(self.router.client_gone(client, self.tick()))

    def heard(self, id: str, client: bytes = CLIENT) -> list[wire.HubMessage]:
        """All answers to a prompt."""
        return [a.message for a in self.answers if a.client == client and getattr(a.message, "id", None) == id]

    def ends(self, id: str, client: bytes = CLIENT) -> list[str]:
        """The terminal answers to a prompt: `done`, or the code of what failed."""
        heard = self.heard(id, client)
        return [
            m.code if isinstance(m, wire.Failed) else "done" for m in heard if isinstance(m, wire.Failed | wire.Done)
        ]

    def pictures(self, id: str, client: bytes = CLIENT) -> list[bytes | None]:
        """The pictures of a prompt by index."""
        images = [(a.message, a.payload) for a in self.answers if a.client == client]
        found = [(m.index, payload) for m, payload in images if isinstance(m, wire.Image) and m.id == id]
        return [payload for _, payload in sorted(found, key=lambda pair: pair[0])]

    # What stages do.

    def serve(self, stage: str) -> list[wire.HubMessage]:
        self.processes[stage].alive = True
        self.pids[stage] = next(self._pids)
        return self._perform(self.router.serving(stage, self.pids[stage], self.tick()))

    def kill(self, stage: str, *, killed: bool = False) -> list[wire.HubMessage]:
        process = self.processes[stage]
        process.alive = False
        process.held, process.drops, process.began_ns = [], [], {}
        return self._perform(self.router.lost(stage, self.tick(), killed=killed))

    def report(self, stage: str, report: pipes.Report) -> list[wire.HubMessage]:
        now_ns = self.tick()
        self.recorder.heard(stage, self.pids[stage], report, now_ns)
        return self._perform(self.router.report(stage, report, now_ns))

    def take(self, stage: str, job: int | None = None) -> list[wire.HubMessage]:
        """The stage takes a job up, by default the oldest one it holds."""
        process, run = self._held(stage, job)
        process.began_ns[run.job] = self.tick()
        steps = run.task.steps if isinstance(run.task, Denoise) else 1
        return self.report(stage, pipes.Started(run.job, self.now_ns, 0, steps))

    def step(self, stage: str, job: int | None = None) -> list[wire.HubMessage]:
        """The U-Net does one step, and keeps a checkpoint in the slot as the real one does."""
        process, run = self._held(stage, job)
        assert isinstance(run.task, Denoise)
        began = self.tick()
        shape = self.plan.card.latent_shape(run.task.width, run.task.height)
        checkpoint = Checkpoint(process.view.write(run.output), run.job, shape)
        step = self.steps_done(stage, run.job) + 1
        checkpoint.save(step, np.zeros(shape, np.float32), np.zeros((0, *shape), np.float32))
        ended = self._ended(kind_of(run), began)
        return self.report(stage, pipes.Stepped(run.job, step, run.task.steps, began, ended, ended - began))

    def steps_done(self, stage: str, job: int | None = None) -> int:
        """What the checkpoint in the job's slot says."""
        process, run = self._held(stage, job)
        assert isinstance(run.task, Denoise)
        payload = process.view.write(run.output)
        saved = Checkpoint(payload, run.job, self.plan.card.latent_shape(run.task.width, run.task.height)).restore()
        return saved.step if saved else 0

    def put(self, stage: str, job: int | None = None, *, torn: bool = False) -> list[wire.HubMessage]:
        """The stage puts a job down; `torn` changes a byte of it afterwards."""
        process, run = self._held(stage, job)
        content = self._content(process.view, run)
        process.view.write(run.output)[: len(content)] = np.frombuffer(content, np.uint8)
        process.view.seal(run.output, len(content))
        if torn:
            self.arena.region.array(*self.arena.layout.payloads[run.output.index])[0] ^= 1
        process.held.remove(run)
        began = process.began_ns.pop(run.job)
        kind = kind_of(run)
        ended = self.tick() if kind == STEPWISE else self._ended(kind, began)
        return self.report(stage, pipes.Finished(run.job, (len(content),), began, ended))

    def fault(self, stage: str, job: int | None = None, code: str = "stage_fault") -> list[wire.HubMessage]:
        process, run = self._held(stage, job)
        process.held.remove(run)
        process.began_ns.pop(run.job, None)
        return self.report(stage, pipes.Fault(run.job, code, "it broke"))

    def obey(self, stage: str) -> list[wire.HubMessage]:
        """The stage drops the job it was told to drop first."""
        process = self.processes[stage]
        job = process.drops.pop(0)
        process.held = [run for run in process.held if run.job != job]
        process.began_ns.pop(job, None)
        return self.report(stage, pipes.Dropped(job))

    def work(self, stage: str, job: int | None = None) -> list[wire.HubMessage]:
        """The stage does all that is left of a job, by default of the oldest one it holds."""
        process, run = self._held(stage, job)
        heard = [] if run.job in process.began_ns else self.take(stage, run.job)
        if isinstance(run.task, Denoise):
            while self.steps_done(stage, run.job) < run.task.steps:
                heard += self.step(stage, run.job)
        return heard + self.put(stage, run.job)

    def settle(self) -> None:
        """Let all living stages work until they have nothing to do."""
        busy = True
        while busy:
            busy = False
            for name, process in self.processes.items():
                while process.drops:
                    self.obey(name)
                if process.held:
                    self.work(name)
                    busy = True

    # Looking.

    def jobs(self, stage: str) -> list[int]:
        """The jobs that a stage holds."""
        return [run.job for run in self.processes[stage].held]

    def most(self, kind: wire.Kind) -> int:
        """How many jobs a process of `kind` may hold."""
        return self.plan.depths[kind] + (PREEMPTION_SLOTS if kind == STEPWISE else 0)

    def all_free(self) -> bool:
        """Whether nothing is left of any job."""
        return self.router.empty and all(self.arena.free_slots(pool.name) == pool.count for pool in self.plan.pools)

    def tick(self) -> int:
        self.now_ns += TICK
        return self.now_ns

    def _ended(self, kind: wire.Kind, began_ns: int) -> int:
        """When a unit of work is done that began then."""
        self.now_ns = max(self.now_ns + TICK, began_ns + self.pace.get(kind, 0))
        return self.now_ns

    def _perform(self, actions: list[Action]) -> list[wire.HubMessage]:
        heard = []
        for action in actions:
            if isinstance(action, ToClient):
                self.answers.append(action)
                heard.append(action.message)
            elif isinstance(action, ToTracer):
                slices = self.recorder.slices(action.jobs, action.began_ns)
                self.answers.append(ToClient(action.client, wire.Traced(id=action.id, slices=slices)))
                heard.append(self.answers[-1].message)
            elif isinstance(action.message, pipes.Drop):
                process = self.processes[action.stage]
                assert action.message.job in self.jobs(action.stage)
                process.drops.append(action.message.job)
            else:
                assert isinstance(action.message, pipes.Run | pipes.DrawPreview), action.message
                self._receive(action.stage, action.message)
        return heard

    def _receive(self, stage: str, run: pipes.Run[Task] | pipes.DrawPreview) -> None:
        """Take a job in, and refuse what no router may send."""
        assert not isinstance(run, pipes.DrawPreview), "nobody asked for previews"
        process = self.processes[stage]
        kind = stage.partition("-")[0]
        assert process.alive
        assert kind_of(run) == kind
        assert run.job not in self.jobs(stage)
        assert len(process.held) < self.most(kind_of(run))
        leg = LEGS[run.task.name]
        pools = [self.arena.layout.pool_of(slot.index) for slot in slots(run)]
        assert pools == [leg.writes, *leg.reads]
        process.view.write(run.output)  # StaleSlot if it was granted to another stage, or freed
        used = {slot.index for other in self.processes.values() for held in other.held for slot in slots(held)}
        assert used.isdisjoint(slot.index for slot in slots(run))
        for given in run.inputs:
            process.view.read(given.slot)  # StaleSlot if it was freed
        process.held.append(run)
        process.runs.append(run)
        self.recorder.sent(stage, run, self.router.job(run.job), self.now_ns)

    def _held(self, stage: str, job: int | None) -> tuple[Process, pipes.Run[Task]]:
        process = self.processes[stage]
        return process, next(run for run in process.held if job in (None, run.job))

    def _content(self, view: View, run: pipes.Run[Task]) -> bytes:
        given = b"".join(view.read(each.slot).tobytes() for each in run.inputs)
        assert [each.shape for each in run.inputs] == ([(len(given),)] if run.inputs else [])
        match run.task:
            case EncodeText() as task:
                return "\n".join(task.prompts).encode()
            case Denoise(seed=seed, steps=steps):
                return given + f"|seed {seed}, {steps} steps".encode()
            case Decode(format=format):
                return given + f"|{format}".encode()


def slots(run: pipes.Run[Task]) -> tuple[SlotRef, ...]:
    """The slots that a job holds while it is in a stage."""
    return (run.output, *(each.slot for each in run.inputs))


def kind_of(run: pipes.Run[Task]) -> wire.Kind:
    """The kind of process that a task is for."""
    return LEGS[run.task.name].kind

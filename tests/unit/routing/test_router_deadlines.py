"""What the router owes to those who cannot wait, to those who wait, and to those who look on."""

from collections.abc import Iterator
from itertools import count

import pytest

from orchestrator.plan import PREEMPTION_SLOTS
from orchestrator.routing import line
from orchestrator.routing.actions import ToStage
from orchestrator.routing.delivery import WAITING_AT_ONCE, WAITING_EVERY_NS, WAITING_PAUSE_NS
from stages.core import pipes, wire
from stages.core.config import Config, PipelineConfig, StageConfig
from stages.core.order import ESTIMATE_MARGIN, Order, Ranking
from stages.core.tasks import Denoise, Task
from tests.unit.fleet import CLIENT, STAGES, TEXT, TICK, UNET, VAE, Fleet, picture

SECOND = 1_000_000_000
OTHER = b"other"


class Onlooker(Fleet):
    """A fleet whose decoders have also been asked for previews."""

    def __init__(self, config: Config | None = None, *, serving: bool = True) -> None:
        self.wanted: list[tuple[str, pipes.DrawPreview]] = []
        super().__init__(config, serving=serving)

    def _receive(self, stage: str, run: pipes.Run[Task]) -> None:
        if isinstance(run, pipes.DrawPreview):
            self.processes[stage].view.peek(run.slot)  # StaleSlot if it is not the job's any more
            self.wanted.append((stage, run))
        else:
            super()._receive(stage, run)

    def previewed(self, job: int, step: int) -> list[wire.HubMessage]:
        return self._perform(
            self.router.previewed(VAE, pipes.PreviewDrawn(job, step, f"{job}@{step}".encode()), self.tick())
        )

    def send_waiting(self) -> list[wire.HubMessage]:
        return self._perform(self.router.send_waiting(self.tick()))

    def previews(self, id: str) -> list[tuple[int, int, bytes | None]]:
        """Index, step and bytes of all that were shown."""
        return [
            (answer.message.index, answer.message.step, answer.payload)
            for answer in self.answers
            if isinstance(answer.message, wire.Preview) and answer.message.id == id
        ]


def configured(order: Order, queue_limit: int = 64, **unet: int) -> Config:
    return Config(
        pipeline=PipelineConfig(order=order, queue_limit=queue_limit), stage=(StageConfig(kind="unet", **unet),)
    )


def paced(fleet: Onlooker) -> Onlooker:
    """An encoding takes a second, a step 10 and a decoding 3, and all of it has been seen."""
    fleet.pace = {"text": SECOND, "unet": 10 * SECOND, "vae": 3 * SECOND}
    fleet.submit("first", steps=1)
    fleet.settle()
    fleet.answers.clear()
    return fleet


def own(steps: int) -> int:
    return 1 + 10 * steps + 3


@pytest.fixture
def fleet() -> Iterator[Onlooker]:
    fleet = Onlooker(configured("arrival"))
    yield paced(fleet)
    fleet.close()


@pytest.fixture
def shortest() -> Iterator[Onlooker]:
    fleet = Onlooker(configured("shortest"))
    yield paced(fleet)
    fleet.close()


# Deadlines.


def test_what_cannot_be_in_time_is_refused_at_once_and_told_when_to_come_again(fleet: Onlooker) -> None:
    fleet.submit("a", steps=3)
    [refused] = fleet.submit("b", steps=2, deadline_s=float(own(2) + 10))
    assert isinstance(refused, wire.Failed)
    assert (refused.code, refused.retryable) == ("deadline_infeasible", True)
    assert refused.retry_after_s == pytest.approx((1 + ESTIMATE_MARGIN) * own(3) - 10)
    fleet.settle()
    assert fleet.ends("a") == ["done"]
    assert fleet.all_free()
    fleet.submit("b", steps=2, deadline_s=float(own(2) + 10))
    fleet.settle()
    assert fleet.ends("b") == ["deadline_infeasible", "done"]


@pytest.mark.parametrize(("schedule", "evaluations"), [(None, 4), ("heun", 7), ("heun_karras", 7), ("pndm", 5)])
def test_a_deadline_counts_evaluations_and_not_steps(schedule: str | None, evaluations: int, fleet: Onlooker) -> None:
    takes = own(evaluations)
    [refused] = fleet.submit("a", steps=4, schedule=schedule, deadline_s=takes - 0.01)
    assert isinstance(refused, wire.Failed)
    assert refused.code == "deadline_infeasible"
    assert fleet.submit("a", steps=4, schedule=schedule) == [wire.Accepted(id="a", position=0, eta_s=takes)]


def test_fewer_steps_of_a_schedule_of_second_order_save_two_evaluations_each(fleet: Onlooker) -> None:
    fleet.submit("a", steps=4, schedule="heun", deadline_s=own(5) + 0.01, min_steps=1)
    fleet.work(TEXT)
    [run] = fleet.processes[UNET].held
    assert isinstance(run.task, Denoise)
    assert run.task.steps == 3


def test_before_anything_ran_every_deadline_is_believed() -> None:
    fleet = Onlooker(configured("arrival"))
    assert isinstance(fleet.submit("a", steps=200, deadline_s=0.5)[0], wire.Accepted)
    fleet.close()


@pytest.mark.parametrize(("spare", "steps"), [(0.01, 4), (-0.01, 3), (-10.01, 2)])
def test_a_client_may_say_that_fewer_steps_will_do(spare: float, steps: int, fleet: Onlooker) -> None:
    fleet.submit("a", steps=4, deadline_s=own(4) + spare, min_steps=2)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a cat", steps=steps)]
    assert isinstance(fleet.submit("b", steps=4, deadline_s=own(2) - 0.01, min_steps=2)[0], wire.Failed)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("where", ["in the queue", "with the text stage gone"])
def test_what_waits_and_cannot_be_in_time_any_more_fails_and_frees_everything(
    where: str, images: int, fleet: Onlooker
) -> None:
    if where == "with the text stage gone":
        fleet.kill(TEXT)
    else:
        for number in range(2 + len(fleet.arena.layout.payloads)):
            fleet.submit(f"before {number}", steps=1)
        while fleet.arena.free_slots("embeds"):
            fleet.work(TEXT)
    # Its deadline is beyond all that goes before it, so it is believed.
    waits = sum(own(1) for number in range(40)) + images * own(1)
    assert isinstance(fleet.submit("late", n=images, steps=1, deadline_s=float(waits))[0], wire.Accepted)
    fleet.now_ns += int((waits - own(1)) * SECOND) - 10 * TICK
    assert not any(isinstance(message, wire.Failed) for message in fleet.send_waiting())
    fleet.now_ns += 20 * TICK
    failed = [message for message in fleet.send_waiting() if isinstance(message, wire.Failed)]
    assert [(message.id, message.code, message.retryable) for message in failed] == [
        ("late", "deadline_infeasible", True)
    ]
    if where == "with the text stage gone":
        assert fleet.all_free()
    for stage in STAGES:
        if not fleet.processes[stage].alive:
            fleet.serve(stage)
    fleet.settle()
    assert fleet.ends("late") == ["deadline_infeasible"]
    assert fleet.pictures("late") == []
    assert fleet.all_free()


def test_a_prompt_of_several_images_fails_as_a_whole_while_one_is_in_work(fleet: Onlooker) -> None:
    deadline = 3 * own(1) + 1.0
    fleet.submit("late", n=3, steps=1, deadline_s=deadline)
    fleet.take(TEXT)
    fleet.now_ns += int((deadline - own(1) + 0.1) * SECOND)
    fleet.send_waiting()
    assert fleet.ends("late") == ["deadline_infeasible"]
    assert len(fleet.processes[TEXT].drops) == 2, "the third one waited"
    fleet.settle()
    assert fleet.ends("late") == ["deadline_infeasible"]
    assert fleet.all_free()


def test_what_has_begun_is_not_given_up(fleet: Onlooker) -> None:
    fleet.submit("a", "a", steps=2, deadline_s=float(own(2) + 1))
    fleet.work(TEXT)
    fleet.now_ns += 100 * SECOND
    fleet.send_waiting()
    fleet.settle()
    assert fleet.pictures("a") == [picture("a", steps=2)]


# Too much.


def test_a_full_queue_tells_when_there_will_be_room() -> None:
    small = paced(Onlooker(configured("arrival", queue_limit=0)))
    accepted = 0
    while isinstance(answer := small.submit(str(accepted), steps=2 + accepted)[0], wire.Accepted):
        accepted += 1
    assert isinstance(answer, wire.Failed)
    assert (answer.code, answer.retryable) == ("overloaded", True)
    assert answer.retry_after_s == pytest.approx(own(2))
    small.work(TEXT)
    [again] = small.submit("again", n=10)
    assert isinstance(again, wire.Failed)
    assert again.retry_after_s == pytest.approx(own(2) - 1)
    small.close()


def test_before_anything_ran_nobody_knows_when_there_will_be_room() -> None:
    fleet = Onlooker(configured("arrival", queue_limit=0), serving=False)
    answer: wire.HubMessage = wire.StatusRequest()  # type: ignore[assignment]
    for number in range(fleet.arena.free_slots("embeds") + 1):
        [answer] = fleet.submit(str(number))
    assert isinstance(answer, wire.Failed)
    assert (answer.code, answer.retry_after_s) == ("overloaded", None)
    fleet.close()


# Waiting.


def test_a_client_that_has_heard_nothing_for_a_second_is_told_that_it_waits(fleet: Onlooker) -> None:
    fleet.kill(TEXT)
    fleet.submit("a", steps=1)
    fleet.now_ns += WAITING_EVERY_NS // 2
    fleet.submit("b", steps=2)
    assert fleet.send_waiting() == []
    fleet.now_ns += WAITING_EVERY_NS // 2
    assert fleet.send_waiting() == [wire.Waiting(id="a", position=0, eta_s=own(1))]
    assert fleet.send_waiting() == []
    fleet.now_ns += WAITING_EVERY_NS // 2
    assert fleet.send_waiting() == [wire.Waiting(id="b", position=1, eta_s=own(1) + own(2))]
    fleet.now_ns += WAITING_EVERY_NS
    assert [message.id for message in fleet.send_waiting()] == ["a", "b"]  # type: ignore[union-attr]


def test_where_very_many_wait_their_clients_are_told_in_turn() -> None:
    fleet = paced(Onlooker(configured("arrival", queue_limit=1000)))
    fleet.kill(TEXT)
    for number in range(3 * WAITING_AT_ONCE):
        fleet.submit(str(number), steps=1)
    fleet.now_ns += WAITING_EVERY_NS
    told = []
    for _ in range(3):
        waiting_due_ns = fleet.router.waiting_due_ns
        assert waiting_due_ns is not None
        assert waiting_due_ns >= fleet.now_ns + WAITING_PAUSE_NS or not told, "a pause between any two"
        fleet.now_ns = max(fleet.now_ns, waiting_due_ns)
        told.append([message.id for message in fleet.send_waiting() if isinstance(message, wire.Waiting)])
    assert [len(ids) for ids in told] == [WAITING_AT_ONCE] * 3
    assert [id for ids in told for id in ids] == [str(number) for number in range(3 * WAITING_AT_ONCE)]
    assert WAITING_AT_ONCE * SECOND / WAITING_PAUSE_NS <= 500, "messages a second"
    fleet.close()


def test_nobody_has_to_be_told_where_nobody_waits(fleet: Onlooker) -> None:
    assert fleet.router.waiting_due_ns is None
    fleet.submit("a")
    assert fleet.router.waiting_due_ns == fleet.now_ns + WAITING_EVERY_NS
    fleet.settle()
    assert fleet.router.waiting_due_ns is None


@pytest.mark.parametrize("order", ["shortest", "deadline"])
def test_thousands_that_wait_are_not_looked_at_one_by_one(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a prompt, a step, a picture or a cancellation: only when all are ranked anew, once in a while."""
    fleet = paced(Onlooker(configured(order, queue_limit=20_000)))
    fleet.kill(VAE)
    many = 2_000
    for number in range(many):
        fleet.submit(str(number), steps=1 + number % 50)
    looks = count()
    rank = Ranking.rank
    monkeypatch.setattr(Ranking, "rank", lambda *args: (next(looks), rank(*args))[1])
    fleet.router._books.queue.refresh(fleet.now_ns + many * line.RERANK_NS)
    once = next(looks)
    monkeypatch.setattr(line, "RERANK_NS", 10**15)  # a moment of simulated time is long
    assert once == fleet.router.waiting
    fleet.submit("with a deadline", deadline_s=80_000.0)
    fleet.submit("without")
    fleet.cancel("1500")
    fleet.cancel("with a deadline")
    while fleet.jobs(TEXT):
        fleet.work(TEXT)
    assert next(looks) - once < many / 4, "only those in work are"
    fleet.client_gone(CLIENT)
    assert fleet.router.waiting == 0
    fleet.close()


def test_progress_is_as_good_as_a_word(fleet: Onlooker) -> None:
    fleet.submit("a", steps=3)
    fleet.work(TEXT)
    fleet.take(UNET)
    fleet.now_ns += WAITING_EVERY_NS - 10 * TICK
    fleet.step(UNET)  # takes ten seconds, and tells of it at their end
    assert fleet.send_waiting() == []
    fleet.now_ns += WAITING_EVERY_NS
    assert fleet.send_waiting() == [wire.Waiting(id="a", position=0, eta_s=own(2) - 1)]


def test_a_client_that_is_gone_loses_what_waits_and_nobody_else_does(fleet: Onlooker) -> None:
    fleet.kill(TEXT)
    for client in (CLIENT, OTHER):
        for id in "ab":
            fleet.submit(id, id, client)
    fleet.now_ns += WAITING_EVERY_NS
    fleet.answers.clear()
    fleet.send_waiting()
    assert {(answer.client, answer.message.id) for answer in fleet.answers} == {  # type: ignore[union-attr]
        (client, id) for client in (CLIENT, OTHER) for id in "ab"
    }
    assert fleet.client_gone(CLIENT) == []  # what the hub does when it cannot say it
    assert fleet.router.waiting == 2
    fleet.now_ns += WAITING_EVERY_NS
    fleet.answers.clear()
    fleet.send_waiting()
    assert {answer.client for answer in fleet.answers} == {OTHER}
    fleet.serve(TEXT)
    fleet.settle()
    assert [fleet.ends(id, OTHER) for id in "ab"] == [["done"], ["done"]]
    assert fleet.ends("a") == fleet.ends("b") == []
    assert fleet.all_free()


def test_stages_are_told_before_clients(fleet: Onlooker) -> None:
    """Where a client turns out to be gone, its jobs are dropped at once: they must have been sent by then."""
    fleet.submit("a", n=2, steps=1)
    fleet.take(TEXT)
    run = fleet.processes[TEXT].held[0]
    fleet.processes[TEXT].view.write(run.output)[:3] = 1
    fleet.processes[TEXT].view.seal(run.output, 3)
    actions = fleet.router.report(TEXT, pipes.Finished(run.job, (3,), 0, 1), fleet.tick())
    assert {isinstance(action, ToStage) for action in actions} == {True, False}
    assert [isinstance(action, ToStage) for action in actions] == sorted(
        (isinstance(action, ToStage) for action in actions), reverse=True
    )


# Previews.


def to_unet(fleet: Onlooker, every: int, steps: int = 7, **fields: object) -> None:
    fleet.submit("a", "a", steps=steps, preview_every=every, **fields)  # type: ignore[arg-type]
    while fleet.jobs(TEXT):
        fleet.work(TEXT)
    fleet.take(UNET)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (3, [3, 6]), (7, []), (99, [])]
)
def test_a_decoder_draws_every_so_many_steps_but_not_after_the_last(
    every: int, steps: list[int], fleet: Onlooker
) -> None:
    to_unet(fleet, every)
    run = fleet.processes[UNET].held[0]
    asked = []
    for step in range(1, 8):
        before = len(fleet.wanted)
        fleet.step(UNET)
        if len(fleet.wanted) > before:
            asked.append(step)
            fleet.previewed(run.job, step)
    assert asked == steps
    assert fleet.wanted == [(VAE, pipes.DrawPreview(run.job, run.output, (4, 8, 8)))] * len(steps)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a", steps=7)]


def test_a_preview_is_shown_once_and_no_older_one_after_it(fleet: Onlooker) -> None:
    to_unet(fleet, 2)
    job = fleet.jobs(UNET)[0]
    for _ in range(4):
        fleet.step(UNET)
    assert fleet.previewed(job, 3) == [wire.Preview(id="a", index=0, step=3)]
    assert fleet.previewed(job, 3) == fleet.previewed(job, 2) == []
    assert fleet.previewed(job, 4) == [wire.Preview(id="a", index=0, step=4)]
    assert fleet.previews("a") == [(0, 3, b"%d@3" % job), (0, 4, b"%d@4" % job)]


def test_the_last_step_is_for_the_picture_to_show(fleet: Onlooker) -> None:
    """A decoder that is late draws from what is there by then."""
    to_unet(fleet, 2, steps=5)
    job = fleet.jobs(UNET)[0]
    for _ in range(4):
        fleet.step(UNET)
    assert fleet.previewed(job, 5) == []
    assert fleet.previewed(job, 4) == [wire.Preview(id="a", index=0, step=4)]
    fleet.settle()
    assert fleet.previewed(job, 5) == []
    assert fleet.ends("a") == ["done"]


def test_a_decoder_that_is_busy_is_asked_for_one_preview_of_a_job_at_a_time(fleet: Onlooker) -> None:
    to_unet(fleet, 1)
    job = fleet.jobs(UNET)[0]
    for _ in range(3):
        fleet.step(UNET)
    assert len(fleet.wanted) == 1
    fleet.previewed(job, 3)
    fleet.step(UNET)
    assert len(fleet.wanted) == 2


def test_a_job_whose_previews_kill_decoders_gets_no_more_of_them_and_nobody_else_is_blamed(fleet: Onlooker) -> None:
    fleet.submit("other", "other")
    for stage in (TEXT, UNET):
        fleet.work(stage)
    to_unet(fleet, 1, steps=9)
    fleet.take(VAE)
    fleet.step(UNET)
    fleet.kill(VAE)
    fleet.serve(VAE)
    assert len(fleet.jobs(VAE)) == 1
    fleet.step(UNET)
    assert len(fleet.wanted) == 1, "the decoder has its suspect to itself"
    fleet.take(VAE)
    fleet.kill(VAE)
    fleet.serve(VAE)
    assert fleet.ends("other") == [], "the first of the two deaths may have been the preview's"
    fleet.work(VAE)
    fleet.step(UNET)
    assert len(fleet.wanted) == 2
    fleet.kill(VAE)
    fleet.serve(VAE)
    fleet.step(UNET)
    assert len(fleet.wanted) == 2
    fleet.settle()
    assert fleet.ends("other") == fleet.ends("a") == ["done"]
    assert fleet.all_free()


def test_a_suspect_waits_for_the_preview_that_a_decoder_draws() -> None:
    fleet = Onlooker(Config(stage=(StageConfig(kind="vae", replicas=2),)))
    for id in "ab":
        fleet.submit(id, id)
        for stage in (TEXT, UNET):
            fleet.work(stage)
    assert (fleet.jobs("vae-0"), fleet.jobs("vae-1")) == ([1], [2])
    fleet.work("vae-0")
    fleet.submit("c", "c", preview_every=1)
    fleet.work(TEXT)
    fleet.take(UNET)
    fleet.step(UNET)
    assert [stage for stage, _ in fleet.wanted] == ["vae-0"]
    fleet.submit("d", "d", preview_every=1)
    fleet.work(TEXT)
    fleet.kill("vae-1")
    assert fleet.jobs("vae-0") == []
    fleet.take(UNET, 4)
    fleet.step(UNET, 4)
    assert len(fleet.wanted) == 1, "previews without end would let it wait for ever"
    fleet.previewed(3, 1)
    assert fleet.jobs("vae-0") == [2]
    fleet.settle()
    assert fleet.all_free()
    fleet.close()


def test_previews_are_those_of_their_image(fleet: Onlooker) -> None:
    to_unet(fleet, 1, steps=2, n=2)
    first, second = fleet.jobs(UNET)
    fleet.step(UNET, first)
    fleet.take(UNET, second)
    fleet.step(UNET, second)
    fleet.previewed(second, 1)
    fleet.previewed(first, 1)
    assert [(index, step) for index, step, _ in fleet.previews("a")] == [(1, 1), (0, 1)]


def test_no_preview_comes_after_the_end(fleet: Onlooker) -> None:
    to_unet(fleet, 1, steps=2)
    [job] = fleet.jobs(UNET)
    fleet.step(UNET)
    fleet.cancel("a")
    assert fleet.previewed(job, 1) == []
    asked = len(fleet.wanted)
    fleet.step(UNET)
    assert len(fleet.wanted) == asked, "nobody looks on any more"
    fleet.settle()
    fleet.submit("b", steps=1)
    fleet.settle()
    assert fleet.previewed(job, 2) == fleet.previewed(job + 1, 1) == fleet.previewed(99, 1) == []


def test_without_a_decoder_there_is_no_preview_and_no_harm(fleet: Onlooker) -> None:
    to_unet(fleet, 1, steps=3)
    fleet.kill(VAE)
    fleet.step(UNET)
    assert fleet.wanted == []
    fleet.serve(VAE)
    fleet.step(UNET)
    assert len(fleet.wanted) == 1
    fleet.settle()
    assert fleet.ends("a") == ["done"]


# Overtaking in the U-Net.


def test_a_short_job_overtakes_a_long_one_at_work_which_keeps_its_slot(shortest: Onlooker) -> None:
    shortest.submit("long", "long", steps=50)
    shortest.work(TEXT)
    shortest.submit("next", "next", steps=50)
    shortest.work(TEXT)
    shortest.take(UNET)
    shortest.step(UNET)
    before = {run.job: run for run in shortest.processes[UNET].held}
    assert len(before) == shortest.plan.depths["unet"], "it has all that it needs"
    shortest.submit("short", "short", steps=2)
    shortest.work(TEXT)
    [short] = [job for job in shortest.jobs(UNET) if job not in before]
    shortest.work(UNET, short)
    assert {run.job: run for run in shortest.processes[UNET].held} == before, "sent once, in the slots they had"
    assert shortest.processes[UNET].drops == []
    shortest.work(VAE)
    assert (shortest.ends("short"), shortest.ends("long")) == (["done"], [])
    long = min(before)
    assert shortest.steps_done(UNET, long) == 1
    shortest.settle()
    assert shortest.pictures("long") == [picture("long", steps=50)]
    assert shortest.all_free()


@pytest.mark.parametrize("steps", [11, 15, 21])
def test_a_job_that_does_not_go_before_all_there_waits_outside(steps: int, shortest: Onlooker) -> None:
    for number, each in enumerate((20, 10, steps)):
        shortest.submit(str(number), steps=each)
        shortest.work(TEXT)
    assert [run.task.steps for run in shortest.processes[UNET].held if isinstance(run.task, Denoise)] == [20, 10]
    shortest.settle()
    assert shortest.all_free()


def test_no_more_overtake_than_there_are_slots_for(shortest: Onlooker) -> None:
    """Each of them goes before all that came before it."""
    most = shortest.plan.depths["unet"] + PREEMPTION_SLOTS
    for number in range(most + 3):
        shortest.submit(str(number), str(number), steps=60 - number)
        if shortest.jobs(TEXT):
            shortest.work(TEXT)
    assert len(shortest.jobs(UNET)) == most
    shortest.settle()
    for number in range(most + 3):
        assert shortest.pictures(str(number)) == [picture(str(number), steps=60 - number)]
    assert shortest.all_free()


def test_first_come_first_served_overtakes_nobody(fleet: Onlooker) -> None:
    for number, steps in enumerate((50, 50, 1, 1)):
        fleet.submit(str(number), steps=steps)
        fleet.work(TEXT)
    assert len(fleet.jobs(UNET)) == fleet.plan.depths["unet"]

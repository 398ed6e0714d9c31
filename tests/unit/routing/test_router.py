from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from orchestrator.routing.dispatch import MAX_DOUBTFUL_DEATHS, MAX_SPOILED
from stages.core import pipes, wire
from stages.core.arena import SlotState
from stages.core.checkpoint import Checkpoint
from stages.core.config import Config, PipelineConfig, StageConfig
from stages.core.errors import ShuttingDown, StaleSlot
from stages.core.model import ModelCard
from stages.core.tasks import Decode, Denoise, EncodeText
from stages.core.wire import Kind
from tests.unit.cards import CARD, DISTILLED
from tests.unit.fleet import ARRIVAL, CLIENT, DRAW, NAMES, STAGES, TEXT, TICK, UNET, VAE, Fleet, picture, slots

MakeFleet = Callable[..., Fleet]
OTHER = b"other"


@pytest.fixture
def make() -> Iterator[MakeFleet]:
    fleets: list[Fleet] = []

    def make(config: Config | None = None, card: ModelCard = CARD, *, serving: bool = True) -> Fleet:
        fleets.append(Fleet(config, card, serving=serving))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def fleet(make: MakeFleet) -> Fleet:
    return make()


def queue_limit(limit: int) -> Config:
    return Config(pipeline=PipelineConfig(queue_limit=limit, order="arrival"))


# One prompt, and several.


def test_a_prompt_passes_all_stages_and_is_told_of(fleet: Fleet) -> None:
    assert fleet.submit("a", "a cat") == [wire.Accepted(id="a", position=0, eta_s=None)]
    fleet.settle()
    *heard, image, done = fleet.heard("a")[1:]
    passed: list[tuple[Kind, list[int], int]] = [("text", [0, 1], 1), ("unet", [0, 1, 2, 3], 3), ("vae", [0], 1)]
    assert heard == [
        wire.Progress(id="a", stage=stage, step=step, steps=steps) for stage, done, steps in passed for step in done
    ]
    assert isinstance(image, wire.Image)
    assert (image.index, image.format, image.width, image.height, image.seed) == (0, "png", 64, 64, DRAW)
    assert done == wire.Done(id="a")
    assert fleet.pictures("a") == [picture("a cat")]
    assert fleet.all_free()


def test_timings_are_those_of_the_stages(fleet: Fleet) -> None:
    fleet.submit("a")
    submitted = fleet.now_ns
    fleet.now_ns += 5_000_000_000
    began = fleet.now_ns
    fleet.settle()
    image = next(message for message in fleet.heard("a") if isinstance(message, wire.Image))
    found = image.timings
    # Text and VAE: taken, then put. U-Net: two stamps for each of three steps, and a report after each, between them.
    stamps = [found.text_s, found.vae_s, found.unet_s]
    assert stamps == pytest.approx([2 * TICK / 1e9, 2 * TICK / 1e9, (2 + 3 * 3) * TICK / 1e9])
    assert found.queue_s == pytest.approx((began + TICK - submitted) / 1e9)
    assert found.total_s == pytest.approx((fleet.now_ns - submitted) / 1e9)


def test_a_stage_gets_what_the_request_says(fleet: Fleet) -> None:
    fleet.submit("a", "a cat", negative_prompt="a dog", steps=2, guidance_scale=3.0, seed=7, schedule="lcm")
    fleet.settle()
    text, unet, vae = (fleet.processes[stage].runs[0] for stage in STAGES)
    assert isinstance(text.task, EncodeText)
    assert text.task.prompts == ("a dog", "a cat")
    width, height = CARD.native
    assert unet.task == Denoise(width=width, height=height, steps=2, guidance_scale=3.0, seed=7, schedule="lcm")
    assert isinstance(vae.task, Decode)
    assert (vae.task.format, set(vae.task.metadata)) == ("png", {"parameters", "triptych"})
    assert [[given.slot for given in run.inputs] for run in (text, unet, vae)] == [[], [text.output], [unet.output]]
    assert [run.then for run in (text, unet, vae)] == [("denoise", "decode"), ("decode",), ()]


@pytest.mark.parametrize(
    ("card", "guidance_scale", "prompts"),
    [
        (CARD, 1.01, ("bad", "a cat")),
        (CARD, 1.0, ("a cat",)),
        (CARD, 0.0, ("a cat",)),
        (CARD, None, ("bad", "a cat")),
        (DISTILLED, 8.5, ("a cat",)),
    ],
)
def test_the_negative_prompt_is_encoded_only_where_it_counts(
    card: ModelCard, guidance_scale: float | None, prompts: tuple[str, ...], make: MakeFleet
) -> None:
    fleet = make(card=card)
    fleet.submit("a", "a cat", negative_prompt="bad", guidance_scale=guidance_scale)
    run = fleet.processes[TEXT].runs[0]
    assert isinstance(run.task, EncodeText)
    assert run.task.prompts == prompts


def test_stages_work_on_different_prompts_at_the_same_time(fleet: Fleet) -> None:
    for id in "abc":
        fleet.submit(id, id)
    fleet.work(TEXT)
    fleet.work(UNET)
    fleet.work(TEXT)
    assert [fleet.jobs(stage) for stage in STAGES] == [[3], [2], [1]]
    fleet.settle()
    assert [fleet.pictures(id) for id in "abc"] == [[picture(id)] for id in "abc"]
    assert fleet.all_free()


def test_prompts_are_done_in_order_of_arrival(fleet: Fleet) -> None:
    for number in range(9):
        fleet.submit(str(number), client=CLIENT if number % 2 else OTHER)
    fleet.settle()
    done = [answer.message.id for answer in fleet.answers if isinstance(answer.message, wire.Done)]
    assert done == [str(number) for number in range(9)]


@pytest.mark.parametrize("stage", STAGES)
def test_prompts_that_wait_for_a_stage_go_to_it_in_order_of_arrival(stage: str, fleet: Fleet) -> None:
    fleet.kill(stage)
    for id in "abcd":
        fleet.submit(id, n=2 if id == "b" else 1)
    for before in STAGES[: STAGES.index(stage)]:
        while fleet.jobs(before):
            fleet.work(before)
    fleet.serve(stage)
    while fleet.jobs(stage):
        fleet.work(stage)
    assert [run.job for run in fleet.processes[stage].runs][:4] == [1, 2, 3, 4]


def test_several_images_have_seeds_in_a_row_and_one_end(fleet: Fleet) -> None:
    fleet.submit("a", "a cat", n=3, seed=5)
    fleet.settle()
    images = [message for message in fleet.heard("a") if isinstance(message, wire.Image)]
    assert [(image.index, image.seed) for image in images] == [(0, 5), (1, 6), (2, 7)]
    assert fleet.pictures("a") == [picture("a cat", seed) for seed in (5, 6, 7)]
    assert fleet.ends("a") == ["done"]
    assert isinstance(fleet.heard("a")[-1], wire.Done)
    progress = [message for message in fleet.heard("a") if isinstance(message, wire.Progress)]
    assert {message.index for message in progress} == {0, 1, 2}


def test_an_id_may_be_used_by_two_clients_and_again_when_it_is_done(fleet: Fleet) -> None:
    fleet.submit("a", "first")
    [refused] = fleet.submit("a", "second")
    assert isinstance(refused, wire.Failed)
    assert (refused.id, refused.code, refused.retryable) == ("a", "conflict", False)
    assert isinstance(fleet.submit("a", "third", client=OTHER)[0], wire.Accepted)
    fleet.settle()
    assert (fleet.pictures("a"), fleet.pictures("a", OTHER)) == ([picture("first")], [picture("third")])
    fleet.submit("a", "fourth")
    fleet.settle()
    assert fleet.pictures("a") == [picture("first"), picture("fourth")]


def test_a_wrong_request_is_refused_and_leaves_nothing(fleet: Fleet) -> None:
    [refused] = fleet.submit("a", "")
    assert isinstance(refused, wire.Failed)
    assert (refused.id, refused.code, refused.retryable) == ("a", "bad_request", False)
    assert fleet.all_free()
    assert isinstance(fleet.submit("a", "a cat")[0], wire.Accepted)


def test_the_names_of_jobs_are_told_while_they_live(fleet: Fleet) -> None:
    fleet.submit("a")
    assert (fleet.router.prompt_of(1), fleet.router.prompt_of(2)) == ("a", None)
    fleet.settle()
    assert fleet.router.prompt_of(1) is None


def test_waiting_is_told_in_places(make: MakeFleet) -> None:
    fleet = make(serving=False)
    accepted = [fleet.submit(id)[0] for id in "abc"]
    assert accepted == [wire.Accepted(id=id, position=place, eta_s=None) for place, id in enumerate("abc")]
    assert fleet.router.waiting == 3


@pytest.fixture
def paced(fleet: Fleet) -> Fleet:
    """An encoding takes a second, a step 10 and a decoding 3, and all of it has been seen."""
    fleet.pace = {"text": 1_000_000_000, "unet": 10_000_000_000, "vae": 3_000_000_000}
    fleet.submit("first")
    fleet.settle()
    return fleet


def eta(fleet: Fleet, **fields: object) -> float | None:
    """What a prompt is told, which is then given up."""
    accepted = fleet.submit("eta", **fields)[0]  # type: ignore[arg-type]
    assert isinstance(accepted, wire.Accepted)
    fleet.cancel("eta")
    while fleet.processes[TEXT].drops:
        fleet.obey(TEXT)
    return accepted.eta_s


def test_waiting_is_told_in_seconds_of_all_the_work_before_it(paced: Fleet) -> None:
    assert eta(paced, steps=2) == pytest.approx(1 + 20 + 3)
    paced.submit("a", steps=2)
    assert eta(paced, steps=5) == pytest.approx((1 + 20 + 3) + (1 + 50 + 3))
    assert eta(paced, steps=2, guidance_scale=1.0) == pytest.approx((1 + 20 + 3) + (1 + 10 + 3))  # rows are what costs


def test_waiting_is_told_for_the_last_image(paced: Fleet) -> None:
    assert eta(paced, steps=1, n=3) == pytest.approx(3 * (1 + 10 + 3))


def test_steps_that_were_done_do_not_count(paced: Fleet) -> None:
    bring_to("before unet", paced, "a", steps=3)
    assert eta(paced, steps=1) == pytest.approx((30 + 3) + (1 + 10 + 3))
    paced.serve(UNET)
    paced.take(UNET)
    paced.step(UNET)
    assert eta(paced, steps=1) == pytest.approx((20 + 3) + (1 + 10 + 3))


def test_a_schedule_of_second_order_does_not_make_the_wait_negative(paced: Fleet) -> None:
    paced.submit("heun", steps=10, schedule="heun")
    paced.work(TEXT)
    paced.take(UNET)
    [job] = paced.jobs(UNET)
    paced.report(UNET, pipes.Stepped(job, 18, 19, 0, paced.pace["unet"], paced.pace["unet"]))
    assert eta(paced, steps=1) == pytest.approx((10 + 3) + (1 + 10 + 3))


# Back-pressure.


def test_a_slow_decoder_stops_the_others_and_the_queue_is_bounded(make: MakeFleet) -> None:
    fleet = make(queue_limit(3))
    room = {pool.name: pool.count for pool in fleet.plan.pools}
    accepted = 0
    while isinstance(fleet.submit(str(accepted))[0], wire.Accepted):
        accepted += 1
        while fleet.jobs(TEXT) or fleet.jobs(UNET):
            fleet.work(UNET if fleet.jobs(UNET) else TEXT)
    assert accepted == room["embeds"] + room["latents"] + 3
    assert len(fleet.jobs(VAE)) == fleet.plan.depths["vae"] == room["image"]
    assert [fleet.arena.free_slots(name) for name in room] == [0, 0, 0]
    refused = fleet.heard(str(accepted))[-1]
    assert isinstance(refused, wire.Failed)
    assert (refused.code, refused.retryable) == ("overloaded", True)
    fleet.work(VAE)
    assert len(fleet.jobs(UNET)) == 1
    fleet.work(UNET)
    assert len(fleet.jobs(TEXT)) == 1
    assert isinstance(fleet.submit("one more")[0], wire.Accepted)
    assert isinstance(fleet.submit("two more")[0], wire.Failed)
    fleet.settle()
    assert all(fleet.ends(str(number)) == ["done"] for number in range(accepted))
    assert fleet.all_free()


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_before_the_stages_serve_prompts_wait_up_to_the_limit_beyond_the_slots(limit: int, make: MakeFleet) -> None:
    fleet = make(queue_limit(limit), serving=False)
    room = fleet.arena.free_slots("embeds") + limit
    answers = [fleet.submit(str(number))[0] for number in range(room + 2)]
    assert [type(answer) for answer in answers] == [wire.Accepted] * room + [wire.Failed] * 2
    for stage in STAGES:
        fleet.serve(stage)
    fleet.settle()
    assert [fleet.ends(str(number)) for number in range(room)] == [["done"]] * room


def test_a_prompt_of_several_images_is_taken_in_whole_or_not_at_all(make: MakeFleet) -> None:
    fleet = make(queue_limit(2), serving=False)
    room = fleet.arena.free_slots("embeds") + 2
    for number in range(room - 2):
        fleet.submit(str(number))
    assert isinstance(fleet.submit("b", n=3)[0], wire.Failed)
    assert fleet.router.waiting == room - 2
    assert isinstance(fleet.submit("c", n=2)[0], wire.Accepted)
    assert fleet.ends("b") == ["overloaded"]


def test_no_stage_gets_a_job_before_it_serves(make: MakeFleet) -> None:
    fleet = make(serving=False)
    fleet.submit("a")
    fleet.serve(VAE)
    fleet.serve(UNET)
    assert [fleet.jobs(stage) for stage in STAGES] == [[], [], []]
    fleet.serve(TEXT)
    assert [fleet.jobs(stage) for stage in STAGES] == [[1], [], []]


def test_of_two_processes_the_one_with_fewer_jobs_gets_the_next(make: MakeFleet) -> None:
    fleet = make(msgspec.structs.replace(ARRIVAL, stage=(StageConfig(kind="text", replicas=2),)))
    for id in "abcd":
        fleet.submit(id)
    assert (fleet.jobs("text-0"), fleet.jobs("text-1")) == ([1, 3], [2, 4])
    fleet.kill("text-0")
    fleet.work("text-1")
    assert fleet.jobs("text-1") == [4]
    fleet.work("text-1")
    assert fleet.jobs("text-1") == [1], "it was in a stage that died: it goes first, and alone"
    fleet.settle()
    assert [fleet.ends(id) for id in "abcd"] == [["done"]] * 4


# Giving up.

PLACES = ("queued", "in text", "before unet", "in unet", "before vae", "in vae")


def bring_to(place: str, fleet: Fleet, id: str = "a", **fields: object) -> str | None:
    """A prompt at `place`, in or before a stage whose name is returned; the stages before it are idle."""
    if place == "queued":
        fleet.kill(TEXT)
    fleet.submit(id, id, **fields)  # type: ignore[arg-type]
    if place == "queued":
        return None
    where, _, kind = place.partition(" ")
    if where == "before":
        fleet.kill(NAMES[kind])
    for stage in STAGES[: STAGES.index(NAMES[kind])]:
        while fleet.jobs(stage):
            fleet.work(stage)
    return NAMES[kind] if where == "in" else None


def revive(fleet: Fleet) -> None:
    for stage in STAGES:
        if not fleet.processes[stage].alive:
            fleet.serve(stage)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_a_cancelled_prompt_ends_at_once_and_frees_its_slots(place: str, images: int, fleet: Fleet) -> None:
    stage = bring_to(place, fleet, n=images)
    [cancelled] = fleet.cancel("a")
    assert isinstance(cancelled, wire.Failed)
    assert (cancelled.code, cancelled.retryable) == ("cancelled", False)
    assert fleet.all_free() == (stage is None)  # else the stage may still write into them
    revive(fleet)
    fleet.submit("b", "b")
    fleet.settle()
    assert (fleet.ends("a"), fleet.pictures("a"), fleet.heard("a")[-1]) == (["cancelled"], [], cancelled)
    assert fleet.pictures("b") == [picture("b")]
    assert fleet.all_free()


@pytest.mark.parametrize("end", ["dropped", "put", "fault", "lost"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_says_of_a_cancelled_job_ends_it_and_nothing_else(stage: str, end: str, fleet: Fleet) -> None:
    bring_to(f"in {stage.partition('-')[0]}", fleet)
    fleet.take(stage)
    fleet.cancel("a")
    heard = len(fleet.heard("a"))
    match end:
        case "dropped":
            fleet.obey(stage)
        case "put":
            fleet.put(stage)
            fleet.obey(stage)
        case "fault":
            fleet.fault(stage)
            fleet.obey(stage)
        case "lost":
            fleet.kill(stage)
    assert fleet.all_free()
    assert len(fleet.heard("a")) == heard
    assert fleet.ends("a") == ["cancelled"]


def test_nothing_is_told_of_a_cancelled_prompt_although_it_goes_on_for_a_moment(fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    fleet.cancel("a")
    assert fleet.take(UNET) == fleet.step(UNET) == fleet.step(UNET) == []


@pytest.mark.parametrize("who", ["unknown", "done", "of another client", "cancelled"])
def test_what_is_not_in_work_cannot_be_cancelled(who: str, fleet: Fleet) -> None:
    if who != "unknown":
        fleet.submit("a", client=OTHER if who == "of another client" else CLIENT)
    if who == "done":
        fleet.settle()
    if who == "cancelled":
        fleet.cancel("a")
    [answer] = fleet.cancel("a")
    assert isinstance(answer, wire.Failed)
    assert (answer.id, answer.code) == ("a", "not_found")
    fleet.settle()
    assert fleet.ends("a", OTHER) == (["done"] if who == "of another client" else [])
    assert fleet.all_free()


def test_a_client_that_is_gone_hears_nothing_more_and_others_are_served(fleet: Fleet) -> None:
    for number in range(5):
        fleet.submit(f"mine {number}", n=2)
        fleet.submit(f"other {number}", client=OTHER)
    for stage in (TEXT, TEXT, UNET):
        fleet.work(stage)
    heard = len(fleet.answers)
    fleet.client_gone(CLIENT)
    fleet.settle()
    assert {answer.client for answer in fleet.answers[heard:]} == {OTHER}
    assert [fleet.ends(f"other {number}", OTHER) for number in range(5)] == [["done"]] * 5
    assert fleet.all_free()


# Losing a stage.


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_the_jobs_of_a_lost_stage_are_sent_again_from_the_input_they_had(stage: str, images: int, fleet: Fleet) -> None:
    bring_to(f"in {stage.partition('-')[0]}", fleet, n=images)
    neighbour = bring_to(f"in {stage.partition('-')[0]}", fleet, "b") if images == 1 else stage
    assert neighbour == stage
    process = fleet.processes[stage]
    before = list(process.held)
    assert len(before) == 2
    fleet.take(stage)
    fleet.kill(stage)
    assert process.held == []
    fleet.serve(stage)
    for old in before:  # each has the stage to itself
        [new] = process.held
        assert new.job == old.job
        assert slots(new)[1:] == slots(old)[1:]
        assert new.output.index == old.output.index
        assert fleet.arena.state(new.output.index) is SlotState.WRITING
        with pytest.raises(StaleSlot):
            process.view.write(old.output)
        fleet.work(stage)
    fleet.settle()
    expected = [picture("a", DRAW + index) for index in range(images)]
    assert (fleet.pictures("a"), fleet.ends("a")) == (expected, ["done"])
    assert fleet.ends("b") == (["done"] if images == 1 else [])
    assert [len(fleet.processes[other].runs) for other in STAGES] == [2 + 2 * (other == stage) for other in STAGES]
    assert fleet.all_free()


def test_a_replayed_job_finds_its_checkpoint(fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    fleet.take(UNET)
    fleet.step(UNET)
    fleet.step(UNET)
    fleet.kill(UNET)
    fleet.serve(UNET)
    assert fleet.steps_done(UNET) == 2
    fleet.settle()
    steps = [m.step for m in fleet.heard("a") if isinstance(m, wire.Progress) and m.stage == "unet" and m.step]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("stage", STAGES)
def test_a_prompt_that_kills_its_stage_twice_while_alone_there_fails_alone(stage: str, fleet: Fleet) -> None:
    bring_to(f"in {stage.partition('-')[0]}", fleet, "deadly")
    bring_to(f"in {stage.partition('-')[0]}", fleet, "neighbour")
    fleet.submit("later", "later")
    assert fleet.jobs(stage) == [1, 2]
    for alone in (0, 1, 2):
        assert fleet.ends("deadly") == []
        fleet.take(stage, 1)
        if not alone:
            fleet.take(stage, 2)
        fleet.kill(stage)
        fleet.serve(stage)
        assert fleet.jobs(stage) == [1 if alone < 2 else 2]
    assert fleet.ends("deadly") == ["stage_lost"]
    fleet.settle()
    assert fleet.ends("deadly") == ["stage_lost"]
    assert [fleet.pictures(id) for id in ("deadly", "neighbour", "later")] == [
        [],
        [picture("neighbour")],
        [picture("later")],
    ]
    assert fleet.all_free()


def test_a_prompt_that_has_its_stage_to_itself_from_the_start_fails_after_two_deaths(fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    for _ in range(2):
        assert fleet.ends("a") == []
        fleet.take(UNET)
        fleet.kill(UNET)
        fleet.serve(UNET)
    assert fleet.ends("a") == ["stage_lost"]
    assert fleet.all_free()


def test_a_step_further_a_death_is_the_first_one_again(fleet: Fleet) -> None:
    fleet.submit("a", steps=30)
    fleet.work(TEXT)
    for _ in range(20):
        fleet.take(UNET)
        fleet.step(UNET)
        fleet.kill(UNET)
        fleet.serve(UNET)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a cat", steps=30)]


def test_a_step_that_was_saved_counts_although_its_news_died_with_the_stage(fleet: Fleet) -> None:
    fleet.submit("a", steps=30)
    fleet.work(TEXT)
    for step in range(1, 20):
        fleet.take(UNET)
        run = fleet.processes[UNET].held[0]
        shape = CARD.latent_shape(*CARD.native)
        checkpoint = Checkpoint(fleet.processes[UNET].view.write(run.output), run.job, shape)
        checkpoint.save(step, np.zeros(shape, np.float32), np.zeros((0, *shape), np.float32))
        fleet.kill(UNET)
        fleet.serve(UNET)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a cat", steps=30)]


@pytest.mark.parametrize("doubt", ["killed by others", "not taken up", "one was a fault"])
def test_deaths_that_may_be_chance_convict_a_job_but_late(doubt: str, fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    for deaths in range(1, MAX_DOUBTFUL_DEATHS + 1):
        assert fleet.ends("a") == []
        if doubt != "not taken up":
            fleet.take(UNET)
        fleet.kill(UNET, killed=doubt == "killed by others" or (doubt == "one was a fault" and deaths != 2))
        if deaths < MAX_DOUBTFUL_DEATHS:
            fleet.serve(UNET)
    assert fleet.ends("a") == ["stage_lost"], "a prompt that kills a stage as it arrives would do so for ever"


def test_a_suspect_is_alone_until_it_has_come_a_step_further(fleet: Fleet) -> None:
    for id in "abc":
        fleet.submit(id, id)
        fleet.work(TEXT)
    assert fleet.jobs(UNET) == [1, 2]
    fleet.kill(UNET)
    fleet.serve(UNET)
    for suspect in (1, 2):
        assert fleet.jobs(UNET) == [suspect]
        fleet.take(UNET)
        assert fleet.jobs(UNET) == [suspect]
        fleet.work(UNET)
    assert fleet.jobs(UNET) == [3]
    fleet.submit("d", "d")
    fleet.work(TEXT)
    assert fleet.jobs(UNET) == [3, 4], "nobody is suspected any more"
    fleet.settle()
    assert fleet.all_free()


def test_a_suspect_s_first_step_lets_others_in(fleet: Fleet) -> None:
    for id in "ab":
        fleet.submit(id, id)
        fleet.work(TEXT)
    fleet.kill(UNET)
    fleet.serve(UNET)
    fleet.take(UNET)
    assert fleet.jobs(UNET) == [1]
    fleet.step(UNET)
    assert fleet.jobs(UNET) == [1], "the other is a suspect, too, and has to wait for a stage to itself"
    fleet.submit("c", "c")
    fleet.work(TEXT)
    assert fleet.jobs(UNET) == [1], "who waits longer goes first"
    fleet.work(UNET)
    assert fleet.jobs(UNET) == [2]


def test_two_images_of_one_prompt_that_kill_their_stage_fail_it_once(fleet: Fleet) -> None:
    bring_to("in unet", fleet, n=2)
    fleet.submit("b", "b")
    for _ in range(3):
        fleet.take(UNET)
        fleet.kill(UNET)
        fleet.serve(UNET)
    assert fleet.ends("a") == ["stage_lost"]
    assert not {1, 2} & {*fleet.jobs(TEXT), *fleet.jobs(UNET)}
    fleet.settle()
    assert fleet.pictures("b") == [picture("b")]
    assert fleet.all_free()


def test_what_is_said_of_jobs_that_a_stage_does_not_have_is_ignored(fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    run = fleet.processes[UNET].held[0]
    said: list[Callable[[int], pipes.Report]] = [
        lambda job: pipes.Started(job, 0),
        lambda job: pipes.Stepped(job, 1, 3, 0, 1, 1),
        lambda job: pipes.Finished(job, (3,), 0, 1),
        lambda job: pipes.Fault(job, "stage_fault", "it broke"),
        lambda job: pipes.Dropped(job),
    ]
    for report in said:
        assert fleet.report(UNET, report(99)) == []  # there is no such job
        assert fleet.report(VAE, report(run.job)) == []  # it is elsewhere
    fleet.kill(UNET)
    for report in said:
        assert fleet.report(UNET, report(run.job)) == []  # its process is dead
    fleet.serve(UNET)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a")]
    assert fleet.all_free()


# Spoiled jobs and slots.


@pytest.mark.parametrize("code", ["stage_fault", "bad_output", "of a later version"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_costs_its_prompt_alone(stage: str, code: str, fleet: Fleet) -> None:
    bring_to(f"in {stage.partition('-')[0]}", fleet, n=2)
    fleet.submit("b", "b")
    [failed] = fleet.fault(stage, 1, code)
    assert isinstance(failed, wire.Failed)
    assert (failed.code, failed.message) == (code if " " not in code else "internal", "it broke")
    fleet.settle()
    assert (len(fleet.ends("a")), fleet.pictures("a"), fleet.pictures("b")) == (1, [], [picture("b")])
    assert fleet.all_free()


def test_a_torn_picture_is_made_again(fleet: Fleet) -> None:
    bring_to("in vae", fleet)
    fleet.take(VAE)
    assert fleet.put(VAE, torn=True) == []
    fleet.settle()
    assert fleet.pictures("a") == [picture("a")]
    assert [len(fleet.processes[stage].runs) for stage in STAGES] == [1, 1, 2]
    bring_to("in vae", fleet, "b")
    for _ in range(MAX_SPOILED):
        assert fleet.ends("b") == []
        fleet.take(VAE)
        fleet.put(VAE, torn=True)
    assert (fleet.ends("b"), fleet.pictures("b")) == (["torn_slot"], [])
    assert fleet.all_free()


def test_a_picture_that_was_never_sealed_does_not_end_the_hub(fleet: Fleet) -> None:
    bring_to("in vae", fleet)
    fleet.take(VAE)
    run = fleet.processes[VAE].held.pop()
    fleet.report(VAE, pipes.Finished(run.job, (3,), 0, 1))
    fleet.settle()
    assert fleet.pictures("a") == [picture("a")]
    assert fleet.all_free()


@pytest.mark.parametrize("code", ["torn_slot", "stale_slot"])
@pytest.mark.parametrize("stage", [UNET, VAE])
def test_a_job_whose_input_is_spoiled_is_made_again_from_its_prompt(stage: str, code: str, fleet: Fleet) -> None:
    bring_to(f"in {stage.partition('-')[0]}", fleet, trace=True)
    assert fleet.fault(stage, code=code) == []
    fleet.settle()
    assert (fleet.pictures("a"), fleet.ends("a")) == ([picture("a")], ["done"])
    assert len(fleet.processes[TEXT].runs) == 2
    bring_to(f"in {stage.partition('-')[0]}", fleet, "b")
    for _ in range(MAX_SPOILED):
        assert fleet.ends("b") == []
        while not fleet.jobs(stage):
            fleet.work(TEXT if fleet.jobs(TEXT) else UNET)
        fleet.fault(stage, code=code)
    assert fleet.ends("b") == [code]
    assert fleet.all_free()


# Stopping.


def test_a_draining_router_refuses_the_new_and_finishes_the_old(fleet: Fleet) -> None:
    fleet.submit("a", "a")
    fleet.router.drain()
    [refused] = fleet.submit("b")
    assert isinstance(refused, wire.Failed)
    assert (refused.code, refused.retryable) == ("shutting_down", True)
    fleet.settle()
    assert fleet.pictures("a") == [picture("a")]


def test_what_is_abandoned_is_told_so(fleet: Fleet) -> None:
    for number in range(10):
        fleet.submit(str(number))
    for stage in (TEXT, TEXT, UNET):
        fleet.work(stage)
    answers = fleet.router.abandon(ShuttingDown("it stops"), fleet.now_ns)
    failed = [action.message for action in answers if isinstance(action.message, wire.Failed)]
    assert [(message.id, message.code) for message in failed] == [
        (str(number), "shutting_down") for number in range(10)
    ]
    assert all(message.retryable for message in failed)
    for stage in STAGES:
        fleet.kill(stage)
    assert fleet.all_free()


# Measuring.


def test_a_hop_is_measured_from_put_to_take_where_the_next_stage_was_idle(fleet: Fleet) -> None:
    bring_to("in unet", fleet)
    assert not fleet.router.hops_us
    fleet.take(UNET)
    assert fleet.router.hops_us == pytest.approx([2 * TICK / 1000])
    bring_to("in unet", fleet, "b")
    fleet.work(UNET)
    fleet.take(UNET)  # it waited for the first one
    fleet.kill(VAE)
    fleet.work(UNET)
    fleet.serve(VAE)
    fleet.take(VAE)  # it waited for the process
    assert len(fleet.router.hops_us) == 1


def test_only_those_who_ask_get_a_trace(fleet: Fleet) -> None:
    fleet.submit("a")
    fleet.submit("b", trace=True)
    fleet.settle()
    assert [type(message) for message in fleet.heard("a")[-2:]] == [wire.Image, wire.Done]
    assert [type(message) for message in fleet.heard("b")[-3:]] == [wire.Image, wire.Traced, wire.Done]


def test_a_trace_tells_who_held_and_who_worked_when(fleet: Fleet) -> None:
    for id in "abcdef":
        fleet.submit(id, trace=True, n=2)
    fleet.settle()
    traces = [message for id in "abcdef" for message in fleet.heard(id) if isinstance(message, wire.Traced)]
    assert len(traces) == 6
    for traced in traces:
        assert [piece.began_ns for piece in traced.slices] == sorted(piece.began_ns for piece in traced.slices)
        for index in range(2):
            mine = [piece for piece in traced.slices if piece.index == index]
            work = [piece for piece in mine if piece.what == "work"]
            assert [piece.stage for piece in work] == list(STAGES)
            assert all(before.ended_ns <= after.began_ns for before, after in pairwise(work))
            steps = [piece for piece in mine if piece.what == "step"]
            assert [(piece.stage, piece.step, piece.slot) for piece in steps] == [
                (UNET, step, work[1].slot) for step in (1, 2, 3)
            ]
            holds = [piece for piece in mine if piece.what == "hold"]
            assert [(piece.stage, piece.slot) for piece in holds] == [
                (pool, piece.slot) for pool, piece in zip(("embeds", "latents", "image"), work, strict=True)
            ]
            for hold, piece in zip(holds, work, strict=True):
                assert hold.began_ns <= piece.began_ns < piece.ended_ns <= hold.ended_ns
            assert all(piece.pid == 100 + STAGES.index(piece.stage) for piece in work + steps)
    for slot in range(len(fleet.arena.layout.payloads)):
        holds = [piece for traced in traces for piece in traced.slices if (piece.what, piece.slot) == ("hold", slot)]
        assert all(
            before.ended_ns <= after.began_ns for before, after in pairwise(sorted(holds, key=lambda p: p.began_ns))
        )

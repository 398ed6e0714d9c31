"""Prompts of named owners: they outlive connections, are told of again, and are made once."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.routing.kept import Ended, KeptResults
from stages.core import wire
from stages.core.config import Config, PipelineConfig
from tests.unit.fleet import CLIENT, DRAW, TEXT, UNET, VAE, Fleet, picture

OWNER = "7f3a"
SECOND_LINE, THIRD_LINE = b"second", b"third"
"""Other connections."""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.close()


def attach(fleet: Fleet, client: bytes = SECOND_LINE, id: str | None = None) -> list[wire.HubMessage]:
    return fleet.ask(wire.Attach(owner=OWNER, id=id), client)


def kinds(messages: list[wire.HubMessage]) -> list[str]:
    return [type(message).__name__ for message in messages]


def code(messages: list[wire.HubMessage]) -> str:
    [failed] = messages
    assert isinstance(failed, wire.Failed)
    return failed.code


# A connection that ends.


def test_a_prompt_of_a_named_owner_outlives_its_connection(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    fleet.submit("b")
    fleet.work(TEXT)
    assert fleet.client_gone(CLIENT) == [], "a connection that is gone is told nothing"
    fleet.settle()
    assert (fleet.pictures("a"), fleet.ends("a"), fleet.ends("b")) == ([], [], [])
    assert kinds(attach(fleet)) == ["Attached", "Image", "Done"]
    assert fleet.pictures("a", SECOND_LINE) == [picture("a cat")]
    assert fleet.all_free()


@pytest.mark.parametrize("stage", [TEXT, UNET, VAE])
def test_who_attaches_is_told_of_all_that_comes(stage: str, fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER, n=2)
    for each in (TEXT, UNET, VAE)[: (TEXT, UNET, VAE).index(stage)]:
        fleet.work(each)
    fleet.client_gone(CLIENT)
    told = attach(fleet)
    assert told[:2] == [wire.Attached(in_work=("a",), ended=()), fleet.heard("a", SECOND_LINE)[0]]
    assert isinstance(told[1], wire.Accepted)
    fleet.settle()
    assert fleet.pictures("a", SECOND_LINE) == [picture("a cat", seed) for seed in (DRAW, DRAW + 1)]
    assert fleet.ends("a", SECOND_LINE) == ["done"]


def test_images_that_are_done_are_told_to_whoever_joins_later(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER, n=2)
    for stage in (TEXT, UNET, VAE):
        fleet.work(stage, 1)
    assert kinds(attach(fleet)) == ["Attached", "Accepted", "Image"]
    fleet.settle()
    for line in (CLIENT, SECOND_LINE):
        assert fleet.pictures("a", line) == [picture("a cat", seed) for seed in (DRAW, DRAW + 1)]
        assert fleet.ends("a", line) == ["done"]


def test_two_connections_of_one_owner_hear_the_same_and_one_may_go(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    attach(fleet)
    attach(fleet)  # twice is as good as once
    fleet.work(TEXT)
    assert fleet.heard("a")[1:] == fleet.heard("a", SECOND_LINE)[2:], "each is told once"
    fleet.client_gone(SECOND_LINE)
    fleet.settle()
    assert (fleet.ends("a"), fleet.ends("a", SECOND_LINE)) == (["done"], [])


def test_while_nobody_listens_nobody_is_told_that_it_waits(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    fleet.client_gone(CLIENT)
    fleet.now_ns += 10_000_000_000
    assert fleet.router.send_waiting(fleet.now_ns) == []
    fleet.settle()
    assert kinds(attach(fleet)) == ["Attached", "Image", "Done"]


def test_owners_are_strangers_to_each_other(fleet: Fleet) -> None:
    fleet.submit("a", "first", owner=OWNER)
    fleet.submit("a", "second", owner="other")
    fleet.submit("a", "third")
    fleet.settle()
    assert len(fleet.pictures("a")) == 3
    attach(fleet)
    assert fleet.pictures("a", SECOND_LINE) == [picture("first")]


def test_a_connection_is_no_name(fleet: Fleet) -> None:
    """Its prompts are not kept, and nobody can ask for them by its routing id."""
    fleet.submit("a")
    assert fleet.ask(wire.Attach(owner=CLIENT.decode()), SECOND_LINE) == [wire.Attached(in_work=(), ended=())]
    fleet.settle()
    assert fleet.ask(wire.Attach(owner=CLIENT.decode()), SECOND_LINE) == [wire.Attached(in_work=(), ended=())]


# Asking again.


def test_the_same_submit_again_joins_and_makes_nothing_twice(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    assert kinds(fleet.submit("a", owner=OWNER, client=SECOND_LINE)) == ["Accepted"]
    fleet.settle()
    assert fleet.pictures("a", SECOND_LINE) == fleet.pictures("a") == [picture("a cat")]
    assert kinds(fleet.submit("a", owner=OWNER, client=THIRD_LINE)) == ["Accepted", "Image", "Done"]
    assert fleet.pictures("a", THIRD_LINE) == [picture("a cat")]
    assert len(fleet.processes[TEXT].runs) == 1


def test_a_connection_that_asks_again_gets_no_image_of_its_own_twice(fleet: Fleet) -> None:
    """Nobody else can have asked for it, so nothing is kept."""
    fleet.submit("a", n=2)
    for stage in (TEXT, UNET, VAE):
        fleet.work(stage, 1)
    assert kinds(fleet.submit("a", n=2)) == ["Accepted"]
    fleet.settle()
    assert len(fleet.pictures("a")) == 2


def test_another_submit_of_that_id_is_a_conflict_and_the_first_goes_on(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    assert code(fleet.submit("a", "a dog", owner=OWNER, client=SECOND_LINE)) == "conflict"
    fleet.settle()
    assert fleet.pictures("a") == [picture("a cat")]
    assert code(fleet.submit("a", "a dog", owner=OWNER, client=SECOND_LINE)) == "conflict"


def test_a_prompt_that_failed_is_tried_anew(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    fleet.fault(TEXT)
    assert kinds(attach(fleet)) == ["Attached", "Failed"]
    assert kinds(fleet.submit("a", "a dog", owner=OWNER)) == ["Accepted"]
    fleet.settle()
    assert fleet.ends("a") == ["stage_fault", "done"]
    assert kinds(attach(fleet, THIRD_LINE)) == ["Attached", "Image", "Done"]


@pytest.mark.parametrize("settled", [False, True])
def test_one_prompt_may_be_attached_to_alone(settled: bool, fleet: Fleet) -> None:
    for id in "ab":
        fleet.submit(id, id, owner=OWNER)
    if settled:
        fleet.settle()
    told = attach(fleet, id="b")
    assert isinstance(told[0], wire.Attached)
    assert told[0].in_work + told[0].ended == ("b",)
    assert code(attach(fleet, id="c")) == "not_found"
    fleet.settle()
    assert (fleet.pictures("a", SECOND_LINE), fleet.pictures("b", SECOND_LINE)) == ([], [picture("b")])


@pytest.mark.parametrize("owner", ["", "x" * 129, "a\nb"])
def test_a_name_that_is_none_is_refused(owner: str, fleet: Fleet) -> None:
    assert code(fleet.submit("a", owner=owner)) == "bad_request"
    assert code(fleet.ask(wire.Attach(owner=owner))) == "bad_request"


# Cancelling and forgetting.


def test_any_connection_that_knows_the_name_may_cancel_and_all_are_told(fleet: Fleet) -> None:
    fleet.submit("a", owner=OWNER)
    assert code(fleet.ask(wire.Cancel(id="a"), CLIENT)) == "not_found"
    fleet.ask(wire.Cancel(id="a", owner=OWNER), SECOND_LINE)
    fleet.settle()
    assert (fleet.ends("a")[-1], fleet.ends("a", SECOND_LINE)) == ("cancelled", ["cancelled"])
    assert fleet.all_free()


def test_a_prompt_that_ended_can_be_forgotten(fleet: Fleet) -> None:
    forget = wire.Forget(owner=OWNER, id="a")
    fleet.submit("a", owner=OWNER)
    assert code(fleet.ask(forget)) == "conflict"
    fleet.settle()
    assert fleet.ask(forget) == [wire.Forgotten(id="a")]
    assert code(fleet.ask(forget)) == "not_found"
    assert attach(fleet) == [wire.Attached(in_work=(), ended=())]
    fleet.submit("a", "a dog", owner=OWNER)
    fleet.settle()
    assert fleet.pictures("a")[-1] == picture("a dog")


def test_what_is_kept_is_forgotten_in_time() -> None:
    fleet = Fleet(Config(pipeline=PipelineConfig(order="arrival", keep_s=60.0)))
    fleet.submit("a", owner=OWNER)
    fleet.settle()
    fleet.now_ns += 59_000_000_000
    assert kinds(attach(fleet)) == ["Attached", "Image", "Done"]
    fleet.now_ns += 2_000_000_000
    assert kinds(fleet.submit("a", "a dog", owner=OWNER)) == ["Accepted"]
    fleet.settle()
    fleet.now_ns += 61_000_000_000
    assert attach(fleet) == [wire.Attached(in_work=(), ended=())]
    fleet.close()


# What is kept.


def done(id: str, nbytes: int) -> tuple[wire.Submit, list[tuple[wire.Image, bytes]], wire.Done]:
    timings = wire.Timings(0, 0, 0, 0, 0)
    image = wire.Image(id=id, index=0, format="png", width=8, height=8, seed=0, timings=timings)
    return wire.Submit(id=id, prompt="a cat"), [(image, bytes(nbytes))], wire.Done(id=id)


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 40)), max_size=30))
def test_the_newest_are_kept_within_time_and_bytes(ends: list[tuple[int, int]]) -> None:
    kept = KeptResults(100.0, 50_000)
    now_s = 0
    all_ended: list[tuple[str, int, int]] = []
    for number, (nbytes, pause_s) in enumerate(ends):
        now_s += pause_s
        kept.add(OWNER, *done(f"{number}", nbytes), now_s * 1_000_000_000)
        all_ended.append((f"{number}", nbytes, now_s))
    found = list(kept.of(OWNER))
    expected = all_ended[len(all_ended) - len(found) :]
    assert [(each.submit.id, len(each.images[0][1])) for each in found] == [(id, nbytes) for id, nbytes, _ in expected]
    assert sum(each.nbytes for each in found) <= 50_000
    assert all(ended_s > now_s - 100 for _, _, ended_s in expected)
    if len(found) < len(all_ended):  # then the next one has no room, or is too old
        _, nbytes, ended_s = all_ended[len(all_ended) - len(found) - 1]
        assert sum(each.nbytes for each in found) + size(nbytes) > 50_000 or ended_s <= now_s - 100


def test_what_ends_again_replaces_what_was_kept_and_its_bytes() -> None:
    kept = KeptResults(600.0, 50_000)
    for _ in range(10):
        kept.add(OWNER, *done("a", 30_000), 0)
    kept.add(OWNER, *done("b", 10_000), 0)
    assert [each.submit.id for each in kept.of(OWNER)] == ["a", "b"]
    assert kept.forget(OWNER, "a")
    assert not kept.forget(OWNER, "a")
    kept.add(OWNER, *done("c", 35_000), 0)
    assert [each.submit.id for each in kept.of(OWNER)] == ["b", "c"]


def size(nbytes: int) -> int:
    submit, images, last = done("x", nbytes)
    return Ended(submit, tuple(images), last, 0).nbytes


def test_prompts_without_pictures_take_room_too() -> None:
    """Whoever lets long prompts fail under ever new ids does not fill the memory."""
    kept = KeptResults(600.0, 1 << 20)
    for number in range(1000):
        submit = wire.Submit(id=str(number), prompt="x" * 30_000)
        failed = wire.Failed(id=str(number), code="stage_fault", message="", retryable=True)
        kept.add(OWNER, submit, [], failed, 0)
    assert 0 < len(list(kept.of(OWNER))) < 40


# Quotes.


def test_a_quote_tells_what_a_submit_would_and_takes_nothing_in(fleet: Fleet) -> None:
    fleet.pace = {"text": 1_000_000_000, "unet": 10_000_000_000, "vae": 3_000_000_000}
    [before] = fleet.ask(wire.Quote(id="q", prompt="a cat"))
    assert before == wire.Quoted(id="q", seconds=None, eta_s=None, feasible=True)
    fleet.submit("first", steps=1)
    fleet.settle()
    assert fleet.all_free()
    fleet.submit("before", steps=2)
    [quoted] = fleet.ask(wire.Quote(id="q", prompt="a cat", steps=3, n=2))
    assert isinstance(quoted, wire.Quoted)
    [accepted] = fleet.submit("q", steps=3, n=2)
    assert isinstance(accepted, wire.Accepted)
    assert quoted.eta_s == pytest.approx(accepted.eta_s)
    assert quoted.seconds == pytest.approx(2 * (1 + 30 + 3), rel=0.05)
    assert quoted.feasible
    assert len(fleet.heard("q")) == 3


def test_a_quote_says_what_would_be_refused() -> None:
    fleet = Fleet(Config(pipeline=PipelineConfig(order="arrival", queue_limit=0)))
    room = fleet.arena.free_slots("embeds")
    for number in range(room):
        fleet.submit(str(number))
    waiting = fleet.router.waiting
    [quoted] = fleet.ask(wire.Quote(id="q", prompt="a cat", n=10))
    assert isinstance(quoted, wire.Quoted)
    assert not quoted.feasible
    assert fleet.router.waiting == waiting
    assert code(fleet.ask(wire.Quote(id="q", prompt=" "))) == "bad_request"
    fleet.close()


def test_a_deadline_that_cannot_be_kept_is_not_feasible(fleet: Fleet) -> None:
    fleet.submit("a", steps=1)
    fleet.settle()
    [quoted] = fleet.ask(wire.Quote(id="q", prompt="a cat", deadline_s=0.000001))
    assert isinstance(quoted, wire.Quoted)
    assert not quoted.feasible

"""`pipeline.share=turns`: one stage at a time on the same cores. Real processes, stub stages."""

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from stages.core import wire
from tests.server import STUBS, Outcome, Server, run, serving

STEPS = 6
TURNS = (*STUBS, "pipeline.share=turns")


def prompts(count: int = 8, word: str = "", **more: object) -> list[wire.Submit]:
    return [
        wire.Submit(id=f"job-{n}", prompt=f"{word} a picture of number {n}", seed=n, steps=STEPS, **more)  # type: ignore[arg-type]
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def timeslice() -> dict[tuple[str, int], bytes]:
    with serving(*STUBS, "pipeline.share=timeslice") as server, server.client() as client:
        return run(client, prompts()).images


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*TURNS) as running:
        yield running


def units(outcome: Outcome) -> list[wire.Slice]:
    """What the stages did, by time: encodings, steps, decodings. A U-Net's work, all its steps, is not one unit."""
    slices = [piece for traced in outcome.traced.values() for piece in traced]
    found = [p for p in slices if p.what == "step" or (p.what == "work" and not p.stage.startswith("unet"))]
    return sorted(found, key=lambda piece: piece.began_ns)


def test_in_turns_the_pictures_are_the_same_and_no_two_stages_compute_at_once(
    server: Server, timeslice: dict[tuple[str, int], bytes]
) -> None:
    with server.client() as client:
        outcome = run(client, prompts(trace=True))
    assert not outcome.failed()
    assert outcome.images == timeslice
    worked = units(outcome)
    assert len(worked) == 8 * (1 + STEPS + 1)
    for before, after in pairwise(worked):
        assert before.ended_ns <= after.began_ns, f"{before} and {after} at the same time"
    stages = [piece.stage for piece in worked]
    changes = sum(one != other for one, other in pairwise(stages))
    assert changes > 3, "all of one stage, then all of the next: nothing was lent"


def test_several_processes_of_a_kind_take_turns_as_well(timeslice: dict[tuple[str, int], bytes]) -> None:
    """Two that are as urgent ask each other back all the time, and still both get on."""
    with serving(*TURNS, "stage.unet.replicas=2", "stage.text.replicas=2") as server, server.client() as client:
        outcome = run(client, prompts(trace=True))
    assert outcome.images == timeslice
    worked = units(outcome)
    for before, after in pairwise(worked):
        assert before.ended_ns <= after.began_ns, f"{before} and {after} at the same time"
    assert {piece.stage for piece in worked} == {"text-0", "text-1", "unet-0", "unet-1", "vae-0"}


@pytest.mark.parametrize("stage", wire.KINDS)
def test_a_stage_killed_while_it_holds_the_lease_blocks_nobody(
    stage: wire.Kind, server: Server, timeslice: dict[tuple[str, int], bytes]
) -> None:
    killed: list[int] = []
    with server.client() as client:
        pid = server.pids()[f"{stage}-0"]

        def kill(message: wire.HubMessage) -> None:
            at_work = isinstance(message, wire.Progress) and (message.id, message.stage) == ("job-3", stage)
            if at_work and not killed:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

        outcome = run(client, prompts(), kill)
        assert killed
        assert not outcome.failed()
        assert outcome.images == timeslice
        status = client.status()
        assert [s.restarts for s in status.stages if s.kind == stage] == [1]
        assert status.arena.free == status.arena.slots

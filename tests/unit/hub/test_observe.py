"""What a status says of stages that are about to be, are, and are no more."""

import math
from collections.abc import Iterator

import msgspec
import pytest

from orchestrator.hub.observer import Observer
from orchestrator.hub.recorder import Recorder
from orchestrator.hub.supervisor import Supervisor
from orchestrator.plan import plan
from orchestrator.routing.router import Router
from stages.core import pipes, wire
from stages.core.arena import Arena, Layout
from stages.core.board import Board
from stages.core.config import Config
from tests.unit.cards import CARD, machine

LOADED = pipes.Loaded(load_s=1.23456, cores="0-3", threads=9, precision="bf16")


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(["text-0", "unet-0", "vae-0"], attempts=3, load_s=60.0, stop_s=2.0)


@pytest.fixture
def observer(supervisor: Supervisor) -> Iterator[Observer]:
    planned = plan(Config(), CARD, machine(4))
    arena, board = Arena(Layout(planned.pools)), Board(len(planned.stages))
    yield Observer(planned, arena, board, Router(planned, arena, 64), supervisor, {}, 64, Recorder())
    arena.close()
    board.close()


def unet(observer: Observer) -> wire.StageStatus:
    return observer.status("starting").stages[1]


def test_before_it_has_loaded_a_stage_has_no_precision_and_was_never_busy(
    observer: Observer, supervisor: Supervisor
) -> None:
    supervisor.start(0.0)
    for _ in range(3):
        stage = unet(observer)
        assert (stage.state, stage.precision, stage.load_s, stage.busy_share) == ("loading", "", None, 0.0)
        assert math.copysign(1, stage.busy_share) == 1


def test_what_a_stage_said_when_it_had_loaded_is_told_until_it_dies(observer: Observer, supervisor: Supervisor) -> None:
    supervisor.start(0.0)
    supervisor.loaded("unet-0")
    observer.loaded["unet-0"] = LOADED
    assert (unet(observer).precision, unet(observer).load_s) == ("bf16", 1.235)
    supervisor.exited("unet-0", "died of SIGKILL", 1.0)
    assert (unet(observer).precision, unet(observer).load_s) == ("", None)


def test_the_number_of_the_protocol_is_told(observer: Observer) -> None:
    assert b'"protocol":1' in wire.encode(observer.status("starting"))


def test_a_server_older_than_the_number_has_none(observer: Observer) -> None:
    told = msgspec.json.decode(wire.encode(observer.status("starting")))
    del told["protocol"]
    status = wire.decode_hub_message(msgspec.json.encode(told))
    assert isinstance(status, wire.Status)
    assert status.protocol == 0

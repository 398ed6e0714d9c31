"""What a status says of stages that are about to be, are, and are no more."""

import math
import time
from collections.abc import Iterator

import msgspec
import pytest

from orchestrator.hub.child import Child
from orchestrator.hub.observer import Observer
from orchestrator.hub.process import LoadingProcess, Process, ServingProcess
from orchestrator.hub.recorder import Recorder
from orchestrator.hub.supervisor import Supervisor
from orchestrator.plan import plan
from orchestrator.routing.router import Router
from orchestrator.trace.recording import decode
from stages.core import pipes, wire
from stages.core.arena import Arena, Layout
from stages.core.board import Board, BoardWriter, Doing
from stages.core.config import Config
from tests.unit.cards import CARD, machine
from tests.unit.hub.child_specs import child_spec

LOADED = pipes.Loaded(load_s=1.23456, cores="0-3", threads=9, precision="bf16")


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor([child_spec(name) for name in ("text-0", "unet-0", "vae-0", "gateway")])


@pytest.fixture
def processes() -> Iterator[dict[str, Process]]:
    living: dict[str, Process] = {}
    yield living
    for process in living.values():
        process.child.kill()
        process.child.reap()
        process.child.close()


def started(name: str) -> Child:
    return Child(child_spec(name, lambda lifeline: ("sleep", "60")))


@pytest.fixture
def rows() -> Iterator[Board]:
    board = Board(3)
    yield board
    board.close()


@pytest.fixture
def observer(supervisor: Supervisor, processes: dict[str, Process], rows: Board) -> Iterator[Observer]:
    planned = plan(Config(), CARD, machine(4))
    arena = Arena(Layout(planned.pools))
    yield Observer(planned, arena, rows, Router(planned, arena, 64), supervisor, processes, 64, Recorder())
    arena.close()


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


def test_what_a_stage_said_when_it_had_loaded_is_told_until_it_dies(
    observer: Observer, supervisor: Supervisor, processes: dict[str, Process]
) -> None:
    supervisor.start(0.0)
    child = started("unet-0")
    processes["unet-0"] = LoadingProcess(child)
    assert (unet(observer).pid, unet(observer).precision, unet(observer).load_s) == (child.pid, "", None)
    supervisor.loaded("unet-0")
    processes["unet-0"] = ServingProcess(child, time.monotonic(), LOADED)
    assert (unet(observer).pid, unet(observer).precision, unet(observer).load_s) == (child.pid, "bf16", 1.235)
    child.kill()
    child.reap()
    child.close()
    del processes["unet-0"]
    supervisor.exited("unet-0", "died of SIGKILL", 1.0)
    assert (unet(observer).pid, unet(observer).precision, unet(observer).load_s) == (None, "", None)


def test_a_stage_that_waits_to_be_started_again_says_so(observer: Observer, supervisor: Supervisor) -> None:
    supervisor.start(0.0)
    for _ in range(2):
        supervisor.exited("unet-0", "exited with status 7", 1.0)
    assert (unet(observer).state, unet(observer).restarts) == ("backoff", 1)
    supervisor.tick(2.0)
    assert (unet(observer).state, unet(observer).restarts) == ("loading", 2)


def test_busy_shares_are_of_the_time_since_it_serves(
    observer: Observer, supervisor: Supervisor, processes: dict[str, Process], rows: Board
) -> None:
    supervisor.start(0.0)
    supervisor.loaded("unet-0")
    processes["unet-0"] = ServingProcess(started("unet-0"), time.monotonic() - 100.0, LOADED)
    row = BoardWriter(rows.region, 1)
    row.busy(25_000_000_000)
    row.beat(Doing.IDLE)
    assert unet(observer).busy_share == pytest.approx(0.25, abs=0.01)


def test_a_child_that_is_no_stage_is_in_no_status_and_no_trace(
    observer: Observer, supervisor: Supervisor, processes: dict[str, Process]
) -> None:
    supervisor.start(0.0)
    for name in ("unet-0", "gateway"):
        processes[name] = LoadingProcess(started(name))
    assert [stage.name for stage in observer.status("serving").stages] == ["text-0", "unet-0", "vae-0"]
    assert [worker.name for worker in decode(observer.trace(60.0)).workers] == ["unet-0"]


def test_the_number_of_the_protocol_is_told(observer: Observer) -> None:
    assert b'"protocol":1' in wire.encode(observer.status("starting"))


def test_a_server_older_than_the_number_has_none(observer: Observer) -> None:
    told = msgspec.json.decode(wire.encode(observer.status("starting")))
    del told["protocol"]
    status = wire.decode_hub_message(msgspec.json.encode(told))
    assert isinstance(status, wire.Status)
    assert status.protocol == 0

"""RELIABILITY rows 26 to 28, and what else stages and clients do to end the hub. Real processes, stub stages."""

import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import zmq

from stages.core import wire
from tests.proc.stubs import Scribbler
from tests.server import DEADLINE_S, STUBS, Server, alive, eventually, run, serving

STEPS = 8


def prompt(id: str, text: str = "a fox", **fields: object) -> wire.Submit:
    return wire.Submit(id=id, prompt=text, seed=7, steps=STEPS, **fields)  # type: ignore[arg-type]


# Shared memory.


def test_a_stage_that_scribbles_over_shared_memory_ends_nobody() -> None:
    scribbling = (*STUBS, "stage.text.implementation=tests.proc.stubs:Scribbler", "pipeline.queue_limit=10000")
    with serving(*scribbling) as server, server.client() as client:
        began, number = time.monotonic(), 0
        while time.monotonic() < began + Scribbler.SECONDS:
            outcome = run(client, [prompt(f"{number}-{each}") for each in range(8)])  # each gets one terminal answer
            assert {failed.code for failed in outcome.failed().values()} <= {"torn_slot", "stale_slot", "stage_fault"}
            client.status()
            number += 1
        assert client.status().replayed > 0, "it did not scribble where it hurts"
        calm = run(client, [prompt(f"calm-{each}") for each in range(8)])
        assert not calm.failed()
        assert len(set(calm.images.values())) == 1, "the same request, the same bytes"
        status = client.status()
        assert status.arena.free == status.arena.slots
        assert [stage.restarts for stage in status.stages] == [0, 0, 0]


# What nobody foresaw.


def raising(method: str, call: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.proc.raising", method, str(call))


def test_what_one_message_of_a_stage_raises_costs_the_prompt_that_it_was_about() -> None:
    with serving(*STUBS, command=raising("report", 20)) as server, server.client() as client:
        outcome = run(client, [prompt(f"{each}") for each in range(8)])
        [failed] = outcome.failed().values()
        assert failed.code == "internal"
        assert "nobody foresaw this" in failed.message
        assert len(outcome.images) == 7
        eventually(lambda: client.status().arena.free == client.status().arena.slots, "all slots free")
        server.process.send_signal(signal.SIGTERM)
        _, stderr = server.end()
        assert "could not be handled" in stderr


def test_what_one_request_raises_costs_that_request() -> None:
    with serving(*STUBS, command=raising("ask", 2)) as server, server.client() as client:
        outcome = run(client, [prompt(f"{each}") for each in range(4)])
        assert [(id, failed.code) for id, failed in outcome.failed().items()] == [("1", "internal")]
        assert len(outcome.images) == 3


def test_what_else_is_raised_fails_every_prompt_and_ends_every_child() -> None:
    with serving(*STUBS, command=raising("send_waiting", 1)) as server, server.client() as client:
        children = server.children()
        outcome = run(client, [prompt(f"{each}", "[slow]") for each in range(8)])
        assert {failed.code for failed in outcome.failed().values()} == {"internal"}
        status, stderr = server.end()
        assert status == 1
        assert stderr.splitlines()[-1].startswith("triptych: error: internal: RuntimeError: nobody foresaw this")
        eventually(lambda: not any(map(alive, children)), "all stages gone", 5.0)


# Descriptors.


@pytest.fixture
def many() -> Iterator[None]:
    """This process may have a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(soft: int, hard: int) -> tuple[str, ...]:
    script = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    return ("sh", "-c", script, "sh", sys.executable, "-m", "orchestrator")


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


_READY = b"\x05READY" + b"\x0bSocket-Type" + b"\0\0\0\x06DEALER"
GREETINGS = {
    "mute": b"",
    "polite": (b"\xff" + b"\0" * 8 + b"\x7f\x03\0NULL").ljust(64, b"\0") + b"\x04" + bytes([len(_READY)]) + _READY,
}
"""What a connection says: nothing, or all that ZeroMQ's protocol asks for."""


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_idle_connections_to_the_last_descriptor_end_nobody(greeting: bytes) -> None:
    with (
        serving(*STUBS, address="tcp://127.0.0.1:*", command=limited(256, 256)) as server,
        server.client() as client,
        ExitStack() as idle,
    ):
        stages = server.pids()
        job = client.submit(prompt("long", "[slow]", preview_every=1))
        host, _, port = server.address.removeprefix("tcp://").rpartition(":")
        before = psutil.Process(server.process.pid).cpu_times()
        for _ in range(400):
            connection = idle.enter_context(socket.create_connection((host, int(port)), DEADLINE_S))
            connection.sendall(greeting)
        os.kill(stages["vae-0"], signal.SIGKILL)  # a process has to be started meanwhile
        assert isinstance(list(job)[-1][0], wire.Done)
        eventually(lambda: 40 < descriptors(server) < 256, "there are some to spare, once the refused are gone")
        after = psutil.Process(server.process.pid).cpu_times()
        assert after.user + after.system - before.user - before.system < 5.0, "it does nothing but refuse"
        idle.close()
        eventually(lambda: descriptors(server) < 128, "those that were served are gone")
        with server.client() as newcomer:
            assert not run(newcomer, [prompt("new")]).failed()
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[1].count("connections are refused") == 1


@pytest.mark.usefixtures("many")
def test_a_soft_limit_is_raised_and_the_thousandth_connection_served() -> None:
    with serving(*STUBS, address="tcp://127.0.0.1:*", command=limited(256, 4096)) as server, ExitStack() as idle:
        host, _, port = server.address.removeprefix("tcp://").rpartition(":")
        for _ in range(1005):
            connection = idle.enter_context(socket.create_connection((host, int(port)), DEADLINE_S))
            connection.sendall(GREETINGS["polite"])
        eventually(lambda: descriptors(server) > 1024, "all are served")
        with server.client() as client:
            os.kill(server.pids()["text-0"], signal.SIGKILL)  # whose life-line now has a number beyond 1,023
            assert not run(client, [prompt("a")]).failed()


def test_who_does_not_speak_zeromq_is_sent_away_soon() -> None:
    with serving(*STUBS, address="tcp://127.0.0.1:*") as server:
        host, _, port = server.address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), 20.0) as mute:  # seconds: libzmq would wait for 30
            while mute.recv(64):
                pass


def test_strangers_at_the_address_of_the_stages_are_sent_away() -> None:
    with serving(*STUBS) as server, server.client() as client, ExitStack() as strangers:
        arguments = Path(f"/proc/{server.pids()['unet-0']}/cmdline").read_bytes().split(b"\0")
        spec = next(word for word in arguments if word.startswith(b"{"))
        address = spec.partition(b'"address":"ipc://@')[2].partition(b'"')[0]
        for _ in range(3):  # few enough for all to be served, and they know the protocol
            stranger = strangers.enter_context(socket.socket(socket.AF_UNIX))
            stranger.settimeout(DEADLINE_S)
            stranger.connect(b"\0" + address)
            with suppress(BrokenPipeError, ConnectionResetError):
                stranger.sendall(GREETINGS["polite"])
                while stranger.recv(64):
                    pass
        assert not run(client, [prompt("a")]).failed()


# Poison.


def test_poison_fails_alone_and_takes_no_neighbour_with_it() -> None:
    packing = (*STUBS, "stage.unet.implementation=tests.proc.stubs:PackingUnet", "stage.unet.max_rows=16")
    innocent = [prompt(f"{each}", f"number {each}") for each in range(7)]
    with serving(*packing) as server, server.client() as client:
        undisturbed = run(client, innocent).images
        outcome = run(client, [*innocent[:4], prompt("poison", "[crash]"), *innocent[4:]])
        assert {id: failed.code for id, failed in outcome.failed().items()} == {"poison": "stage_lost"}
        assert outcome.images == undisturbed
        status = client.status()
        assert 2 <= next(stage for stage in status.stages if stage.kind == "unet").restarts <= 3
        assert status.arena.free == status.arena.slots


def test_twenty_kills_at_random_convict_nobody() -> None:
    packing = (*STUBS, "stage.unet.implementation=tests.proc.stubs:PackingUnet", "stage.unet.max_rows=16")
    chance = random.Random(5)
    with serving(*packing) as server, server.client() as client, server.client() as watcher:
        prompts = [prompt(f"{each}", f"[slow] number {each % 7}") for each in range(21)]
        kills = 0

        def kill(message: wire.HubMessage) -> None:
            nonlocal kills
            if kills < 20 and isinstance(message, wire.Progress) and message.step and chance.random() < 0.3:
                pids = {stage.kind: stage.pid for stage in watcher.status().stages if stage.state != "loading"}
                if (pid := pids.get(chance.choice(["text", "unet", "vae"]))) is not None:
                    with suppress(ProcessLookupError):  # the one before may have hit it, and the status is older
                        os.kill(pid, signal.SIGKILL)
                        kills += 1

        outcome = run(client, prompts, kill)
        assert kills == 20
        assert not outcome.failed()
        assert all(outcome.images[f"{each}", 0] == outcome.images[f"{each % 7}", 0] for each in range(21))


# Requests.


@pytest.mark.parametrize(
    "frames",
    [
        [b"{}"],
        [b""],
        [b"[]"],
        [b'"hello"'],
        [b'{"type": "submit"}'],
        [b'{"type": "submit", "id": 3, "prompt": "a"}'],
        [b'{"type": "submit", "prompt": "a"}'],
        [b"\x80\x04\x95"],
        [b"", b'{"type": "status"}'],
        [b'{"type": "status"}', b"more"],
    ],
)
def test_whatever_is_no_request_is_answered(frames: list[bytes], shared: Server) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    try:
        dealer.connect(shared.address)
        dealer.send_multipart(frames)
        assert dealer.poll(DEADLINE_S * 1000)
        message = wire.decode_hub_message(dealer.recv_multipart()[0])
    finally:
        dealer.close()
        context.term()
    assert isinstance(message, wire.Failed)
    assert (message.id, message.code) == ("", "bad_request")
    assert len(message.message.splitlines()) == 1


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving(*STUBS) as server:
        yield server

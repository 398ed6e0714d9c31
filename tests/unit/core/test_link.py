import os
import socket as unix
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from stages.core import outbox, pipes, wire
from stages.core.errors import BadRequest, NoAnswer, StartFailed
from stages.core.link import FRAME_BYTES, ClientHub, ClientLink, StageHub, StageLink, private_address
from tests.conftest import ROOT

DEADLINE_MS = 20_000
ANYWHERE = "tcp://127.0.0.1:*"
DONE = wire.Done(id="a")

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]
Dealer = Callable[..., Socket]
Listen = Callable[[str], ClientHub]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def stage_hub(context: Context) -> Iterator[StageHub]:
    hub = StageHub(context, 4)
    yield hub
    hub.close()


@pytest.fixture
def listen(context: Context) -> Iterator[Listen]:
    hubs: list[ClientHub] = []

    def listen_at(address: str) -> ClientHub:
        hubs.append(ClientHub(context, address))
        return hubs[-1]

    yield listen_at
    for hub in hubs:
        hub.close(0)


@pytest.fixture
def client_hub(listen: Listen) -> ClientHub:
    return listen(ANYWHERE)


@pytest.fixture
def client(client_hub: ClientHub) -> Iterator[ClientLink]:
    client = ClientLink(client_hub.address, connect_s=20)
    yield client
    client.close()


@pytest.fixture
def dealer(context: Context) -> Iterator[Dealer]:
    """Makes peers that keep to no rules."""
    sockets: list[Socket] = []

    def connect(address: str, rcvhwm: int = 1000) -> Socket:
        socket = context.socket(zmq.DEALER)
        sockets.append(socket)
        socket.rcvhwm = rcvhwm
        socket.connect(address)
        return socket

    yield connect
    for socket in sockets:
        socket.close(0)


def arrivals(hub: StageHub | ClientHub, count: int) -> list[Any]:
    """All that `hub` receives until it has received `count` messages, or the deadline has passed."""
    found: list[Any] = []
    while len(found) < count and hub.socket.poll(DEADLINE_MS):
        found += hub.receive()
    return found


# Hub and stages.

STAGE = """
import os, sys
from stages.core import pipes, wire
from stages.core.link import StageLink

link = StageLink(sys.argv[1], int(sys.argv[2]))
link.send(pipes.Hello("unet-0", os.getpid()))
for message in link.receive(wait=True):
    link.send(pipes.Dropped(message.job))
link.close()
"""


def start(code: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, pass_fds=pass_fds, stdin=subprocess.PIPE)


def test_the_hub_tells_stage_processes_apart_by_their_pid(stage_hub: StageHub) -> None:
    ours, theirs = unix.socketpair()
    with ours, theirs:
        stages = [start(STAGE, stage_hub.address, theirs.fileno(), pass_fds=(theirs.fileno(),)) for _ in range(2)]
        pids = [stage.pid for stage in stages]
        for pid in pids:
            stage_hub.expect(pid)
        heard = dict(arrivals(stage_hub, 2))
        assert heard == {pid: pipes.Hello("unet-0", pid) for pid in pids}
        for pid in pids:
            stage_hub.send(pid, pipes.Drop(job=pid))
        assert dict(arrivals(stage_hub, 2)) == {pid: pipes.Dropped(pid) for pid in pids}
        for stage in stages:
            stage.communicate(timeout=DEADLINE_MS / 1000)
            assert stage.returncode == 0
    gone, forgotten = pids
    stage_hub.forget(forgotten)
    for pid in (gone, forgotten, 1):
        stage_hub.send(pid, pipes.Stop())
        stage_hub.forget(pid)


def unheard(hub: StageHub) -> bool:
    """Whether `hub` passes nothing on of what arrives."""
    assert hub.socket.poll(DEADLINE_MS)
    return list(hub.receive()) == []


def test_only_what_is_expected_is_heard_and_sent_to(stage_hub: StageHub, dealer: Dealer) -> None:
    stage, pid = dealer(stage_hub.address), os.getpid()

    def say_and_be_told(job: int) -> bool:
        """Whether the hub hears."""
        stage.send(pipes.pack_from_stage([pipes.Dropped(job)]))
        heard = not unheard(stage_hub)
        stage_hub.send(pid, pipes.Drop(job))
        return heard

    assert not say_and_be_told(1)
    stage_hub.expect(pid)
    assert say_and_be_told(2)
    stage_hub.forget(pid)
    assert not say_and_be_told(3)
    assert not say_and_be_told(4)
    stage_hub.expect(pid)
    stage_hub.send(pid, pipes.Drop(5))  # to the process before it, had it not been forgotten
    assert say_and_be_told(6)
    assert stage.poll(DEADLINE_MS)
    assert [pipes.unpack_to_stage(stage.recv()), pipes.unpack_to_stage(stage.recv())] == [pipes.Drop(2), pipes.Drop(6)]


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\xa1\xff", b"\x91" * 100_000, pipes.pack_to_stage(pipes.Stop())])
def test_what_is_no_message_is_dropped(frame: bytes, stage_hub: StageHub, dealer: Dealer) -> None:
    stage_hub.expect(os.getpid())
    stage = dealer(stage_hub.address)
    stage.send(frame)
    assert unheard(stage_hub)
    stage.send(pipes.pack_from_stage([pipes.Dropped(1)]))
    assert arrivals(stage_hub, 1) == [(os.getpid(), pipes.Dropped(1))]


def test_the_hub_is_deaf_to_what_the_kernel_names_no_process_for(stage_hub: StageHub, dealer: Dealer) -> None:
    stage_hub.expect(os.getpid())
    stage_hub.socket.bind(ANYWHERE)
    unknown = dealer(stage_hub.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
    unknown.send(pipes.pack_from_stage([pipes.Hello("unet-0", os.getpid())]))
    assert unheard(stage_hub)


def test_a_stage_message_is_one_frame(stage_hub: StageHub, dealer: Dealer) -> None:
    stage_hub.expect(os.getpid())
    stage = dealer(stage_hub.address)
    stage.send_multipart((b"", pipes.pack_from_stage([pipes.Dropped(1)])))
    stage.send(pipes.pack_from_stage([pipes.Dropped(2)]))
    assert [message for _, message in arrivals(stage_hub, 1)] == [pipes.Dropped(2)]


def test_a_stage_waits_for_messages_or_the_end_of_its_life_line(stage_hub: StageHub) -> None:
    ours, theirs = unix.socketpair()
    with ours, theirs:
        link = StageLink(stage_hub.address, theirs.fileno())
        assert list(link.receive(wait=False)) == []
        stage_hub.expect(os.getpid())
        link.send(pipes.Hello("unet-0", os.getpid()))
        [(pid, _)] = arrivals(stage_hub, 1)
        stage_hub.send(pid, pipes.Drop(1))
        stage_hub.send(pid, pipes.Stop())
        heard = list(link.receive(wait=True))
        while len(heard) < 2:
            heard += link.receive(wait=True)
        assert heard == [pipes.Drop(1), pipes.Stop()]
        assert not link.orphaned()
        ours.close()
        assert link.orphaned()
        assert list(link.receive(wait=True)) == []
        link.close()


def stepped(job: int, step: int = 1) -> pipes.Stepped:
    return pipes.Stepped(job, step, 100, step, step + 1, 1)


@pytest.fixture
def stage_link(stage_hub: StageHub) -> Iterator[StageLink]:
    """The link of a stage in this process, which has said nothing yet."""
    ours, theirs = unix.socketpair()
    with ours, theirs:
        link = StageLink(stage_hub.address, theirs.fileno())
        stage_hub.expect(os.getpid())
        yield link
        link.close()


def frames(hub: StageHub, messages: int) -> list[list[int]]:
    """The jobs that each frame tells of, until there have been so many messages, or the deadline has passed."""
    found: list[list[int]] = []
    while sum(map(len, found)) < messages and hub.socket.poll(DEADLINE_MS):
        _, frame = hub.socket.recv_multipart()
        found.append([message.job for message in pipes.unpack_from_stage(frame)])  # type: ignore[union-attr]
    return found


def told(hub: StageHub, messages: int) -> list[int]:
    """The same, however they are spread over frames."""
    return list(chain.from_iterable(frames(hub, messages)))


def test_news_of_one_forward_travel_together_in_order_and_all_else_at_once(
    stage_hub: StageHub, stage_link: StageLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "NEWS_S", 1000.0)  # nothing goes because of time
    for job in (1, 2, 3):
        stage_link.send(stepped(job))
    stage_link.end_unit()
    assert frames(stage_hub, 3) == [[1, 2, 3]]
    for message in (pipes.Started(4, 0, 0, 2), stepped(4), pipes.Finished(4, (4,), 0, 1)):
        stage_link.send(message)
    assert frames(stage_hub, 3) == [[4], [4, 4]]


@pytest.mark.parametrize(
    "wrong",
    [
        pipes.Finished(1, (np.int64(4),), 0, 1),  # type: ignore[arg-type]
        pipes.Stepped(1, 0.5, 2, 0, 1, 1),  # type: ignore[arg-type]
        pipes.PreviewDrawn(1, 1, b"x" * (1 << 20)),
    ],
)
def test_what_the_hub_could_not_read_is_refused_and_takes_nothing_along(
    wrong: pipes.FromStage, stage_hub: StageHub, stage_link: StageLink
) -> None:
    stage_link.send(stepped(1))
    with pytest.raises((TypeError, ValueError)):
        stage_link.send(wrong)
    stage_link.send(stepped(2))
    stage_link.end_unit()
    assert told(stage_hub, 2) == [1, 2]


def test_news_that_nothing_follows_arrive_all_the_same(stage_hub: StageHub, stage_link: StageLink) -> None:
    """A stage may have nothing to send for minutes: in a forward, in a compilation, or without its lease."""
    for job in (1, 2):  # after the first news the thread is there, and waits
        stage_link.send(stepped(job))
        assert told(stage_hub, 1) == [job]
    stage_link.send(pipes.Dropped(3))
    stage_link.send(stepped(4))
    stage_link.end_unit()  # too soon after the last sending
    assert told(stage_hub, 2) == [3, 4]


def test_the_hub_is_not_woken_for_every_short_step(stage_hub: StageHub, stage_link: StageLink) -> None:
    began = time.monotonic()
    for step in range(500):
        stage_link.send(stepped(1, step))
        stage_link.end_unit()
    windows = (time.monotonic() - began) / 0.01
    stage_link.flush()
    found = frames(stage_hub, 500)
    assert sum(map(len, found)) == 500
    assert len(found) <= 3 + windows


def test_what_still_waits_goes_when_the_stage_leaves(stage_hub: StageHub) -> None:
    ours, theirs = unix.socketpair()
    with ours, theirs:
        link = StageLink(stage_hub.address, theirs.fileno())
        stage_hub.expect(os.getpid())
        link.send(pipes.Dropped(1))
        link.send(stepped(2))
        link.close()
        assert frames(stage_hub, 2) == [[1], [2]]
        assert "courier" not in {thread.name for thread in threading.enumerate()}


def test_a_stage_tells_its_news_before_it_waits(
    stage_hub: StageHub, stage_link: StageLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "NEWS_S", 1000.0)
    stage_hub.expect(os.getpid())
    stage_link.send(pipes.Hello("unet-0", os.getpid()))
    assert len(arrivals(stage_hub, 1)) == 1
    stage_hub.send(os.getpid(), pipes.Stop())  # or else it would wait for a message
    stage_link.send(stepped(2))
    assert list(stage_link.receive(wait=True)) == [pipes.Stop()]
    assert told(stage_hub, 1) == [2]


def test_the_pipe_to_the_stages_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    monkeypatch.chdir(tmp_path)
    hub = StageHub(context, 4)
    assert hub.address.startswith("ipc://@triptych-")
    assert f" {hub.address.removeprefix('ipc://')}\n" in Path("/proc/net/unix").read_text()
    hub.close()
    assert list(tmp_path.iterdir()) == []
    assert private_address() != private_address()


# Clients and hub.


def test_a_client_is_answered_with_a_message_and_a_frame(client_hub: ClientHub, client: ClientLink) -> None:
    client.send(wire.Cancel(id="a"))
    [(peer, frame)] = arrivals(client_hub, 1)
    assert wire.decode_client_message(frame) == wire.Cancel(id="a")
    assert peer.uid is None
    assert client_hub.send(peer.routing_id, DONE)
    assert client_hub.send(peer.routing_id, wire.Done(id="b"), b"\x89PNG")
    assert client.receive(20) == (DONE, None)
    assert client.receive(20) == (wire.Done(id="b"), b"\x89PNG")
    assert client.receive(0) is None


def test_a_request_is_one_frame_and_what_is_more_is_told_from_it(client_hub: ClientHub, dealer: Dealer) -> None:
    peer = dealer(client_hub.address)
    for frames in ([b"", b"x"], [b"x", b"x", b"x"], [b"", b"", b""], [b"heard"]):
        peer.send_multipart(frames)
    assert [frame for _, frame in arrivals(client_hub, 4)] == [None, None, None, b"heard"]


def test_who_sends_too_much_is_cut_off_and_the_others_are_heard(
    client_hub: ClientHub, client: ClientLink, dealer: Dealer
) -> None:
    loud = dealer(client_hub.address)
    events = loud.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    loud.send(b"x" * (FRAME_BYTES + 1))
    assert events.poll(DEADLINE_MS)
    loud.disable_monitor()
    events.close()
    client.send(wire.Cancel(id="a"))
    assert [frame for _, frame in arrivals(client_hub, 1)] == [wire.encode(wire.Cancel(id="a"))]


def test_a_request_that_is_somewhat_too_large_arrives_and_can_be_refused(client_hub: ClientHub, dealer: Dealer) -> None:
    dealer(client_hub.address).send(b"x" * FRAME_BYTES)
    [(_, frame)] = arrivals(client_hub, 1)
    assert frame is not None
    assert len(frame) == FRAME_BYTES > wire.MAX_REQUEST_BYTES
    with pytest.raises(BadRequest, match="at most 1,048,576"):
        wire.decode_client_message(frame)


def test_a_client_that_has_left_is_told_from_one_that_is_there(client_hub: ClientHub) -> None:
    client = ClientLink(client_hub.address, connect_s=20)
    client.send(wire.StatusRequest())
    [(peer, _)] = arrivals(client_hub, 1)
    assert client_hub.send(peer.routing_id, DONE)
    client.close()
    deadline = time.monotonic() + DEADLINE_MS / 1000
    while client_hub.send(peer.routing_id, DONE):
        assert time.monotonic() < deadline
        client_hub.socket.poll(10)
    assert not client_hub.send(b"nobody", DONE)


def test_a_client_that_does_not_read_counts_as_gone_and_delays_nobody(
    client_hub: ClientHub, client: ClientLink, dealer: Dealer
) -> None:
    slow = dealer(client_hub.address, rcvhwm=1)
    slow.send(b"slow")
    [(peer, _)] = arrivals(client_hub, 1)
    picture = b"\0" * 10_000
    assert any(not client_hub.send(peer.routing_id, DONE, picture) for _ in range(20_000))
    client.send(wire.StatusRequest())
    [(other, _)] = arrivals(client_hub, 1)
    assert client_hub.send(other.routing_id, DONE)
    assert client.receive(20) == (DONE, None)


@pytest.mark.parametrize("address", ["ipc://{folder}/nobody", "tcp://127.0.0.1:{port}"])
def test_where_nobody_listens_there_is_no_answer_in_time(address: str, tmp_path: Path) -> None:
    with unix.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = ClientLink(address.format(folder=tmp_path, port=port), connect_s=0.2)
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=f"nothing listens at {client.address}; start `triptych serve`"):
        client.send(wire.StatusRequest())
    client.close()
    assert 0.15 <= time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["", "nonsense", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80", "ipc://"])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(NoAnswer, match="write tcp://HOST:PORT") as refused:
        ClientLink(address, connect_s=0.2)
    assert repr(address) in refused.value.message


@pytest.mark.parametrize("answer", [b"hello", b"\xff", b'{"type": 7}', b'{"type": "image"}', b"[" * 100_000])
def test_a_server_of_another_protocol_is_no_answer(answer: bytes, client_hub: ClientHub, client: ClientLink) -> None:
    client.send(wire.StatusRequest())
    [(peer, _)] = arrivals(client_hub, 1)
    client_hub.socket.send_multipart((peer.routing_id, answer))
    with pytest.raises(NoAnswer, match=f"what listens at {client.address} speaks another language"):
        client.receive(20)


def test_what_only_newer_clients_know_is_left_out(client_hub: ClientHub, client: ClientLink) -> None:
    client.send(wire.StatusRequest())
    [(peer, _)] = arrivals(client_hub, 1)
    client_hub.socket.send_multipart((peer.routing_id, b'{"type": "of another version"}', b"a frame"))
    assert client_hub.send(peer.routing_id, DONE)
    assert client.receive(20) == (DONE, None)


def test_a_client_sees_that_its_connection_has_ended(listen: Listen, ipc: Path) -> None:
    hub = listen(f"ipc://{ipc}")
    client = ClientLink(hub.address, connect_s=20)
    client.send(wire.StatusRequest())
    [(peer, _)] = arrivals(hub, 1)
    assert not client.dropped()
    assert hub.send(peer.routing_id, DONE)
    hub.close(1000)
    deadline = time.monotonic() + DEADLINE_MS / 1000
    while not client.dropped():
        assert time.monotonic() < deadline
    assert client.receive(20) == (DONE, None), "what was said before is not lost"
    assert not client.offer(wire.StatusRequest(), 0.0)
    client.close()


@pytest.mark.skipif(not unix.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_clients_come_over_ipv6_too(listen: Listen) -> None:
    hub = listen("tcp://[::1]:*")
    assert exchange(hub, hub.address) is None


def refusal(address: str) -> str:
    """What a hub says that cannot listen at `address`; the context ends only if it has closed its socket."""
    context: Context = zmq.Context()
    with pytest.raises(StartFailed) as refused:
        ClientHub(context, address)
    context.term()
    return refused.value.message


def test_a_free_port_is_named_and_a_taken_one_refused(client_hub: ClientHub) -> None:
    assert int(client_hub.address.removeprefix("tcp://127.0.0.1:")) > 0
    assert refusal(client_hub.address).startswith(f"cannot listen at {client_hub.address}: Address already in use")


# An ipc path.


@pytest.fixture
def ipc(tmp_path: Path) -> Path:
    return tmp_path / "prompts.sock"


def exchange(hub: ClientHub, address: str) -> int | None:
    """Let a client at `address` ask and be answered; returns the user that `hub` sees."""
    client = ClientLink(address, connect_s=20)
    client.send(wire.StatusRequest())
    [(peer, _)] = arrivals(hub, 1)
    assert hub.send(peer.routing_id, DONE)
    assert client.receive(20) == (DONE, None)
    client.close()
    uid: int | None = peer.uid
    return uid


def test_an_ipc_path_is_for_its_owner_alone_and_tells_who_connects(listen: Listen, ipc: Path) -> None:
    outside = os.umask(0)
    try:
        hub = listen(f"ipc://{ipc}")
        inside = os.umask(0)
    finally:
        os.umask(outside)
    assert inside == 0
    assert stat.filemode(ipc.stat().st_mode) == "srw-------"
    assert exchange(hub, f"ipc://{ipc}") == os.getuid()


def test_the_socket_of_a_dead_server_is_taken_over(listen: Listen, ipc: Path) -> None:
    with unix.socket(unix.AF_UNIX) as dead:
        dead.bind(str(ipc))
        dead.listen()
    assert ipc.is_socket()
    assert exchange(listen(f"ipc://{ipc}"), f"ipc://{ipc}") == os.getuid()


def test_the_socket_of_a_living_server_is_left_to_it(listen: Listen, ipc: Path) -> None:
    living = listen(f"ipc://{ipc}")
    assert refusal(f"ipc://{ipc}") == f"cannot listen at ipc://{ipc}: Address already in use"
    assert exchange(living, f"ipc://{ipc}") == os.getuid()


def test_a_server_that_accepts_nobody_is_left_alone_and_not_waited_for(ipc: Path) -> None:
    with unix.socket(unix.AF_UNIX) as stopped, unix.socket(unix.AF_UNIX) as waiting:
        stopped.bind(str(ipc))
        stopped.listen(0)
        waiting.connect(str(ipc))
        assert refusal(f"ipc://{ipc}") == f"cannot listen at ipc://{ipc}: Address already in use"
    assert ipc.is_socket()


def make_file(path: Path) -> None:
    path.write_text("a thesis")


def make_link(path: Path) -> None:
    path.with_name("a thesis").touch()
    path.symlink_to(path.with_name("a thesis"))


@pytest.mark.parametrize("make", [make_file, make_link, Path.mkdir, os.mkfifo])
def test_what_is_no_socket_is_left_alone(make: Callable[[Path], object], ipc: Path) -> None:
    make(ipc)
    before = ipc.lstat()
    assert refusal(f"ipc://{ipc}").startswith(f"cannot listen at ipc://{ipc}: there is something else at this path")
    assert ipc.lstat() == before


@pytest.mark.parametrize("address", ["ipc://prompts.sock", "ipc://*"])
def test_a_hub_that_is_closed_leaves_no_file(
    address: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub = ClientHub(context, address)
    assert Path(hub.address.removeprefix("ipc://")).is_socket()
    hub.close(0)
    context.term()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["s" * 108, "é" * 54])
def test_a_path_that_is_too_long_says_so(name: str, ipc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ipc.parent)
    assert refusal(f"ipc://{name}") == (
        f"cannot listen at ipc://{name}: the path is too long; that of a socket has at most 107 bytes"
    )


def test_a_path_may_be_as_long_as_the_limit(listen: Listen, ipc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ipc.parent)
    listen("ipc://" + "s" * 107)
    assert Path("s" * 107).is_socket()


def test_a_path_in_no_folder_cannot_be_listened_at(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/absent/prompts.sock"
    assert refusal(address).startswith(f"cannot listen at {address}: No such file or directory")

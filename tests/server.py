"""A real server for a test: `triptych serve` as a process, told what to serve, watched to its end."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from orchestrator.client import Client
from stages.core import wire
from stages.core.link import private_address
from tests.inherited import ignoring

STUBS = tuple(f"stage.{kind}.implementation=tests.proc.stubs:Stub{kind.capitalize()}" for kind in wire.KINDS)
"""Overrides that put the stub stages in."""

TRIPTYCH = (sys.executable, "-m", "orchestrator")

DEADLINE_S = 60.0
"""Generous: machines are slow and noisy, and a test that waits this long has failed."""

T = TypeVar("T")


class Server:
    """A running `triptych serve`."""

    def __init__(
        self,
        overrides: Iterable[str],
        address: str,
        cache: Path | None = None,
        ignored: Iterable[int] = (),
        command: Sequence[str] = TRIPTYCH,
        http: str | None = "",
    ) -> None:
        self.address = address
        self.http = ""
        """The address of its HTTP gateway, once it is ready; empty for none."""
        listening = [f"--set=listen.socket={address}", *([] if http is None else [f"--set=listen.http={http}"])]
        with ignoring(*ignored):
            self.process = subprocess.Popen(
                [*command, "serve", *listening, *(f"--set={override}" for override in overrides)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=None if cache is None else os.environ | {"XDG_CACHE_HOME": str(cache)},
            )

    def wait_ready(self) -> str:
        """The ready line."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE_S), "no ready line in time"
        line = self.process.stdout.readline().decode()
        assert line, f"ended before it was ready: {self.end()}"
        words = line.split()
        self.address = words[3]  # a port of * has a number now
        self.http = words[5] if words[4] == "and" else ""
        return line

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit status and what it wrote on stderr."""
        _, stderr = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, stderr.decode()

    def client(self) -> Client:
        """A new connection to it."""
        return Client(self.address, connect_s=DEADLINE_S)

    def pids(self) -> dict[str, int]:
        """The process of each stage."""
        with self.client() as client:
            return {stage.name: stage.pid for stage in client.status().stages if stage.pid is not None}

    def children(self) -> list[int]:
        """All processes it has started and not yet reaped, as the kernel lists them."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]


@contextmanager
def serving(
    *overrides: str,
    address: str | None = None,
    ready: bool = True,
    cache: Path | None = None,
    ignored: Iterable[int] = (),
    command: Sequence[str] = TRIPTYCH,
    http: str | None = "",
) -> Iterator[Server]:
    """A server until the end of the block, then stopped if it still runs; what it remembers lies in `cache`.

    It is born to ignore the signals in `ignored`, and started by `command`. It has no HTTP gateway unless `http` is
    its address, or None for the one that it has when nobody says anything.
    """
    server = Server(overrides, address or private_address(), cache, ignored, command, http)
    try:
        if ready:
            server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(DEADLINE_S)
            finally:
                server.process.kill()
        for pipe in (server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()


def eventually(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        os.sched_yield()
    raise AssertionError(f"not within {deadline_s} s: {what}")


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Outcome:
    """What came back for a set of prompts: pictures, and one terminal message a prompt."""

    def __init__(self) -> None:
        self.images: dict[tuple[str, int], bytes] = {}
        self.terminal: dict[str, list[wire.HubMessage]] = {}
        self.progress: list[wire.Progress] = []
        self.traced: dict[str, tuple[wire.Slice, ...]] = {}

    def take(self, event: tuple[wire.HubMessage, bytes | None]) -> None:
        message, payload = event
        match message:
            case wire.Image():
                assert payload is not None
                assert (message.id, message.index) not in self.images, "an image came twice"
                self.images[message.id, message.index] = payload
            case wire.Done() | wire.Failed():
                self.terminal.setdefault(message.id, []).append(message)
            case wire.Progress():
                self.progress.append(message)
            case wire.Traced():
                self.traced[message.id] = message.slices

    def failed(self) -> dict[str, wire.Failed]:
        return {id: m for id, messages in self.terminal.items() for m in messages if isinstance(m, wire.Failed)}


def run(
    client: Client, prompts: Sequence[wire.Submit], during: Callable[[wire.HubMessage], None] = lambda message: None
) -> Outcome:
    """Send all prompts, call `during` with every message, return when each prompt has its terminal message."""
    outcome = Outcome()
    for prompt in prompts:
        client.send(prompt)
    end = time.monotonic() + DEADLINE_S
    while len(outcome.terminal) < len(prompts):
        assert time.monotonic() < end, f"{len(prompts) - len(outcome.terminal)} prompts were lost"
        event = client.receive(1.0)
        if event is not None:
            outcome.take(event)
            during(event[0])
    assert all(len(messages) == 1 for messages in outcome.terminal.values()), "a prompt ended twice"
    return outcome

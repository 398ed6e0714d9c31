"""What a service manager is told, by a socket that plays one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.hub.service_manager import ServiceManager


class Systemd:
    """The reading end of a notification socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self.socket.setblocking(False)

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify") if request.param == "file" else f"@triptych-test-{os.getpid()}")
    yield made
    made.socket.close()


def test_it_is_told_of_the_start_and_of_the_end(systemd: Systemd) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.name})
    manager.ready("at ipc:///run/triptych")
    manager.stopping()
    assert systemd.told() == ["READY=1\nSTATUS=at ipc:///run/triptych", "STOPPING=1\nSTATUS=finishing what is in work"]
    assert manager.next_beat is None
    manager.beat(5.0)
    assert systemd.told() == []
    manager.close()


def test_the_watchdog_is_fed_twice_as_often_as_it_asks(systemd: Systemd) -> None:
    environ = {"NOTIFY_SOCKET": systemd.name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager(environ)
    assert manager.next_beat == 0.0
    for now in (100.0, 101.0, 104.9, 105.0, 109.0):
        manager.beat(now)
    assert systemd.told() == ["WATCHDOG=1"] * 2
    assert manager.next_beat == 110.0
    manager.close()


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000"}],
)
def test_without_a_manager_nothing_is_told(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    manager.ready("")
    manager.beat(1.0)
    assert manager.next_beat is None
    manager.close()


@pytest.mark.parametrize("watchdog", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_not_ours_is_not_fed(watchdog: dict[str, str], systemd: Systemd) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.name} | watchdog)
    manager.beat(1.0)
    assert (manager.next_beat, systemd.told()) == (None, [])
    manager.close()


def test_a_manager_that_does_not_read_stops_nothing(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "2000000"})
    manager.ready("")
    for now in range(1000):
        manager.beat(float(now))
    manager.close()

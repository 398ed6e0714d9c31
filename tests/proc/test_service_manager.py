"""`triptych serve` under a service manager, played by a socket."""

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.server import DEADLINE_S, STUBS, serving


def test_a_service_says_when_it_serves_that_it_lives_and_that_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        with serving(*STUBS, ready=False) as server:
            told = [manager.recv(4096).decode()]
            while not told[-1].startswith("READY=1"):
                told.append(manager.recv(4096).decode())
            assert set(told[:-1]) <= {"WATCHDOG=1"}, "it lives while it loads, too"
            assert "demo at ipc://" in told[-1]
            began = time.monotonic()
            assert [manager.recv(4096) for _ in range(5)] == [b"WATCHDOG=1"] * 5, "idle"
            assert time.monotonic() - began > 0.3, "and not more often than it has to"
            for pid in server.pids().values():
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            server.process.send_signal(signal.SIGTERM)
            server.end()
            manager.setblocking(False)
            rest = []
            try:
                while True:
                    rest.append(manager.recv(4096).decode())
            except BlockingIOError:
                pass
    assert any(message.startswith("STOPPING=1") for message in rest)

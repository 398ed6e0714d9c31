"""Real sockets that are not what a client hopes for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stages.core import probe
from stages.core.probe import why_no_answer
from tests.unit.fake_hub import DEADLINE_S, FakeHub


@pytest.fixture(autouse=True)
def _look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LOOK_S", 0.3)


@contextmanager
def answering(*said: bytes) -> Iterator[str]:
    """A program that says these things to who connects, each after it has heard something, and hangs up."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            for each in said:
                connection.recv(100)
                connection.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(DEADLINE_S)


def test_where_nobody_listens_that_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", f"ipc://{tmp_path}/nobody", "ipc://@nobody-listens-here"):
        assert why_no_answer(address) == f"nothing listens at {address}; start `triptych serve`, or name its address"


def test_a_server_that_is_stopped_is_not_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as ipc:
        ipc.bind(str(tmp_path / "s"))
        ipc.listen()
        for address in (f"tcp://127.0.0.1:{tcp.getsockname()[1]}", f"ipc://{tmp_path}/s"):
            assert why_no_answer(address).startswith(f"something listens at {address} and does not answer; is it stop")


def test_a_stopped_server_with_a_full_backlog_does_not_hold_us_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stopped, socket.socket(socket.AF_UNIX) as waiting:
        stopped.bind(str(tmp_path / "s"))
        stopped.listen(0)
        waiting.connect(str(tmp_path / "s"))
        assert "does not answer" in why_no_answer(f"ipc://{tmp_path}/s")


def test_a_web_server_is_called_one() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        web.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign, assignment]
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            assert "is a web server and no pipeline" in why_no_answer(f"tcp://127.0.0.1:{web.server_port}")
        finally:
            web.shutdown()
            thread.join(DEADLINE_S)


@pytest.mark.parametrize("said", [(), (b"220 mail.example ESMTP\r\n",), (b"-ERR unknown command\r\n",)])
def test_another_program_is_called_one(said: tuple[bytes, ...]) -> None:
    with answering(*said) as address:
        assert "is another program and no pipeline" in why_no_answer(address)


def test_a_server_of_ours_that_takes_no_connection_is_not_blamed_for_another() -> None:
    with FakeHub() as hub:
        assert why_no_answer(hub.address).startswith(f"what listens at {hub.address} takes no connection now")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:port", "tcp://no.such.host.invalid:7801"])
def test_what_cannot_be_looked_at_is_a_line_too(address: str) -> None:
    assert why_no_answer(address).startswith(f"{address} cannot be reached: ")

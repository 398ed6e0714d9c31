"""Where the gateway listens, and who has one."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from orchestrator.client import own_pipeline
from orchestrator.gateway.child import USUAL_PORT
from tests.server import DEADLINE_S, STUBS, Server, eventually, serving


def health(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http}/health", timeout=DEADLINE_S) as answer:
            return bool(json.loads(answer.read())["healthy"])
    except OSError:
        return False


def test_every_server_has_one_at_the_usual_port_or_at_another_that_is_free() -> None:
    with serving(*STUBS, http=None) as one, serving(*STUBS, http=None) as two:
        assert one.http != two.http
        assert all(server.http.startswith("http://127.0.0.1:") for server in (one, two))
        ports = {int(server.http.rpartition(":")[2]) for server in (one, two)}
        assert USUAL_PORT in ports or taken(USUAL_PORT)
        for server in (one, two):
            eventually(lambda server=server: health(server), "the gateway answers")  # type: ignore[misc]


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_is_named_and_taken_is_told_in_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with serving(*STUBS, http=f"127.0.0.1:{port}", ready=False) as server:
            status, stderr = server.end()
    assert status == 2
    assert stderr.splitlines()[-1] == (
        f"triptych: error: listen.http: cannot listen at 127.0.0.1:{port}: Address already in use; name another port"
    )


@pytest.mark.parametrize(
    ("http", "why"),
    [
        ("0.0.0.0:7800", "off loopback"),
        ("7800", "write it like 127.0.0.1:7800"),
        ("127.0.0.1:http", "write it like 127.0.0.1:7800"),
        ("127.0.0.1:99999", "write it like 127.0.0.1:7800"),
    ],
)
def test_an_address_that_cannot_be_is_refused(http: str, why: str) -> None:
    with serving(*STUBS, http=http, ready=False) as server:
        status, stderr = server.end()
    assert (status, why in stderr) == (2, True)


def test_off_loopback_it_wants_the_key() -> None:
    with serving(*STUBS, "listen.key=a-secret", http="0.0.0.0:0", ready=False) as refused:
        assert refused.end()[0] == 2  # a port has to be named
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    with serving(*STUBS, "listen.key=a-secret", http=f"0.0.0.0:{port}") as server:
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: reached(f"{base}/livez", ""), "probes need no key")
        assert not reached(f"{base}/v1/models", "")
        assert not reached(f"{base}/v1/models", "Bearer a-secre")
        assert reached(f"{base}/v1/models", "Bearer a-secret")
        for pid in server.children():
            assert b"a-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes(), "anybody can read command lines"


def reached(url: str, authorization: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": authorization} if authorization else {})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_pipeline_of_a_command_s_own_has_none() -> None:
    with own_pipeline(overrides=[*STUBS, f"listen.http=127.0.0.1:{USUAL_PORT}"]) as client:
        client.wait_serving()
        commands = [" ".join(process.cmdline()) for process in psutil.Process(os.getpid()).children(recursive=True)]
    assert any("-m stages" in command for command in commands)
    assert not any("orchestrator.gateway" in command for command in commands)


def test_generate_imports_nothing_of_the_gateway() -> None:
    code = "import sys, orchestrator.cli.commands.generate; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=DEADLINE_S, check=False).returncode == 0

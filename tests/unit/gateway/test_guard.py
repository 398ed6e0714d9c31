"""The guard before all routes, with an application and a client that do as they are told."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from orchestrator.gateway import guard
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.guard import Guard, SlowClient


class App:
    """Reads the whole body, and answers with its length."""

    def __init__(self) -> None:
        self.read = 0
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (message := await receive())["type"] == "http.request":
                self.read += len(message["body"])
                if not message.get("more_body"):
                    break
        except HttpError as error:
            self.error = error
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})


def ask(
    app: App,
    receive: Callable[[], Message] | None = None,
    *,
    headers: dict[str, str] | None = None,
    key: str = "",
    origins: tuple[str, ...] = (),
    method: str = "POST",
    path: str = "/v1/jobs",
    stuck: bool = False,
) -> list[Message]:
    """The answer's messages."""
    sent: list[Message] = []

    async def receiving() -> Message:
        if receive is None:
            return {"type": "http.request", "body": b"{}"}
        message = receive()
        if message["type"] == "never":
            await asyncio.Event().wait()
        return message

    async def sending(message: Message) -> None:
        if stuck:
            await asyncio.Event().wait()
        sent.append(message)

    named = {"host": "localhost"} | (headers or {})
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(Guard(app, ("pics.example",), origins, key)(scope, receiving, sending))
    return sent


def status(sent: list[Message]) -> int:
    found: int = sent[0]["status"]
    return found


def test_a_body_in_parts_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    part: Message = {"type": "http.request", "body": b"x" * 65_536, "more_body": True}
    assert ask(app, lambda: part) == []
    assert isinstance(app.error, HttpError)
    assert app.error.status == 413
    assert app.read <= guard.JSON_BYTES


def test_a_body_that_does_not_come_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECEIVE_S", 0.05)
    app = App()
    ask(app, lambda: {"type": "never"})
    assert isinstance(app.error, HttpError)
    assert app.error.status == 408


def test_a_body_that_comes_a_byte_at_a_time_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECEIVE_S", 0.2)
    app = App()

    async def drip() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def answer(message: Message) -> None:
        pass

    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(app, (), (), "")(scope, drip, answer))
    assert isinstance(app.error, HttpError)
    assert app.error.status == 408
    assert 0 < app.read < 20


def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_S", 0.05)
    with pytest.raises(SlowClient):
        ask(App(), stuck=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:7800", 200),
        ("127.9.9.9:1", 200),
        ("[::1]", 200),
        ("pics.example", 200),
        ("pics.example:7800", 200),
        ("Pics.Example", 200),
        ("evil.example", 403),
        ("pics.example.evil", 403),
        ("localhost@evil.example", 403),
        ("127.0.0.1.evil", 403),
        ("", 403),
    ],
)
def test_hosts(host: str, expected: int) -> None:
    assert status(ask(App(), headers={"host": host})) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://localhost:1"}, 403),
        ({"origin": "https://app.example"}, 200),
        ({"origin": "https://app.example", "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "https://app.example.evil"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_origins_of_what_changes_something(headers: dict[str, str], expected: int) -> None:
    sent = ask(App(), headers=headers, origins=("https://app.example",))
    assert status(sent) == expected
    allowed = [value for name, value in sent[0]["headers"] if name == b"access-control-allow-origin"]
    assert allowed == ([b"https://app.example"] if headers.get("origin") == "https://app.example" else [])


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("", 401),
        ("Bearer", 401),
        ("Bearer s", 401),
        ("Bearer secret", 200),
        ("bearer secret", 200),
        ("Basic YW55OnNlY3JldA==", 200),  # any:secret
        ("Basic c2VjcmV0OmFueQ==", 401),  # secret:any
        ("Basic ???", 401),
    ],
)
def test_keys(authorization: str, expected: int) -> None:
    headers = {"authorization": authorization} if authorization else {}
    assert status(ask(App(), headers=headers, key="secret")) == expected
    assert status(ask(App(), headers=headers, key="secret", path="/health", method="GET")) == 200


@pytest.mark.parametrize("length", ["-1", "x", str(guard.JSON_BYTES + 1), "9" * 100])
def test_lengths_that_cannot_be(length: str) -> None:
    app = App()
    assert status(ask(app, headers={"content-length": length})) == 413
    assert app.read == 0

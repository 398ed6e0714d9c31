"""Requests of a client in the order in which it sends them, and what it reads of the answers; kept as JSON."""

import base64
import http.client
import json
from pathlib import Path
from typing import Any

import msgspec

_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "list": list,
}
_PNG = b"\x89PNG\r\n\x1a\n"


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request and its answer. Paths into an answer have dots; `*` is every item, `|` parses the text it stands at."""

    why: str
    path: str
    method: str = "GET"
    headers: dict[str, str] = {}
    body: Any = None
    body_of: int | None = None
    """The exchange whose answer is sent back as the body, with `body` on top."""
    filled: dict[str, str] = {}
    """Fields of the body, and from where in an earlier answer each is: its number and a path, as `1.0.title`."""
    status: int = 200
    reads: dict[str, Any] = {}
    """By path: a type (`text`, `integer`, `number`, `object`, `list`, `png`: base64 of one), or `=` and the value."""
    absent: tuple[str, ...] = ()
    """Fields that mislead the client."""


class Recording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client, from where its behaviour is known, and its exchanges."""

    client: str
    note: str
    sources: tuple[str, ...]
    exchanges: tuple[Exchange, ...]


def recordings() -> list[Recording]:
    """All that lie beside this file."""
    return [
        msgspec.json.decode(path.read_bytes(), type=Recording) for path in sorted(Path(__file__).parent.glob("*.json"))
    ]


def replay(recording: Recording, server: http.client.HTTPConnection) -> None:
    """Send all requests, and check of every answer what the client reads."""
    answers: list[Any] = []
    for exchange in recording.exchanges:
        about = f"{recording.client}, {exchange.why}: {exchange.method} {exchange.path}"
        body = exchange.body
        if exchange.body_of is not None:
            body = answers[exchange.body_of] | (body or {})
        for field, source in exchange.filled.items():
            number, _, path = source.partition(".")
            [body[field]] = _find(answers[int(number)], path)
        content = None if body is None else json.dumps(body).encode()
        headers = exchange.headers | ({} if body is None else {"Content-Type": "application/json"})
        server.request(exchange.method, exchange.path, content, headers)
        answer = server.getresponse()
        text = answer.read().decode()
        assert answer.status == exchange.status, f"{about}: {answer.status} {text[:300]}"
        answers.append(json.loads(text))
        for path, expected in exchange.reads.items():
            found = _find(answers[-1], path)
            assert found, f"{about}: nothing at {path} in {text[:300]}"
            for value in found:
                assert _fits(value, expected), f"{about}: {path} is {str(value)[:80]!r}, not {expected}"
        for field in exchange.absent:
            assert field not in answers[-1], f"{about}: {field} misleads it"


def _find(data: Any, path: str) -> list[Any]:
    """The values at a path."""
    found = [data]
    for part in path.replace("|", ".|.").split(".") if path else ():
        match part:
            case "|":
                found = [json.loads(value) for value in found]
            case "*":
                found = [item for value in found for item in value]
            case _:
                found = [value[int(part) if isinstance(value, list) else part] for value in found]
    return found


def _fits(value: Any, expected: str) -> bool:
    if expected.startswith("="):
        return bool(value == json.loads(expected[1:]))
    if expected == "png":
        return base64.b64decode(value, validate=True).startswith(_PNG)
    return isinstance(value, _TYPES[expected]) and not isinstance(value, bool)

"""The guard before all routes: who may ask, from where, and how much. An ASGI middleware.

A web page that somebody has open in a browser can send requests to loopback addresses. It cannot read the answers
unless we let it, but sending alone would be enough to make pictures, or to resolve a name of its own to this machine;
so hosts, origins and what browsers say of themselves are looked at before anything else.
"""

import asyncio
import base64
import binascii
import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.gateway.errors import HttpError, response

JSON_BYTES = 1 << 20
"""Bytes of a body, at most."""

RECEIVE_S = 30.0
"""Seconds that a body may take, in all."""

SEND_S = 30.0
"""Seconds that a client may take to make room for the next part of an answer."""

OPEN = ("/livez", "/ready", "/health")
"""Paths that need no key: probes have none."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")


class SlowClient(Exception):
    """A client does not read. Its connection is ended; there is nobody to answer."""


class Guard:
    """Refuses what is not to reach a route, before its body is read."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], origins: tuple[str, ...], key: str) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        answer = _with_origin(send, origin) if origin in self._origins and origin is not None else send
        try:
            self._check(scope, headers, origin)
        except HttpError as error:
            await response(scope["path"], error)(scope, receive, answer)
            return
        if scope["method"] == "OPTIONS":
            allowed = {"Allow": "GET, HEAD, POST, DELETE, OPTIONS"}
            if origin in self._origins:
                allowed |= {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Allow-Headers": "*"}
            await Response(status_code=204, headers=allowed)(scope, receive, answer)
            return
        await self._app(scope, _bounded(receive), _hurried(answer))

    def _check(self, scope: Scope, headers: Headers, origin: str | None) -> None:
        host = urlsplit(f"//{headers.get('host', '')}").netloc.lower()
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if not (_LOOPBACK.fullmatch(name) or name in self._hosts or host in self._hosts):
            raise HttpError(403, "this server is not known by that name; add it to listen.hosts", "forbidden")
        unsafe = scope["method"] not in _SAFE
        foreign = origin is not None and origin not in self._origins and urlsplit(origin).netloc.lower() != host
        if unsafe and (foreign or (headers.get("sec-fetch-site") == "cross-site" and origin not in self._origins)):
            raise HttpError(403, "pages of other origins may not send this; add theirs to listen.origins", "forbidden")
        if self._key and scope["path"] not in OPEN and scope["method"] != "OPTIONS" and not self._knows(headers):
            # At the page a browser asks for the key, as a password, and sends it from then on; elsewhere it is not to.
            challenge = 'Basic realm="Triptych"' if scope["path"] == "/" else "Bearer"
            raise HttpError(
                401, "a key is needed: Authorization: Bearer KEY", "unauthorized", WWW_Authenticate=challenge
            )
        length = headers.get("content-length")
        if length is not None and (not (length.isascii() and length.isdigit()) or int(length) > JSON_BYTES):
            raise HttpError(413, f"the body is larger than the {JSON_BYTES:,} bytes that are read", "too_large")

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        return hmac.compare_digest(given.strip().encode(), self._key)


def _bounded(receive: Receive) -> Receive:
    """Receive no more of a body than is read; what says no length beforehand is counted."""
    seen = 0
    more = True
    until = asyncio.get_running_loop().time() + RECEIVE_S

    async def bounded() -> Message:
        nonlocal seen, more
        try:
            async with asyncio.timeout_at(until if more else None):  # after the body, what comes is the client's end
                message = await receive()
        except TimeoutError:
            raise HttpError(408, f"the body did not come within {RECEIVE_S:.0f} s", "timeout") from None
        if message["type"] == "http.request":
            more = message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > JSON_BYTES:
                raise HttpError(413, f"the body is larger than the {JSON_BYTES:,} bytes that are read", "too_large")
        return message

    return bounded


def _hurried(send: Send) -> Send:
    """Send, and cut off whoever does not take what is sent to it."""

    async def hurried(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await send(message)
        except TimeoutError:
            raise SlowClient(f"a client took nothing of its answer for {SEND_S:.0f} s") from None

    return hurried


def _with_origin(send: Send, origin: str) -> Send:
    """Let pages of this origin read the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                (b"access-control-allow-origin", origin.encode()),
                (b"vary", b"Origin"),
            ]
        await send(message)

    return sending

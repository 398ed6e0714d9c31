"""Lines of text to prompts: what `triptych stream` reads."""

import codecs
import os
import select
import uuid
from typing import Any

import msgspec

from orchestrator.routing.request import MAX_IMAGES
from stages.core import wire
from stages.core.errors import BadRequest, ConfigError

_CHUNK = 1 << 16


class Lines:
    """The lines of a descriptor as they come, never more of them in memory than were asked for and a chunk.

    A byte order mark before the first is no part of it. Raises ConfigError for what cannot be read, by the `name` that
    the user knows it by.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._rest = b""
        self._numbers = 0
        self.ended = False
        """Whether every line has been taken."""
        self._at_end = False

    def take(self, wait_s: float) -> tuple[int, bytes] | None:
        """The next line with its number; None if it has not come within `wait_s` seconds, or none is left.

        A line longer than a request may be is cut to one byte more than that.
        """
        while b"\n" not in self._rest and not self._at_end:
            if not select.select([self._descriptor], [], [], wait_s)[0]:
                return None
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except OSError as error:
                raise ConfigError(f"{self._name} cannot be read: {error.strerror}; name a file of prompts") from error
            self._at_end = not chunk
            self._rest += chunk
            if b"\n" not in chunk:
                self._rest = self._rest[: wire.MAX_REQUEST_BYTES + 1]
        line, newline, self._rest = self._rest.partition(b"\n")
        self.ended = self._at_end and not self._rest
        if not line and not newline:
            return None
        self._numbers += 1
        return self._numbers, line.removeprefix(codecs.BOM_UTF8) if self._numbers == 1 else line


def parse(line: bytes, defaults: wire.Submit) -> wire.Submit | None:
    """The request that a line makes; None for a blank one. Raises BadRequest.

    A line that begins with `{` is JSON with any field of a submit message; any other is the prompt itself. What it
    does not say is as in `defaults`; without an id it gets one.
    """
    if len(line) > wire.MAX_REQUEST_BYTES:
        raise BadRequest(f"longer than {wire.MAX_REQUEST_BYTES:,} bytes")
    if not line.strip():
        return None
    if not line.lstrip().startswith(b"{"):
        try:
            prompt = line.decode().strip()
        except UnicodeDecodeError:
            raise BadRequest("not UTF-8") from None
        return msgspec.structs.replace(defaults, id=new_id(), prompt=prompt)
    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"not JSON: {error}") from error
    if said.get("type", "submit") != "submit":
        raise BadRequest(f"a line asks for pictures, not for {said['type']!r}")
    if "prompt" not in said:
        raise BadRequest("`prompt` is missing")
    fields = msgspec.to_builtins(defaults) | {"id": new_id()} | said
    try:
        request = wire.decode_client_message(msgspec.json.encode(fields))
    except (OverflowError, msgspec.EncodeError) as error:
        raise BadRequest(str(error)) from error
    assert isinstance(request, wire.Submit)
    if not 1 <= request.n <= MAX_IMAGES:  # the server would say so, too, but pictures are numbered before that
        raise BadRequest(f"`n` must be from 1 to {MAX_IMAGES}, not {request.n}")
    return request


def new_id() -> str:
    """An id that no other request has."""
    return uuid.uuid4().hex

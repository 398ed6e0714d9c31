"""Server-sent events: their form, and the comments that keep proxies from cutting a quiet stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

COMMENT_S = 15.0
"""Seconds of silence after which a comment is sent."""


def event(kind: str | None, data: Any) -> bytes:
    """One event, with its `event:` line if it has a kind."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {kind}\n" if kind else "").encode() + f"data: {text}\n\n".encode()


def stream(events: AsyncIterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    """The response that sends these events as they come."""
    quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_kept_alive(events), media_type="text/event-stream", headers=quiet | headers)


async def _kept_alive(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    following = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait((following,), timeout=COMMENT_S)
            if not done:
                yield b": still at it\n\n"
                continue
            found = following.result()
            if found is None:
                return
            yield found
            following = asyncio.ensure_future(anext(events, None))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        if hasattr(events, "aclose"):
            await events.aclose()
